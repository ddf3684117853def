/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which of the packets that rules and expression let through are taken: no duplicates,
 * one in so many packets or flows, as many as the rate limits and the budget allow. In this
 * order, so that a duplicate is not counted twice in a sample, and what sampling leaves out
 * uses up no limit. Needs the maps (agent/decide.c has others than maps.h).
 */
#ifndef PS_SELECT_H
#define PS_SELECT_H

#include "parse.h"

#define HASH_FACTOR 0x9e3779b97f4a7c15ull
#define DEDUP_WORDS 16u
#define DEDUP_TAIL  4u /* words */

/* As little-endian words of the IP header and what follows it: */
#define IPV4_MUTABLE      0x00000000ffff00ffull /* TTL and checksum, in word 1 */
#define IPV6_MUTABLE      0xff00000000000000ull /* hop limit, in word 0 */
#define IPV4_TCP_CHECKSUM 0x0000ffff00000000ull /* in word 4 */
#define IPV4_UDP_CHECKSUM 0x00000000ffff0000ull /* in word 3 */
#define IPV6_TCP_CHECKSUM 0x000000000000ffffull /* in word 7 */
#define IPV6_UDP_CHECKSUM 0xffff000000000000ull /* in word 5 */

static __always_inline __u64 hash_mix(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * HASH_FACTOR;
	return hash ^ hash >> 32;
}

/* Bytes from the IP header on, without what an Ethernet card pads a short frame with. */
static __always_inline __u32 dedup_len(struct ps_ctx *ctx, const struct parsed *p, __u32 off)
{
	__u32 there = ctx_len(ctx) - off, len = 0;
	__be16 told;

	if (p->family == 4 && !ctx_read(ctx, off + 2, &told))
		len = bpf_ntohs(told);
	else if (p->family == 6 && !ctx_read(ctx, off + 4, &told) && told)
		len = bpf_ntohs(told) + 40;
	/* 0: larger than the field can say (BIG TCP). */
	return len && len < there ? len : there;
}

/*
 * What changes on the way: the hops and what follows from them, and the checksum of TCP or
 * UDP, which is not there yet as long as a device is expected to compute it.
 */
static __always_inline void dedup_mask(const struct parsed *p, __u64 words[DEDUP_WORDS])
{
	bool tcp = p->has_ports && p->proto == IPPROTO_TCP;
	bool udp = p->has_ports && p->proto == IPPROTO_UDP;

	if (p->family == 4) {
		words[1] &= ~IPV4_MUTABLE;
		if (tcp && p->l4 == p->l3 + 20)
			words[4] &= ~IPV4_TCP_CHECKSUM;
		else if (udp && p->l4 == p->l3 + 20)
			words[3] &= ~IPV4_UDP_CHECKSUM;
	} else if (p->family == 6) {
		words[0] &= ~IPV6_MUTABLE;
		if (tcp && p->l4 == p->l3 + 40)
			words[7] &= ~IPV6_TCP_CHECKSUM;
		else if (udp && p->l4 == p->l3 + 40)
			words[5] &= ~IPV6_UDP_CHECKSUM;
	}
}

/*
 * A hash of what stays the same from one interface to the next, bridged, tagged or routed: of an
 * IP packet without link layer, of another one all of it; the beginning and the end.
 * 0: there is nothing to tell it by.
 */
static __always_inline __u64 dedup_hash(struct ps_ctx *ctx, const struct parsed *p)
{
	__u32 off = p->family ? p->l3 : 0, len = dedup_len(ctx, p, off);
	__u64 words[DEDUP_WORDS] = {};
	__u64 hash = len, n = len;

	if (n > sizeof(words))
		n = sizeof(words);
	asm volatile("" : "+r"(n));
	if ((__s64)n < 1 || n > sizeof(words) || ctx_load(ctx, off, words, n))
		return 0;
	dedup_mask(p, words);
	for (__u32 i = 0; i < DEDUP_WORDS && i * sizeof(*words) < n; i++)
		hash = hash_mix(hash, words[i]);
	if (len <= sizeof(words))
		return hash;
	if (ctx_load(ctx, off + len - DEDUP_TAIL * sizeof(*words), words,
		     DEDUP_TAIL * sizeof(*words)))
		return 0;
	for (__u32 i = 0; i < DEDUP_TAIL; i++)
		hash = hash_mix(hash, words[i]);
	return hash;
}

/* Where a packet that is no duplicate is to be remembered. */
struct recent_place {
	volatile struct recent_row *row; /* each word is read and written once; NULL: nowhere */
	__u64 hash, seen;
	__u32 way;
};

/*
 * Was the packet captured at another point within the window? The same point again is another
 * packet with the same contents.
 */
static __always_inline bool select_duplicate(struct ps_ctx *ctx, const struct iface_rule *rule,
					     const struct parsed *p, bool egress,
					     struct recent_place *ret)
{
	__u64 point = rule->slot << 1 | egress, hash = dedup_hash(ctx, p);
	__u64 now = bpf_ktime_get_boot_ns() >> RECENT_TIME_SHIFT;
	__u32 key = hash & (RECENT_ROWS - 1), oldest = 0;
	__u64 oldest_seen = ~0ull;
	volatile struct recent_row *row = NULL;

	if (hash)
		row = bpf_map_lookup_elem(&recent, &key);
	if (!row)
		return false;
	for (__u32 i = 0; i < RECENT_WAYS; i++) {
		__u64 seen = row->v[i].seen;

		if (seen < oldest_seen) {
			oldest_seen = seen;
			oldest = i;
		}
		if ((row->v[i].check ^ seen) != hash)
			continue;
		if ((seen & RECENT_POINT) != point &&
		    (__s64)(now - (seen >> RECENT_POINT_BITS)) <=
			    (__s64)(knobs.dedup_window >> RECENT_TIME_SHIFT))
			return true;
		oldest = i;
		break;
	}
	ret->row = row;
	ret->hash = hash;
	ret->seen = point | now << RECENT_POINT_BITS;
	ret->way = oldest;
	return false;
}

/* It is captured: the next one is a duplicate. */
static __always_inline void select_remember(const struct recent_place *place)
{
	volatile struct recent_row *row = place->row;

	if (!row)
		return;
	row->v[place->way & (RECENT_WAYS - 1)].seen = place->seen;
	row->v[place->way & (RECENT_WAYS - 1)].check = place->seen ^ place->hash;
}

/* One end of a flow. Hashed before the two are added: (a, 1) and (b, 2) are not (a, 2) and (b, 1).
 */
static __always_inline __u64 flow_end(const __u64 *addr, __u16 port)
{
	return hash_mix(hash_mix(hash_mix(0, addr[0]), addr[1]), port);
}

/*
 * The same for both directions, and on every host. Fragments have no ports, and in IPv6 the later
 * ones do not say their protocol, so all fragments between two hosts are one flow; what is not IP
 * goes by its MAC addresses.
 */
static __always_inline __u64 flow_hash(struct ps_ctx *ctx, const struct parsed *p)
{
	bool whole = p->fragment == FRAGMENT_NONE;
	bool ports = p->has_ports && whole;
	struct addresses a = {};

	if (!p->family) {
		if (ctx_load(ctx, 0, a.dst, 6) || ctx_load(ctx, 6, a.src, 6))
			return 0;
	} else if (parse_addresses(ctx, p, &a)) {
		return 0;
	}
	return hash_mix(flow_end(a.src, ports ? p->sport : 0) +
				flow_end(a.dst, ports ? p->dport : 0),
			whole ? p->proto : 0);
}

/*
 * The lowest n-th of all hashes (of their upper halves, which have most to do with what went in).
 * So what a sample leaves is in every larger one: asking for fewer keeps flows whole.
 */
static __always_inline bool flow_in_sample(__u64 hash, __u64 n)
{
	return (hash >> 32) * n < 1ull << 32;
}

/* One in n is the first, the (n+1)th ... of those that came so far on this CPU. */
static __always_inline bool select_sample(struct ps_ctx *ctx, const struct iface_rule *rule,
					  const struct degrade *degrade,
					  const struct capture_counts *counts,
					  const struct parsed *p)
{
	__u64 flows = 1;

	if (rule->sample > 1 && (rule->asks & RULE_SAMPLE_FLOWS)) {
		flows = rule->sample;
	} else if (rule->sample > 1) {
		__u64 came = counts->packets[CAPTURE_SEEN] - counts->packets[CAPTURE_RULED_OUT] -
			     counts->packets[CAPTURE_EXPRESSION_OUT] - 1;

		if (came % rule->sample)
			return false;
	}
	/* The budget's share is one of what the rule leaves: of the same hash, so multiplied. */
	if (degrade->sample_flows > 1)
		flows *= degrade->sample_flows;
	return flows <= 1 || flow_in_sample(flow_hash(ctx, p), flows);
}

/* Is there nothing left? As far as can be told without the lock. */
static __always_inline bool bucket_is_empty(const struct locked_bucket *b, __u64 now,
					    __u64 burst_ns)
{
	__u64 limit = now + burst_ns;

	return b->packets_at > limit || b->bytes_at > limit;
}

/*
 * Take what a packet costs. It may be larger than what is left: the next ones wait for it. False:
 * there is nothing left.
 */
static __always_inline bool bucket_take(struct locked_bucket *b, __u64 now, __u64 burst_ns,
					__u64 packet_cost, __u64 bytes_cost)
{
	__u64 packets_at, bytes_at;
	bool ok;

	/* Under overload most packets end here, and CPUs do not wait for each other. */
	if (bucket_is_empty(b, now, burst_ns))
		return false;
	bpf_spin_lock(&b->lock);
	packets_at = b->packets_at > now ? b->packets_at : now;
	bytes_at = b->bytes_at > now ? b->bytes_at : now;
	ok = packets_at - now <= burst_ns && bytes_at - now <= burst_ns;
	if (ok) {
		b->packets_at = packets_at + packet_cost;
		b->bytes_at = bytes_at + bytes_cost;
	}
	bpf_spin_unlock(&b->lock);
	return ok;
}

/* Rounded up, so that rounding never adds up to more than the limit. */
static __always_inline __u64 bytes_cost(__u64 len, __u64 ns_per_byte)
{
	return (len * ns_per_byte + (1u << BUCKET_FRACTION) - 1) >> BUCKET_FRACTION;
}

static __always_inline bool limit_take(__u32 key, __u64 now, __u32 len)
{
	struct locked_bucket *b = bpf_map_lookup_elem(&buckets, &key);

	return !b ||
	       bucket_take(b, now, b->burst_ns, b->ns_per_packet, bytes_cost(len, b->ns_per_byte));
}

/*
 * Both limits, of the interface and of the agent. What the agent's refuses must not use up the
 * interface's, so that one is looked at first; between the look and the taking another CPU may
 * empty it, and then the interface has paid for a packet that nobody gets.
 */
static __always_inline bool select_limit(const struct iface_rule *rule, __u32 len)
{
	__u32 agent = BUCKET_AGENT;
	struct locked_bucket *b;
	__u64 now;

	if (!(rule->asks & RULE_LIMIT) && !knobs.limit_agent)
		return true;
	now = bpf_ktime_get_boot_ns();
	if (knobs.limit_agent) {
		b = bpf_map_lookup_elem(&buckets, &agent);
		if (b && bucket_is_empty(b, now, b->burst_ns))
			return false;
	}
	if ((rule->asks & RULE_LIMIT) && !limit_take(BUCKET_IFACE(rule->slot), now, len))
		return false;
	return !knobs.limit_agent || limit_take(agent, now, len);
}

/* The budget's own limit, on what would be kept. */
static __always_inline bool select_budget(const struct degrade *degrade, __u32 caplen)
{
	__u32 key = BUCKET_BUDGET, zero = 0;
	struct locked_bucket *b;
	struct work *w;

	if (!degrade->ns_per_byte)
		return true;
	b = bpf_map_lookup_elem(&buckets, &key);
	if (!b || bucket_take(b, bpf_ktime_get_boot_ns(), degrade->burst_ns, 0,
			      bytes_cost(caplen + DEGRADE_PACKET, degrade->ns_per_byte)))
		return true;
	w = bpf_map_lookup_elem(&work, &zero);
	if (w)
		w->refused++;
	return false;
}

#endif
