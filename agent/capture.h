/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A capture back end: hooks on interfaces that pick packets by rule, and the rings
 * that the picked ones come out of.
 *
 * Threads: attach, intact, detach, counts, set_ and what is not named here belong to the loop
 * thread, which visits an interface's network namespace to attach, look and detach; wait and
 * drain to the one reader thread; beat to pulse.h, one at a time; wake and own_socket to any.
 *
 * An interface is known by its key, IFACE_KEY().
 */
#ifndef PS_CAPTURE_H
#define PS_CAPTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "abi.h"
#include "clock.h"
#include "err.h"
#include "hook.h"
#include "wallclock.h"

struct capture;
struct expression;

/* A rate limit; 0: none. */
struct capture_limit {
	uint64_t packets_per_s, bits_per_s;
};

struct capture_config {
	uint32_t snaplen;
	uint64_t ring_bytes; /* all rings together, a power-of-two share for each CPU */
	bool need_ports;     /* some rule looks at ports: else parsing is skipped */
	/* 65,536 masks of PORT_ bits, by port, that outlive the capture; NULL when !need_ports */
	const uint64_t *port_masks;
	bool xdp;                   /* capture at XDP, ingress only, instead of TC */
	enum xdp_mode xdp_mode;     /* of that */
	enum hook_mode hook_mode;   /* HOOK_AUTO, but for tests */
	struct capture_limit limit; /* of the agent as a whole */
	bool other_netns;           /* interfaces of other network namespaces will come */
	nsec_t dedup_window;        /* of rules with RULE_DEDUP; 0: there are none */
	/*
	 * Interfaces that only monitor, by their exact names: what is wanted of what they receive
	 * is taken away from the host, and the rest as well with @tap_drop. The array is kept.
	 */
	const char *const *taps;
	unsigned int ntaps; /* at most TAPS_MAX */
	bool tap_drop;
};

struct capture_iface {
	uint32_t ifindex;
	uint32_t netns; /* number of its network namespace; 0: our own, else at */
	int netns_fd;   /* a descriptor of it, the caller's, open until after detach */
	const char *name;
	bool ipsec;             /* what comes in there came out of IPsec */
	bool loopback;          /* captured at ingress only, so that each packet is seen once */
	struct iface_rule rule; /* slot and id are fixed; the rest may change: set_rule */
	struct capture_limit limit;
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
	bool user_space; /* expressions are asked there: their sets need no maps */
	/* Load everything, attach nothing. The sentence says what right or feature is missing. */
	int (*open)(const struct capture_config *config, struct capture **ret, struct err *err);
	struct capture *(*close)(struct capture *c);
	/* What was chosen, for the log: "tcx", "clsact (this kernel has no TCX)". */
	const char *(*describe)(const struct capture *c);

	/*
	 * Could attach() make room for the interface, whose slot and id are not chosen yet? To be
	 * asked before it is announced. -ENOSPC, -ENOBUFS, -EBUSY: not now. NULL in the place of
	 * the function: it could.
	 */
	int (*room)(struct capture *c, const struct capture_iface *iface, struct err *err);
	/*
	 * Both directions, or none and an error: -ENODEV the interface is gone,
	 * -ENOSPC no slot or room, else what the kernel said. 1: attached, but packets may be
	 * kept from being seen; the sentence says by whom.
	 */
	int (*attach)(struct capture *c, const struct capture_iface *iface, struct err *err);
	/*
	 * Are the hooks still there? 0: somebody has removed one, packets pass unseen:
	 * detach, and attach anew. 1: they are, or the interface is gone: netlink tells of that.
	 * 2: they are, but since the last time another program runs first; the sentence says which.
	 */
	int (*intact)(struct capture *c, uint64_t key, struct err *err);
	/*
	 * By what this interface is captured, when it is not what describe() says, else NULL.
	 * Valid until the next call. NULL in the place of the function: never.
	 */
	const char *(*how)(struct capture *c, uint64_t key);
	/* Idempotent; the interface may be gone already. Counters of the slot stay readable. */
	void (*detach)(struct capture *c, uint64_t key);
	/*
	 * Let rules with the number @slot (1 to EXPRESSIONS - 1) ask @e from now on; every packet
	 * meets the old one or the new one. @e is in use until it is replaced. -EINVAL and a
	 * sentence when the kernel's verifier refuses it: then nothing has changed. NULL: no rule
	 * has the number any more.
	 */
	int (*set_expression)(struct capture *c, uint32_t slot, const struct expression *e,
			      struct err *err);
	/* Another rule and limit for an attached interface, with the same id and slot. */
	int (*set_rule)(struct capture *c, const struct capture_iface *iface, struct err *err);
	/* What the budget takes from all interfaces, from now on. */
	void (*degrade)(struct capture *c, const struct degrade *degrade);
	/* What the hooks did so far, of all CPUs; of the time, one part in WORK_EVERY. */
	void (*work)(struct capture *c, struct work *ret);
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
	/*
	 * The agent's own stream socket: never captured, nor its flow's other direction. Told
	 * twice, as net_socket_fn is: before it connects, with where @to, and when that is under
	 * way, with NULL; with NULL once more when it is the current one again.
	 */
	int (*own_socket)(struct capture *c, int fd, const struct sockaddr *to, struct err *err);

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
	 * packet can still come before them; UINT64_MAX: everything). @wall makes
	 * wall-clock time of the stamps. Returns the number of blocks; *ret_left is set when the
	 * rings still hold some.
	 */
	long (*drain)(struct capture *c, nsec_t horizon, const struct wall_map *wall,
		      capture_block_fn *fn, void *ctx, bool *ret_left);
};

extern const struct capture_ops capture_ringbuf;
extern const struct capture_ops capture_pcap;

#endif
