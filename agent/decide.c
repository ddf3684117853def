// SPDX-License-Identifier: Apache-2.0
/*
 * bpf/rules.h and take() of bpf/engine.h in user space, step for step; bpf/parse.h, select.h and
 * slice.h are the same files. What these ask of maps and knobs is given to them below, for
 * the one packet that is being decided on. The hash map of fragments, which forgets what was used
 * least recently, is a table of sets of four here, in which the oldest makes room.
 */
#include "decide.h"

#include "ctx_user.h"
#include "parse.h"
#include "util.h"

#define WAYS          4u
#define FRAGMENT_SETS (FRAGMENTS / WAYS)

#define TCPOPT_END       0
#define TCPOPT_NOP       1
#define TCPOPT_TIMESTAMP 8

struct fragment {
	struct datagram key;
	uint64_t mask;
	nsec_t time; /* 0: free */
};

struct decide {
	struct decide_config config;
	struct knobs knobs;
	struct degrade degrade;
	struct fragment *fragments; /* by set, WAYS of each */
	struct recent_row *recent;
	struct bucket *buckets; /* BUCKETS */
	struct work work;       /* what the budget refused; nothing is timed here */
	const struct expression *expressions[EXPRESSIONS];
};

/* From here to the includes: a world for select.h and slice.h. */
static _Thread_local struct knobs knobs;
static _Thread_local nsec_t packet_time;
static _Thread_local struct recent_map {
	struct recent_row *v;
} recent;
static _Thread_local struct buckets_map {
	struct bucket *v;
} buckets;
static _Thread_local struct work_map {
	struct work *v;
} work;

static struct recent_row *recent_lookup(struct recent_map *m, const void *key)
{
	return &m->v[*(const __u32 *)key];
}

static struct bucket *bucket_lookup(struct buckets_map *m, const void *key)
{
	return &m->v[*(const __u32 *)key];
}

static struct work *work_lookup(struct work_map *m, const void *key)
{
	(void)key;
	return m->v;
}

#define bpf_map_lookup_elem(map, key)                  \
	_Generic((map), struct recent_map *            \
		 : recent_lookup, struct buckets_map * \
		 : bucket_lookup, struct work_map *    \
		 : work_lookup)(map, key)
#define bpf_ktime_get_boot_ns() packet_time
#define bpf_spin_lock(lock)     ((void)(lock))
#define bpf_spin_unlock(lock)   ((void)(lock))
#define locked_bucket           bucket

#include "select.h"
#include "slice.h"

struct decide *decide_new(const struct decide_config *config)
{
	struct decide *d = calloc(1, sizeof(*d));

	if (!d)
		return NULL;
	d->config = *config;
	d->knobs = (struct knobs){
		.snaplen = config->snaplen,
		.dedup_window = config->dedup_window,
		.need_ports = config->port_masks != NULL,
		.limit_agent = config->limit_agent,
	};
	for (unsigned int port = 0; config->port_masks && port < 65536; port++)
		d->knobs.ignore_mask |= config->port_masks[port] & PORT_IGNORE;
	d->fragments = calloc(FRAGMENTS, sizeof(*d->fragments));
	d->buckets = calloc(BUCKETS, sizeof(*d->buckets));
	if (config->dedup_window)
		d->recent = calloc(RECENT_ROWS, sizeof(*d->recent));
	if (!d->fragments || !d->buckets || (config->dedup_window && !d->recent))
		return decide_free(d);
	return d;
}

struct decide *decide_free(struct decide *d)
{
	if (!d)
		return NULL;
	free(d->fragments);
	free(d->buckets);
	free(d->recent);
	free(d);
	return NULL;
}

void decide_set_expression(struct decide *d, uint32_t slot, const struct expression *e)
{
	d->expressions[slot] = e;
}

void decide_set_bucket(struct decide *d, uint32_t key, const struct bucket *b)
{
	d->buckets[key] = *b;
}

void decide_degrade(struct decide *d, const struct degrade *degrade)
{
	/* As rule_table_degrade(). */
	if (degrade->burst_ns != d->degrade.burst_ns)
		d->buckets[BUCKET_BUDGET] = (struct bucket){};
	d->degrade = *degrade;
}

struct work decide_work(const struct decide *d)
{
	return d->work;
}

static struct fragment *set_of(struct decide *d, const struct datagram *key)
{
	const struct addresses *a = &key->addresses;
	uint64_t h = hash_mix(hash_mix(hash_mix(a->src[0], a->src[1]), a->dst[0]), a->dst[1]);

	return &d->fragments[hash_mix(h, key->id) % FRAGMENT_SETS * WAYS];
}

static struct fragment *find(struct fragment *set, const struct datagram *key)
{
	for (unsigned int i = 0; i < WAYS; i++)
		if (set[i].time && !memcmp(&set[i].key, key, sizeof(*key)))
			return &set[i];
	return NULL;
}

static void learn(struct fragment *set, const struct fragment *f)
{
	struct fragment *at = find(set, &f->key);

	for (unsigned int i = 0; !at && i < WAYS; i++)
		if (!set[i].time)
			at = &set[i];
	if (!at) {
		at = set;
		for (unsigned int i = 1; i < WAYS; i++)
			if (set[i].time < at->time)
				at = &set[i];
	}
	*at = *f;
}

/* The PORT_ bits of a packet; a later fragment has those of its first. */
static uint64_t mask_of(struct decide *d, struct ps_ctx *ctx, const struct parsed *p)
{
	struct fragment f = {.time = packet_time};
	struct fragment *set, *known;

	if (p->has_ports)
		f.mask = d->config.port_masks[p->sport] | d->config.port_masks[p->dport];
	if (p->fragment == FRAGMENT_NONE || parse_datagram(ctx, p, &f.key))
		return f.mask;
	set = set_of(d, &f.key);
	if (p->fragment == FRAGMENT_FIRST) {
		learn(set, &f);
		return f.mask;
	}
	known = find(set, &f.key);
	return known && (int64_t)(packet_time - known->time) <= (int64_t)FRAGMENT_TTL_NS
		       ? known->mask
		       : 0;
}

/* The time stamp among the options of the TCP header at @l4. */
static bool find_timestamp(const struct ps_ctx *ctx, uint32_t l4, uint32_t *ret)
{
	uint32_t at = l4 + 20, end;
	uint8_t offset, option[2];

	if (ctx_read(ctx, l4 + 12, &offset))
		return false;
	end = l4 + (offset >> 4) * 4;
	while (at < end && !ctx_load(ctx, at, option, 1) && option[0] != TCPOPT_END) {
		if (option[0] == TCPOPT_NOP) {
			at++;
			continue;
		}
		if (ctx_read(ctx, at, &option) || option[1] < 2)
			return false;
		if (option[0] == TCPOPT_TIMESTAMP && !ctx_read(ctx, at + 2, ret)) {
			*ret = ntohl(*ret);
			return true;
		}
		at += option[1];
	}
	return false;
}

static bool is_own(struct decide *d, struct ps_ctx *ctx, const struct parsed *p)
{
	struct ownflow_packet own = {
		.sport = p->sport, .dport = p->dport, .family = p->family, .time = packet_time};
	struct addresses a;

	if (p->proto != IPPROTO_TCP || !p->has_ports || parse_addresses(ctx, p, &a))
		return false;
	memcpy(own.src, a.src, sizeof(own.src));
	memcpy(own.dst, a.dst, sizeof(own.dst));
	if (ctx_read(ctx, p->l3 + (p->family == 4 ? 8 : 7), &own.ttl))
		return false;
	own.has_timestamp = find_timestamp(ctx, p->l4, &own.timestamp);
	return ownflow_has(d->config.own, &own);
}

static bool pick(struct decide *d, struct ps_ctx *ctx, const struct iface_rule *rule,
		 const struct parsed *p)
{
	bool look = knobs.need_ports && (rule->mask | knobs.ignore_mask);
	uint64_t mask = look ? mask_of(d, ctx, p) : 0;

	if (((mask & rule->mask) != 0) == rule->invert || (mask & PORT_IGNORE))
		return false;
	return !d->config.own || !ownflow_active(d->config.own) || !is_own(d, ctx, p);
}

/* As bpf/engine.h. */
static struct decide_verdict take(struct ps_ctx *ctx, const struct iface_rule *rule,
				  const struct degrade *degrade,
				  const struct capture_counts *counts, const struct parsed *p,
				  uint32_t len, enum direction direction)
{
	uint32_t whole = MIN(len, knobs.snaplen);
	struct recent_place recent_place = {};
	uint32_t caplen;

	if (knobs.dedup_window && (rule->asks & RULE_DEDUP) &&
	    select_duplicate(ctx, rule, p, direction == DIRECTION_EGRESS, &recent_place))
		return (struct decide_verdict){CAPTURE_RULED_OUT, CAPTURE_DUPLICATES, 0};
	if (!select_sample(ctx, rule, degrade, counts, p))
		return (struct decide_verdict){CAPTURE_SAMPLED_OUT, CAPTURE_COUNTERS, 0};
	caplen = slice(ctx, rule, degrade, p, whole, false);
	if (!select_limit(rule, len) || !select_budget(degrade, caplen))
		return (struct decide_verdict){CAPTURE_SAMPLED_OUT, CAPTURE_RATE_LIMITED, 0};
	select_remember(&recent_place);
	return (struct decide_verdict){
		.counter = CAPTURE_CAPTURED,
		.part = caplen < whole ? CAPTURE_SLICED : CAPTURE_COUNTERS,
		.caplen = MIN(caplen, ctx->caplen),
	};
}

static void count(struct capture_counts *counts, enum capture_counter counter, uint32_t len)
{
	if (counter == CAPTURE_COUNTERS)
		return;
	counts->packets[counter]++;
	counts->bytes[counter] += len;
}

struct decide_verdict decide_packet(struct decide *d, const struct iface_rule *rule,
				    struct capture_counts *counts, const struct decide_packet *p)
{
	const struct expression *e = d->expressions[rule->asks & RULE_EXPRESSION];
	struct decide_verdict v = {CAPTURE_RULED_OUT, CAPTURE_COUNTERS, 0};
	struct ps_ctx ctx = {.data = p->data, .caplen = p->caplen};
	struct parsed parsed;

	knobs = d->knobs;
	work.v = &d->work;
	recent.v = d->recent;
	buckets.v = d->buckets;
	packet_time = p->time;
	count(counts, CAPTURE_SEEN, p->len);
	parse(&ctx, rule->raw_ip, &parsed);
	if (pick(d, &ctx, rule, &parsed)) {
		if (e && !expression_match(e, p->direction, p->data, p->caplen, p->len))
			v.counter = CAPTURE_EXPRESSION_OUT;
		else
			v = take(&ctx, rule, &d->degrade, counts, &parsed, p->len, p->direction);
	}
	count(counts, v.counter, p->len);
	count(counts, v.part, p->len);
	return v;
}
