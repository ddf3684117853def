/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLVs: u16 type, u16 length, value; little-endian. One table of fields drives the
 * encoder and the decoder of a struct, so they are mirror images by construction.
 * Unknown types are skipped (fields can be added), a known one twice is an error.
 */
#ifndef PS_TLV_H
#define PS_TLV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "err.h"

enum tlv_kind {
	TLV_U8,
	TLV_U32,
	TLV_U64,
	TLV_BOOL,   /* one byte, 0 or 1 */
	TLV_BYTES,  /* exactly `size` bytes */
	TLV_STRING, /* char[size], terminated in memory, no control characters */
};

struct tlv_field {
	uint16_t type; /* below 64 */
	uint8_t kind;  /* enum tlv_kind */
	bool optional; /* else its absence is an error */
	size_t offset, size;
	const char *name; /* for errors */
};

#define TLV_FIELD(struct_, member, type_, kind_)                                              \
	{                                                                                     \
		.type = (type_), .kind = (kind_), .offset = offsetof(struct struct_, member), \
		.size = sizeof(((struct struct_ *)0)->member), .name = #member                \
	}
#define TLV_OPTIONAL(struct_, member, type_, kind_)                            \
	{                                                                      \
		.type = (type_), .kind = (kind_), .optional = true,            \
		.offset = offsetof(struct struct_, member),                    \
		.size = sizeof(((struct struct_ *)0)->member), .name = #member \
	}

/* A control character in a string is written as '?', so that the peer can read the rest. */
void tlv_encode(struct buf *out, const struct tlv_field *fields, size_t n, const void *from);

/*
 * Decode the fields of @in into @into, whose other members are untouched. Types from
 * TLV_NESTED on are left to tlv_next(). -EBADMSG as stream.h says.
 */
int tlv_decode(const uint8_t *in, size_t size, const struct tlv_field *fields, size_t n, void *into,
	       struct err *err);

/* Types of nested TLVs (arrays of structs); they may repeat. */
#define TLV_NESTED 64

/* Open a nested TLV; returns its mark for tlv_end(). */
size_t tlv_begin(struct buf *out, uint16_t type);
void tlv_end(struct buf *out, size_t mark);

struct tlv_reader {
	const uint8_t *p;
	size_t left;
};

struct tlv {
	uint16_t type, len;
	const uint8_t *value;
};

/* 1: *ret is the next TLV; 0: the end; -EBADMSG: cut short. */
int tlv_next(struct tlv_reader *r, struct tlv *ret);
/* How many TLVs of @type there are; -EBADMSG: cut short. */
long tlv_count(const uint8_t *in, size_t size, uint16_t type);

/*
 * Decode every nested TLV of @type, @max at most, into an array of structs of @size bytes, zeroed
 * before. *ret is calloc'ed and is set, with *ret_n elements that may be freed, on failure too.
 */
typedef int tlv_decode_fn(const uint8_t *in, size_t n, void *into, struct err *err);
int tlv_decode_array(const uint8_t *in, size_t n, uint16_t type, size_t max, size_t size,
		     tlv_decode_fn *decode, void **ret, size_t *ret_n, struct err *err);

#endif
