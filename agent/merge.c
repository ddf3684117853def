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
 * One thread. The heap lives only during merge_drain(); when that returns, the
 * kernel has the space of everything handed over back.
 */
#include "merge.h"

#include "util.h"

#define PUBLISH_BYTES (64u << 10) /* how much read space is kept from the kernel at most */

/* Look at the oldest block of a ring: false when there is none to hand over. */
static bool head_load(struct merge *m, struct merge_head *h)
{
	uint32_t len;

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

static void heap_fill(struct merge *m, nsec_t horizon)
{
	m->nheap = 0;
	m->limit = horizon;
	for (unsigned int i = 0; i < m->nrings; i++) {
		struct merge_head *h = &m->heap[m->nheap];

		h->ring = &m->rings[i];
		if (head_load(m, h))
			m->nheap++;
		else if (!h->block && !ring_busy(h->ring))
			h->ring->floor = MAX(h->ring->floor, horizon);
	}
	for (unsigned int i = m->nheap / 2; i-- > 0;)
		heap_down(m, i);
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
	return left;
}

long merge_drain(struct merge *m, nsec_t horizon, nsec_t boot_to_real, capture_block_fn *fn,
		 void *ctx, bool *ret_left)
{
	bool stop = false;
	long blocks = 0;

	heap_fill(m, horizon);
	while (m->nheap && m->heap[0].time <= m->limit && !stop) {
		struct merge_head *top = &m->heap[0];
		struct epb_header header = *top->block;
		nsec_t time = top->time + boot_to_real;

		header.ts_high = (uint32_t)(time >> 32);
		header.ts_low = (uint32_t)time;
		stop = fn(ctx, &header, top->block + 1);
		blocks++;
		ring_advance(top->ring);
		if (ring_unpublished(top->ring) >= PUBLISH_BYTES)
			ring_publish(top->ring);
		if (!head_load(m, top))
			m->heap[0] = m->heap[--m->nheap];
		heap_down(m, 0);
	}
	*ret_left = settle(m);
	return blocks;
}
