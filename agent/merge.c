// SPDX-License-Identifier: Apache-2.0
/*
 * The rings of all CPUs as one stream in order of time: a heap of those that have a
 * block up to the horizon, the ring with the oldest one on top. With one busy ring
 * that costs two comparisons a block.
 *
 * Within a ring the order is that of the kernel's reservations, which is that of
 * time, but for rings that several CPUs share: there two blocks of the same
 * microsecond may be swapped.
 *
 * One thread. The heap lives only during merge_drain(); when that returns, the
 * kernel has the space of everything handed over back.
 */
#include "merge.h"

#define PUBLISH_BYTES (64u << 10) /* how much read space is kept from the kernel at most */

/* Look at the oldest block of a ring: false when there is none up to the horizon. */
static bool head_load(struct merge_head *h, nsec_t horizon)
{
	uint32_t len;

	h->block = ring_peek(h->ring, &len);
	if (!h->block)
		return false;
	h->time = (nsec_t)h->block->ts_high << 32 | h->block->ts_low;
	return h->time <= horizon;
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
	for (unsigned int i = 0; i < m->nrings; i++) {
		m->heap[m->nheap].ring = &m->rings[i];
		if (head_load(&m->heap[m->nheap], horizon))
			m->nheap++;
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
	while (m->nheap && !stop) {
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
		if (!head_load(top, horizon))
			m->heap[0] = m->heap[--m->nheap];
		heap_down(m, 0);
	}
	*ret_left = settle(m);
	return blocks;
}
