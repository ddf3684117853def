// SPDX-License-Identifier: Apache-2.0
/*
 * What ours is in expressions, in the kernel: named sets of addresses, inner(), inbound;
 * the answers are those of expression_match(), whose own are in test_agent_expression.c.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "bpfenv.h"
#include "clock.h"
#include "dissect.h"
#include "ebpf.h"
#include "exprenv.h"
#include "expression_tree.h"
#include "exprrandom.h"
#include "packet.h"
#include "sets.h"
#include "shapes.h"
#include "traffic.h"
#include "util.h"

static const char *const texts[] = {
	"host @some",
	"src host @some",
	"dst net @some",
	"src and dst net @nets",
	"not host @some",
	"host @nets and tcp",
	"udp or icmp or dst host @some and not src net @nets",
	"(host @some or port 80 or 443) and not (net @nets and udp)",
	"vlan and tcp or host @some",
	"inner(tcp)",
	"inner(host @some)",
	"not inner(greater 1)",
	"inner(src net @nets and greater 80) or inner(ether[0] & 1 = 1)",
	"udp port 4789 and inner(tcp port 80 or udp port 53) and not host @nets",
	"inner(len > 100 and ip[8] > 5) or inner(ip6[6] = 58) or outbound",
	"inbound and inner(ether[len - 1] = 0xaa or ip[len - 1] = 0xaa)",
};

static struct sets *sets;
static struct expression *compiled[ARRAY_SIZE(texts)];

static void compile_all(uint32_t link_type)
{
	struct err err = {};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		/* Of raw IP a tag cannot be asked. */
		const char *text = i == 8 && link_type == LINK_RAW ? "host @some" : texts[i];

		if (expression_compile(text, link_type, sets, &compiled[i], &err))
			fail_msg("\"%s\": %s", text, err.text);
	}
	bench_load(compiled, texts, ARRAY_SIZE(texts));
}

static void forget_all(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		compiled[i] = expression_free(compiled[i]);
}

static int setup(void **state)
{
	static const char *const some[] = {"10.0.0.1", "192.168.1.1", "fd00::2", "224.0.0.0/4",
					   "2001:db8::/32"};
	static const char *const nets[] = {"10.0.0.0/8", "fe80::/10", "172.16.0.0/12", "fd00::1"};
	struct err err = {};

	(void)state;
	if (env_skip_reason)
		return 0;
	bench_open();
	sets = sets_new(1 << 20);
	assert_non_null(sets);
	if (sets_add_list(sets, "some", some, ARRAY_SIZE(some), &err) ||
	    sets_add_list(sets, "nets", nets, ARRAY_SIZE(nets), &err) || sets_load(sets, &err))
		fail_msg("%s", err.text);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (env_skip_reason)
		return 0;
	sets = sets_free(sets);
	bench_close();
	return 0;
}

/* What the capture's entry program would find. */
static struct bench_packet found(const uint8_t *data, uint32_t len, uint32_t link_type)
{
	struct bench_packet p = {.data = data, .len = len};
	struct scratch s = {};

	p.direction = len % 2 ? DIRECTION_EGRESS : DIRECTION_INGRESS;
	dissect(data, len, link_type, &s);
	p.family = s.family;
	p.l3 = s.l3;
	p.inner = s.inner;
	p.inner_type = s.inner_type;
	p.inner_l3 = s.inner_l3;
	p.inner_family = s.inner_family;
	return p;
}

struct tally {
	size_t runs, picked, inner;
};

static void check(const uint8_t *data, uint32_t len, uint32_t link_type, uint32_t split,
		  struct tally *t)
{
	struct bench_packet p = found(data, len, link_type);
	uint32_t right = 0, picks;

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		right |= (uint32_t)expression_match(compiled[i], p.direction, data, len, len) << i;
	t->inner += p.inner_type != 0;
	for (int layout = 0; layout < BENCH_LAYOUTS; layout++) {
		if (!bench_has((enum bench_layout)layout) ||
		    !bench_run((enum bench_layout)layout, &p, split, &picks))
			continue;
		t->runs += ARRAY_SIZE(texts);
		t->picked += (size_t)__builtin_popcount(picks);
		if (picks == right)
			continue;
		for (uint32_t i = 0; i < len; i++)
			fprintf(stderr, "%02x%s", data[i], i % 16 == 15 ? "\n" : " ");
		fail_msg("%s, split %u: %08x, in user space %08x", bench_layout_names[layout],
			 split, picks, right);
	}
}

/* A packet in a tunnel, sometimes behind a tag. */
static uint32_t tunnelled(uint8_t *data)
{
	static const char *const gre[] = {"\0\0\x65\x58", "\0\0\x08\0", "\0\0\x86\xdd",
					  "\x20\0\x65\x58\0\0\0\1"};
	uint8_t inside[RANDOM_PACKET_MAX];
	uint32_t len = random_packet(inside), skip = 0, kind = random_below(8);
	bool v6 = random_below(2);
	struct shape s;

	len = MIN(len, 400u);
	shape_ethernet(&s, v6 ? 0x86dd : 0x800);
	if (!random_below(3)) {
		shape_ethernet(&s, 0x8100);
		shape_tag(&s, 3, v6 ? 0x86dd : 0x800);
	}
	if (v6)
		shape_ipv6(&s, kind < 3 ? 17 : kind < 7 ? 47 : 4);
	else
		shape_ipv4(&s, kind < 3 ? 17 : kind < 7 ? 47 : 41, 4 * random_below(3), 0, 1);
	if (kind < 3) {
		shape_be16(&s, 1000);
		shape_be16(&s, kind ? 4789 : 6081);
		shape_fill(&s, 0, 4);
		shape_bytes(&s, kind ? "\x08\0\0\0\0\0\1\0" : "\0\0\x65\x58\0\0\1\0", 8);
	} else if (kind < 7) {
		shape_bytes(&s, gre[kind - 3], kind == 6 ? 8 : 4);
	}
	if (kind == 4 || kind == 5 || kind == 7)
		skip = MIN(14u, len);
	shape_bytes(&s, inside + skip, len - skip);
	memcpy(data, s.data, s.len);
	return (uint32_t)s.len;
}

static void sets_and_tunnels_answer_as_in_user_space(void **state)
{
	uint32_t n = getenv("PS_LONG") ? 200000 : getenv("PS_GUEST") ? 200 : 4000;
	static uint8_t data[2 * RANDOM_PACKET_MAX];
	struct tally t = {};

	(void)state;
	ENV_SKIP();
	compile_all(LINK_ETHERNET);
	random_seed(7);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t len = i % 4 ? tunnelled(data) : random_packet(data);

		if (!random_below(4))
			len = 18 + random_below(len - 17);
		check(data, len, LINK_ETHERNET, 14 + random_below(100), &t);
	}
	forget_all();
	print_message("# %u random packets (%zu tunnels), %zu runs, %zu matches\n", n, t.inner,
		      t.runs, t.picked);
}

static void sets_and_tunnels_on_real_packets(void **state)
{
	uint32_t step = getenv("PS_GUEST") ? 61 : 1;
	struct traffic ethernet = {}, raw = {};
	struct tally t = {};

	(void)state;
	ENV_SKIP();
	traffic_read(&ethernet);
	if (!ethernet.n) {
		print_message("# skipped: no captures\n");
		skip();
	}
	traffic_raw(&ethernet, &raw);
	compile_all(LINK_ETHERNET);
	for (size_t i = 0; i < ethernet.n; i += step)
		check(ethernet.v[i].data, ethernet.v[i].len, LINK_ETHERNET, 14 + i % 80, &t);
	forget_all();
	compile_all(LINK_RAW);
	for (size_t i = 0; i < raw.n; i += step)
		check(raw.v[i].data, raw.v[i].len, LINK_RAW, 14 + i % 80, &t);
	forget_all();
	print_message("# %zu packets (%zu tunnels), %zu runs, %zu matches\n", ethernet.n + raw.n,
		      t.inner, t.runs, t.picked);
	traffic_free(&ethernet);
	traffic_free(&raw);
}

/* A packet from 10.x.y.z, in host order, to 203.0.113.1. */
static struct bench_packet from(uint32_t address)
{
	static struct shape s;
	uint32_t be = htonl(address);

	shape_ethernet(&s, 0x800);
	shape_ipv4(&s, 6, 0, 0, 1);
	shape_ports(&s);
	memcpy(s.data + 26, &be, 4);
	memcpy(s.data + 30, "\xcb\0\x71\1", 4);
	return found(s.data, (uint32_t)s.len, LINK_ETHERNET);
}

/* Expression 0 about a packet from there, in the kernel and in user space. */
static bool picks(const struct expression *e, uint32_t address)
{
	struct bench_packet p = from(address);
	uint32_t got;

	assert_true(bench_run(BENCH_TC, &p, 0, &got));
	assert_int_equal(got, expression_match(e, p.direction, p.data, p.len, p.len));
	return got;
}

static struct expression *load_one(const char *text)
{
	struct expression *e;
	struct err err = {};

	if (expression_compile(text, LINK_ETHERNET, sets, &e, &err))
		fail_msg("\"%s\": %s", text, err.text);
	bench_load(&e, &text, 1);
	return e;
}

#define POOL 6000u

/* @n hosts from 10.0.0.0 + @first on, in a list that stays until the next call. */
static const char *const *hosts_from(uint32_t first, uint32_t n)
{
	static const char *items[POOL];
	static char addresses[POOL][16];

	for (uint32_t i = 0; i < n; i++) {
		uint32_t a = first + i;

		snprintf(addresses[i], sizeof(addresses[i]), "10.%u.%u.%u", a >> 16 & 255,
			 a >> 8 & 255, a & 255);
		items[i] = addresses[i];
	}
	return items;
}

/* Other sets in the place of @sets, which are freed before programs look into the new ones. */
static void replace_sets(struct sets *new)
{
	struct err err = {};

	assert_non_null(new);
	sets_share(new, sets);
	if (sets_load(new, &err))
		fail_msg("%s", err.text);
	sets_free(sets);
	sets = new;
}

static void a_set_may_grow_shrink_and_end(void **state)
{
	const uint32_t base = 10u << 24;
	struct expression *e;
	struct err err = {};

	(void)state;
	ENV_SKIP();
	for (uint32_t round = 0; round < 5; round++) {
		uint32_t first = round * 3000, n = round < 4 ? POOL / (1 + round % 2) : 0;
		struct sets *new = sets_new(POOL);

		if (sets_add_list(new, "grows", hosts_from(first, n), n, &err))
			fail_msg("%s", err.text);
		replace_sets(new);
		e = load_one("src host @grows");
		for (uint32_t i = 0; i < n; i += 37)
			assert_true(picks(e, base + first + i));
		assert_false(picks(e, base + first + n));
		for (uint32_t i = 1; i <= first; i += 37)
			assert_false(picks(e, base + first - i));
		expression_free(e);
	}
}

/* Nothing that a program looks into may ever be other than whole. */
static void a_loaded_set_stays_as_it_is_whatever_comes_after_it(void **state)
{
	static const char *const before[] = {"10.0.0.1", "10.0.1.0/24", "10.0.2.1"};
	static const char *const after[] = {"10.0.0.2", "10.0.1.7"};
	struct sets *new = sets_new(10);
	struct bench_packet p;
	struct expression *e;
	struct err err = {};
	uint32_t got;

	(void)state;
	ENV_SKIP();
	assert_int_equal(sets_add_list(sets, "x", before, ARRAY_SIZE(before), &err), 0);
	assert_int_equal(sets_load(sets, &err), 0);
	e = load_one("src host @x");
	assert_int_equal(sets_add_list(new, "x", after, ARRAY_SIZE(after), &err), 0);
	replace_sets(new);
	expression_free(e);
	for (uint32_t i = 0; i < 4; i++) {
		static const uint32_t hosts[] = {1, 2, 256 + 8, 512 + 1};

		p = from((10u << 24) + hosts[i]);
		assert_true(bench_run(BENCH_TC, &p, 0, &got));
		assert_int_equal(got, i != 1);
	}
	e = load_one("src host @x");
	assert_false(picks(e, (10u << 24) + 1));
	assert_true(picks(e, (10u << 24) + 256 + 7));
	expression_free(e);
}

/* As many as a kernel's program may have maps, less two of ours. */
static void one_more_set_than_a_program_may_have_is_refused_in_words(void **state)
{
	static char text[64 * 24], one[64][16];
	struct ebpf_maps maps = {};
	struct ebpf_program program;
	struct expression *e;
	struct err err = {};
	size_t len = 0;

	(void)state;
	ENV_SKIP();
	sets_free(sets);
	sets = sets_new(10);
	for (int i = 0; i < 63; i++) {
		const char *item = one[i];
		char name[8];

		snprintf(one[i], sizeof(one[i]), "10.0.0.%d", i);
		snprintf(name, sizeof(name), "s%d", i);
		assert_int_equal(sets_add_list(sets, name, &item, 1, &err), 0);
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%ssrc @%s",
					i ? " or " : "", name);
	}
	assert_int_equal(sets_load(sets, &err), 0);
	assert_int_equal(expression_compile(text, LINK_ETHERNET, sets, &e, &err), 0);
	assert_int_equal(ebpf_translate(e, EBPF_TC, &maps, &program, &err), -E2BIG);
	assert_non_null(strstr(err.text, "too many different sets"));
	expression_free(e);
	*strstr(text, " or src @s62") = '\0';
	e = load_one(text);
	assert_true(picks(e, (10u << 24) + 61));
	assert_false(picks(e, (10u << 24) + 62));
	expression_free(e);
}

/* A header that breaks off behind the addresses, or says that it is shorter than they. */
static void a_malformed_packet_still_has_its_addresses(void **state)
{
	static const char *const some[] = {"10.0.0.1", "2001:db8::1"};
	struct bench_packet v4 = from((10u << 24) + 1), v6;
	struct sets *new = sets_new(10);
	static struct shape s;
	struct expression *e;
	struct err err = {};
	uint32_t got;

	(void)state;
	ENV_SKIP();
	assert_int_equal(sets_add_list(new, "two", some, 2, &err), 0);
	replace_sets(new);
	e = load_one("src host @two");
	((uint8_t *)(uintptr_t)v4.data)[14] = 0x44;
	v4 = found(v4.data, v4.len, LINK_ETHERNET);
	assert_true(bench_run(BENCH_TC, &v4, 0, &got));
	assert_int_equal(got, 1);
	assert_true(expression_match(e, v4.direction, v4.data, v4.len, v4.len));
	shape_ethernet(&s, 0x86dd);
	shape_ipv6(&s, 0);
	inet_pton(AF_INET6, some[1], s.data + 22);
	v6 = found(s.data, 14 + 40, LINK_ETHERNET);
	assert_true(bench_run(BENCH_TC, &v6, 0, &got));
	assert_int_equal(got, 1);
	assert_true(expression_match(e, v6.direction, v6.data, v6.len, v6.len));
	expression_free(e);
}

/* A UDP header at the packet's end, to the port of a tunnel whose header is not there. */
static void nothing_is_inside_behind_the_end(void **state)
{
	static const char *const texts_of[] = {"inner(len > 0)", "not inner(len > 0)"};
	struct bench_packet p = from(10u << 24);
	struct expression *e;
	uint32_t got;

	(void)state;
	ENV_SKIP();
	p.inner_type = INNER_ETHERNET;
	p.inner = p.inner_l3 = p.len + 8;
	for (uint32_t i = 0; i < 2; i++) {
		e = load_one(texts_of[i]);
		assert_true(bench_run(BENCH_TC, &p, 0, &got));
		assert_int_equal(got, i);
		expression_free(e);
	}
}

static void write_million(const char *path, uint32_t n, uint32_t first)
{
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	/* Scattered, so that it is no one run: an odd factor permutes 32-bit numbers. */
	for (uint32_t i = first; i < first + n; i++) {
		uint32_t a = i * 2654435761u;

		if (i % 8)
			fprintf(f, "%u.%u.%u.%u\n", a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255);
		else
			fprintf(f, "fd00:%x:%x::/48\n", a >> 16, a & 0xffff);
	}
	assert_int_equal(fclose(f), 0);
}

static void a_million_addresses_are_loaded_found_and_replaced(void **state)
{
	uint32_t n = getenv("PS_GUEST") ? 20000 : 1000000;
	char path[] = "/tmp/ps-sets-XXXXXX";
	nsec_t begin, loaded, reloading, changed;
	struct sets *new;
	struct expression *e;
	struct err err = {};
	int fd;

	(void)state;
	ENV_SKIP();
	fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	write_million(path, n, 1);
	begin = clock_monotonic();
	if (sets_add_file(sets, "million", path, &err) || sets_load(sets, &err))
		fail_msg("%s", err.text);
	loaded = clock_monotonic();
	e = load_one("src host @million");
	for (uint32_t i = 1; i < n; i += 9973) {
		assert_int_equal(picks(e, i * 2654435761u), i % 8 != 0);
		assert_false(picks(e, (i + n) * 2654435761u));
	}
	/* One in ten is another. */
	write_million(path, n, 1 + n / 10);
	reloading = clock_monotonic();
	new = sets_new(1 << 20);
	if (sets_add_file(new, "million", path, &err))
		fail_msg("%s", err.text);
	replace_sets(new);
	changed = clock_monotonic();
	expression_free(e);
	e = load_one("src host @million");
	for (uint32_t i = 1; i < n + n / 10; i += 9973)
		assert_int_equal(picks(e, i * 2654435761u), i % 8 && i >= 1 + n / 10);
	print_message(
		"# %zu IPv4 addresses, %zu IPv6 networks loaded in %llu ms, a tenth changed in %llu ms\n",
		set_count(sets_find(sets, "million", 7), 4),
		set_count(sets_find(sets, "million", 7), 6),
		(unsigned long long)((loaded - begin) / NSEC_PER_MSEC),
		(unsigned long long)((changed - reloading) / NSEC_PER_MSEC));
	expression_free(e);
	unlink(path);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(sets_and_tunnels_answer_as_in_user_space),
		TEST(sets_and_tunnels_on_real_packets),
		TEST(a_set_may_grow_shrink_and_end),
		TEST(a_loaded_set_stays_as_it_is_whatever_comes_after_it),
		TEST(one_more_set_than_a_program_may_have_is_refused_in_words),
		TEST(a_malformed_packet_still_has_its_addresses),
		TEST(nothing_is_inside_behind_the_end),
		TEST(a_million_addresses_are_loaded_found_and_replaced),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	env_enter();
	return cmocka_run_group_tests_name("bpf_sets", tests, NULL, NULL);
}
