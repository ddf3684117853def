/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making room. The oldest segment of the oldest epoch that has messages is replaced by its
 * holes:
 *
 *	1. the holes of the segment, behind those of the file before it when that has nothing
 *	   else, are written to the spare, and synced;
 *	2. the spare is renamed over the first of the files that it replaces; the folder is
 *	   synced;
 *	3. the other file is removed.
 *
 * Killed before 2, nothing has happened. Killed before 3, the second file has nothing that the
 * first does not speak of, and the scan removes it.
 *
 * Messages that were never sent are counted together in one TALLY. While the spare is synced
 * the lock is free and some of them may be sent: then the holes are written again, with the
 * lock held until all is done.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/statvfs.h>

#include "spool_internal.h"

/* Holes are not copied for ever: a file with so many bytes of them is left alone. */
#define HOLES_FILE_BYTES (1u << 20)
/* A smaller file to which messages are appended stays, with nothing to send in it. */
#define GROWING_KEPT (1u << 20)
/* Written to the spare in such pieces. */
#define CHUNK_BYTES (256u << 10)
/* The free space is asked for again when so much was written. */
#define FREE_AGE_BYTES (1u << 20)

struct holes {
	struct spool_epoch *e;
	struct buf out;
	uint64_t size;              /* written so far */
	struct spool_counts counts; /* of the hole that is not written yet: 0 to 0, none */
	struct spool_counts lost;   /* of messages that are lost from now on */
};

/* The file @dying is to be forgotten by those who read. */
static void leave(struct spool_epoch *e, const struct spool_segment *dying)
{
	if (e->reader.segment == dying)
		spool_walk_close(&e->reader);
	if (e->acker.segment == dying)
		spool_walk_close(&e->acker);
}

static int remove_file(struct spool_epoch *e, uint64_t name)
{
	char path[SPOOL_NAME_SIZE];

	spool_segment_name(e, name, path);
	return unlinkat(e->spool->root, path, 0) < 0 && errno != ENOENT ? -errno : 0;
}

void spool_remove_acked(struct spool *s, bool growing)
{
	for (struct spool_epoch *e = s->epochs; e; e = e->newer) {
		while (e->n_segments && e->segments[0]->next <= e->first) {
			/* With a quick collector there would be a new file for every message. */
			if (!growing && e->fd >= 0 && e->n_segments == 1 &&
			    e->segments[0]->bytes < MIN(GROWING_KEPT, s->config.segment_bytes))
				break;
			if (e->n_segments == 1)
				spool_close_growing(e, false);
			leave(e, e->segments[0]);
			/* One that stays is seen to by the next scan. */
			remove_file(e, e->segments[0]->name);
			spool_drop_segment(e, 0);
		}
	}
}

static int write_out(struct holes *h)
{
	int r = buf_failed(&h->out) ? -ENOMEM : 0;

	if (r == 0)
		r = spool_write_at(h->e->spool->spare, h->size, &h->out, NULL, 0);
	h->size += h->out.len;
	buf_reset(&h->out);
	return r;
}

/* The hole is complete. */
static int flush(struct holes *h)
{
	if (h->counts.gap.first_seq)
		spool_put_gap(&h->out, STREAM_TALLY, &h->counts.gap);
	spool_counts_reset(&h->counts);
	h->counts.gap.first_seq = 0;
	return buf_failed(&h->out) || h->out.len >= CHUNK_BYTES ? write_out(h) : 0;
}

/* Numbers from @first to @last are a hole, with the counts @tally, or none of those. */
static int add_hole(struct holes *h, uint64_t first, uint64_t last, uint32_t reason,
		    const struct stream_gap *tally)
{
	static const struct stream_gap none;
	struct stream_gap *gap = &h->counts.gap;
	int r;

	tally = tally ? tally : &none;
	if (!gap->first_seq || gap->first_seq <= h->e->sent || gap->reason != reason ||
	    reason != STREAM_GAP_EVICTED || !spool_counts_fit(&h->counts, tally)) {
		r = flush(h);
		if (r < 0)
			return r;
		gap->first_seq = first;
		gap->reason = reason;
	}
	gap->last_seq = last;
	return spool_counts_add(&h->counts, tally) ? 0 : -ENOMEM;
}

/* @dying: of the segment that is evicted, not of an older hole. */
static int add_item(struct holes *h, const struct spool_item *item, bool dying)
{
	uint32_t reason = item->type == STREAM_TALLY ? item->reason : STREAM_GAP_EVICTED;
	struct spool_epoch *e = h->e;

	if (item->type == STREAM_DATA && !item->tally)
		reason = STREAM_GAP_CORRUPT;
	if (dying && item->first > e->sent && item->type != STREAM_GAP && item->tally &&
	    !spool_counts_add(&h->lost, item->tally))
		return -ENOMEM;
	/* What the front of a hole held is not known, once it is acknowledged. */
	if (item->first < e->first)
		return add_hole(h, e->first, item->last, STREAM_GAP_CORRUPT, NULL);
	return add_hole(h, item->first, item->last, reason, item->tally);
}

/* Write the holes of the segments @from to @to to the spare. */
static int write_holes(struct holes *h, size_t from, size_t to)
{
	struct spool_epoch *e = h->e;
	struct spool_walk w = {.fd = -1};
	const struct spool_segment *oldest = e->segments[from];
	int r = spool_spare(e->spool);

	h->size = 0;
	spool_counts_reset(&h->counts);
	spool_counts_reset(&h->lost);
	h->counts.gap.first_seq = 0;
	spool_put_hello(e, oldest->name, &h->out);
	/* The file keeps its name, so what is acknowledged of it has to be there: as nothing. */
	if (r == 0 && oldest->name < e->first) {
		r = add_hole(h, oldest->name, e->first - 1, STREAM_GAP_EVICTED, NULL);
		if (r == 0)
			r = flush(h);
	}
	for (size_t i = from; r == 0 && i <= to; i++) {
		struct spool_item item;

		r = spool_walk_open(&w, e, e->segments[i]);
		while (r == 0 && (r = spool_walk_next(&w, &item)) > 0)
			r = item.last < e->first ? 0 : add_item(h, &item, i == to);
	}
	spool_walk_done(&w);
	if (r == 0)
		r = flush(h);
	if (r == 0)
		r = write_out(h);
	return r;
}

/* The spare takes the place of the segments @from to @to. */
static int replace(struct holes *h, size_t from, size_t to)
{
	struct spool_epoch *e = h->e;
	struct spool_segment *g = e->segments[from], *last = e->segments[to];
	uint64_t fresh = MAX(last->first, e->sent + 1);
	char name[SPOOL_NAME_SIZE];
	int r;

	spool_segment_name(e, g->name, name);
	r = spool_spare_rename(e->spool, name);
	if (r < 0)
		return r;
	spool_settle(e, &h->lost.gap, LEDGER_LOST_SPOOL);
	spool_lost_add(e, fresh, last->next - 1);
	leave(e, g);
	leave(e, last);
	e->spool->bytes -= g->bytes;
	*g = (struct spool_segment){
		.name = g->name,
		.first = g->first,
		.next = last->next,
		.bytes = h->size,
		.written = last->written,
		.holes = true,
	};
	e->spool->bytes += g->bytes;
	if (to != from)
		spool_drop_segment(e, to);
	return 0;
}

/* Make the segment @i of @e smaller, or all that is acknowledged go. */
static int evict_segment(struct spool_epoch *e, size_t i)
{
	const struct spool_segment *before = i ? e->segments[i - 1] : NULL;
	size_t from = before && before->holes && before->bytes < HOLES_FILE_BYTES ? i - 1 : i;
	uint64_t name = e->segments[i]->name, sent = e->sent;
	struct spool *s = e->spool;
	struct holes h = {.e = e};
	char folder[SPOOL_NAME_SIZE];
	int r;

	/* Acknowledged while another one was evicted. */
	if (e->segments[0]->next <= e->first) {
		spool_remove_acked(s, true);
		return 0;
	}
	if (i + 1 == e->n_segments)
		spool_close_growing(e, true);
	r = write_holes(&h, from, i);
	if (r == 0) {
		pthread_mutex_unlock(&s->lock);
		r = spool_spare_sync(s, h.size);
		pthread_mutex_lock(&s->lock);
	}
	/* Numbers that are sent meanwhile matter when they are in here. */
	if (r == 0 && e->sent != sent && e->sent >= e->segments[from]->first) {
		spool_spare_drop(s);
		r = write_holes(&h, from, i);
		if (r == 0)
			r = spool_spare_sync(s, h.size);
	}
	if (r == 0)
		r = replace(&h, from, i);
	if (r < 0) {
		spool_spare_drop(s);
		spool_spare(s);
	}
	spool_counts_free(&h.counts);
	spool_counts_free(&h.lost);
	buf_free(&h.out);
	if (r < 0)
		return r;
	spool_epoch_name(e, folder);
	pthread_mutex_unlock(&s->lock);
	r = spool_sync_folder(s, folder);
	if (r == 0 && from != i)
		r = remove_file(e, name);
	/* Now there is room for the next one. */
	spool_spare(s);
	pthread_mutex_lock(&s->lock);
	return r;
}

int spool_evict(struct spool *s)
{
	for (struct spool_epoch *e = s->epochs; e; e = e->newer) {
		for (size_t i = 0; i < e->n_segments; i++) {
			int r;

			if (e->segments[i]->holes)
				continue;
			r = evict_segment(e, i);
			return r < 0 ? r : 1;
		}
	}
	return 0;
}

/* Bytes that may be written until the file system has only what is to stay free. */
static uint64_t room_on_disk(struct spool *s, bool now)
{
	struct statvfs st;

	if (!s->config.min_free)
		return UINT64_MAX;
	if (now || s->free_age >= FREE_AGE_BYTES) {
		if (fstatvfs(s->root, &st) < 0)
			return UINT64_MAX;
		s->free = (uint64_t)st.f_bavail * st.f_frsize;
		s->free_age = 0;
	}
	return s->free - MIN(s->free, s->free_age + s->config.min_free);
}

int spool_make_room(struct spool *s, uint64_t need, bool evict)
{
	bool asked = false;

	if (need > s->config.max_bytes)
		return -ENOSPC;
	spool_remove_acked(s, false);
	for (;;) {
		bool full = s->bytes > s->config.max_bytes - need;
		uint64_t before = s->bytes;
		int r;

		if (!full && room_on_disk(s, false) >= need)
			return 0;
		/* What was removed may have made room that is not counted yet. */
		if (!full && !asked) {
			asked = true;
			if (room_on_disk(s, true) >= need)
				return 0;
		}
		r = evict ? spool_evict(s) : 0;
		if (r <= 0)
			return r < 0 ? r : -ENOSPC;
		s->free += before - MIN(before, s->bytes);
	}
}

void spool_tend(struct spool *s)
{
	uint64_t max_age = s->config.max_age;
	nsec_t now = clock_realtime();

	pthread_mutex_lock(&s->writer);
	pthread_mutex_lock(&s->lock);
	spool_remove_acked(s, false);
	for (struct spool_epoch *e = s->epochs; max_age && e; e = e->newer)
		for (size_t i = 0; i < e->n_segments; i++)
			if (!e->segments[i]->holes && e->segments[i]->written < now &&
			    now - e->segments[i]->written > max_age && evict_segment(e, i) == 0)
				i = SIZE_MAX;
	room_on_disk(s, true);
	spool_make_room(s, 1, true);
	pthread_mutex_unlock(&s->lock);
	pthread_mutex_unlock(&s->writer);
}
