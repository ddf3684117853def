/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One block of bytes to one gzip member (RFC 1952) and back. ISA-L does the work
 * where it was present at build time, zlib elsewhere; the member is standard
 * either way. A block that would not shrink is stored.
 */
#ifndef PS_GZIP_H
#define PS_GZIP_H

#include <stddef.h>
#include <stdint.h>

#include "err.h"

struct gzip;

/* State for one thread, reused for every block; NULL when out of memory. */
struct gzip *gzip_new(void);
struct gzip *gzip_free(struct gzip *gz);

/* The most that a member of @size bytes can take (a stored one). */
size_t gzip_bound(size_t size);

/* Compress @in into @out (at least gzip_bound(size) bytes). Returns the member's length. */
size_t gzip_compress(struct gzip *gz, const uint8_t *in, size_t size, uint8_t *out);

/*
 * Inflate the one member at @in into exactly @out_size bytes. -EBADMSG when the
 * data is damaged, longer or shorter than @out_size, or bytes follow the member.
 * Never writes past @out_size, whatever the member claims.
 */
int gzip_inflate(struct gzip *gz, const uint8_t *in, size_t size, uint8_t *out, size_t out_size,
		 struct err *err);

/* CRC-32 (IEEE 802.3, as gzip uses), from @crc on; start with 0. */
uint32_t gzip_crc32(uint32_t crc, const void *data, size_t size);

/* "isa-l" or "zlib": for --version. */
const char *gzip_library(void);

#endif
