/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growing byte buffer with a sticky failure: a series of puts is checked
 * once, at its end, with buf_failed().
 */
#ifndef PS_BUF_H
#define PS_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
	uint8_t *data;
	size_t len, cap;
	bool failed; /* an allocation failed; the contents are incomplete */
};

void buf_free(struct buf *b);
/* Forget the contents, keep the memory. */
void buf_reset(struct buf *b);
/* Room for @n more bytes at the end, or NULL. The length does not change. */
uint8_t *buf_reserve(struct buf *b, size_t n);
void buf_put(struct buf *b, const void *data, size_t n);
void buf_put_u8(struct buf *b, uint8_t v);
void buf_put_le16(struct buf *b, uint16_t v);
void buf_put_le32(struct buf *b, uint32_t v);
void buf_put_le64(struct buf *b, uint64_t v);

static inline bool buf_failed(const struct buf *b)
{
	return b->failed;
}

#endif
