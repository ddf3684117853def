/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A capture back end: hooks on interfaces that pick packets by rule, and the rings
 * that the picked ones come out of.
 *
 * Threads: attach, intact, detach, counts, beat, own_socket belong to the loop thread
 * (own_socket: any thread); wait and drain to the one reader thread; wake to any.
 */
#ifndef PS_CAPTURE_H
#define PS_CAPTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi.h"
#include "clock.h"
#include "err.h"
#include "hook.h"

struct capture;

struct capture_config {
	uint32_t snaplen;
	uint64_t ring_bytes; /* all rings together, a power-of-two share for each CPU */
	bool need_ports;     /* some rule looks at ports: else parsing is skipped */
	/* 65,536 masks of PORT_ bits, by port; NULL when !need_ports */
	const uint64_t *port_masks;
	enum hook_mode hook_mode; /* HOOK_AUTO, but for tests */
};

struct capture_iface {
	uint32_t ifindex;
	const char *name;
	bool loopback; /* captured at ingress only, so that each packet is seen once */
	struct iface_rule rule;
};

/*
 * One block of abi.h in two pieces: its header, wall-clock stamped, and the
 * total_len - EPB_HEADER bytes that follow it, at @rest. (The rings are mapped
 * read-only, so the stamp cannot be changed in place.) Both are gone after the
 * return: copy them. Return 0, or anything else to stop the drain after this block.
 */
typedef int capture_block_fn(void *ctx, const struct epb_header *header, const void *rest);

struct capture_ops {
	const char *name;
	/* Load everything, attach nothing. The sentence says what right or feature is missing. */
	int (*open)(const struct capture_config *config, struct capture **ret, struct err *err);
	struct capture *(*close)(struct capture *c);
	/* What was chosen, for the log: "tcx", "clsact (this kernel has no TCX)". */
	const char *(*describe)(const struct capture *c);

	/*
	 * Both directions, or none and an error: -ENODEV the interface is gone,
	 * -ENOSPC no slot, else what the kernel said. 1: attached, but packets may be
	 * kept from being seen; the sentence says by whom.
	 */
	int (*attach)(struct capture *c, const struct capture_iface *iface, struct err *err);
	/*
	 * Are the hooks still there? Once somebody has removed one, packets pass unseen:
	 * detach, and attach anew. True for an interface that is gone: netlink tells of that.
	 */
	bool (*intact)(struct capture *c, uint32_t ifindex);
	/* Idempotent; the interface may be gone already. Counters of the slot stay readable. */
	void (*detach)(struct capture *c, uint32_t ifindex);
	/*
	 * After it, no program that ran when it was called is running still: with the
	 * hooks off, counters and rings are final.
	 */
	void (*quiesce)(struct capture *c);

	/* Sum over CPUs of a slot and direction. */
	int (*counts)(struct capture *c, uint32_t slot, enum direction direction,
		      struct capture_counts *ret);
	/* Zero a slot's counters before it is used again. */
	int (*reset)(struct capture *c, uint32_t slot);

	/*
	 * I am alive: at least every 2 s. False: the last beat is so long ago (the process or
	 * the machine stood still) that the programs took us for dead, and let packets pass
	 * unseen.
	 */
	bool (*beat)(struct capture *c);
	/* The agent's own stream socket: never captured, nor its flow's other direction. */
	int (*own_socket)(struct capture *c, int fd, struct err *err);

	/*
	 * Sleep until packets wait in a ring (or wake() was called) or @timeout_ms is
	 * over (-1: none). Returns > 0 when packets may wait, 0 on a time-out or wake.
	 * Packets that a drain left behind (*ret_left) do not count as news: come back
	 * for them after a time-out.
	 */
	int (*wait)(struct capture *c, int timeout_ms);
	void (*wake)(struct capture *c);
	/*
	 * Hand over what the rings hold, in order of time across rings, up to the
	 * stamp @horizon (CLOCK_BOOTTIME; younger blocks stay, so that a slower CPU's
	 * packet can still come before them; UINT64_MAX: everything). @boot_to_real is
	 * added to the stamps. Returns the number of blocks; *ret_left is set when the
	 * rings still hold some.
	 */
	long (*drain)(struct capture *c, nsec_t horizon, nsec_t boot_to_real, capture_block_fn *fn,
		      void *ctx, bool *ret_left);
};

extern const struct capture_ops capture_ringbuf;

#endif
