/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which packets are duplicates. A test run at ingress and one at egress stand for two
 * points that a packet passes.
 */
#include <bpf/bpf.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "bpfenv.h"
#include "shapes.h"
#include "util.h"

static const struct iface_rule rule = {.invert = true, .asks = RULE_DEDUP};

static void start(struct env *e, nsec_t window)
{
	const struct capture_config config = {
		.snaplen = 65535, .ring_bytes = 1 << 20, .dedup_window = window};

	env_open(e, &config);
	env_rule(e, LO, &rule);
}

static bool duplicate(struct env *e, enum direction direction, const struct shape *s)
{
	uint64_t before = env_counts(e, 0, direction).packets[CAPTURE_DUPLICATES];
	enum capture_counter became = env_packet(e, direction, s->data, s->len);
	uint64_t n = env_counts(e, 0, direction).packets[CAPTURE_DUPLICATES] - before;

	/* A filter whose agent has no heart does nothing, and this may take long. */
	capture_ringbuf.beat(e->capture);
	env_drain(e);
	assert_int_equal(became, n ? CAPTURE_RULED_OUT : CAPTURE_CAPTURED);
	return n;
}

static struct shape udp(unsigned int id, size_t payload)
{
	struct shape s;

	shape_ethernet(&s, 0x800);
	shape_ipv4(&s, 17, 0, 0, id);
	s.data[16] = (uint8_t)((28 + payload) >> 8);
	s.data[17] = (uint8_t)(28 + payload);
	shape_be16(&s, SPORT);
	shape_be16(&s, DPORT);
	shape_be16(&s, (unsigned int)(8 + payload));
	shape_be16(&s, 0x1234);
	shape_fill(&s, 7, payload);
	return s;
}

static void the_same_at_another_point_is_a_duplicate_but_not_at_the_same(void **state)
{
	struct shape a = udp(1, 20), b = udp(2, 20), arp;
	struct env e;

	(void)state;
	ENV_SKIP();
	start(&e, NSEC_PER_SEC);
	shape_ethernet(&arp, 0x806);
	shape_fill(&arp, 3, 28);
	assert_false(duplicate(&e, DIRECTION_INGRESS, &a));
	assert_false(duplicate(&e, DIRECTION_INGRESS, &b));
	assert_true(duplicate(&e, DIRECTION_EGRESS, &a));
	/* Sent again, on purpose: kept at the same point, left out at the others. */
	assert_false(duplicate(&e, DIRECTION_INGRESS, &a));
	assert_true(duplicate(&e, DIRECTION_EGRESS, &a));
	assert_true(duplicate(&e, DIRECTION_EGRESS, &b));
	/* And not IP. */
	assert_false(duplicate(&e, DIRECTION_EGRESS, &arp));
	assert_true(duplicate(&e, DIRECTION_INGRESS, &arp));
	arp.data[0] ^= 1;
	assert_false(duplicate(&e, DIRECTION_INGRESS, &arp));
	env_close(&e);
}

static void what_was_left_out_has_no_duplicates(void **state)
{
	const struct iface_rule half = {.invert = true, .asks = RULE_DEDUP, .sample = 2};
	struct shape a = udp(1, 20), b = udp(2, 20);
	struct env e;

	(void)state;
	ENV_SKIP();
	start(&e, NSEC_PER_SEC);
	env_rule(&e, LO, &half);
	assert_false(duplicate(&e, DIRECTION_INGRESS, &b));
	assert_int_equal(env_packet(&e, DIRECTION_INGRESS, a.data, a.len), CAPTURE_SAMPLED_OUT);
	assert_false(duplicate(&e, DIRECTION_EGRESS, &a));
	env_close(&e);
}

static void out_of_the_window_it_is_another_packet(void **state)
{
	struct shape a = udp(1, 20);
	struct env e;

	(void)state;
	ENV_SKIP();
	/* Two test runs are further apart. */
	start(&e, 1);
	assert_false(duplicate(&e, DIRECTION_INGRESS, &a));
	assert_false(duplicate(&e, DIRECTION_EGRESS, &a));
	env_close(&e);
}

/* Changed by @change on its way: is it still the same? */
static bool recognised(struct env *e, const struct shape *s, void change(struct shape *))
{
	struct shape after = *s;

	change(&after);
	assert_false(duplicate(e, DIRECTION_INGRESS, s));
	return duplicate(e, DIRECTION_EGRESS, &after);
}

static void route(struct shape *s)
{
	memcpy(s->data, "\x02\xee\xee\xee\xee\xee\x02\xdd\xdd\xdd\xdd\xdd", 12);
	if (s->data[12] == 8) {
		s->data[22]--;
		s->data[24] = 0xcc;
		s->data[25] = 0xdd;
	} else {
		s->data[21]--;
	}
}

static void put_tag(struct shape *s)
{
	memmove(s->data + 16, s->data + 12, s->len - 12);
	memcpy(s->data + 12, "\x81\x00\x00\x07", 4);
	s->len += 4;
}

static void pad(struct shape *s)
{
	shape_fill(s, 0x55, 18);
}

static void udp_checksum(struct shape *s)
{
	s->data[40] ^= 0xff;
}

static void tcp_checksum(struct shape *s)
{
	s->data[50] ^= 0xff;
	s->data[51] ^= 0xff;
}

static void tcp6_checksum(struct shape *s)
{
	s->data[70] ^= 0xff;
	s->data[71] ^= 0xff;
}

static void udp6_checksum(struct shape *s)
{
	s->data[60] ^= 0xff;
}

static struct shape tcp(unsigned int id)
{
	struct shape s = udp(id, 32);

	s.data[23] = 6;
	return s;
}

static struct shape ipv6(uint8_t next)
{
	struct shape s;

	shape_ethernet(&s, 0x86dd);
	shape_ipv6(&s, next);
	s.data[18] = 0;
	s.data[19] = 40;
	shape_be16(&s, SPORT);
	shape_be16(&s, DPORT);
	shape_fill(&s, next, 36);
	return s;
}

static void what_changes_on_the_way_does_not_hide_it(void **state)
{
	struct shape six_tcp = ipv6(6), six_udp = ipv6(17), s;
	struct env e;

	(void)state;
	ENV_SKIP();
	start(&e, NSEC_PER_SEC);
	s = udp(1, 20);
	assert_true(recognised(&e, &s, route));
	s = udp(2, 20);
	assert_true(recognised(&e, &s, put_tag));
	s = udp(3, 5);
	assert_true(recognised(&e, &s, pad));
	s = udp(4, 20);
	assert_true(recognised(&e, &s, udp_checksum));
	s = tcp(5);
	assert_true(recognised(&e, &s, tcp_checksum));
	assert_true(recognised(&e, &six_tcp, tcp6_checksum));
	assert_true(recognised(&e, &six_udp, udp6_checksum));
	six_udp.data[60] = 99;
	assert_true(recognised(&e, &six_udp, route));
	s = udp(6, 900);
	assert_true(recognised(&e, &s, route));
	env_close(&e);
}

static void change_last(struct shape *s)
{
	s->data[s->len - 1]++;
}

static void change_head(struct shape *s)
{
	s->data[18]++;
}

static void change_port(struct shape *s)
{
	s->data[37]++;
}

static void change_service(struct shape *s)
{
	s->data[15]++;
}

static void shorten(struct shape *s)
{
	s->len--;
}

static void another_packet_is_none(void **state)
{
	static void (*const changes[])(struct shape *) = {change_last, change_head, change_port,
							  change_service, shorten};
	struct shape s, bare;
	struct env e;

	(void)state;
	ENV_SKIP();
	start(&e, NSEC_PER_SEC);
	for (unsigned int i = 0; i < ARRAY_SIZE(changes); i++) {
		s = udp(10 + i, 20);
		assert_false(recognised(&e, &s, changes[i]));
		/* Where only the beginning and the end are looked at. */
		s = udp(20 + i, 900);
		assert_false(recognised(&e, &s, changes[i]));
	}
	/* What says it is IP and is not: the whole of it counts. */
	shape_ethernet(&bare, 0x800);
	shape_fill(&bare, 0x25, 26);
	assert_false(recognised(&e, &bare, route));
	env_close(&e);
}

/* Each of many more than the table has room for is at most forgotten, never mistaken. */
static void many_packets_are_not_mistaken_for_each_other(void **state)
{
	struct env e;

	(void)state;
	ENV_SKIP();
	start(&e, NSEC_PER_SEC);
	for (unsigned int i = 0; i < 3 * RECENT_ROWS * RECENT_WAYS; i++) {
		struct shape s = udp(i & 0xffff, 20);

		s.data[50] = (uint8_t)(i >> 16);
		assert_false(duplicate(&e, i % 2 ? DIRECTION_EGRESS : DIRECTION_INGRESS, &s));
		if (i % 5 == 0)
			assert_true(
				duplicate(&e, i % 2 ? DIRECTION_INGRESS : DIRECTION_EGRESS, &s));
	}
	env_close(&e);
}

/* Not asserted: machines differ. */
static uint32_t measure(struct env *e, const struct iface_rule *with, size_t payload)
{
	struct shape s = udp(1, payload);
	LIBBPF_OPTS(bpf_test_run_opts, run, .repeat = 200000, .data_in = s.data,
		    .data_size_in = (uint32_t)s.len);

	env_rule(e, LO, with);
	/* The ring is full soon, in both. */
	assert_int_equal(bpf_prog_test_run_opts(e->ingress, &run), 0);
	return run.duration;
}

static void what_it_costs(void **state)
{
	const struct iface_rule sampled = {.invert = true, .sample = 1u << 20};
	struct iface_rule both = {.invert = true, .sample = 1u << 20, .asks = RULE_DEDUP};
	struct env e;

	(void)state;
	ENV_SKIP();
	start(&e, NSEC_PER_SEC);
	for (size_t payload = 12; payload < 1000; payload *= 8) {
		uint32_t without = measure(&e, &sampled, payload);

		print_message(
			"# %zu bytes: %u ns a packet, %u ns without the look for duplicates\n",
			payload + 42, measure(&e, &both, payload), without);
	}
	env_close(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_same_at_another_point_is_a_duplicate_but_not_at_the_same),
		cmocka_unit_test(what_was_left_out_has_no_duplicates),
		cmocka_unit_test(out_of_the_window_it_is_another_packet),
		cmocka_unit_test(what_changes_on_the_way_does_not_hide_it),
		cmocka_unit_test(another_packet_is_none),
		cmocka_unit_test(many_packets_are_not_mistaken_for_each_other),
		cmocka_unit_test(what_it_costs),
	};

	env_enter();
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("bpf_dedup", tests, NULL, NULL);
}
