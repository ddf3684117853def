/* SPDX-License-Identifier: Apache-2.0 */
/* Several rings of time-stamped blocks (bpf/abi.h), and the queues of taps, read as one. One
 * thread. */
#ifndef PS_MERGE_H
#define PS_MERGE_H

#include <stdbool.h>

#include "abi.h"
#include "capture.h"
#include "clock.h"
#include "ring.h"
#include "taps.h"
#include "wallclock.h"

/* A ring, or a tap's queue, with something to hand over, and the time of its oldest block. */
struct merge_head {
	nsec_t time;
	struct ring *ring;
	const struct epb_header *block;
	struct tap_queue *queue; /* when there is no ring */
};

/*
 * The owner allocates both arrays, of nrings each, and opens the rings. With taps the heap has
 * TAPS_QUEUES_MAX more places.
 */
struct merge {
	struct ring *rings;
	unsigned int nrings;
	struct taps *taps; /* NULL: none */
	struct merge_head *heap;
	unsigned int nheap;
	nsec_t limit; /* of the drain: what is younger must wait */
};

/*
 * As capture_ops.drain. After it, with *ret_left unset, the next block of any ring
 * wakes whoever polls that ring.
 */
long merge_drain(struct merge *m, nsec_t horizon, const struct wall_map *wall, capture_block_fn *fn,
		 void *ctx, bool *ret_left);

#endif
