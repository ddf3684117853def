/* SPDX-License-Identifier: Apache-2.0 */
/* Several rings of time-stamped blocks (bpf/abi.h) read as one. One thread. */
#ifndef PS_MERGE_H
#define PS_MERGE_H

#include <stdbool.h>

#include "abi.h"
#include "capture.h"
#include "clock.h"
#include "ring.h"

/* A ring with something to hand over, and the time of its oldest block. */
struct merge_head {
	nsec_t time;
	struct ring *ring;
	const struct epb_header *block;
};

/* The owner allocates both arrays, of nrings each, and opens the rings. */
struct merge {
	struct ring *rings;
	unsigned int nrings;
	struct merge_head *heap;
	unsigned int nheap;
	nsec_t limit; /* of the drain: what is younger must wait */
};

/*
 * As capture_ops.drain. After it, with *ret_left unset, the next block of any ring
 * wakes whoever polls that ring.
 */
long merge_drain(struct merge *m, nsec_t horizon, nsec_t boot_to_real, capture_block_fn *fn,
		 void *ctx, bool *ret_left);

#endif
