// SPDX-License-Identifier: Apache-2.0
/*
 * The reader's part of capture_pcap.c: the sources as one stream in order of time, by a heap of
 * those that have something, the one with the oldest packet on top. A packet is judged when
 * it has come to the top.
 */
#include "capture_pcap_internal.h"

#define FUTURE NSEC_PER_SEC

static void heap_down(struct capture *c, size_t i)
{
	struct source *moving = c->heap[i];

	for (;;) {
		size_t child = 2 * i + 1;

		if (child + 1 < c->nheap &&
		    c->heap[child + 1]->head.time < c->heap[child]->head.time)
			child++;
		if (child >= c->nheap || moving->head.time <= c->heap[child]->head.time)
			break;
		c->heap[i] = c->heap[child];
		i = child;
	}
	c->heap[i] = moving;
}

static void heap_fill(struct capture *c, bool everything)
{
	c->nheap = 0;
	for (size_t i = 0; i < c->nsources; i++) {
		struct source *s = c->sources[i];

		s->ready |= everything;
		source_pull(s);
		if (s->has_head)
			c->heap[c->nheap++] = s;
	}
	for (size_t i = c->nheap / 2; i-- > 0;)
		heap_down(c, i);
}

/* Free the sources that are done; true when others have something left. */
static bool sweep(struct capture *c)
{
	bool left = false;
	size_t n = 0;

	for (size_t i = 0; i < c->nsources; i++) {
		struct source *s = c->sources[i];

		if (source_is_done(s)) {
			source_free(s);
			continue;
		}
		left |= s->has_head || s->first || (s->ready && !s->closed);
		c->sources[n++] = s;
	}
	c->nsources = n;
	return left;
}

/* The top of the heap: hand it over if it is wanted. Returns what @fn did. */
static int take(struct capture *c, capture_block_fn *fn, void *ctx, long *blocks)
{
	struct source *s = c->heap[0];
	struct epb_header header;
	const void *rest;
	int r = 0;

	/* Its head may have been judged, and found not wanted, when it was detached meanwhile. */
	if (s->has_head && (s->head.judged || capture_pcap_judge(c, s, &s->head))) {
		rest = source_block(s, &header);
		capture_pcap_reader_unlock(c);
		r = fn(ctx, &header, rest);
		capture_pcap_reader_lock(c);
		++*blocks;
	}
	s->has_head = false;
	source_pull(s);
	if (!s->has_head)
		c->heap[0] = c->heap[--c->nheap];
	heap_down(c, 0);
	return r;
}

long capture_pcap_drain(struct capture *c, nsec_t horizon, const struct wall_map *wall,
			capture_block_fn *fn, void *ctx, bool *ret_left)
{
	bool everything = horizon == UINT64_MAX;
	nsec_t boot_to_real = wall_offset(wall);
	nsec_t limit = horizon + boot_to_real - LIVE_DELAY;
	long blocks = 0;

	capture_pcap_reader_lock(c);
	capture_pcap_take_time(c, boot_to_real);
	heap_fill(c, everything);
	while (c->nheap) {
		nsec_t time = c->heap[0]->head.time;

		if (!everything && time > limit && time - limit < FUTURE)
			break;
		if (take(c, fn, ctx, &blocks))
			break;
	}
	*ret_left = sweep(c);
	capture_pcap_reader_unlock(c);
	return blocks;
}
