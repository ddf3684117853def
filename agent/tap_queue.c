// SPDX-License-Identifier: Apache-2.0
/*
 * A packet is one descriptor, or several of which all but the last say XDP_PKT_CONTD; its
 * first bytes are a struct tap_header. Only whole packets are collected.
 *
 * The block for a packet is finished where it lies: padding and trailer go behind it in its
 * frame, so it is copied once, by whoever gets it. When there is no room in the
 * frame, the scratch buffer has it.
 */
#include "tap_queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util.h"

#define COLLECT   64u /* descriptors at a time; more than the most that a packet takes */
#define GIVE_BACK 64u

int tap_queue_init(struct tap_queue *q, struct xsk *xsk, unsigned int number, unsigned int cpus,
		   uint32_t id, uint8_t *scratch)
{
	uint32_t size = 1;

	while (size < xsk_frames(xsk))
		size <<= 1;
	*q = (struct tap_queue){
		.xsk = xsk,
		.number = number,
		.cpus = cpus,
		.id = id,
		.ring = calloc(size, sizeof(*q->ring)),
		.mask = size - 1,
		.next = calloc(cpus, sizeof(*q->next)),
		.before = calloc(cpus, sizeof(*q->before)),
		.scratch = scratch,
	};
	if (q->ring && q->next && q->before)
		return 0;
	tap_queue_done(q);
	return -ENOMEM;
}

void tap_queue_done(struct tap_queue *q)
{
	free(q->ring);
	free(q->next);
	free(q->before);
	*q = (struct tap_queue){};
}

static struct tap_header header_of(const struct tap_queue *q, const struct xdp_desc *d)
{
	struct tap_header h;

	memcpy(&h, xsk_data(q->xsk, d->addr), sizeof(h));
	return h;
}

/* The number of descriptors of the packet at @d, and its length; 0: its end is not there. */
static uint32_t packet_descs(const struct xdp_desc *d, uint32_t n, uint32_t *ret_len)
{
	uint32_t len = 0;

	for (uint32_t i = 0; i < n; i++) {
		len += d[i].len;
		if (d[i].options & XDP_PKT_CONTD)
			continue;
		*ret_len = len - (uint32_t)sizeof(struct tap_header);
		return i + 1;
	}
	return 0;
}

static void book(struct tap_queue *q, const struct tap_header *h, uint32_t len)
{
	struct tap_sent *next = &q->next[h->cpu % q->cpus];

	q->came.packets++;
	q->came.bytes += len;
	/* Given up too early, in tap_queue_settle(). */
	if ((int64_t)(h->packets - next->packets) < 0) {
		q->lost.packets--;
		q->lost.bytes -= len;
		return;
	}
	q->lost.packets += h->packets - next->packets;
	q->lost.bytes += h->bytes - next->bytes;
	*next = (struct tap_sent){h->packets + 1, h->bytes + len};
}

void tap_queue_collect(struct tap_queue *q)
{
	struct xdp_desc descs[COLLECT];
	uint32_t tail = q->tail, n, taken;

	if (q->shut)
		return;
	do {
		uint32_t used, len;

		n = xsk_peek(q->xsk, q->number, descs, COLLECT);
		for (taken = 0; (used = packet_descs(descs + taken, n - taken, &len));
		     taken += used) {
			struct tap_header h = header_of(q, &descs[taken]);

			book(q, &h, len);
			for (uint32_t i = 0; i < used; i++)
				q->ring[tail++ & q->mask] = descs[taken + i];
		}
		xsk_take(q->xsk, q->number, n, taken);
	} while (taken && n == COLLECT);
	__atomic_store_n(&q->tail, tail, __ATOMIC_RELEASE);
}

void tap_queue_give_back(struct tap_queue *q)
{
	uint32_t head = __atomic_load_n(&q->head, __ATOMIC_ACQUIRE);
	uint32_t back = q->back;
	uint64_t addrs[GIVE_BACK];

	if (q->shut)
		return;
	while (back != head) {
		uint32_t n = 0;

		while (n < GIVE_BACK && back != head)
			addrs[n++] = q->ring[back++ & q->mask].addr;
		xsk_refill(q->xsk, q->number, addrs, n);
	}
	__atomic_store_n(&q->back, back, __ATOMIC_RELAXED);
}

void tap_queue_settle(struct tap_queue *q, const struct tap_sent *sent)
{
	for (unsigned int cpu = 0; cpu < q->cpus; cpu++) {
		struct tap_sent *next = &q->next[cpu];

		if ((int64_t)(sent[cpu].packets - next->packets) <= 0)
			continue;
		q->lost.packets += sent[cpu].packets - next->packets;
		q->lost.bytes += sent[cpu].bytes - next->bytes;
		*next = sent[cpu];
	}
}

bool tap_queue_empty(const struct tap_queue *q)
{
	return __atomic_load_n(&q->tail, __ATOMIC_ACQUIRE) ==
	       __atomic_load_n(&q->head, __ATOMIC_ACQUIRE);
}

bool tap_queue_peek(const struct tap_queue *q, nsec_t *ret_time)
{
	if (tap_queue_empty(q))
		return false;
	*ret_time = header_of(q, &q->ring[q->head & q->mask]).stamp;
	return true;
}

/* The packet at the head, all of its descriptors, without the header: @caplen bytes. */
static void gather(const struct tap_queue *q, uint8_t *to, uint32_t caplen)
{
	uint32_t skip = sizeof(struct tap_header), done = 0;

	for (uint32_t at = q->head; done < caplen; at++, skip = 0) {
		const struct xdp_desc *d = &q->ring[at & q->mask];
		uint32_t n = MIN(d->len - skip, caplen - done);

		memcpy(to + done, xsk_data(q->xsk, d->addr) + skip, n);
		done += n;
	}
}

static uint32_t wire_len(const struct tap_queue *q)
{
	uint32_t at = q->head, len = 0;

	do
		len += q->ring[at & q->mask].len;
	while (q->ring[at++ & q->mask].options & XDP_PKT_CONTD);
	return len - (uint32_t)sizeof(struct tap_header);
}

void tap_queue_block(const struct tap_queue *q, struct epb_header *ret, const void **ret_rest)
{
	const struct xdp_desc *d = &q->ring[q->head & q->mask];
	struct tap_header h = header_of(q, d);
	uint8_t *packet = xsk_data(q->xsk, d->addr) + sizeof(h);
	uint32_t len = wire_len(q), caplen = MIN(h.caplen, len), padded = (caplen + 3) & ~3u;
	uint32_t end = (uint32_t)(d->addr % XSK_FRAME + sizeof(h)) + padded + EPB_TRAILER;
	struct epb_trailer trailer = {
		.flags_code = EPB_OPT_FLAGS,
		.flags_len = sizeof(trailer.flags),
		.flags = DIRECTION_INGRESS,
		.total_len = EPB_SIZE(caplen),
	};

	if (caplen > d->len - sizeof(h) || end > XSK_FRAME) {
		packet = q->scratch;
		gather(q, packet, caplen);
	}
	memset(packet + caplen, 0, padded - caplen);
	memcpy(packet + padded, &trailer, sizeof(trailer));
	*ret = (struct epb_header){
		.type = EPB_TYPE,
		.total_len = EPB_SIZE(caplen),
		.interface_id = q->id,
		.ts_high = (uint32_t)(h.stamp >> 32),
		.ts_low = (uint32_t)h.stamp,
		.caplen = caplen,
		.len = len,
	};
	*ret_rest = packet;
}

void tap_queue_advance(struct tap_queue *q)
{
	uint32_t head = q->head;

	while (q->ring[head++ & q->mask].options & XDP_PKT_CONTD)
		;
	__atomic_store_n(&q->head, head, __ATOMIC_RELEASE);
}

uint32_t tap_queue_idle(const struct tap_queue *q)
{
	return q->head - __atomic_load_n(&q->back, __ATOMIC_RELAXED);
}
