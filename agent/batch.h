/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks that gather until they are enough, or old enough, for one frame. */
#ifndef PS_BATCH_H
#define PS_BATCH_H

#include "abi.h"
#include "clock.h"
#include "stream.h"
#include "tally.h"

struct batch {
	uint8_t *raw; /* Enhanced Packet Blocks, back to back */
	size_t len, limit, cap;
	struct stream_data head;
	struct tally tally;
};

/* @limit: bytes that are enough for a frame; one block of @snaplen always fits. */
int batch_init(struct batch *b, size_t limit, uint32_t snaplen);
void batch_done(struct batch *b);

static inline bool batch_empty(const struct batch *b)
{
	return !b->len;
}

/*
 * Copy a block: @header (wall-clock stamped) and the @header->total_len -
 * EPB_HEADER bytes at @rest. False when the batch must be sent off first.
 */
bool batch_add(struct batch *b, const struct epb_header *header, const uint8_t *rest);
/* Count the blocks from offset @start to @end of the batch into @t. */
void batch_tally(const struct batch *b, size_t start, size_t end, struct tally *t);
void batch_reset(struct batch *b);

#endif
