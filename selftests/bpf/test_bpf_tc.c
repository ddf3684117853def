// SPDX-License-Identifier: Apache-2.0
/*
 * The capture programs on packets of every shape, by test runs: what is picked,
 * what is counted, what is in the ring. Test runs come in on `lo` (ifindex 1) of a
 * network namespace of our own, which is down.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "bpfenv.h"
#include "shapes.h"
#include "util.h"

static uint64_t masks[65536];
static struct env env;

static const struct capture_config with_ports = {
	.snaplen = 65535,
	.ring_bytes = 4 << 20,
	.need_ports = true,
	.port_masks = masks,
};

/* Ask for @port in list @set; nothing else is in any list. */
static const struct iface_rule all = {.id = 5, .invert = 1};
static const struct iface_rule allow_0 = {.id = 5, .mask = PORT_SET(0)};
static const struct iface_rule allow_1 = {.id = 5, .mask = PORT_SET(1)};
static const struct iface_rule allow_2 = {.id = 5, .mask = PORT_SET(2)};
static const struct iface_rule deny_1 = {.id = 5, .mask = PORT_SET(1), .invert = 1};

/* Set 0: the source port, set 1: the destination port, set 2: one that no packet has. */
static int setup(void **state)
{
	(void)state;
	if (env_skip_reason)
		return 0;
	memset(masks, 0, sizeof(masks));
	masks[SPORT] = PORT_SET(0);
	masks[DPORT] = PORT_SET(1);
	masks[OTHER] = PORT_SET(2);
	env_open(&env, &with_ports);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (!env_skip_reason)
		env_close(&env);
	return 0;
}

#define SKIP_UNLESS_ABLE()                                             \
	do {                                                           \
		if (skip_reason) {                                     \
			print_message("# skipped: %s\n", skip_reason); \
			skip();                                        \
		}                                                      \
	} while (0)

static enum capture_counter with_rule(struct iface_rule rule, bool raw_ip, const struct shape *s,
				      size_t len)
{
	/* One run in three at egress: the two programs share their code. */
	static unsigned int n;
	enum direction direction = n++ % 3 ? DIRECTION_INGRESS : DIRECTION_EGRESS;

	rule.raw_ip = raw_ip;
	env_rule(&env, LO, &rule);
	return env_packet(&env, direction, s->data, len);
}

/*
 * Test runs want an Ethernet header and something behind it, on newer kernels the
 * whole IP header when the ethertype says that one follows. (So what is cut inside of
 * that is tried behind a tag, raw, and by test_bpf_hook.c on a real interface.)
 */
#define RUN_MIN 15

static bool can_run(const uint8_t *data, size_t len)
{
	unsigned int type = (unsigned int)data[12] << 8 | data[13];

	return len >= (type == 0x800 ? 34 : type == 0x86dd ? 54 : RUN_MIN);
}

/* Picked by its ports, and by none of them when it is cut before their end. */
static void check_shape_of(const char *name, const struct shape *s, bool raw_ip)
{
	uint16_t ports[2];

	for (size_t len = RUN_MIN; len <= s->len; len++) {
		bool has = s->ports_end && len >= s->ports_end;
		enum capture_counter by_port = has ? CAPTURE_CAPTURED : CAPTURE_RULED_OUT;

		if (!can_run(s->data, len))
			continue;
		if (shape_find_ports(s->data, len, raw_ip, ports) != has)
			fail_msg("%s: the second opinion errs at %zu bytes", name, len);
		if (with_rule(allow_0, raw_ip, s, len) != by_port ||
		    with_rule(allow_1, raw_ip, s, len) != by_port)
			fail_msg("%s, cut to %zu bytes: port not %s", name, len,
				 has ? "found" : "missed");
		if (len != s->len && len != s->ports_end)
			continue;
		assert_int_equal(with_rule(all, raw_ip, s, len), CAPTURE_CAPTURED);
		assert_int_equal(with_rule(allow_2, raw_ip, s, len), CAPTURE_RULED_OUT);
		assert_int_equal(with_rule(deny_1, raw_ip, s, len),
				 has ? CAPTURE_RULED_OUT : CAPTURE_CAPTURED);
	}
	env_drain(&env);
}

static void check_shape(const char *name, const struct shape *s)
{
	check_shape_of(name, s, false);
}

static const struct {
	const char *name;
	uint8_t proto;
	bool ports;
} protocols[] = {
	{"TCP", 6, true},   {"UDP", 17, true},  {"UDP-Lite", 136, true}, {"SCTP", 132, true},
	{"DCCP", 33, true}, {"ICMP", 1, false}, {"ICMPv6", 58, false},   {"GRE", 47, false},
	{"ESP", 50, false}, {"IPIP", 4, false}, {"OSPF", 89, false},     {"none", 59, false},
};

static void every_transport_in_ipv4_and_ipv6_plain_tagged_and_raw(void **state)
{
	static const unsigned int tpids[] = {0, 0x8100, 0x88a8, 0x9100};

	(void)state;
	ENV_SKIP();
	for (size_t i = 0; i < ARRAY_SIZE(protocols); i++) {
		for (size_t t = 0; t < 2 * ARRAY_SIZE(tpids); t++) {
			unsigned int tpid = tpids[t / 2], type = t % 2 ? 0x86dd : 0x800;
			struct shape s;

			shape_ethernet(&s, tpid ? tpid : type);
			if (tpid)
				shape_tag(&s, 100, type);
			if (t % 2)
				shape_ipv6(&s, protocols[i].proto);
			else
				shape_ipv4(&s, protocols[i].proto, 0, 0x4000, 1);
			shape_ports(&s);
			if (!protocols[i].ports)
				s.ports_end = 0;
			check_shape(protocols[i].name, &s);
			if (tpid)
				continue;
			/* The same without its Ethernet header. */
			s.len -= 14;
			memmove(s.data, s.data + 14, s.len);
			if (s.ports_end)
				s.ports_end -= 14;
			check_shape_of(protocols[i].name, &s, true);
		}
	}
}

static void ports_behind_up_to_eight_tags(void **state)
{
	(void)state;
	ENV_SKIP();
	for (int tags = 2; tags <= 9; tags++) {
		struct shape s;

		shape_ethernet(&s, 0x88a8);
		for (int i = 1; i < tags; i++)
			shape_tag(&s, (unsigned int)i, 0x8100);
		shape_tag(&s, 9, 0x800);
		shape_ipv4(&s, 6, 0, 0, 1);
		shape_ports(&s);
		if (tags > 8)
			s.ports_end = 0;
		check_shape("stacked tags", &s);
	}
}

static void ports_behind_ipv4_options(void **state)
{
	(void)state;
	ENV_SKIP();
	for (size_t options = 4; options <= 40; options += 4) {
		struct shape s;

		shape_ethernet(&s, 0x800);
		shape_ipv4(&s, 17, options, 0, 1);
		shape_ports(&s);
		check_shape("options", &s);
	}
}

static void ipv4_header_length_or_version_that_cannot_be(void **state)
{
	static const uint8_t first[] = {0x40, 0x44, 0x35, 0x65, 0x00, 0xf5};

	(void)state;
	ENV_SKIP();
	for (size_t i = 0; i < ARRAY_SIZE(first); i++) {
		struct shape s;

		shape_ethernet(&s, 0x800);
		shape_ipv4(&s, 6, 0, 0, 1);
		shape_ports(&s);
		s.data[14] = first[i];
		s.ports_end = 0;
		check_shape("bad first byte", &s);
	}
}

static const uint8_t extensions[] = {0, 43, 51, 60, 135, 139, 140};

static void ports_behind_every_ipv6_extension_header(void **state)
{
	(void)state;
	ENV_SKIP();
	for (size_t i = 0; i < ARRAY_SIZE(extensions); i++) {
		for (uint8_t len = 0; len < 4; len++) {
			struct shape s;

			if (extensions[i] == 51 && !len)
				continue; /* an AH has at least twelve bytes */
			shape_ethernet(&s, 0x86dd);
			shape_ipv6(&s, extensions[i]);
			shape_extension(&s, extensions[i], 17, len);
			shape_ports(&s);
			check_shape("extension", &s);
		}
	}
}

static void ports_behind_chains_of_extension_headers(void **state)
{
	(void)state;
	ENV_SKIP();
	for (int n = 2; n <= 25; n += n < 16 ? 7 : 1) {
		struct shape s;

		shape_ethernet(&s, 0x86dd);
		shape_ipv6(&s, extensions[0]);
		for (int i = 0; i < n; i++) {
			uint8_t type = extensions[(size_t)i % ARRAY_SIZE(extensions)];
			uint8_t next = extensions[(size_t)(i + 1) % ARRAY_SIZE(extensions)];

			shape_extension(&s, type, i == n - 1 ? 6 : next, 1);
		}
		shape_ports(&s);
		if (n > 24)
			s.ports_end = 0;
		check_shape("chain", &s);
	}
}

static void no_ports_in_what_is_not_ip(void **state)
{
	static const unsigned int types[] = {0x806, 0x88cc, 0x8847, 0x0040, 0x8863};

	(void)state;
	ENV_SKIP();
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		struct shape s;

		shape_ethernet(&s, types[i]);
		shape_ipv4(&s, 6, 0, 0, 1);
		shape_ports(&s);
		s.ports_end = 0;
		check_shape("not IP", &s);
	}
}

static enum capture_counter fragment4(uint8_t proto, unsigned int fragment, unsigned int id,
				      const struct iface_rule *rule)
{
	struct shape s;

	shape_ethernet(&s, 0x800);
	shape_ipv4(&s, proto, 0, fragment, id);
	if (fragment & 0x1fff)
		shape_fill(&s, 0x77, 32);
	else
		shape_ports(&s);
	return with_rule(*rule, false, &s, s.len);
}

static enum capture_counter fragment6(uint8_t next, unsigned int fragment, uint8_t id,
				      const struct iface_rule *rule)
{
	struct shape s;

	shape_ethernet(&s, 0x86dd);
	shape_ipv6(&s, 0);
	shape_extension(&s, 0, 44, 0);
	shape_fragment(&s, next, fragment, id);
	if (fragment & 0xfff8)
		shape_fill(&s, 0x77, 32);
	else
		shape_ports(&s);
	return with_rule(*rule, false, &s, s.len);
}

static void later_fragments_have_the_ports_of_the_first(void **state)
{
	(void)state;
	ENV_SKIP();
	assert_int_equal(fragment4(17, 0x0010, 7, &allow_1), CAPTURE_RULED_OUT);
	assert_int_equal(fragment4(17, 0x2000, 7, &allow_1), CAPTURE_CAPTURED);
	assert_int_equal(fragment4(17, 0x2010, 7, &allow_1), CAPTURE_CAPTURED);
	assert_int_equal(fragment4(17, 0x0020, 7, &allow_1), CAPTURE_CAPTURED);
	assert_int_equal(fragment4(17, 0x0020, 7, &deny_1), CAPTURE_RULED_OUT);
	assert_int_equal(fragment4(17, 0x0020, 8, &allow_1), CAPTURE_RULED_OUT);
	assert_int_equal(fragment4(6, 0x0020, 7, &allow_1), CAPTURE_RULED_OUT);

	assert_int_equal(fragment6(17, 0x0010, 7, &allow_0), CAPTURE_RULED_OUT);
	assert_int_equal(fragment6(17, 0x0001, 7, &allow_0), CAPTURE_CAPTURED);
	assert_int_equal(fragment6(17, 0x0011, 7, &allow_0), CAPTURE_CAPTURED);
	/* Only the first fragment's next header counts. */
	assert_int_equal(fragment6(60, 0x0020, 7, &allow_0), CAPTURE_CAPTURED);
	assert_int_equal(fragment6(17, 0x0020, 8, &allow_0), CAPTURE_RULED_OUT);
	/* Alone in its datagram (RFC 6946): a packet like any other. */
	assert_int_equal(fragment6(17, 0, 9, &allow_0), CAPTURE_CAPTURED);
	assert_int_equal(fragment6(17, 0x0020, 9, &allow_0), CAPTURE_RULED_OUT);
}

static void a_new_first_fragment_overwrites_an_old_one(void **state)
{
	(void)state;
	ENV_SKIP();
	assert_int_equal(fragment4(17, 0x2000, 7, &allow_1), CAPTURE_CAPTURED);
	/* ICMP has no ports; same key but for the protocol: it must not inherit any. */
	assert_int_equal(fragment4(1, 0x2000, 7, &allow_1), CAPTURE_RULED_OUT);
	assert_int_equal(fragment4(1, 0x0010, 7, &allow_1), CAPTURE_RULED_OUT);
	assert_int_equal(fragment6(17, 0x0001, 7, &allow_1), CAPTURE_CAPTURED);
	assert_int_equal(fragment6(58, 0x0001, 7, &allow_1), CAPTURE_RULED_OUT);
	assert_int_equal(fragment6(58, 0x0010, 7, &allow_1), CAPTURE_RULED_OUT);
}

static void ignored_ports_are_out_in_every_mode(void **state)
{
	struct shape s;

	(void)state;
	ENV_SKIP();
	env_close(&env);
	masks[DPORT] = PORT_SET(1) | PORT_IGNORE;
	env_open(&env, &with_ports);
	shape_ethernet(&s, 0x86dd);
	shape_ipv6(&s, 6);
	shape_ports(&s);
	assert_int_equal(with_rule(all, false, &s, s.len), CAPTURE_RULED_OUT);
	assert_int_equal(with_rule(allow_0, false, &s, s.len), CAPTURE_RULED_OUT);
	assert_int_equal(with_rule(deny_1, false, &s, s.len), CAPTURE_RULED_OUT);
	assert_int_equal(with_rule(all, false, &s, s.ports_end - 1), CAPTURE_CAPTURED);
}

static void without_a_rule_nothing_is_counted(void **state)
{
	LIBBPF_OPTS(bpf_test_run_opts, run, .repeat = 1);
	struct shape s;

	(void)state;
	ENV_SKIP();
	shape_ethernet(&s, 0x800);
	shape_ipv4(&s, 6, 0, 0, 1);
	shape_ports(&s);
	run.data_in = s.data;
	run.data_size_in = (uint32_t)s.len;
	assert_int_equal(bpf_prog_test_run_opts(env.ingress, &run), 0);
	assert_int_equal((int)run.retval, -1);
	assert_int_equal(env_counts(&env, 0, DIRECTION_INGRESS).packets[CAPTURE_SEEN], 0);
	assert_int_equal(env_drain(&env), 0);
}

static void loopback_egress_counts_nothing(void **state)
{
	struct iface_rule rule = {.invert = 1, .ingress_only = 1};
	uint8_t packet[60] = {};
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = packet, .data_size_in = sizeof(packet),
		    .repeat = 1);

	(void)state;
	ENV_SKIP();
	env_rule(&env, LO, &rule);
	assert_int_equal(bpf_prog_test_run_opts(env.egress, &run), 0);
	assert_int_equal((int)run.retval, -1);
	assert_int_equal(env_counts(&env, 0, DIRECTION_EGRESS).packets[CAPTURE_SEEN], 0);
	assert_int_equal(env_packet(&env, DIRECTION_INGRESS, packet, sizeof(packet)),
			 CAPTURE_CAPTURED);
}

/* xorshift: the same packets every time. */
static void random_packets_agree_with_the_second_opinion(void **state)
{
	(void)state;
	ENV_SKIP();
	for (int i = 0; i < 6000; i++) {
		enum capture_counter wanted = CAPTURE_RULED_OUT;
		bool raw_ip = shape_rnd() % 8 == 0;
		uint16_t ports[2];
		struct shape s;
		size_t skip = 0;

		shape_random(&s, RUN_MIN);
		if (raw_ip && s.len > 14 + RUN_MIN)
			skip = 14;
		memmove(s.data, s.data + skip, s.len - skip);
		s.len -= skip;
		if (!can_run(s.data, s.len))
			continue;
		if (shape_find_ports(s.data, s.len, raw_ip, ports) &&
		    ((masks[ports[0]] | masks[ports[1]]) & allow_1.mask))
			wanted = CAPTURE_CAPTURED;
		if (i % 500 == 0)
			env_drain(&env);
		if (with_rule(allow_1, raw_ip, &s, s.len) == wanted)
			continue;
		for (size_t b = 0; b < s.len; b++)
			fprintf(stderr, "%02x%s", s.data[b], b % 16 == 15 ? "\n" : " ");
		fail_msg("packet %d (raw %d) was not %s", i, raw_ip,
			 wanted == CAPTURE_CAPTURED ? "captured" : "ruled out");
	}
	env_drain(&env);
}

static void segments_of_every_size_and_number_are_told(void **state)
{
	static const uint16_t sizes[] = {1, 536, 1448, 9000, EPB_GSO_BY_FRAGS};
	static const uint16_t numbers[] = {0, 1, 2, 45, 65535};
	struct iface_rule rule = all;
	struct shape s;

	(void)state;
	ENV_SKIP();
	shape_ethernet(&s, 0x800);
	shape_ipv4(&s, 6, 0, 0, 1);
	shape_ports(&s);
	for (size_t i = 0; i < ARRAY_SIZE(sizes) * ARRAY_SIZE(numbers); i++) {
		struct __sk_buff skb = {
			.gso_size = sizes[i / ARRAY_SIZE(numbers)],
			.gso_segs = numbers[i % ARRAY_SIZE(numbers)],
		};
		struct epb_offload want = {
			.code = 2989,
			.len = 12,
			.pen = 32473,
			.gso_size = (uint16_t)skb.gso_size,
			.gso_segs = (uint16_t)skb.gso_segs,
			.csum = EPB_CSUM_PARTIAL,
			.version = 1,
		};
		/* All paddings, and with the handing over as without. */
		size_t len = s.len + i % 5;
		LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = s.data,
			    .data_size_in = (uint32_t)len, .ctx_in = &skb,
			    .ctx_size_in = sizeof(skb), .repeat = 1);

		rule.slice = i % 2 ? (uint32_t)len - 10 : 0;
		env_rule(&env, LO, &rule);
		if (bpf_prog_test_run_opts(env.ingress, &run))
			fail_msg("test run: %s", strerror(errno));
		assert_int_equal((int)run.retval, -1);
		assert_int_equal(env_drain(&env), 1);
		env_check_offload(&env.blocks[0], 5, s.data, len - (i % 2 ? 10 : 0), len,
				  DIRECTION_INGRESS, &want);
	}
}

/* Not asserted: machines differ. */
static void measure(const char *what, const struct iface_rule *rule)
{
	struct shape s;
	LIBBPF_OPTS(bpf_test_run_opts, run, .repeat = 1000000);

	shape_ethernet(&s, 0x800);
	shape_ipv4(&s, 6, 0, 0, 1);
	shape_ports(&s);
	run.data_in = s.data;
	run.data_size_in = (uint32_t)s.len;
	if (rule)
		env_attach(&env, "lo", rule);
	assert_int_equal(bpf_prog_test_run_opts(env.ingress, &run), 0);
	assert_int_equal((int)run.retval, -1);
	print_message("# %s: %u ns\n", what, run.duration);
}

static void a_million_packets_pass_unwanted(void **state)
{
	(void)state;
	ENV_SKIP();
	measure("interface not captured", NULL);
	measure("not wanted", &allow_2);
	assert_int_equal(env_counts(&env, 0, DIRECTION_INGRESS).packets[CAPTURE_RULED_OUT],
			 1000000);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(every_transport_in_ipv4_and_ipv6_plain_tagged_and_raw),
		TEST(ports_behind_up_to_eight_tags),
		TEST(ports_behind_ipv4_options),
		TEST(ipv4_header_length_or_version_that_cannot_be),
		TEST(ports_behind_every_ipv6_extension_header),
		TEST(ports_behind_chains_of_extension_headers),
		TEST(no_ports_in_what_is_not_ip),
		TEST(later_fragments_have_the_ports_of_the_first),
		TEST(a_new_first_fragment_overwrites_an_old_one),
		TEST(ignored_ports_are_out_in_every_mode),
		TEST(without_a_rule_nothing_is_counted),
		TEST(loopback_egress_counts_nothing),
		TEST(random_packets_agree_with_the_second_opinion),
		TEST(segments_of_every_size_and_number_are_told),
		TEST(a_million_packets_pass_unwanted),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	env_enter();
	return cmocka_run_group_tests_name("bpf_tc", tests, NULL, NULL);
}
