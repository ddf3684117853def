// SPDX-License-Identifier: Apache-2.0
/*
 * How much is taken, by test runs and over a veth pair: slices, samples, rate limits, and
 * what the budget asks on top.
 */
#include <bpf/bpf.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "bpfenv.h"
#include "shapes.h"
#include "util.h"

#define A   "psa"
#define B   "psb"
#define TCP 6
#define UDP 17

static const struct capture_ops *const ops = &capture_ringbuf;
static struct env env;
static cpu_set_t home;

static void open_with(struct capture_config config)
{
	if (!config.snaplen)
		config.snaplen = 65535;
	config.ring_bytes = 8 << 20;
	env_open(&env, &config);
}

static int setup(void **state)
{
	(void)state;
	sched_getaffinity(0, sizeof(home), &home);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	sched_setaffinity(0, sizeof(home), &home);
	if (!env_skip_reason && env.capture)
		env_close(&env);
	env.capture = NULL;
	return 0;
}

/* What is counted for one CPU needs one. */
static void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	assert_int_equal(sched_setaffinity(0, sizeof(set), &set), 0);
}

static int first_cpu(int after)
{
	for (int cpu = after; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &home))
			return cpu;
	return -1;
}

static void rule_on_lo(struct iface_rule rule)
{
	rule.id = 5;
	rule.invert = 1;
	env_rule(&env, LO, &rule);
}

static bool captured(const struct shape *s)
{
	return env_packet(&env, DIRECTION_INGRESS, s->data, s->len) == CAPTURE_CAPTURED;
}

/* As one would cut the packet by hand. */
struct cut {
	struct shape s;
	size_t l4_end; /* 0: not IP */
	bool raw;
};

static void payload(struct cut *c)
{
	c->l4_end = c->s.len;
	shape_fill(&c->s, 0x55, 400);
}

/* At @words of four bytes, options and all. */
static void tcp(struct cut *c, uint8_t words)
{
	shape_be16(&c->s, SPORT);
	shape_be16(&c->s, DPORT);
	shape_fill(&c->s, 0, 8);
	shape_bytes(&c->s, (uint8_t[]){(uint8_t)(words << 4), 0x10}, 2);
	shape_fill(&c->s, 0, 6);
	shape_fill(&c->s, 1, words > 5 ? (words - 5u) * 4 : 0);
}

static void udp(struct cut *c)
{
	shape_be16(&c->s, SPORT);
	shape_be16(&c->s, DPORT);
	shape_fill(&c->s, 0, 4);
}

static size_t expect_slice(const struct cut *c, uint32_t slice, uint32_t snaplen)
{
	size_t keep = slice;

	if (slice & SLICE_L4)
		keep = c->l4_end ? c->l4_end + (slice & ~SLICE_L4) : SLICE_NOT_IP;
	if (!slice || keep > c->s.len)
		keep = c->s.len;
	return MIN(keep, snaplen);
}

/* The last block is the packet, cut there; its length is the whole one. */
static void check_cut(const struct cut *c, uint32_t slice, uint32_t snaplen,
		      const struct capture_counts *before)
{
	struct capture_counts now = env_counts(&env, 0, DIRECTION_INGRESS);
	size_t keep = expect_slice(c, slice, snaplen);
	bool sliced = keep < MIN(c->s.len, snaplen);

	assert_int_equal(env_drain(&env), 1);
	env_check_block(&env.blocks[0], 5, c->s.data, keep, c->s.len, DIRECTION_INGRESS);
	assert_int_equal(now.packets[CAPTURE_SLICED] - before->packets[CAPTURE_SLICED], sliced);
	assert_int_equal(now.bytes[CAPTURE_SLICED] - before->bytes[CAPTURE_SLICED],
			 sliced * c->s.len);
}

static void check_slices(const struct cut *c, uint32_t snaplen)
{
	static const uint32_t slices[] = {
		0, 14, 15, 60, 128, 1000, SLICE_L4, SLICE_L4 | 1, SLICE_L4 | 100, SLICE_L4 | 5000};

	for (size_t i = 0; i < ARRAY_SIZE(slices); i++) {
		struct degrade degrade = {.slice = slices[i]}, none = {};
		struct capture_counts before = env_counts(&env, 0, DIRECTION_INGRESS);

		rule_on_lo((struct iface_rule){.slice = slices[i], .raw_ip = c->raw});
		assert_true(captured(&c->s));
		check_cut(c, slices[i], snaplen, &before);

		/* The budget's the same; and of two the shorter one. */
		before = env_counts(&env, 0, DIRECTION_INGRESS);
		rule_on_lo((struct iface_rule){.slice = i % 2 ? 0 : 2000, .raw_ip = c->raw});
		ops->degrade(env.capture, &degrade);
		assert_true(captured(&c->s));
		ops->degrade(env.capture, &none);
		check_cut(c, slices[i], snaplen, &before);
	}
}

static void transports(struct cut *c, const struct shape *head, void (*check)(struct cut *),
		       bool v6)
{
	static const struct {
		uint8_t proto, size;
	} fixed[] = {{17, 8}, {136, 8}, {132, 12}, {1, 8}, {58, 8},
		     {50, 0}, {47, 0},  {89, 0},   {59, 0}};

	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++) {
		c->s = *head;
		c->s.data[v6 ? head->len - 34 : head->len - 11] = fixed[i].proto;
		shape_fill(&c->s, 0xaa, fixed[i].size);
		payload(c);
		check(c);
	}
	for (uint8_t words = 0; words < 16; words++) {
		c->s = *head;
		c->s.data[v6 ? head->len - 34 : head->len - 11] = TCP;
		tcp(c, words);
		payload(c);
		check(c);
	}
	/* DCCP says its length elsewhere. */
	for (unsigned int words = 0; words < 60; words += 7) {
		c->s = *head;
		c->s.data[v6 ? head->len - 34 : head->len - 11] = 33;
		shape_be16(&c->s, SPORT);
		shape_be16(&c->s, DPORT);
		shape_bytes(&c->s, (uint8_t[]){(uint8_t)words}, 1);
		shape_fill(&c->s, 0, MAX(words, 3) * 4 - 5);
		payload(c);
		check(c);
	}
}

static void check_plain(struct cut *c)
{
	check_slices(c, 65535);
}

static void headers_end_where_those_of_layer_4_do(void **state)
{
	struct cut c = {};
	struct shape head;

	(void)state;
	ENV_SKIP();
	open_with((struct capture_config){});
	for (int tags = 0; tags < 3; tags++) {
		for (int v6 = 0; v6 < 2; v6++) {
			unsigned int type = v6 ? 0x86dd : 0x800;

			shape_ethernet(&head, tags ? 0x88a8 : type);
			for (int i = 0; i < tags; i++)
				shape_tag(&head, 7, i + 1 < tags ? 0x8100 : type);
			if (v6)
				shape_ipv6(&head, 0);
			else
				shape_ipv4(&head, 0, 0, 0, 1);
			transports(&c, &head, check_plain, v6);
		}
	}
	c.raw = true;
	head = (struct shape){};
	shape_ipv4(&head, 0, 0, 0, 1);
	transports(&c, &head, check_plain, false);
}

static void headers_go_past_options_and_extensions(void **state)
{
	static const uint8_t extensions[] = {0, 43, 51, 60, 135};
	struct cut c = {};

	(void)state;
	ENV_SKIP();
	open_with((struct capture_config){});
	for (size_t options = 4; options <= 40; options += 12) {
		shape_ethernet(&c.s, 0x800);
		shape_ipv4(&c.s, TCP, options, 0, 1);
		tcp(&c, 8);
		payload(&c);
		check_slices(&c, 65535);
	}
	for (size_t i = 0; i < ARRAY_SIZE(extensions); i++) {
		for (uint8_t len = 0; len < 4; len++) {
			shape_ethernet(&c.s, 0x86dd);
			shape_ipv6(&c.s, extensions[i]);
			shape_extension(&c.s, extensions[i], 60, len);
			shape_extension(&c.s, 60, UDP, 1);
			udp(&c);
			payload(&c);
			check_slices(&c, 65535);
		}
	}
}

static void fragments_and_what_is_not_ip_have_headers_too(void **state)
{
	struct cut c = {};

	(void)state;
	ENV_SKIP();
	open_with((struct capture_config){});
	for (int later = 0; later < 2; later++) {
		shape_ethernet(&c.s, 0x800);
		shape_ipv4(&c.s, UDP, 0, later ? 100 : 0x2000, 1);
		if (!later)
			udp(&c);
		payload(&c);
		check_slices(&c, 65535);

		shape_ethernet(&c.s, 0x86dd);
		shape_ipv6(&c.s, 44);
		shape_fragment(&c.s, TCP, later ? 0x0808 : 1, 9);
		if (!later)
			tcp(&c, 6);
		payload(&c);
		check_slices(&c, 65535);
	}
	shape_ethernet(&c.s, 0x88b5);
	payload(&c);
	c.l4_end = 0;
	check_slices(&c, 65535);
	/* Says IPv4, and is not. */
	shape_ethernet(&c.s, 0x800);
	shape_fill(&c.s, 0x15, 300);
	c.l4_end = 0;
	check_slices(&c, 65535);
}

static void the_snap_length_holds_with_every_slice(void **state)
{
	static const uint32_t snaplens[] = {64, 100, 300};
	struct cut c = {};

	(void)state;
	ENV_SKIP();
	shape_ethernet(&c.s, 0x800);
	shape_ipv4(&c.s, TCP, 0, 0, 1);
	tcp(&c, 5);
	payload(&c);
	for (size_t i = 0; i < ARRAY_SIZE(snaplens); i++) {
		open_with((struct capture_config){.snaplen = snaplens[i]});
		check_slices(&c, snaplens[i]);
		env_close(&env);
	}
	env.capture = NULL;
}

/* Egress has the outer tag in the data; at ingress the kernel has moved it into the metadata. */
static void a_tag_counts_wherever_it_is(void **state)
{
	static const uint32_t slices[] = {14, 17, 64, SLICE_L4, SLICE_L4 | 10};
	struct iface_rule rule = {.id = 10, .invert = 1};
	struct sockaddr_ll to = {.sll_family = AF_PACKET};
	struct cut c = {};

	(void)state;
	ENV_SKIP();
	env_run("ip", "link", "add", A, "type", "veth", "peer", "name", B, NULL);
	env_run("ip", "link", "set", A, "up", NULL);
	env_run("ip", "link", "set", B, "up", NULL);
	shape_ethernet(&c.s, 0x8100);
	shape_tag(&c.s, 0x2007, 0x800);
	shape_ipv4(&c.s, TCP, 0, 0, 1);
	tcp(&c, 7);
	payload(&c);
	to.sll_ifindex = (int)if_nametoindex(A);
	for (size_t i = 0; i < ARRAY_SIZE(slices); i++) {
		_cleanup_close_ int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
		size_t keep = expect_slice(&c, slices[i], 65535);

		open_with((struct capture_config){});
		rule.slice = slices[i];
		rule.slot = 0;
		env_attach(&env, A, &rule);
		rule.slot = 1;
		env_attach(&env, B, &rule);
		assert_int_equal(
			sendto(fd, c.s.data, c.s.len, 0, (struct sockaddr *)&to, sizeof(to)),
			c.s.len);
		env_expect(&env, 2);
		env_check_block(&env.blocks[0], 10, c.s.data, keep, c.s.len, DIRECTION_EGRESS);
		env_check_block(&env.blocks[1], 10, c.s.data, keep, c.s.len, DIRECTION_INGRESS);
		assert_int_equal(env_counts(&env, 0, DIRECTION_EGRESS).packets[CAPTURE_SLICED], 1);
		assert_int_equal(env_counts(&env, 1, DIRECTION_INGRESS).packets[CAPTURE_SLICED], 1);
		env_close(&env);
	}
	env.capture = NULL;
	env_run("ip", "link", "del", A, NULL);
}

static void small_packet(struct shape *s)
{
	struct cut c = {};

	shape_ethernet(&c.s, 0x800);
	shape_ipv4(&c.s, UDP, 0, 0, 1);
	udp(&c);
	payload(&c);
	*s = c.s;
}

static void one_in_n_packets_exactly_on_each_cpu(void **state)
{
	static const uint32_t ns[] = {1, 2, 3, 10, 1000};
	struct shape s;

	(void)state;
	ENV_SKIP();
	small_packet(&s);
	for (size_t i = 0; i < ARRAY_SIZE(ns); i++) {
		open_with((struct capture_config){});
		rule_on_lo((struct iface_rule){.sample = ns[i]});
		for (int cpu = first_cpu(0); cpu >= 0; cpu = first_cpu(cpu + 1)) {
			run_on(cpu);
			for (uint32_t k = 0; k < 2 * ns[i] + 1; k++)
				assert_int_equal(captured(&s), k % ns[i] == 0);
		}
		env_close(&env);
	}
	env.capture = NULL;
}

static uint32_t rnd(void)
{
	static uint64_t x = 88172645463325252u;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return (uint32_t)(x >> 16);
}

/* A packet of a flow between two ends of @bytes each (address, then port). */
static void flow_packet(struct shape *s, uint8_t proto, bool v6, const uint8_t *from,
			const uint8_t *to, uint8_t flags)
{
	struct cut c = {};
	size_t n = v6 ? 16 : 4;

	shape_ethernet(&c.s, v6 ? 0x86dd : 0x800);
	if (v6)
		shape_ipv6(&c.s, proto);
	else
		shape_ipv4(&c.s, proto, 0, 0x4000, rnd() & 0xffff);
	memcpy(c.s.data + c.s.len - 2 * n, from, n);
	memcpy(c.s.data + c.s.len - n, to, n);
	shape_bytes(&c.s, from + n, 2);
	shape_bytes(&c.s, to + n, 2);
	shape_fill(&c.s, flags, 30 + rnd() % 100);
	*s = c.s;
}

static bool flow_is_taken(uint8_t proto, bool v6, const uint8_t ends[2][18])
{
	struct shape s;
	bool first;

	flow_packet(&s, proto, v6, ends[0], ends[1], 0x50);
	first = captured(&s);
	for (int i = 0; i < 4; i++) {
		flow_packet(&s, proto, v6, ends[i % 2], ends[1 - i % 2], (uint8_t)i);
		assert_int_equal(captured(&s), first);
	}
	return first;
}

/* Of @flows random ones, within six standard deviations. */
static void check_share(unsigned int taken, unsigned int flows, unsigned int n)
{
	double mean = (double)flows / n, deviation = (double)taken - mean;

	if (deviation * deviation > 36 * mean * (1 - 1.0 / n))
		fail_msg("%u of %u flows taken, 1 in %u was asked for", taken, flows, n);
}

static void whole_flows_and_the_right_share_of_them(void **state)
{
	static const unsigned int ns[] = {2, 7, 64};

	(void)state;
	ENV_SKIP();
	open_with((struct capture_config){});
	for (size_t i = 0; i < ARRAY_SIZE(ns); i++) {
		unsigned int taken = 0, flows = 3000;

		rule_on_lo((struct iface_rule){.sample = ns[i], .asks = RULE_SAMPLE_FLOWS});
		for (unsigned int k = 0; k < flows; k++) {
			uint8_t ends[2][18];
			bool v6 = k % 3 == 0;

			/* Random ones, and the many ports of two neighbours. */
			for (size_t at = 0; at < sizeof(ends); at++)
				((uint8_t *)ends)[at] = k % 2 ? (uint8_t)rnd() : 10;
			ends[0][v6 ? 15 : 3] = 1;
			ends[0][v6 ? 16 : 4] = (uint8_t)(k >> 8);
			ends[0][v6 ? 17 : 5] = (uint8_t)k;
			taken += flow_is_taken(k % 5 ? TCP : UDP, v6, ends);
			if (k % 512 == 0)
				env_drain(&env);
		}
		env_drain(&env);
		check_share(taken, flows, ns[i]);
	}
}

/* The budget takes a part of what the rule leaves, and of less a part of that. */
static void samples_of_flows_are_within_one_another(void **state)
{
	unsigned int taken[5] = {}, flows = 4000;
	struct degrade none = {};

	(void)state;
	ENV_SKIP();
	open_with((struct capture_config){});
	rule_on_lo((struct iface_rule){.sample = 4, .asks = RULE_SAMPLE_FLOWS});
	for (unsigned int k = 0; k < flows; k++) {
		bool before = true;
		uint8_t ends[2][18];
		struct shape s;

		for (size_t at = 0; at < sizeof(ends); at++)
			((uint8_t *)ends)[at] = (uint8_t)rnd();
		flow_packet(&s, TCP, false, ends[0], ends[1], 0);
		for (unsigned int i = 0; i < ARRAY_SIZE(taken); i++) {
			struct degrade degrade = {.sample_flows = i ? 1u << i : 0};
			bool now;

			ops->degrade(env.capture, &degrade);
			now = captured(&s);
			assert_true(before || !now);
			before = now;
			taken[i] += now;
		}
		if (k % 512 == 0)
			env_drain(&env);
	}
	ops->degrade(env.capture, &none);
	env_drain(&env);
	for (unsigned int i = 0; i < ARRAY_SIZE(taken); i++)
		check_share(taken[i], flows, 4u << i);
}

static void fragments_of_two_hosts_are_one_flow(void **state)
{
	unsigned int taken = 0, pairs = 600;

	(void)state;
	ENV_SKIP();
	open_with((struct capture_config){});
	rule_on_lo((struct iface_rule){.sample = 3, .asks = RULE_SAMPLE_FLOWS});
	for (unsigned int k = 0; k < pairs; k++) {
		uint8_t hosts[2][16];
		bool v6 = k % 2, first = false;

		for (size_t at = 0; at < sizeof(hosts); at++)
			((uint8_t *)hosts)[at] = (uint8_t)rnd();
		for (int i = 0; i < 6; i++) {
			size_t n = v6 ? 16 : 4, at;
			bool later = i % 3;
			struct cut c = {};

			shape_ethernet(&c.s, v6 ? 0x86dd : 0x800);
			if (v6)
				shape_ipv6(&c.s, 44);
			else
				shape_ipv4(&c.s, UDP, 0, later ? 0x2010 : 0x2000, k);
			at = c.s.len - 2 * n;
			memcpy(c.s.data + at, hosts[i / 3], n);
			memcpy(c.s.data + at + n, hosts[1 - i / 3], n);
			/* Later ones of IPv6 do not say what the first one was. */
			if (v6)
				shape_fragment(&c.s, later ? TCP : UDP, later ? 0x0809 : 1, 3);
			udp(&c);
			payload(&c);
			if (!i)
				first = captured(&c.s);
			else
				assert_int_equal(captured(&c.s), first);
		}
		taken += first;
		if (k % 256 == 0)
			env_drain(&env);
	}
	env_drain(&env);
	check_share(taken, pairs, 3);
}

/* A rule and a limit on lo; its hooks see no packet. */
static void attach_lo(struct iface_rule rule, struct capture_limit limit)
{
	struct capture_iface iface = {.ifindex = LO, .name = "lo", .rule = rule, .limit = limit};
	struct err err = {};

	iface.rule.id = 5;
	iface.rule.invert = 1;
	if (limit.packets_per_s || limit.bits_per_s)
		iface.rule.asks |= RULE_LIMIT;
	if (ops->attach(env.capture, &iface, &err))
		fail_msg("attach: %s", err.text);
}

static struct bucket bucket_of(uint32_t key)
{
	struct bucket bucket = {};

	assert_int_equal(bpf_map_lookup_elem_flags(env.buckets, &key, &bucket, BPF_F_LOCK), 0);
	return bucket;
}

/* Packets at full speed for @span; returns how long that really was. */
static nsec_t flood(const struct shape *s, nsec_t span)
{
	nsec_t start = clock_boottime(), now = start;

	while (now - start < span) {
		LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = s->data,
			    .data_size_in = (uint32_t)s->len, .repeat = 200);

		assert_int_equal(bpf_prog_test_run_opts(env.ingress, &run), 0);
		env_drain(&env);
		now = clock_boottime();
	}
	return now - start;
}

/*
 * Never above rate and burst (of 100 ms); how far below depends on the machine, but what the burst
 * allows is let through however late it comes.
 */
static void check_rate(struct capture_limit agent, struct capture_limit iface, uint64_t most)
{
	struct capture_counts c;
	struct shape s;
	double seconds;

	small_packet(&s);
	open_with((struct capture_config){.limit = agent});
	attach_lo((struct iface_rule){}, iface);
	seconds = (double)flood(&s, NSEC_PER_SEC) / (double)NSEC_PER_SEC;
	c = env_counts(&env, 0, DIRECTION_INGRESS);
	if ((double)c.packets[CAPTURE_CAPTURED] > (double)most * (seconds + 0.1) + 1)
		fail_msg("%llu packets in %.3f s", (unsigned long long)c.packets[CAPTURE_CAPTURED],
			 seconds);
	assert_true(c.packets[CAPTURE_CAPTURED] >= MIN(most / 10, c.packets[CAPTURE_SEEN]));
	assert_int_equal(c.packets[CAPTURE_RATE_LIMITED], c.packets[CAPTURE_SAMPLED_OUT]);
	assert_int_equal(c.bytes[CAPTURE_RATE_LIMITED], c.bytes[CAPTURE_SAMPLED_OUT]);
	assert_int_equal(c.packets[CAPTURE_SEEN],
			 c.packets[CAPTURE_CAPTURED] + c.packets[CAPTURE_SAMPLED_OUT]);
	env_close(&env);
	env.capture = NULL;
}

static void rate_limits_hold(void **state)
{
	const struct capture_limit none = {};
	struct shape s;
	uint64_t bits;

	(void)state;
	ENV_SKIP();
	small_packet(&s);
	bits = s.len * 8;
	check_rate((struct capture_limit){.packets_per_s = 1000}, none, 1000);
	check_rate(none, (struct capture_limit){.packets_per_s = 3000}, 3000);
	check_rate((struct capture_limit){.bits_per_s = bits * 700}, none, 700);
	check_rate(none, (struct capture_limit){.bits_per_s = bits * 2000}, 2000);
	/* The lowest of them all. */
	check_rate((struct capture_limit){.packets_per_s = 5000, .bits_per_s = bits * 800},
		   (struct capture_limit){.packets_per_s = 4000, .bits_per_s = bits * 3000}, 800);
}

static void what_the_agents_limit_refuses_costs_the_interface_nothing(void **state)
{
	struct bucket agent, iface;
	struct capture_counts c;
	struct shape s;

	(void)state;
	ENV_SKIP();
	small_packet(&s);
	/* One packet, and the next in 900 ms. */
	open_with((struct capture_config){.limit = {.packets_per_s = 1}});
	attach_lo((struct iface_rule){}, (struct capture_limit){.packets_per_s = 2});
	for (int i = 0; i < 100; i++)
		env_packet(&env, DIRECTION_INGRESS, s.data, s.len);
	c = env_counts(&env, 0, DIRECTION_INGRESS);
	agent = bucket_of(BUCKET_AGENT);
	iface = bucket_of(BUCKET_IFACE(0));
	/* The first of both: they were empty, and have paid as often. */
	assert_int_equal(agent.ns_per_packet, NSEC_PER_SEC);
	assert_int_equal(iface.ns_per_packet, NSEC_PER_SEC / 2);
	if (c.packets[CAPTURE_CAPTURED] == 1)
		assert_int_equal(agent.packets_at - iface.packets_at, NSEC_PER_SEC / 2);
	assert_in_range(c.packets[CAPTURE_CAPTURED], 1, 5);
}

/* However often it is set. */
static void a_limit_that_stays_gives_no_new_burst(void **state)
{
	struct capture_iface iface = {
		.ifindex = LO,
		.name = "lo",
		.rule = {.id = 5, .invert = 1, .asks = RULE_LIMIT},
		.limit = {.packets_per_s = 100},
	};
	nsec_t start;
	struct shape s;
	uint64_t got, most;
	struct err err;

	(void)state;
	ENV_SKIP();
	small_packet(&s);
	open_with((struct capture_config){});
	attach_lo(iface.rule, iface.limit);
	start = clock_boottime();
	for (int i = 0; i < 300; i++) {
		env_packet(&env, DIRECTION_INGRESS, s.data, s.len);
		iface.rule.slice = 100 + (uint32_t)i;
		assert_int_equal(ops->set_rule(env.capture, &iface, &err), 0);
	}
	got = env_counts(&env, 0, DIRECTION_INGRESS).packets[CAPTURE_CAPTURED];
	most = 100 * (clock_boottime() - start + 100 * NSEC_PER_MSEC) / NSEC_PER_SEC + 1;
	assert_in_range(got, 1, most);
	/* Another one takes effect at once. */
	iface.limit.packets_per_s = 0;
	iface.rule.asks = 0;
	assert_int_equal(ops->set_rule(env.capture, &iface, &err), 0);
	for (int i = 0; i < 100; i++)
		assert_true(captured(&s));
}

static void the_budget_limits_what_is_kept(void **state)
{
	struct degrade degrade = {.slice = 100, .burst_ns = 20 * NSEC_PER_MSEC}, none = {};
	struct capture_counts c;
	struct work work;
	struct shape s;
	double seconds, most;

	(void)state;
	ENV_SKIP();
	small_packet(&s);
	/* 100 bytes and DEGRADE_PACKET of each: 1,000 packets a second. */
	degrade.ns_per_byte = (NSEC_PER_SEC << BUCKET_FRACTION) / (1000 * (100 + DEGRADE_PACKET));
	open_with((struct capture_config){});
	attach_lo((struct iface_rule){}, (struct capture_limit){});
	ops->degrade(env.capture, &degrade);
	seconds = (double)flood(&s, NSEC_PER_SEC) / (double)NSEC_PER_SEC;
	c = env_counts(&env, 0, DIRECTION_INGRESS);
	ops->work(env.capture, &work);
	most = 1000 * (seconds + 0.02) + 2;
	assert_true((double)c.packets[CAPTURE_CAPTURED] < most);
	assert_true(c.packets[CAPTURE_CAPTURED] >= MIN(20u, c.packets[CAPTURE_SEEN]));
	assert_int_equal(c.packets[CAPTURE_SLICED], c.packets[CAPTURE_CAPTURED]);
	assert_int_equal(c.packets[CAPTURE_RATE_LIMITED], work.refused);
	assert_int_equal(c.packets[CAPTURE_SEEN], c.packets[CAPTURE_CAPTURED] + work.refused);
	assert_true(work.timed_ns > 0);
	ops->degrade(env.capture, &none);
	for (int i = 0; i < 1000; i++)
		assert_true(captured(&s));
}

/* Each costs the hook a tail call and more: how much? */
static void what_it_costs(void **state)
{
	static const struct {
		const char *what;
		struct iface_rule rule;
		struct degrade degrade;
	} cases[] = {
		{"nothing asked, ring full", {}, {}},
		{"headers", {.slice = SLICE_L4}, {}},
		{"one flow in a million", {.sample = 1 << 20, .asks = RULE_SAMPLE_FLOWS}, {}},
		{"one packet in a million", {.sample = 1 << 20}, {}},
		{"the budget refuses", {}, {.ns_per_byte = 1ull << 50, .burst_ns = 1}},
	};
	struct degrade none = {};
	struct shape s;

	(void)state;
	ENV_SKIP();
	small_packet(&s);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = s.data,
			    .data_size_in = (uint32_t)s.len, .repeat = 200000);

		open_with((struct capture_config){});
		attach_lo(cases[i].rule, (struct capture_limit){});
		ops->degrade(env.capture, &cases[i].degrade);
		assert_int_equal(bpf_prog_test_run_opts(env.ingress, &run), 0);
		print_message("# %s: %u ns\n", cases[i].what, run.duration);
		ops->degrade(env.capture, &none);
		env_close(&env);
	}
	env.capture = NULL;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(headers_end_where_those_of_layer_4_do),
		TEST(headers_go_past_options_and_extensions),
		TEST(fragments_and_what_is_not_ip_have_headers_too),
		TEST(the_snap_length_holds_with_every_slice),
		TEST(a_tag_counts_wherever_it_is),
		TEST(one_in_n_packets_exactly_on_each_cpu),
		TEST(whole_flows_and_the_right_share_of_them),
		TEST(samples_of_flows_are_within_one_another),
		TEST(fragments_of_two_hosts_are_one_flow),
		TEST(rate_limits_hold),
		TEST(what_the_agents_limit_refuses_costs_the_interface_nothing),
		TEST(a_limit_that_stays_gives_no_new_burst),
		TEST(the_budget_limits_what_is_kept),
		TEST(what_it_costs),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	env_enter();
	return cmocka_run_group_tests_name("bpf_select", tests, NULL, NULL);
}
