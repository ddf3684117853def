/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The packets of one receive queue of a tap, on their way through user space: the descriptors
 * of the frames that hold them, and the book of what came and what was lost.
 *
 * Two sides: the one that has the lock of agent/taps.c collects from the kernel, and gives
 * frames back; the reader thread hands over what was collected, without it. Between them is a
 * ring with room for every frame of the queue.
 */
#ifndef PS_TAP_QUEUE_H
#define PS_TAP_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "abi.h"
#include "clock.h"
#include "xsk.h"

#define TAP_SCRATCH EPB_SIZE(SNAPLEN_MAX)

struct tap_count {
	uint64_t packets, bytes;
};

struct tap_queue {
	struct xsk *xsk;
	unsigned int number, cpus;
	uint32_t id; /* of the interface in the stream */
	bool shut;   /* the socket is closed: nothing comes, nothing is given back */

	struct xdp_desc *ring;
	uint32_t mask;
	uint32_t tail; /* collected up to here; the others are behind it */
	uint32_t head; /* handed over */
	uint32_t back; /* given back to the kernel */

	struct tap_sent *next;   /* by CPU: where the next packet is in its sequence */
	struct tap_sent *before; /* by CPU: where the kernel was a while ago */
	struct tap_count came, lost;

	uint8_t *scratch; /* the reader's, TAP_SCRATCH bytes: a block that does not fit its frame */
};

/* @scratch stays the caller's. On failure (-ENOMEM) it is as tap_queue_done() leaves it. */
int tap_queue_init(struct tap_queue *q, struct xsk *xsk, unsigned int number, unsigned int cpus,
		   uint32_t id, uint8_t *scratch);
void tap_queue_done(struct tap_queue *q);

/* With the lock: take over and book what waits in the kernel's ring. */
void tap_queue_collect(struct tap_queue *q);
/* With the lock: give the kernel the frames of what was handed over. */
void tap_queue_give_back(struct tap_queue *q);
/*
 * With the lock, after collecting: what the kernel had sent on each CPU some time ago (@sent)
 * and has not come by now is lost.
 */
void tap_queue_settle(struct tap_queue *q, const struct tap_sent *sent);

/* The reader's: when the oldest packet was stamped; false: there is none. */
bool tap_queue_peek(const struct tap_queue *q, nsec_t *ret_time);
/*
 * The reader's: the oldest packet as a block, its stamp left as it is; *ret_rest lives until
 * tap_queue_advance().
 */
void tap_queue_block(const struct tap_queue *q, struct epb_header *ret, const void **ret_rest);
void tap_queue_advance(struct tap_queue *q);
/* Frames that could be given back. */
uint32_t tap_queue_idle(const struct tap_queue *q);
bool tap_queue_empty(const struct tap_queue *q);

#endif
