/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the capture programs decide in the kernel (bpf/engine.h), decided in user space: for back
 * ends that get every packet. The same parser, the same masks, samples, limits. One thread
 * at a time.
 */
#ifndef PS_DECIDE_H
#define PS_DECIDE_H

#include <stdbool.h>
#include <stdint.h>

#include "abi.h"
#include "clock.h"
#include "expression.h"
#include "ownflow.h"

struct decide;

struct decide_config {
	const uint64_t *port_masks; /* as in struct capture_config; outlives it */
	struct ownflow *own;        /* outlives it; NULL: there is no stream */
	uint32_t snaplen;
	nsec_t dedup_window; /* 0: no rule has RULE_DEDUP */
	bool limit_agent;    /* bucket 0 is in force */
};

struct decide_packet {
	const uint8_t *data;
	uint32_t caplen, len;
	enum direction direction;
	nsec_t time; /* CLOCK_BOOTTIME, not in the future: what is measured by time goes by it */
};

struct decide_verdict {
	enum capture_counter counter; /* CAPTURE_CAPTURED: it is wanted */
	enum capture_counter part;    /* counted besides; CAPTURE_COUNTERS: none */
	uint32_t caplen;              /* bytes to keep of it */
};

/* Bytes of a packet that a decision may need, but for headers that nobody sends. */
#define DECIDE_BYTES 2048u

struct decide *decide_new(const struct decide_config *config);
struct decide *decide_free(struct decide *d);

/* As capture_ops.set_expression; @e belongs to the caller, and is not used once replaced. */
void decide_set_expression(struct decide *d, uint32_t slot, const struct expression *e);
/* As the map `buckets`: @key 0 is the agent's, 1 + slot that of an interface. */
void decide_set_bucket(struct decide *d, uint32_t key, const struct bucket *b);
void decide_degrade(struct decide *d, const struct degrade *degrade);
struct work decide_work(const struct decide *d);

/*
 * Decide on a packet, and count it: as seen, and in one counter more, as the kernel side does.
 * @counts are those of the rule's slot and the packet's direction.
 */
struct decide_verdict decide_packet(struct decide *d, const struct iface_rule *rule,
				    struct capture_counts *counts, const struct decide_packet *p);

#endif
