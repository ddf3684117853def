/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the capture programs do, whatever their hook. Needs the verbs of a ctx_*.h, and those
 * of emit.h or divert.h for what becomes of a wanted packet.
 *
 *	enter() ---------------------------------------------------> output
 *	   \-> find_inner() -> the expression's program -> decided() -> output
 *
 * With several network namespaces a program that notes the number of its own
 * (agent/netns_entry.c) comes before enter().
 *
 * An entry program runs for every packet of a captured interface with bottom halves off,
 * so never twice at a time on a CPU: it looks up the interface's rule, counts, decides by
 * ports and copies. When the rule asks for more than that, it hands over by tail calls, each to
 * a program that the verifier judges alone: to what finds the packet in a tunnel, to the
 * expression, to sampling, limits and slices; each may be left out. With emit.h none ever changes
 * a packet, and whatever happens they leave its fate to the next program.
 *
 * Every packet that has a rule is counted as seen and in exactly one other counter.
 * On big-endian machines the blocks would need byte swaps; none is supported.
 */
#ifndef PS_ENGINE_H
#define PS_ENGINE_H

#include "rules.h"
#include "select.h"
#include "slice.h"
#include "tunnel.h"

/* A filter that outlived its agent must not go on working. */
static __always_inline bool alive(void)
{
	const volatile struct heartbeat *beat;
	__u64 last, now;
	__u32 zero = 0;

	beat = bpf_map_lookup_elem(&heartbeat, &zero);
	if (!beat)
		return false;
	/* The next beat may come in between, later than now. */
	last = beat->boottime_ns;
	now = bpf_ktime_get_boot_ns();
	return (__s64)(now - last) < (__s64)HEARTBEAT_STALE_NS;
}

static __always_inline void count(struct capture_counts *counts, enum capture_counter counter,
				  __u32 len)
{
	counts->packets[counter]++;
	counts->bytes[counter] += len;
}

static __always_inline struct capture_counts *counts_of(const struct iface_rule *rule, bool egress)
{
	__u32 key = 2 * rule->slot + egress;

	return bpf_map_lookup_elem(&counters, &key);
}

static __always_inline struct iface_rule *rule_of(__u32 netns, __u32 ifindex)
{
	__u64 key = IFACE_KEY(netns, ifindex);
	struct iface_cell *cell = &shared.cells[IFACE_CELL(key)];

	if (*(volatile __u64 *)&cell->key == key)
		return &cell->rule;
	return bpf_map_lookup_elem(&interfaces, &key);
}

/* At the egress of an interface that is captured at ingress only. */
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

/* Read once for each packet, as it changes under the programs. */
static __always_inline void degrade_now(struct degrade *to)
{
	const volatile struct degrade *from = &shared.degrade;

	to->slice = from->slice;
	to->sample_flows = from->sample_flows;
	to->ns_per_byte = from->ns_per_byte;
	to->burst_ns = from->burst_ns;
}

/* 0: the packet, which has been counted, is none of those that are measured. */
static __always_inline __u64 work_begin(const struct capture_counts *counts)
{
	if (counts->packets[CAPTURE_SEEN] % WORK_EVERY)
		return 0;
	return bpf_ktime_get_boot_ns();
}

static __always_inline void work_end(__u64 started, __u32 len)
{
	__u32 zero = 0;
	struct work *w;
	__u64 took;

	if (!started)
		return;
	took = bpf_ktime_get_boot_ns() - started;
	w = bpf_map_lookup_elem(&work, &zero);
	if (w)
		w->timed_ns += took < WORK_MOST_NS(len) ? took : WORK_MOST_NS(len);
}

/* Does anything look into the packet? */
static __always_inline bool look(const struct iface_rule *rule, __u32 asks,
				 const struct degrade *degrade)
{
	return rules_look_at_ports(rule) || own_active() ||
	       (asks &
		(RULE_EXPRESSION_L3 | RULE_EXPRESSION_INNER | RULE_SAMPLE_FLOWS | RULE_DEDUP)) ||
	       ((rule->slice | degrade->slice) & SLICE_L4) || degrade->sample_flows;
}

/* What becomes of a packet that rules and expression let through, when there is more to ask. */
static __always_inline enum capture_counter take(struct ps_ctx *ctx, const struct iface_rule *rule,
						 const struct degrade *degrade,
						 struct capture_counts *counts,
						 const struct parsed *p, __u32 len, __be32 tag,
						 enum direction direction)
{
	__u32 whole = len > knobs.snaplen ? knobs.snaplen : len;
	struct recent_place recent_place = {};
	enum capture_counter counter;
	__u32 caplen;

	if (knobs.dedup_window && (rule->asks & RULE_DEDUP) &&
	    select_duplicate(ctx, rule, p, direction == DIRECTION_EGRESS, &recent_place)) {
		count(counts, CAPTURE_RULED_OUT, len);
		count(counts, CAPTURE_DUPLICATES, len);
		return CAPTURE_RULED_OUT;
	}
	if (!select_sample(ctx, rule, degrade, counts, p)) {
		count(counts, CAPTURE_SAMPLED_OUT, len);
		return CAPTURE_SAMPLED_OUT;
	}
	caplen = slice(ctx, rule, degrade, p, whole, tag);
	if (!select_limit(rule, len) || !select_budget(degrade, caplen)) {
		count(counts, CAPTURE_SAMPLED_OUT, len);
		count(counts, CAPTURE_RATE_LIMITED, len);
		return CAPTURE_SAMPLED_OUT;
	}
	if (caplen > CTX_REACH)
		caplen = CTX_REACH;
	counter = output(ctx, rule, len, caplen, tag, direction);
	count(counts, counter, len);
	if (counter != CAPTURE_CAPTURED)
		return counter;
	select_remember(&recent_place);
	if (caplen < whole)
		count(counts, CAPTURE_SLICED, len);
	return counter;
}

/* Is there more to ask than ports? */
static __always_inline bool is_special(const struct iface_rule *rule, __u32 asks,
				       const struct degrade *degrade)
{
	return asks || rule->slice || rule->sample || knobs.limit_agent || degrade->slice ||
	       degrade->sample_flows || degrade->ns_per_byte;
}

/* Only returns when the next program is missing. */
static __always_inline void ask_expression(struct ps_ctx *ctx, __u32 asks)
{
	if (asks & RULE_EXPRESSION)
		bpf_tail_call(ctx, &expressions, asks & RULE_EXPRESSION);
	else
		bpf_tail_call(ctx, &stages, STAGE_DECIDED);
}

/* Only returns when the next program is missing. */
static __always_inline void hand_over(struct ps_ctx *ctx, const struct iface_rule *rule, __u32 asks,
				      const struct degrade *degrade, const struct parsed *p,
				      __u32 len, __be32 tag, enum direction direction,
				      __u64 started)
{
	__u32 zero = 0;
	struct handover *h = bpf_map_lookup_elem(&scratch, &zero);

	if (!h)
		return;
	h->s.len = len;
	h->s.tag = tag;
	h->s.l3 = p->l3;
	h->s.family = p->says;
	h->s.direction = direction;
	h->s.pick = 1;
	h->p = *p;
	h->rule = *rule;
	h->rule.asks = asks;
	h->degrade = *degrade;
	h->started = started;
	if (asks & RULE_EXPRESSION_INNER)
		bpf_tail_call(ctx, &stages, STAGE_FIND_INNER);
	else
		ask_expression(ctx, asks);
}

/* The number that was noted. */
static __always_inline __u32 noted_netns(void)
{
	__u32 zero = 0;
	struct handover *h = bpf_map_lookup_elem(&scratch, &zero);

	return h ? h->s.netns : 0;
}

static __always_inline int enter(struct ps_ctx *ctx, enum direction direction, __u32 netns)
{
	bool egress = direction == DIRECTION_EGRESS;
	enum capture_counter counter;
	struct capture_counts *counts;
	struct parsed p = {}; /* all of it: clang may copy what is not used yet */
	struct degrade degrade;
	struct iface_rule *rule;
	__u64 started;
	__u32 asks;
	__be32 tag;
	__u32 len;

	rule = rule_of(netns, ctx_ifindex(ctx));
	if (!rule || (knobs.check_heartbeat && !alive()))
		return CTX_PASS;
	if (egress && rule->ingress_only) {
		learn(ctx, rule);
		return CTX_PASS;
	}
	counts = counts_of(rule, egress);
	if (!counts)
		return CTX_PASS;
	tag = rule->raw_ip ? 0 : ctx_tag(ctx);
	len = ctx_len(ctx) + (tag ? sizeof(tag) : 0);
	count(counts, CAPTURE_SEEN, len);
	started = work_begin(counts);
	degrade_now(&degrade);
	asks = *(const volatile __u32 *)&rule->asks;
	if (look(rule, asks, &degrade))
		parse(ctx, rule->raw_ip, &p);
	if (!rules_pick(ctx, rule, &p, egress || netns)) {
		counter = CAPTURE_RULED_OUT;
	} else if (is_special(rule, asks, &degrade) || len > CTX_REACH) {
		hand_over(ctx, rule, asks, &degrade, &p, len, tag, direction, started);
		counter = CAPTURE_LOST_ERROR;
	} else {
		counter = output(ctx, rule, len, len > knobs.snaplen ? knobs.snaplen : len, tag,
				 direction);
	}
	count(counts, counter, len);
	work_end(started, len);
	return output_verdict(counter);
}

static __always_inline int find_inner(struct ps_ctx *ctx)
{
	__u32 zero = 0;
	struct handover *h = bpf_map_lookup_elem(&scratch, &zero);
	struct capture_counts *counts;

	if (!h)
		return CTX_PASS;
	tunnel_parse(ctx, &h->p, &h->s);
	ask_expression(ctx, h->rule.asks);
	counts = counts_of(&h->rule, h->s.direction == DIRECTION_EGRESS);
	if (counts)
		count(counts, CAPTURE_LOST_ERROR, h->s.len);
	return output_verdict(CAPTURE_LOST_ERROR);
}

/* The expression, if any, has been asked. */
static __always_inline int decided(struct ps_ctx *ctx)
{
	struct capture_counts *counts;
	__u32 zero = 0;
	struct handover *h = bpf_map_lookup_elem(&scratch, &zero);
	enum capture_counter counter;
	enum direction direction;

	if (!h)
		return CTX_PASS;
	direction = h->s.direction;
	counts = counts_of(&h->rule, direction == DIRECTION_EGRESS);
	if (!counts)
		return CTX_PASS;
	if (h->s.pick) {
		counter = take(ctx, &h->rule, &h->degrade, counts, &h->p, h->s.len, h->s.tag,
			       direction);
	} else {
		counter = CAPTURE_EXPRESSION_OUT;
		count(counts, counter, h->s.len);
	}
	work_end(h->started, h->s.len);
	return output_verdict(counter);
}

#endif
