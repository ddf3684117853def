/* SPDX-License-Identifier: Apache-2.0 */
/* What capture_pcap.c (everything but the reader's part) and capture_pcap_drain.c share. */
#ifndef PS_CAPTURE_PCAP_INTERNAL_H
#define PS_CAPTURE_PCAP_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "capture.h"
#include "decide.h"
#include "ownflow.h"
#include "source.h"

struct capture {
	struct capture_config config;
	uint64_t ring_left;  /* of ring_bytes, for those that come */
	uint64_t ring_taken; /* by all there are */
	nsec_t boot_to_real, now;

	pthread_mutex_t gate, lock;
	atomic_uint wanted; /* the loop thread waits for the lock, or has it */

	struct source **sources;
	size_t nsources;
	struct source *of_slot[IFACE_SLOTS][2];
	struct capture_counts counts[IFACE_SLOTS][2];
	struct decide *decide;
	struct ownflow *own;

	struct source **heap; /* the reader's, in a drain */
	size_t nheap;
	int epoll, event;
};

void capture_pcap_reader_lock(struct capture *c);
void capture_pcap_reader_unlock(struct capture *c);

/* Of the packets that are judged from now on: what their wall clock is to CLOCK_BOOTTIME. */
void capture_pcap_take_time(struct capture *c, nsec_t boot_to_real);
/* A source_judge_fn; @ctx is the capture. */
bool capture_pcap_judge(void *ctx, struct source *s, struct source_packet *p);

/* As capture_ops.drain. */
long capture_pcap_drain(struct capture *c, nsec_t horizon, const struct wall_map *wall,
			capture_block_fn *fn, void *ctx, bool *ret_left);

#endif
