/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The coarse filter of a packet socket: classic BPF that the kernel runs before it copies a
 * packet. It takes the packets of one direction, cuts them, and leaves out those that the rule
 * certainly does not want, as far as classic BPF can tell: what has VLAN tags in the data, IPv6
 * extension headers or is a fragment passes, for user space to decide (decide.h).
 */
#ifndef PS_COARSE_H
#define PS_COARSE_H

#include <linux/filter.h>
#include <stdbool.h>
#include <stdint.h>

#include "abi.h"
#include "err.h"

#define COARSE_MAX    320 /* instructions; COARSE_RANGES bounds them */
#define COARSE_RANGES 24  /* of ports; with more of them, ports are left to user space */

struct coarse {
	struct sock_filter code[COARSE_MAX];
	unsigned short n;
	bool ports; /* it looks at ports: what it leaves out is counted nowhere */
};

/* @port_masks: NULL when no rule looks at ports. */
void coarse_make(struct coarse *f, const struct iface_rule *rule, const uint64_t *port_masks,
		 enum direction direction, uint32_t snaplen);
/* Everything but the direction, which is no part of a packet: for tests. */
void coarse_make_ports(struct coarse *f, const struct iface_rule *rule, const uint64_t *port_masks,
		       uint32_t snaplen);

/* Atomically replaces the filter that the socket has. */
int coarse_attach(const struct coarse *f, int fd, struct err *err);
/* From now on the socket takes nothing. */
int coarse_block(int fd, struct err *err);

#endif
