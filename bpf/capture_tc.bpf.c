// SPDX-License-Identifier: Apache-2.0
/*
 * The capture programs for TC (a TCX link or a clsact filter), one for each
 * direction: look up the interface's rule, count, decide, copy.
 *
 * They run for every packet of a captured interface with bottom halves off, so
 * never twice at a time on a CPU. They never change a packet, and whatever happens
 * they leave its fate to the next program.
 *
 * Every packet that has a rule is counted as seen and in exactly one other counter.
 * On big-endian machines the blocks would need byte swaps; none is supported.
 */
/* clang-format off: the context's verbs come before what is written in them. */
#include "ctx_tc.h"
#include "emit.h"
#include "rules.h"
/* clang-format on */

/* A filter that outlived its agent must not go on working. */
static __always_inline bool alive(void)
{
	struct heartbeat *beat;
	__u32 zero = 0;

	beat = bpf_map_lookup_elem(&heartbeat, &zero);
	return beat && bpf_ktime_get_boot_ns() - beat->boottime_ns < HEARTBEAT_STALE_NS;
}

static __always_inline void count(struct capture_counts *counts, enum capture_counter counter,
				  __u32 len)
{
	counts->packets[counter]++;
	counts->bytes[counter] += len;
}

static __always_inline struct iface_rule *rule_of(__u32 ifindex)
{
	struct iface_cell *cell = &cells[ifindex & (IFACE_CELLS - 1)];

	if (*(volatile __u32 *)&cell->ifindex == ifindex)
		return &cell->rule;
	return bpf_map_lookup_elem(&interfaces, &ifindex);
}

/* At the egress of a loopback interface. */
static __always_inline void learn(struct ps_ctx *ctx, const struct iface_rule *rule)
{
	struct parsed p;
	__u64 cookie;

	if (!own_active())
		return;
	cookie = own_cookie(ctx);
	if (!cookie)
		return;
	parse(ctx, rule->raw_ip, &p);
	own_learn(ctx, &p, cookie);
}

static __always_inline int capture(struct ps_ctx *ctx, enum direction direction)
{
	bool egress = direction == DIRECTION_EGRESS;
	struct capture_counts *counts;
	struct iface_rule *rule;
	__be32 tag;
	__u32 len;
	__u32 key;

	rule = rule_of(ctx_ifindex(ctx));
	if (!rule || (check_heartbeat && !alive()))
		return CTX_PASS;
	if (egress && rule->ingress_only) {
		learn(ctx, rule);
		return CTX_PASS;
	}
	key = 2 * rule->slot + egress;
	counts = bpf_map_lookup_elem(&counters, &key);
	if (!counts)
		return CTX_PASS;
	tag = rule->raw_ip ? 0 : ctx_tag(ctx);
	len = ctx_len(ctx) + (tag ? sizeof(tag) : 0);
	count(counts, CAPTURE_SEEN, len);
	if (!rules_pick(ctx, rule, egress))
		count(counts, CAPTURE_RULED_OUT, len);
	else
		count(counts, emit(ctx, rule->id, len, tag, direction), len);
	return CTX_PASS;
}

SEC("tc")
int ps_tc_ingress(struct ps_ctx *ctx)
{
	return capture(ctx, DIRECTION_INGRESS);
}

SEC("tc")
int ps_tc_egress(struct ps_ctx *ctx)
{
	return capture(ctx, DIRECTION_EGRESS);
}

/* No helper in use asks for a GPL-compatible one. */
char LICENSE[] SEC("license") = "Apache-2.0";
