/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading what is to be sent, and forgetting what is acknowledged. Both go forward through the
 * segments, each with a walk of its own that keeps its place: a message is found at once when
 * it follows the last one, else the segment is walked from its beginning, or from what is not
 * acknowledged, by the headers alone.
 *
 * What an acknowledgement books comes from the TALLYs on the disk, so nothing has to be kept in
 * memory for each message.
 */
#include <errno.h>

#include "spool_internal.h"

struct spool_segment *spool_find(const struct spool_epoch *e, uint64_t seq)
{
	size_t low = 0, high = e->n_segments;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (e->segments[mid]->next <= seq)
			low = mid + 1;
		else
			high = mid;
	}
	return low < e->n_segments && e->segments[low]->first <= seq ? e->segments[low] : NULL;
}

/* To the item that has @seq: 1; 0: there is no such segment; -errno. */
static int seek(struct spool_walk *w, struct spool_epoch *e, uint64_t seq)
{
	const struct spool_segment *g = spool_find(e, seq);

	if (!g)
		return 0;
	if (w->segment != g || w->at.seq > seq) {
		int r = spool_walk_open(w, e, g);

		if (r < 0)
			return r;
		if (w != &e->acker && e->acker.segment == g && e->acker.at.seq <= seq)
			w->at = e->acker.at;
	}
	while (w->at.seq < seq) {
		struct spool_position before = w->at;
		struct spool_item item;
		int r = spool_walk_next(w, &item);

		if (r <= 0)
			return r;
		if (item.last >= seq) {
			spool_walk_rewind(w, &before);
			break;
		}
	}
	return 1;
}

/*
 * A GAP from @item on, and over the holes that follow it as far as one GAP can. Who asks for
 * @seq has everything before it and nothing of these: they are surely lost now. A collector may
 * have more than it acknowledges, though, and no GAP goes beyond what it may have: it would
 * take the whole for something that it has.
 */
static int read_hole(struct spool_walk *w, uint64_t seq, struct spool_item *item, struct buf *wire,
		     struct backlog_message *ret)
{
	struct spool_epoch *e = w->epoch;
	struct spool_counts counts = {};
	uint32_t reason = item->reason;
	uint64_t sent = e->sent;
	bool fits = true;
	int r;

	/* In the middle of a hole nobody knows how much is before @seq. */
	if (item->first < seq) {
		reason = STREAM_GAP_CORRUPT;
		item->tally = NULL;
	}
	do {
		struct spool_position before;

		if (item->tally) {
			fits = spool_counts_add(&counts, item->tally);
			if (!spool_lost_has(e, item->first))
				spool_settle(e, item->tally, LEDGER_LOST_SPOOL);
		}
		spool_lost_add(e, MAX(item->first, seq), item->last);
		counts.gap.last_seq = item->last;
		before = w->at;
		/* A hole with counts and one without are not the same to whoever reads it. */
		r = item->tally && fits ? spool_walk_next(w, item) : 0;
		if (r > 0 &&
		    (item->type != STREAM_TALLY || item->reason != reason || !item->tally ||
		     item->first <= sent + 1 || !spool_counts_fit(&counts, item->tally))) {
			spool_walk_rewind(w, &before);
			r = 0;
		}
	} while (r > 0);
	counts.gap.first_seq = seq;
	counts.gap.reason = reason;
	e->sent = MAX(e->sent, counts.gap.last_seq);
	spool_put_gap(wire, STREAM_GAP, &counts.gap);
	*ret = (struct backlog_message){
		.seq = seq,
		.last_seq = counts.gap.last_seq,
		.type = STREAM_GAP,
		.size = (uint32_t)wire->len,
	};
	spool_counts_free(&counts);
	return fits && !buf_failed(wire) ? 1 : -ENOMEM;
}

/* Can the collector take this message? Of a recovered epoch some interface may be unknown. */
static bool acceptable(const struct spool_epoch *e, const struct spool_item *item,
		       const uint8_t *message)
{
	struct stream_data head;

	if (e->live || item->type != STREAM_DATA)
		return true;
	return stream_data_decode(message + STREAM_HEADER_SIZE, item->size - STREAM_HEADER_SIZE,
				  &head, NULL) == 0 &&
	       spool_knows(e, &head, item->tally);
}

static int read_locked(struct spool_epoch *e, uint64_t seq, struct buf *wire,
		       struct backlog_message *ret)
{
	struct spool_walk *w = &e->reader;
	const uint8_t *message;
	struct spool_item item;
	int r = seek(w, e, seq);

	if (r > 0)
		r = spool_walk_next(w, &item);
	if (r <= 0)
		return r;
	if (item.type != STREAM_TALLY && item.first == seq) {
		r = spool_walk_message(w, &item, &message);
		if (r < 0)
			return r;
		if (r > 0 && acceptable(e, &item, message)) {
			buf_put(wire, message, item.size);
			*ret = (struct backlog_message){
				.seq = item.first,
				.last_seq = item.last,
				.type = item.type,
				.size = item.size,
			};
			e->sent = MAX(e->sent, item.last);
			return buf_failed(wire) ? -ENOMEM : 1;
		}
		item.reason = STREAM_GAP_CORRUPT;
	}
	return read_hole(w, seq, &item, wire, ret);
}

int spool_read(struct spool_epoch *e, uint64_t seq, struct buf *wire, struct backlog_message *ret,
	       struct err *err)
{
	int r = 0;

	buf_reset(wire);
	pthread_mutex_lock(&e->spool->lock);
	if (seq < e->next)
		r = read_locked(e, MAX(seq, e->first), wire, ret);
	pthread_mutex_unlock(&e->spool->lock);
	return r < 0 ? spool_error(e->spool, r, err) : r;
}

void spool_sent(struct spool_epoch *e, uint64_t seq)
{
	pthread_mutex_lock(&e->spool->lock);
	e->sent = MAX(e->sent, seq);
	pthread_mutex_unlock(&e->spool->lock);
}

/* Book what arrived: what is acknowledged and was not booked as lost. */
static void book(struct spool_epoch *e, uint64_t seq)
{
	struct spool_walk *w = &e->acker;
	uint64_t at = e->first;

	while (at <= seq && at < e->next) {
		struct spool_position before;
		struct spool_item item;

		if (seek(w, e, at) <= 0)
			return;
		before = w->at;
		if (spool_walk_next(w, &item) <= 0)
			return;
		if (item.last > seq) {
			spool_walk_rewind(w, &before);
			return;
		}
		if (item.tally && item.type != STREAM_GAP && !spool_lost_has(e, item.first))
			spool_settle(e, item.tally, LEDGER_COMMITTED);
		at = item.last + 1;
	}
}

void spool_ack(struct spool_epoch *e, uint64_t seq)
{
	pthread_mutex_lock(&e->spool->lock);
	if (seq >= e->first) {
		if (e->settle_fn)
			book(e, seq);
		e->first = seq + 1;
		e->next = MAX(e->next, e->first);
		e->sent = MAX(e->sent, seq);
		spool_lost_forget(e, e->first);
	}
	pthread_mutex_unlock(&e->spool->lock);
}

uint64_t spool_first_seq(const struct spool_epoch *e)
{
	uint64_t seq;

	pthread_mutex_lock(&e->spool->lock);
	seq = e->first;
	pthread_mutex_unlock(&e->spool->lock);
	return seq;
}

uint64_t spool_next_seq(const struct spool_epoch *e)
{
	uint64_t seq;

	pthread_mutex_lock(&e->spool->lock);
	seq = e->next;
	pthread_mutex_unlock(&e->spool->lock);
	return seq;
}

uint64_t spool_bytes(const struct spool_epoch *e)
{
	uint64_t bytes = 0;

	pthread_mutex_lock(&e->spool->lock);
	for (size_t i = 0; i < e->n_segments; i++)
		if (e->segments[i]->next > e->first)
			bytes += e->segments[i]->bytes;
	pthread_mutex_unlock(&e->spool->lock);
	return bytes;
}
