/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One direction of one interface as a queue of packets: the oldest one at hand, then those that
 * were moved out of the ring when the capture ended (the stash), then the ring. Callers
 * lock.
 */
#ifndef PS_SOURCE_H
#define PS_SOURCE_H

#include <stddef.h>

#include "live.h"

struct source_packet {
	nsec_t time;
	uint32_t caplen, len; /* bytes there are, once judged to be kept; on the wire */
	bool judged;          /* decided on, and counted */
	uint8_t *data;        /* with room for the end of a block behind it */
	size_t room;
};

struct source_stashed;

struct source {
	struct live live;
	struct iface_rule rule;
	enum direction direction;
	uint64_t key; /* IFACE_KEY(); */
	int netns_fd; /* its namespace, as capture_iface has it, -1 our own: the opener's */
	uint32_t ring_bytes;
	uint32_t budget; /* what it takes of the rings' */
	struct capture_counts *counts;
	bool ready;   /* there may be something in the ring */
	bool failed;  /* it broke */
	bool parting; /* detached, and is being emptied into the stash */
	bool closed;  /* done: there will be nothing but what is in the stash */
	bool has_head;
	struct source_packet head;
	struct source_stashed *first, **last;
};

/* Decides and counts; false: the packet is not wanted. */
typedef bool source_judge_fn(void *ctx, struct source *s, struct source_packet *p);

/* Begins to capture; the caller fills in rule, direction and counts before it pulls. */
int source_open(const struct live_config *config, struct source **ret, struct err *err);
struct source *source_free(struct source *s);

/* Get the head, if there is anything: unjudged when it comes from the ring. */
void source_pull(struct source *s);
/* Nothing is left, and nothing will come. */
bool source_is_done(const struct source *s);
/* Judge the head, and all that the ring shows; keep what is wanted in the stash. */
void source_empty(struct source *s, source_judge_fn *judge, void *ctx);
/* Account for what the ring had no room for: packets, whose bytes nobody knows. */
void source_count_drops(struct source *s);
/* @n packets that came, and cannot be had any more. */
void source_count_lost(struct source *s, uint32_t n);

/* The judged head as a block of abi.h; returns its rest. */
const void *source_block(struct source *s, struct epb_header *ret);

#endif
