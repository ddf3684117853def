/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the BPF tests share: a network namespace of their own, a capture in it, and
 * ways to hand it a packet and see what became of it. Every failure is a cmocka
 * failure, so nothing returns an error.
 */
#ifndef PS_BPFENV_H
#define PS_BPFENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "capture.h"

#define LO 1u /* ifindex, in any network namespace: what a test run comes in on */

/* Go to a new network namespace; when that cannot be, env_skip_reason says why. */
void env_enter(void);
extern const char *env_skip_reason;

/* The first line of every test. */
#define ENV_SKIP()                                                         \
	do {                                                               \
		if (env_skip_reason) {                                     \
			print_message("# skipped: %s\n", env_skip_reason); \
			skip();                                            \
		}                                                          \
	} while (0)

/* Run a program and fail when it does; the arguments end with NULL. */
void env_run(const char *program, ...);

struct env_block {
	struct epb_header header;
	uint8_t *rest; /* total_len - EPB_HEADER bytes */
};

struct env {
	struct capture *capture;
	int ingress, egress;                /* programs */
	int interfaces, heartbeat, buckets; /* maps */
	struct env_block *blocks;           /* of the last env_drain() */
	size_t nblocks;
};

/* Open a capture and find its programs and maps. */
void env_open(struct env *e, const struct capture_config *config);
void env_close(struct env *e);
/* Attach to both directions of an interface. */
void env_attach(struct env *e, const char *name, const struct iface_rule *rule);
/* Replace the rule of an interface without attaching anything. */
void env_rule(struct env *e, uint32_t ifindex, const struct iface_rule *rule);

/* What became of one packet in a test run of a program. Fails on any verdict but "pass on". */
enum capture_counter env_packet(struct env *e, enum direction direction, const uint8_t *data,
				size_t size);
struct capture_counts env_counts(struct env *e, uint32_t slot, enum direction direction);
/* Leaves stamps as they are, for drain(). */
extern const struct wall_map env_no_wall;
/* Take everything out of the rings, unstamped. Returns the number of blocks. */
size_t env_drain(struct env *e);
/* As env_drain(), waiting up to 5 s until there are @n. */
void env_expect(struct env *e, size_t n);
/* Fail unless @b is exactly the block of this packet. */
void env_check_block(const struct env_block *b, uint32_t id, const uint8_t *data, size_t caplen,
		     size_t len, enum direction direction);
/* The same with this option. */
void env_check_offload(const struct env_block *b, uint32_t id, const uint8_t *data, size_t caplen,
		       size_t len, enum direction direction, const struct epb_offload *offload);

#endif
