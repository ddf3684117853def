/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entries are sorted by id because ids count up, so a look-up is a binary search.
 * The loop thread adds entries and books the kernel's counters, the reader books
 * what was lost, the uplink what was committed: one mutex, held for moments.
 */
#include "book.h"

#include <errno.h>
#include <pthread.h>

#include "util.h"

struct entry {
	struct stream_iface info;
	struct ledger ledger[2];   /* direction - 1 */
	struct ledger reported[2]; /* as STATS said last */
	struct ledger_span unseen, unseen_reported[2];
};

struct book {
	pthread_mutex_t lock;
	struct entry *entries;
	size_t n, cap;
	uint32_t next_id;
};

struct book *book_new(void)
{
	struct book *b = calloc(1, sizeof(*b));

	if (b)
		pthread_mutex_init(&b->lock, NULL);
	return b;
}

struct book *book_free(struct book *b)
{
	if (!b)
		return NULL;
	pthread_mutex_destroy(&b->lock);
	free(b->entries);
	free(b);
	return NULL;
}

static struct entry *find(struct book *b, uint32_t id)
{
	size_t lo = 0, hi = b->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (b->entries[mid].info.id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < b->n && b->entries[lo].info.id == id ? &b->entries[lo] : NULL;
}

int book_add(struct book *b, struct stream_iface *info)
{
	int r = 0;

	pthread_mutex_lock(&b->lock);
	if (b->n == b->cap) {
		size_t cap = b->cap ? 2 * b->cap : 16;
		struct entry *entries = realloc(b->entries, cap * sizeof(*entries));

		if (!entries) {
			r = -ENOMEM;
			goto out;
		}
		b->entries = entries;
		b->cap = cap;
	}
	info->id = b->next_id++;
	b->entries[b->n++] = (struct entry){.info = *info};
out:
	pthread_mutex_unlock(&b->lock);
	return r;
}

void book_remove(struct book *b, uint32_t id)
{
	struct entry *e;

	pthread_mutex_lock(&b->lock);
	e = find(b, id);
	if (e) {
		memmove(e, e + 1, (size_t)(b->entries + b->n - (e + 1)) * sizeof(*e));
		b->n--;
	}
	pthread_mutex_unlock(&b->lock);
}

void book_gone(struct book *b, uint32_t id)
{
	struct entry *e;

	pthread_mutex_lock(&b->lock);
	e = find(b, id);
	if (e)
		e->info.gone = true;
	pthread_mutex_unlock(&b->lock);
}

void book_counts(struct book *b, uint32_t id, enum direction direction,
		 const struct capture_counts *counts)
{
	static const enum ledger_counter map[CAPTURE_COUNTERS] = {
		[CAPTURE_SEEN] = LEDGER_SEEN,
		[CAPTURE_RULED_OUT] = LEDGER_RULED_OUT,
		[CAPTURE_CAPTURED] = LEDGER_CAPTURED,
		[CAPTURE_LOST_RING] = LEDGER_LOST_RING,
		[CAPTURE_LOST_ERROR] = LEDGER_LOST_ERROR,
		[CAPTURE_EXPRESSION_OUT] = LEDGER_EXPRESSION_OUT,
		[CAPTURE_SAMPLED_OUT] = LEDGER_SAMPLED_OUT,
		[CAPTURE_DUPLICATES] = LEDGER_DUPLICATES,
		[CAPTURE_RATE_LIMITED] = LEDGER_RATE_LIMITED,
		[CAPTURE_SLICED] = LEDGER_SLICED,
	};
	struct entry *e;

	pthread_mutex_lock(&b->lock);
	e = find(b, id);
	for (size_t i = 0; e && i < CAPTURE_COUNTERS; i++)
		e->ledger[direction - 1].c[map[i]] = (struct ledger_count){
			.packets = counts->packets[i],
			.bytes = counts->bytes[i],
		};
	pthread_mutex_unlock(&b->lock);
}

void book_unseen(struct book *b, uint32_t id, uint64_t from, uint64_t to)
{
	struct entry *e;

	pthread_mutex_lock(&b->lock);
	e = find(b, id);
	if (e)
		ledger_span_add(&e->unseen, from, to);
	pthread_mutex_unlock(&b->lock);
}

void book_all_unseen(struct book *b, uint64_t from, uint64_t to)
{
	pthread_mutex_lock(&b->lock);
	for (size_t i = 0; i < b->n; i++)
		if (!b->entries[i].info.gone)
			ledger_span_add(&b->entries[i].unseen, from, to);
	pthread_mutex_unlock(&b->lock);
}

void book_settle(struct book *b, const struct tally *t, enum ledger_counter counter)
{
	pthread_mutex_lock(&b->lock);
	for (uint32_t i = 0; i < t->n; i++) {
		const struct tally_part *p = &t->parts[i];
		struct entry *e = find(b, p->iface);

		if (!e)
			continue;
		e->ledger[p->direction - 1].c[counter].packets += p->count.packets;
		e->ledger[p->direction - 1].c[counter].bytes += p->count.bytes;
		if (counter == LEDGER_COMMITTED) {
			e->info.committed[p->direction - 1].packets += p->count.packets;
			e->info.committed[p->direction - 1].bytes += p->count.bytes;
		}
	}
	pthread_mutex_unlock(&b->lock);
}

uint32_t book_link_type(struct book *b, uint32_t id)
{
	uint32_t link_type;
	struct entry *e;

	pthread_mutex_lock(&b->lock);
	e = find(b, id);
	link_type = e ? e->info.link_type : 0;
	pthread_mutex_unlock(&b->lock);
	return link_type;
}

static bool in_flight(const struct entry *e)
{
	return ledger_in_flight(&e->ledger[0]).packets || ledger_in_flight(&e->ledger[1]).packets;
}

long book_interfaces(struct book *b, struct stream_iface **ret)
{
	struct stream_iface *v;
	long n = 0;

	pthread_mutex_lock(&b->lock);
	v = calloc(b->n + 1, sizeof(*v));
	if (v)
		for (size_t i = 0; i < b->n; i++)
			if (!b->entries[i].info.gone || in_flight(&b->entries[i]))
				v[n++] = b->entries[i].info;
	pthread_mutex_unlock(&b->lock);
	*ret = v;
	return v ? n : -ENOMEM;
}

/* COMMITTED is the collector's own: it does not make a ledger worth reporting. */
static bool changed(const struct entry *e, size_t d)
{
	struct ledger l = e->reported[d];

	l.c[LEDGER_COMMITTED] = e->ledger[d].c[LEDGER_COMMITTED];
	return !ledger_equal(&e->ledger[d], &l) || e->unseen.from != e->unseen_reported[d].from ||
	       e->unseen.to != e->unseen_reported[d].to;
}

long book_changes(struct book *b, struct stream_stats_part **ret)
{
	struct stream_stats_part *v;
	long n = 0;

	pthread_mutex_lock(&b->lock);
	v = calloc(MIN(2 * b->n + 1, BOOK_CHANGES_MAX), sizeof(*v));
	for (size_t i = 0; v && i < 2 * b->n && n < BOOK_CHANGES_MAX; i++) {
		struct entry *e = &b->entries[i / 2];

		if (!changed(e, i % 2))
			continue;
		e->reported[i % 2] = e->ledger[i % 2];
		e->unseen_reported[i % 2] = e->unseen;
		v[n++] = (struct stream_stats_part){
			.iface = e->info.id,
			.direction = (uint8_t)(i % 2 + 1),
			.counts = e->ledger[i % 2],
			.unseen = e->unseen,
		};
	}
	pthread_mutex_unlock(&b->lock);
	*ret = v;
	return v ? n : -ENOMEM;
}

void book_report_again(struct book *b)
{
	pthread_mutex_lock(&b->lock);
	for (size_t i = 0; i < b->n; i++) {
		struct entry *e = &b->entries[i];

		memset(e->reported, 0, sizeof(e->reported));
		memset(e->unseen_reported, 0, sizeof(e->unseen_reported));
	}
	pthread_mutex_unlock(&b->lock);
}

static void call(const struct entry *e, book_line_fn *fn, void *ctx)
{
	fn(ctx, &e->info, DIRECTION_INGRESS, &e->ledger[0], &e->unseen);
	fn(ctx, &e->info, DIRECTION_EGRESS, &e->ledger[1], &e->unseen);
}

void book_for_each(struct book *b, book_line_fn *fn, void *ctx)
{
	pthread_mutex_lock(&b->lock);
	for (size_t i = 0; i < b->n; i++)
		call(&b->entries[i], fn, ctx);
	pthread_mutex_unlock(&b->lock);
}

static bool settled(const struct entry *e)
{
	return e->info.gone && !in_flight(e) && !changed(e, 0) && !changed(e, 1);
}

void book_prune(struct book *b, size_t keep, book_line_fn *fn, void *ctx)
{
	size_t n_settled = 0, kept = 0;

	pthread_mutex_lock(&b->lock);
	for (size_t i = 0; i < b->n; i++)
		n_settled += settled(&b->entries[i]);
	for (size_t i = 0; i < b->n; i++) {
		if (n_settled > keep && settled(&b->entries[i])) {
			call(&b->entries[i], fn, ctx);
			n_settled--;
		} else {
			b->entries[kept++] = b->entries[i];
		}
	}
	b->n = kept;
	pthread_mutex_unlock(&b->lock);
}
