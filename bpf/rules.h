/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is a packet wanted? The interface's rule first, then ignorePorts, and the
 * agent's own stream last, so that unwanted packets pay nothing for it.
 */
#ifndef PS_RULES_H
#define PS_RULES_H

#include "maps.h"
#include "own.h"
#include "parse.h"

static __always_inline __u64 rules_port(__u16 port)
{
	__u32 key = port;
	__u64 *mask = bpf_map_lookup_elem(&ports, &key);

	return mask ? *mask : 0;
}

/* The PORT_ bits of a packet; a later fragment has those of its first. */
static __always_inline __u64 rules_mask(struct ps_ctx *ctx, const struct parsed *p)
{
	struct fragment value = {};
	struct fragment *known;
	struct datagram key;

	if (p->has_ports)
		value.mask = rules_port(p->sport) | rules_port(p->dport);
	if (p->fragment == FRAGMENT_NONE || parse_datagram(ctx, p, &key))
		return value.mask;
	value.time = bpf_ktime_get_boot_ns();
	if (p->fragment == FRAGMENT_FIRST) {
		bpf_map_update_elem(&fragments, &key, &value, BPF_ANY);
		return value.mask;
	}
	known = bpf_map_lookup_elem(&fragments, &key);
	return known && (__s64)(value.time - known->time) <= (__s64)FRAGMENT_TTL_NS ? known->mask
										    : 0;
}

static __always_inline bool rules_look_at_ports(const struct iface_rule *rule)
{
	return knobs.need_ports && (rule->mask | knobs.ignore_mask);
}

/*
 * @has_socket: the packet may still have its sender's socket. At ingress it has after
 * coming over a veth pair from a namespace where it was seen at no hook of ours, perhaps.
 */
static __always_inline bool rules_pick(struct ps_ctx *ctx, const struct iface_rule *rule,
				       const struct parsed *p, bool has_socket)
{
	__u64 mask = rules_look_at_ports(rule) ? rules_mask(ctx, p) : 0;
	__u64 cookie;

	if (((mask & rule->mask) != 0) == rule->invert || (mask & PORT_IGNORE))
		return false;
	if (!own_active())
		return true;
	cookie = has_socket ? own_cookie(ctx) : 0;
	if (cookie) {
		own_learn(ctx, p, cookie);
		return false;
	}
	return !own_known(ctx, p);
}

#endif
