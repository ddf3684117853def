// SPDX-License-Identifier: Apache-2.0
/*
 * The rings of all CPUs as one stream in order of time: a heap of those that have a
 * block up to the horizon, the ring with the oldest one on top. With one busy ring
 * that costs two comparisons a block.
 *
 * A block is stamped after its space was reserved. So when a ring's positions are read
 * after the horizon was taken, every block up to the horizon is in sight, complete or
 * being written. One that is being written has a stamp that is not known yet, but
 * not below that of the block before it, nor below the horizon of the last drain that
 * found its ring empty: nothing younger than that floor is handed over, however long
 * the other CPU takes.
 *
 * Within a ring the order is that of the kernel's reservations, which is that of
 * time, but for rings that several CPUs share: there two blocks of the same
 * microsecond may be swapped.
 *
 * A tap's packet is stamped by its program and comes into sight when the driver's poll ends, up
 * to 64 packets later, without a sign of it before. So with taps everything is left for as
 * long as such a poll usually takes; a packet that takes longer is handed over late, out of order.
 *
 * One thread. The heap lives only during merge_drain(); when that returns, the
 * kernel has the space of everything handed over back.
 */
#include "merge.h"

#include "util.h"

#define PUBLISH_BYTES (64u << 10) /* how much read space is kept from the kernel at most */
#define TAP_SETTLE    NSEC_PER_MSEC

/* Look at the oldest block of a ring: false when there is none to hand over. */
static bool head_load(struct merge *m, struct merge_head *h)
{
	uint32_t len;

	if (h->queue)
		return tap_queue_peek(h->queue, &h->time) && h->time <= m->limit;
	h->block = ring_peek(h->ring, &len);
	if (!h->block) {
		if (ring_busy(h->ring))
			m->limit = MIN(m->limit, h->ring->floor);
		return false;
	}
	h->time = (nsec_t)h->block->ts_high << 32 | h->block->ts_low;
	h->ring->floor = h->time;
	return h->time <= m->limit;
}

static void heap_down(struct merge *m, unsigned int i)
{
	struct merge_head moving = m->heap[i];

	for (;;) {
		unsigned int child = 2 * i + 1;

		if (child + 1 < m->nheap && m->heap[child + 1].time < m->heap[child].time)
			child++;
		if (child >= m->nheap || moving.time <= m->heap[child].time)
			break;
		m->heap[i] = m->heap[child];
		i = child;
	}
	m->heap[i] = moving;
}

static void add_queue(void *ctx, struct tap_queue *q)
{
	struct merge *m = ctx;

	m->heap[m->nheap] = (struct merge_head){.queue = q};
	if (head_load(m, &m->heap[m->nheap]))
		m->nheap++;
}

static void heap_fill(struct merge *m, nsec_t horizon)
{
	m->nheap = 0;
	m->limit = horizon;
	for (unsigned int i = 0; i < m->nrings; i++) {
		struct merge_head *h = &m->heap[m->nheap];

		*h = (struct merge_head){.ring = &m->rings[i]};
		if (head_load(m, h))
			m->nheap++;
		else if (!h->block && !ring_busy(h->ring))
			h->ring->floor = MAX(h->ring->floor, horizon);
	}
	if (m->taps)
		taps_collect(m->taps, add_queue, m);
	for (unsigned int i = m->nheap / 2; i-- > 0;)
		heap_down(m, i);
}

/* Hand over the oldest block, and step over it. */
static int hand_over(struct merge *m, struct merge_head *h, const struct wall_map *wall,
		     capture_block_fn *fn, void *ctx)
{
	nsec_t time = wall_time(wall, h->time);
	struct epb_header header;
	const void *rest;
	int stop;

	if (h->queue) {
		tap_queue_block(h->queue, &header, &rest);
	} else {
		header = *h->block;
		rest = h->block + 1;
	}
	header.ts_high = (uint32_t)(time >> 32);
	header.ts_low = (uint32_t)time;
	stop = fn(ctx, &header, rest);
	if (h->queue) {
		tap_queue_advance(h->queue);
		if (tap_queue_idle(h->queue) >= TAPS_GIVE_BACK)
			taps_give_back(m->taps, h->queue);
	} else {
		ring_advance(h->ring);
		if (ring_unpublished(h->ring) >= PUBLISH_BYTES)
			ring_publish(h->ring);
	}
	return stop;
}

/* Give all space back and see whether the rings are empty, in this order: see ring.c. */
static bool settle(struct merge *m)
{
	bool left = false;

	for (unsigned int i = 0; i < m->nrings; i++)
		ring_publish(&m->rings[i]);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (unsigned int i = 0; i < m->nrings; i++)
		left |= ring_pending(&m->rings[i]);
	return (m->taps && taps_settle(m->taps)) | left;
}

long merge_drain(struct merge *m, nsec_t horizon, const struct wall_map *wall, capture_block_fn *fn,
		 void *ctx, bool *ret_left)
{
	bool stop = false;
	long blocks = 0;

	if (m->taps && horizon != UINT64_MAX)
		horizon -= TAP_SETTLE;
	heap_fill(m, horizon);
	while (m->nheap && m->heap[0].time <= m->limit && !stop) {
		struct merge_head *top = &m->heap[0];

		stop = hand_over(m, top, wall, fn, ctx);
		blocks++;
		if (!head_load(m, top))
			m->heap[0] = m->heap[--m->nheap];
		heap_down(m, 0);
	}
	*ret_left = settle(m);
	return blocks;
}
