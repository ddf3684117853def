/* SPDX-License-Identifier: Apache-2.0 */
#include "batch.h"

#include <errno.h>

#include "util.h"

int batch_init(struct batch *b, size_t limit, uint32_t snaplen)
{
	*b = (struct batch){.limit = limit, .cap = MAX(limit, EPB_SIZE_MAX(snaplen))};
	b->raw = malloc(b->cap);
	return b->raw ? 0 : -ENOMEM;
}

void batch_done(struct batch *b)
{
	free(b->raw);
	b->raw = NULL;
}

/* epb_flags is the last option, in a trailer of fixed size at the block's end. */
static uint32_t block_direction(const struct epb_header *header, const uint8_t *rest)
{
	const uint8_t *trailer = rest + header->total_len - EPB_HEADER - EPB_TRAILER;

	return get_le32(trailer + offsetof(struct epb_trailer, flags)) & 3;
}

bool batch_add(struct batch *b, const struct epb_header *header, const uint8_t *rest)
{
	nsec_t time = (nsec_t)header->ts_high << 32 | header->ts_low;
	struct stream_data *head = &b->head;

	if (b->len &&
	    (b->len + header->total_len > b->limit || head->packets == STREAM_PACKETS_MAX))
		return false;
	if (!tally_add(&b->tally, header->interface_id, block_direction(header, rest), header->len))
		return false;

	memcpy(b->raw + b->len, header, EPB_HEADER);
	memcpy(b->raw + b->len + EPB_HEADER, rest, header->total_len - EPB_HEADER);
	b->len += header->total_len;

	if (!head->packets) {
		head->iface_min = head->iface_max = header->interface_id;
		head->first = head->last = time;
	} else {
		head->iface_min = MIN(head->iface_min, header->interface_id);
		head->iface_max = MAX(head->iface_max, header->interface_id);
		head->first = MIN(head->first, time);
		head->last = MAX(head->last, time);
	}
	head->packets++;
	head->wire_bytes += header->len;
	return true;
}

void batch_tally(const struct batch *b, size_t start, size_t end, struct tally *t)
{
	for (size_t at = start; at < end;) {
		struct epb_header header;

		memcpy(&header, b->raw + at, sizeof(header));
		tally_add(t, header.interface_id,
			  block_direction(&header, b->raw + at + EPB_HEADER), header.len);
		at += header.total_len;
	}
}

void batch_reset(struct batch *b)
{
	b->len = 0;
	b->head = (struct stream_data){};
	b->tally.n = b->tally.last = 0;
}
