/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One of the BPF objects of bpf/, loaded: its programs, and its maps by their descriptors.
 * Shapes are in abi.h. One thread.
 */
#ifndef PS_PROGRAMS_H
#define PS_PROGRAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "abi.h"
#include "err.h"

struct expression;

/*
 * PROGRAMS_XDP and PROGRAMS_TAP are for drivers: with packets in several buffers (jumbo frames). A
 * generic hook gives a program that takes those a copy of each packet, whose mac_len it forgets to
 * set (Linux 6.9 and later, skb_pp_cow_data()): TC programs behind it, anybody's, then find the IP
 * header where the Ethernet header should be. So there are the others, for it.
 */
enum programs_hook {
	PROGRAMS_TC,
	PROGRAMS_XDP,
	PROGRAMS_XDP_GENERIC,
	PROGRAMS_TAP,
	PROGRAMS_TAP_GENERIC,
};

enum programs_map {
	MAP_INTERFACES,
	MAP_PORTS,
	MAP_FRAGMENTS,
	MAP_COUNTERS,
	MAP_RINGS,
	MAP_UNREAD,
	MAP_OWN_FLOWS,
	MAP_HEARTBEAT,
	MAP_BUCKETS,
	MAP_RECENT,
	MAP_WORK,
	MAP_BSS,     /* struct shared */
	MAP_SOCKETS, /* these three: only those for taps */
	MAP_SENT,
	MAP_TAPS,
	MAPS_SHARED,
	/* Each object has these for itself: programs of one type cannot call those of another. */
	MAP_SCRATCH = MAPS_SHARED,
	MAP_EXPRESSIONS,
	MAP_STAGES,
	PROGRAMS_MAPS,
};

struct programs {
	struct bpf_object *object;
	enum programs_hook hook;
	int entry[2];  /* the programs to attach, by direction - 1; -1: there is none */
	bool by_netns; /* knobs.other_netns: they are made for each namespace, netns_entry.h */
	int map[PROGRAMS_MAPS];
};

/*
 * Load an object with @knobs, and let its programs find each other. With @share it uses the
 * maps of that one, which must outlive it, but for those of MAPS_SHARED and above. The
 * sentence says what right or feature is missing. On failure *p is as programs_close()
 * leaves it.
 */
int programs_open(struct programs *p, enum programs_hook hook, const struct knobs *knobs,
		  const struct programs *share, struct err *err);
/* As capture_ops.set_expression, for these programs. */
int programs_set_expression(struct programs *p, uint32_t slot, const struct expression *e,
			    struct err *err);
/* Takes a struct of zeros too. Attached programs stay until their hooks go. */
void programs_close(struct programs *p);

#endif
