/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is a packet part of the agent's own stream to its collector? Capturing that
 * would capture the capture. See struct own_state.
 */
#ifndef PS_OWN_H
#define PS_OWN_H

#include "maps.h"
#include "parse.h"

/* The cell of the pre-check: the same for both directions of a flow. */
static __always_inline volatile __u8 *own_cell(__u16 sport, __u16 dport)
{
	__u32 sum = sport + dport;
	__u32 hash = sum ^ (sum >> 10);

	/* clang would mask before the xor, after which Linux 6.1 knows no bounds. */
	asm volatile("" : "+r"(hash));
	return &shared.own.filter[hash & (OWN_FILTER - 1)];
}

static __always_inline __u8 own_generation(void)
{
	return *(const volatile __u8 *)&shared.own.generation;
}

/* No: it is certainly not ours. */
static __always_inline bool own_maybe(const struct parsed *p)
{
	__u8 cell = *own_cell(p->sport, p->dport);

	return cell && (__u8)(own_generation() - cell) < OWN_GENERATIONS;
}

/* Is there a stream at all? */
static __always_inline bool own_active(void)
{
	return *(const volatile __u64 *)&shared.own.cookies[0] != 0;
}

/* The cookie of the sending socket when it is one of ours, else 0. */
static __always_inline __u64 own_cookie(struct ps_ctx *ctx)
{
	const volatile __u64 *cookies = shared.own.cookies;
	__u64 cookie;

	cookie = ctx_socket_cookie(ctx);
	if (!cookie)
		return 0;
	return cookie == cookies[0] || cookie == cookies[1] || cookie == cookies[2] ||
			       cookie == cookies[3]
		       ? cookie
		       : 0;
}

static __always_inline bool own_tcp(struct ps_ctx *ctx, const struct parsed *p,
				    struct addresses *ret)
{
	return p->proto == IPPROTO_TCP && p->has_ports && !parse_addresses(ctx, p, ret);
}

static __always_inline void own_remember(const struct addresses *a, __u8 family, __u16 sport,
					 __u16 dport, __u64 cookie)
{
	struct own_flow value = {cookie, bpf_ktime_get_boot_ns()};
	struct own_flow *known;
	struct flow flow;

	parse_make_flow(a, family, sport, dport, &flow);
	known = bpf_map_lookup_elem(&own_flows, &flow);
	if (known)
		*known = value;
	else
		bpf_map_update_elem(&own_flows, &flow, &value, BPF_ANY);
	*own_cell(sport, dport) = own_generation();
}

/*
 * A packet that left with one of our cookies: remember its flow as it looks here.
 *
 * The collector's packets look like that, turned round, but for those of a
 * collector on this host that we reach by the address of a service: the kernel
 * undoes NAT where they are sent, so over loopback they come as our socket has them.
 */
static __always_inline void own_learn(struct ps_ctx *ctx, const struct parsed *p, __u64 cookie)
{
	struct ctx_end local, peer;
	struct addresses a;

	if (!own_tcp(ctx, p, &a))
		return;
	own_remember(&a, p->family, p->sport, p->dport, cookie);
	if (!ctx_socket_ends(ctx, p->family, &local, &peer))
		return;
	a = (struct addresses){{local.addr[0], local.addr[1]}, {peer.addr[0], peer.addr[1]}};
	own_remember(&a, p->family, local.port, peer.port, cookie);
}

static __always_inline bool own_known(struct ps_ctx *ctx, const struct parsed *p)
{
	const volatile __u64 *cookies = shared.own.cookies;
	struct own_flow *known;
	struct addresses a;
	struct flow flow;
	__u64 now;

	if (!own_maybe(p) || !own_tcp(ctx, p, &a))
		return false;
	parse_make_flow(&a, p->family, p->sport, p->dport, &flow);
	known = bpf_map_lookup_elem(&own_flows, &flow);
	if (!known)
		return false;
	now = bpf_ktime_get_boot_ns();
	if (known->cookie != cookies[0] &&
	    (__s64)(now - known->last_used) > (__s64)OWN_FLOW_GRACE_NS)
		return false;
	known->last_used = now;
	return true;
}

#endif
