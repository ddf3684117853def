/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What messages and holes hold, in packets: as parts of a GAP, which is how the disk and the
 * collector know it, and as a tally, which is how the agent's book does.
 *
 * A packet of this run is booked once. Lost is what was evicted and surely never sent, and
 * what was handed out as a GAP; everything else that is acknowledged arrived. What was evicted
 * after it may have been sent is booked only when one of the two is known. The numbers that
 * were booked as lost are kept as ranges until they are acknowledged: eviction goes from the
 * oldest to the newest, so there are few.
 */
#include <errno.h>

#include "gzip.h"
#include "spool_internal.h"

static bool reserve(struct spool_counts *c)
{
	size_t cap = c->cap ? 2 * c->cap : 8;
	struct stream_gap_part *parts;

	if (c->gap.n_parts < c->cap)
		return true;
	parts = reallocarray(c->gap.parts, cap, sizeof(*parts));
	if (!parts)
		return false;
	c->gap.parts = parts;
	c->cap = cap;
	return true;
}

static struct stream_gap_part *find(const struct spool_counts *c, const struct stream_gap_part *p)
{
	for (size_t i = 0; i < c->gap.n_parts; i++)
		if (c->gap.parts[i].iface == p->iface && c->gap.parts[i].direction == p->direction)
			return &c->gap.parts[i];
	return NULL;
}

bool spool_counts_add(struct spool_counts *c, const struct stream_gap *from)
{
	for (size_t i = 0; i < from->n_parts; i++) {
		const struct stream_gap_part *p = &from->parts[i];
		struct stream_gap_part *q = find(c, p);

		if (!q) {
			if (!reserve(c))
				return false;
			c->gap.parts[c->gap.n_parts++] = *p;
			continue;
		}
		q->first = MIN(q->first, p->first);
		q->last = MAX(q->last, p->last);
		q->lost.packets += p->lost.packets;
		q->lost.bytes += p->lost.bytes;
	}
	return true;
}

void spool_counts_reset(struct spool_counts *c)
{
	c->gap.n_parts = 0;
}

void spool_counts_free(struct spool_counts *c)
{
	stream_gap_free(&c->gap);
	c->cap = 0;
}

void spool_put_gap(struct buf *out, uint8_t type, const struct stream_gap *gap)
{
	size_t at = out->len;
	struct stream_header h = {.type = type, .seq = type == STREAM_GAP ? gap->first_seq : 0};

	/* The header's place; it is written when the payload is known. */
	if (!buf_reserve(out, STREAM_HEADER_SIZE))
		return;
	out->len += STREAM_HEADER_SIZE;
	stream_gap_encode(out, gap);
	if (buf_failed(out))
		return;
	h.payload_len = (uint32_t)(out->len - at - STREAM_HEADER_SIZE);
	h.payload_crc = gzip_crc32(0, out->data + at + STREAM_HEADER_SIZE, h.payload_len);
	stream_header_encode(out->data + at, &h);
}

void spool_put_tally(struct buf *out, const struct backlog_message *m, const uint8_t *wire,
		     const struct tally *tally)
{
	struct stream_gap_part parts[TALLY_PARTS];
	/* The reason that will be true if this message is ever damaged. */
	struct stream_gap gap = {.first_seq = m->seq,
				 .last_seq = m->last_seq,
				 .reason = STREAM_GAP_CORRUPT,
				 .parts = parts};
	struct stream_data head = {};

	stream_data_decode(wire + STREAM_HEADER_SIZE, m->size - STREAM_HEADER_SIZE, &head, NULL);
	if (tally)
		gap.n_parts = MIN(tally->n, TALLY_PARTS);
	for (size_t i = 0; i < gap.n_parts; i++)
		parts[i] = (struct stream_gap_part){
			.iface = tally->parts[i].iface,
			.direction = (uint8_t)tally->parts[i].direction,
			.first = head.first,
			.last = head.last,
			.lost = tally->parts[i].count,
		};
	spool_put_gap(out, STREAM_TALLY, &gap);
}

void spool_settle(struct spool_epoch *e, const struct stream_gap *counts,
		  enum ledger_counter counter)
{
	struct tally t = {};

	if (!e->settle_fn)
		return;
	for (size_t i = 0; i < counts->n_parts; i++) {
		const struct stream_gap_part *p = &counts->parts[i];

		t.parts[t.n++] = (struct tally_part){
			.iface = p->iface, .direction = p->direction, .count = p->lost};
		if (t.n == TALLY_PARTS || i + 1 == counts->n_parts) {
			e->settle_fn(e->ctx, &t, counter);
			t.n = 0;
		}
	}
}

/* The first range that does not end before @seq. */
static size_t lost_find(const struct spool_epoch *e, uint64_t seq)
{
	size_t i = 0;

	while (i < e->n_lost && e->lost[i].last < seq)
		i++;
	return i;
}

void spool_lost_add(struct spool_epoch *e, uint64_t first, uint64_t last)
{
	size_t i, end;

	if (!e->live || first > last)
		return;
	/* Swallow all that touch it. */
	i = lost_find(e, first - 1);
	for (end = i; end < e->n_lost && e->lost[end].first <= last + 1; end++) {
		first = MIN(first, e->lost[end].first);
		last = MAX(last, e->lost[end].last);
	}
	if (i == end && e->n_lost == e->lost_cap) {
		size_t cap = e->lost_cap ? 2 * e->lost_cap : 8;
		struct spool_range *lost = reallocarray(e->lost, cap, sizeof(*lost));

		/* Without memory they may be booked twice, which the collector's count shows. */
		if (!lost)
			return;
		e->lost = lost;
		e->lost_cap = cap;
	}
	memmove(e->lost + i + 1, e->lost + end, (e->n_lost - end) * sizeof(*e->lost));
	e->lost[i] = (struct spool_range){first, last};
	e->n_lost = e->n_lost - (end - i) + 1;
}

bool spool_lost_has(const struct spool_epoch *e, uint64_t seq)
{
	size_t i = lost_find(e, seq);

	return i < e->n_lost && e->lost[i].first <= seq;
}

void spool_lost_forget(struct spool_epoch *e, uint64_t below)
{
	size_t i = lost_find(e, below);

	if (!i)
		return;
	e->n_lost -= i;
	memmove(e->lost, e->lost + i, e->n_lost * sizeof(*e->lost));
}
