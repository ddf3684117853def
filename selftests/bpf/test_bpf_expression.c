// SPDX-License-Identifier: Apache-2.0
/*
 * Expressions in the kernel: the same answer as libpcap's pcap_offline_filter() on the
 * packet as it is written, in every layout that a packet can have (exprenv.h).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "bpfenv.h"
#include "cbpf.h"
#include "ebpf.h"
#include "exprenv.h"
#include "expression_tree.h"
#include "expressions.h"
#include "exprrandom.h"
#include "packet.h"
#include "shapes.h"
#include "traffic.h"
#include "util.h"

static struct traffic traffic;

struct batch {
	const char *texts[BENCH_BATCH];
	struct expression *e[BENCH_BATCH];
	struct oracle *oracles[BENCH_BATCH];
	size_t n;
};

struct counts {
	size_t expressions, packets, runs, picked;
};

static void batch_add(struct batch *b, const char *text, uint32_t link_type, struct oracle *o)
{
	struct err err = {};

	b->texts[b->n] = text;
	b->oracles[b->n] = o;
	if (expression_compile(text, link_type, NULL, &b->e[b->n], &err))
		fail_msg("\"%s\": %s", text, err.text);
	b->n++;
}

static void batch_clear(struct batch *b)
{
	for (size_t i = 0; i < b->n; i++) {
		expression_free(b->e[i]);
		oracle_free(b->oracles[i]);
	}
	b->n = 0;
}

/*
 * libpcap's answer, but for the packets on which its loop would not end in time: there our
 * own evaluator's.
 */
static bool wanted(const struct batch *b, size_t i, const struct traffic_packet *p)
{
	bool ours = expression_match(b->e[i], DIRECTION_INGRESS, p->data, p->len, p->len);
	bool theirs;

	if (b->e[i]->root->kind == NODE_CLASSIC && b->e[i]->root->classic.loops)
		return ours;
	theirs = oracle_match(b->oracles[i], p);
	if (ours != theirs)
		fail_msg("\"%s\": in user space %d, libpcap says %d", b->texts[i], ours, theirs);
	return theirs;
}

static void dump(const struct traffic_packet *p)
{
	for (uint32_t i = 0; i < p->len; i++)
		fprintf(stderr, "%02x%s", p->data[i], i % 16 == 15 ? "\n" : " ");
	fprintf(stderr, "\n");
}

static void check_packet(const struct batch *b, const struct traffic_packet *p, uint32_t split,
			 uint32_t layouts, struct counts *counts)
{
	const struct bench_packet packet = {
		.data = p->data, .len = p->len, .direction = DIRECTION_INGRESS};
	uint32_t right = 0, picks;

	for (size_t i = 0; i < b->n; i++)
		right |= (uint32_t)wanted(b, i, p) << i;
	for (int layout = 0; layout < BENCH_LAYOUTS; layout++) {
		if (!(layouts >> layout & 1) || !bench_has((enum bench_layout)layout))
			continue;
		if (!bench_run((enum bench_layout)layout, &packet, split, &picks))
			continue;
		counts[layout].packets++;
		counts[layout].runs += b->n;
		counts[layout].picked += (size_t)__builtin_popcount(picks);
		for (size_t i = 0; i < b->n; i++) {
			if (((picks ^ right) >> i & 1) == 0)
				continue;
			dump(p);
			fail_msg("\"%s\", %s, split %u: %u, libpcap says %u", b->texts[i],
				 bench_layout_names[layout], split, picks >> i & 1, right >> i & 1);
		}
	}
}

#define TAGGED_MAX (1u << 18)

static bool can_have_tag(const struct traffic_packet *p)
{
	return p->len >= 14 && p->len <= TAGGED_MAX - 4;
}

/* The packet with one more tag, outermost; the next call overwrites it. */
static struct traffic_packet with_tag(const struct traffic_packet *p, uint32_t n)
{
	static uint8_t data[TAGGED_MAX];
	const uint8_t tag[] = {n % 3 ? 0x81 : 0x88, n % 3 ? 0x00 : 0xa8, (uint8_t)(n % 16),
			       (uint8_t)n};

	assert_true(can_have_tag(p));
	memcpy(data, p->data, 12);
	memcpy(data + 12, tag, sizeof(tag));
	memcpy(data + 12 + sizeof(tag), p->data + 12, p->len - 12);
	return (struct traffic_packet){.data = data, .len = p->len + (uint32_t)sizeof(tag)};
}

static void check_batch(struct batch *b, const struct traffic *t, struct counts *counts)
{
	size_t step = getenv("PS_GUEST") ? 61 : 1;

	if (!b->n)
		return;
	bench_load(b->e, b->texts, b->n);
	/* An emulated processor takes a sample, another one for every batch. */
	for (size_t i = getenv("PS_GUEST") ? counts->expressions % step : 0; i < t->n; i += step) {
		struct traffic_packet tagged;

		check_packet(b, &t->v[i], 14 + (uint32_t)i % 41, ~0u, counts);
		if (!can_have_tag(&t->v[i]))
			continue;
		tagged = with_tag(&t->v[i], (uint32_t)i);
		check_packet(b, &tagged, 14 + (uint32_t)i % 41, 1u << BENCH_TC_TAG, counts);
	}
	counts->expressions += b->n;
	batch_clear(b);
}

static void check_all(uint32_t link_type, const struct traffic *t)
{
	struct counts counts[BENCH_LAYOUTS] = {};
	size_t n = 0, batches;
	struct batch b = {};

	for (size_t i = 0; i < ARRAY_SIZE(expressions); i++) {
		struct oracle *o = oracle_new(expressions[i], link_type);

		if (!o && link_type == LINK_ETHERNET)
			fail_msg("libpcap has no \"%s\"", expressions[i]);
		if (!o)
			continue;
		assert_true(oracle_is_sure(o));
		n++;
		batch_add(&b, expressions[i], link_type, o);
		if (b.n == BENCH_BATCH)
			check_batch(&b, t, counts);
	}
	check_batch(&b, t, counts);
	batches = (n + BENCH_BATCH - 1) / BENCH_BATCH;
	for (int i = 0; i < BENCH_LAYOUTS; i++)
		print_message("# %s: %zu expressions, %zu packets, %zu runs, %zu matches\n",
			      bench_layout_names[i], n, counts[i].packets / batches, counts[i].runs,
			      counts[i].picked);
}

static int setup(void **state)
{
	(void)state;
	if (!env_skip_reason)
		bench_open();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (!env_skip_reason)
		bench_close();
	return 0;
}

#define SKIP_WITHOUT_TRAFFIC()                                     \
	do {                                                       \
		ENV_SKIP();                                        \
		if (!traffic.n) {                                  \
			print_message("# skipped: no captures\n"); \
			skip();                                    \
		}                                                  \
	} while (0)

static void every_primitive_on_real_ethernet_packets_as_libpcap(void **state)
{
	(void)state;
	SKIP_WITHOUT_TRAFFIC();
	check_all(LINK_ETHERNET, &traffic);
}

static void every_primitive_on_real_ip_packets_as_libpcap(void **state)
{
	struct traffic raw = {};

	(void)state;
	SKIP_WITHOUT_TRAFFIC();
	traffic_raw(&traffic, &raw);
	check_all(LINK_RAW, &raw);
	traffic_free(&raw);
}

/* What both take and libpcap is sure of; libpcap and we must refuse the same. */
static void random_batch(struct batch *b, uint32_t link_type)
{
	static char texts[BENCH_BATCH][4096];

	while (b->n < BENCH_BATCH) {
		char *text = texts[b->n];
		struct expression *e;
		struct err err = {};
		struct oracle *o;

		random_expression(text, sizeof(texts[0]));
		o = oracle_new(text, link_type);
		if (o && !oracle_is_sure(o)) {
			oracle_free(o);
		} else if (o) {
			batch_add(b, text, link_type, o);
		} else if (!expression_compile(text, link_type, NULL, &e, &err)) {
			fail_msg("\"%s\": libpcap refuses it", text);
		}
	}
}

static void random_expressions_on_random_packets_as_libpcap(void **state)
{
	bool long_form = getenv("PS_LONG"), guest = getenv("PS_GUEST");
	uint32_t batches = long_form ? 250
			   : guest   ? 2
				     : 16,
		 each = long_form ? 600
			: guest   ? 40
				  : 400;
	struct counts counts[BENCH_LAYOUTS] = {};
	static uint8_t data[RANDOM_PACKET_MAX];
	struct batch b = {};

	(void)state;
	ENV_SKIP();
	for (uint32_t i = 0; i < batches; i++) {
		random_seed(i);
		random_batch(&b, i % 4 ? LINK_ETHERNET : LINK_RAW);
		bench_load(b.e, b.texts, b.n);
		for (uint32_t n = 0; n < each; n++) {
			struct traffic_packet p = {.data = data, .len = random_packet(data)};

			check_packet(&b, &p, 14 + random_below(80), ~0u, counts);
			p = with_tag(&p, n);
			check_packet(&b, &p, 14, 1u << BENCH_TC_TAG, counts);
		}
		batch_clear(&b);
	}
	for (int i = 0; i < BENCH_LAYOUTS; i++)
		print_message("# %s: %u expressions, %zu packets, %zu runs, %zu matches\n",
			      bench_layout_names[i], batches * BENCH_BATCH, counts[i].packets,
			      counts[i].runs, counts[i].picked);
}

/* Not asserted: machines differ. The least of a few tries, without what the bench itself costs. */
static uint32_t cost(const char *text, enum bench_layout layout, const struct bench_packet *p)
{
	uint32_t least = UINT32_MAX, repeat = getenv("PS_GUEST") ? 1000 : 200000;
	struct expression *e;
	struct err err = {};

	if (expression_compile(text, LINK_ETHERNET, NULL, &e, &err))
		fail_msg("\"%s\": %s", text, err.text);
	bench_load(&e, &text, 1);
	for (int i = 0; i < 5; i++) {
		uint32_t ns = bench_cost(layout, p, repeat);

		least = MIN(least, ns);
	}
	expression_free(e);
	return least;
}

static void what_expressions_cost_is_told(void **state)
{
	static const char *const texts[] = {
		"tcp",
		"tcp port 443",
		"host 10.0.0.5",
		"tcp port 443 and host 10.0.0.5 or vlan 7",
		"port 22 or 80 or 443 or 53 or 123 or 5432",
		"tcp[tcpflags] & (tcp-syn|tcp-fin) != 0 and not src net 10.0.0.0/8",
		"protochain 17",
	};
	struct shape s;
	struct bench_packet p = {.direction = DIRECTION_INGRESS};

	(void)state;
	ENV_SKIP();
	shape_ethernet(&s, 0x800);
	shape_ipv4(&s, 6, 0, 0, 1);
	shape_ports(&s);
	p.data = s.data;
	p.len = (uint32_t)s.len;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		uint32_t tc = cost(texts[i], BENCH_TC, &p) - cost("", BENCH_TC, &p);
		uint32_t xdp = cost(texts[i], BENCH_XDP, &p) - cost("", BENCH_XDP, &p);

		print_message("# \"%s\": %d ns at TC, %d ns at XDP\n", texts[i], (int)tc, (int)xdp);
	}
	print_message("# the bench with an expression that takes all: %u ns at TC, %u ns at XDP\n",
		      cost("", BENCH_TC, &p), cost("", BENCH_XDP, &p));
}

/* From one that fits to one that does not, the reason is told. */
static void an_expression_that_is_too_long_is_refused(void **state)
{
	static char text[EXPRESSION_MAX];
	const struct ebpf_maps maps = {.scratch_fd = 1, .stages_fd = 2};
	struct ebpf_program program;
	const char *const texts[] = {text};
	struct expression *e;
	struct err err = {};
	size_t at = 0;
	int got = 0;

	(void)state;
	ENV_SKIP();
	for (uint32_t n = 1; !got; n++) {
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%shost 10.%u.%u.%u",
				       n == 1 ? "" : " or ", n % 7, n / 256, n % 256);
		if (n % 100)
			continue;
		if (at + 32 > sizeof(text))
			fail_msg("none is too long");
		if (expression_compile(text, LINK_ETHERNET, NULL, &e, &err))
			fail_msg("%u hosts: %s", n, err.text);
		got = ebpf_translate(e, EBPF_TC, &maps, &program, &err);
		if (!got) {
			print_message("# %u hosts: %zu instructions\n", n, program.n);
			ebpf_release(&program);
			bench_load(&e, texts, 1);
		}
		expression_free(e);
	}
	assert_int_equal(got, -E2BIG);
	assert_non_null(strstr(err.text, "the expression is too long ("));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(every_primitive_on_real_ethernet_packets_as_libpcap),
		TEST(every_primitive_on_real_ip_packets_as_libpcap),
		TEST(random_expressions_on_random_packets_as_libpcap),
		TEST(what_expressions_cost_is_told),
		TEST(an_expression_that_is_too_long_is_refused),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	traffic_read(&traffic);
	env_enter();
	return cmocka_run_group_tests_name("bpf_expression", tests, NULL, NULL);
}
