// SPDX-License-Identifier: Apache-2.0
/*
 * Decisions without the kernel's programs: the coarse filter, in the kernel's own machine (a pair
 * of sockets runs it), against the exact decision; and which flows are the agent's own.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "bpf/shapes.h"
#include "coarse.h"
#include "decide.h"
#include "util.h"

#define SNAPLEN 100u

static uint64_t masks[65536];

static struct decide *new_decide(nsec_t dedup_window)
{
	struct decide_config config = {
		.port_masks = masks, .snaplen = SNAPLEN, .dedup_window = dedup_window};
	struct decide *d = decide_new(&config);

	assert_non_null(d);
	return d;
}

static struct capture_counts counts;

static struct decide_verdict verdict(struct decide *d, const struct iface_rule *rule,
				     const struct decide_packet *p)
{
	struct capture_counts before = counts;
	struct decide_verdict v = decide_packet(d, rule, &counts, p);

	/* Seen, and counted once more. */
	for (int i = 0; i < CAPTURE_COUNTERS; i++) {
		bool counted = i == CAPTURE_SEEN || i == (int)v.counter || i == (int)v.part;

		assert_int_equal(counts.packets[i] - before.packets[i], counted);
		assert_int_equal(counts.bytes[i] - before.bytes[i], counted ? p->len : 0);
	}
	return v;
}

static enum capture_counter decided(struct decide *d, const struct iface_rule *rule,
				    const struct decide_packet *p)
{
	return verdict(d, rule, p).counter;
}

/* What the filter lets through, cut; -1: nothing. */
static long pass(const struct coarse *f, const uint8_t *data, size_t len)
{
	uint8_t got[SHAPE_MAX];
	struct err err;
	int pair[2];
	ssize_t n;

	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair), 0);
	if (coarse_attach(f, pair[1], &err))
		fail_msg("%s", err.text);
	/* A datagram that the filter drops is an error for its sender, or is not, by kernel. */
	n = send(pair[0], data, len, 0);
	assert_true(n == (ssize_t)len || (n < 0 && errno == EPERM));
	n = recv(pair[1], got, sizeof(got), 0);
	if (n > 0)
		assert_memory_equal(got, data, (size_t)n);
	close(pair[0]);
	close(pair[1]);
	return n;
}

static void clear_masks(void)
{
	memset(masks, 0, sizeof(masks));
}

/* A list of ports in a few ranges, some of which the shapes have. */
static void random_list(uint64_t bit)
{
	static const uint16_t of_shapes[] = {SPORT, DPORT, DPORT - 1, DPORT + 1, OTHER};
	unsigned int n = shape_rnd() % 5;

	while (n--) {
		unsigned int first =
			shape_rnd() % 2 ? shape_rnd() % 65536 : of_shapes[shape_rnd() % 5];
		unsigned int last = first + shape_rnd() % 3 * (shape_rnd() % 3000);

		for (unsigned int p = first; p <= last && p < 65536; p++)
			masks[p] |= bit;
	}
}

static struct iface_rule random_rule(void)
{
	struct iface_rule rule = {.invert = shape_rnd() % 2};

	clear_masks();
	if (shape_rnd() % 2)
		random_list(PORT_IGNORE);
	if (shape_rnd() % 4) {
		random_list(PORT_CAPTURE);
		random_list(PORT_SET(0));
		rule.mask = PORT_CAPTURE | (shape_rnd() % 2 ? PORT_SET(0) : 0);
	}
	return rule;
}

static void the_coarse_filter_drops_nothing_that_is_wanted(void **state)
{
	unsigned int dropped = 0, with_ports = 0, unwanted = 0;

	(void)state;
	for (int i = 0; i < 150; i++) {
		struct iface_rule rule = random_rule();
		struct decide *all, *passed;
		struct coarse filter;

		rule.raw_ip = i % 3 == 0;
		all = new_decide(0);
		passed = new_decide(0);
		coarse_make_ports(&filter, &rule, masks, SNAPLEN);
		with_ports += filter.ports;
		for (int k = 0; k < 100; k++) {
			struct decide_packet p = {.time = 1};
			enum capture_counter wanted;
			size_t skip = rule.raw_ip ? 14 : 0;
			struct shape s;
			long n;

			if (shape_rnd() % 3)
				shape_random(&s, 15);
			else
				shape_random_fragment(&s);
			p.data = s.data + skip;
			p.caplen = p.len = (uint32_t)(s.len - skip);
			wanted = decided(all, &rule, &p);
			n = pass(&filter, p.data, p.len);
			unwanted += wanted != CAPTURE_CAPTURED;
			dropped += n < 0;
			if (n < 0 && wanted == CAPTURE_CAPTURED)
				fail_msg("rule %d, packet %d was dropped", i, k);
			if (n < 0)
				continue;
			assert_int_equal(n, MIN(p.len, SNAPLEN));
			/* What it drops would not have changed a later decision. */
			assert_int_equal(decided(passed, &rule, &p), wanted);
		}
		decide_free(all);
		decide_free(passed);
	}
	print_message("# it dropped %u of %u unwanted packets\n", dropped, unwanted);
	assert_true(with_ports > 50);
	assert_true(dropped > unwanted / 4);
}

static void plain_packets_are_judged_in_the_kernel(void **state)
{
	static const struct iface_rule allow = {.mask = PORT_CAPTURE};
	static const struct iface_rule deny = {.mask = PORT_CAPTURE, .invert = 1};
	struct coarse filter;
	struct shape s;

	(void)state;
	clear_masks();
	masks[DPORT] = PORT_CAPTURE;
	for (int six = 0; six < 2; six++) {
		shape_ethernet(&s, six ? 0x86dd : 0x800);
		six ? shape_ipv6(&s, 17) : shape_ipv4(&s, 17, 4, 0, 1);
		shape_ports(&s);
		coarse_make_ports(&filter, &allow, masks, SNAPLEN);
		assert_int_equal(pass(&filter, s.data, s.len), MIN(s.len, SNAPLEN));
		coarse_make_ports(&filter, &deny, masks, SNAPLEN);
		assert_int_equal(pass(&filter, s.data, s.len), -1);
		s.data[s.ports_end - 1]++;
		assert_int_equal(pass(&filter, s.data, s.len), MIN(s.len, SNAPLEN));
		coarse_make_ports(&filter, &allow, masks, SNAPLEN);
		assert_int_equal(pass(&filter, s.data, s.len), -1);
	}
	/* ARP has no ports. */
	shape_ethernet(&s, 0x806);
	shape_fill(&s, 0, 28);
	assert_int_equal(pass(&filter, s.data, s.len), -1);
}

static void too_many_ranges_are_left_to_user_space(void **state)
{
	static const struct iface_rule allow = {.mask = PORT_CAPTURE};
	struct coarse filter;
	struct shape s;

	(void)state;
	clear_masks();
	for (unsigned int i = 0; i < COARSE_RANGES; i++)
		masks[1000 + 2 * i] = PORT_CAPTURE;
	coarse_make(&filter, &allow, masks, DIRECTION_INGRESS, SNAPLEN);
	assert_true(filter.ports && filter.n <= COARSE_MAX);
	for (unsigned int i = 0; i < COARSE_RANGES / 2; i++)
		masks[1000 + 2 * i] = PORT_IGNORE;
	coarse_make(&filter, &allow, masks, DIRECTION_INGRESS, SNAPLEN);
	assert_true(filter.ports && filter.n <= COARSE_MAX);
	masks[60000] = PORT_CAPTURE;
	coarse_make(&filter, &allow, masks, DIRECTION_INGRESS, SNAPLEN);
	assert_false(filter.ports);
	shape_ethernet(&s, 0x806);
	shape_fill(&s, 0, 28);
	assert_int_equal(pass(&filter, s.data, s.len), s.len);
	/* What comes over a socket has not left by an interface. */
	coarse_make(&filter, &allow, NULL, DIRECTION_EGRESS, SNAPLEN);
	assert_int_equal(pass(&filter, s.data, s.len), -1);
}

static struct decide_packet of_shape(const struct shape *s)
{
	return (struct decide_packet){
		.data = s->data,
		.caplen = (uint32_t)s->len,
		.len = (uint32_t)s->len,
		.direction = DIRECTION_INGRESS,
		.time = 100 * NSEC_PER_SEC,
	};
}

static void tcp_shape(struct shape *s)
{
	shape_ethernet(s, 0x800);
	shape_ipv4(s, 6, 0, 0, 1);
	shape_ports(s);
	s->data[14 + 20 + 12] = 0x60; /* a header of 24 bytes */
}

static void an_expression_is_asked_after_the_rule(void **state)
{
	struct iface_rule allow = {.mask = PORT_CAPTURE, .asks = 3};
	struct expression *e, *other;
	struct decide_packet p;
	struct decide *d;
	struct shape s;
	struct err err;

	(void)state;
	clear_masks();
	masks[DPORT] = PORT_CAPTURE;
	d = new_decide(0);
	tcp_shape(&s);
	p = of_shape(&s);
	assert_int_equal(decided(d, &allow, &p), CAPTURE_CAPTURED);
	assert_int_equal(expression_compile("greater 70", 1, NULL, &e, &err), 0);
	assert_int_equal(expression_compile("udp", 1, NULL, &other, &err), 0);
	decide_set_expression(d, 3, e);
	decide_set_expression(d, 4, other);
	p.caplen = 60;
	p.len = 70;
	assert_int_equal(decided(d, &allow, &p), CAPTURE_CAPTURED);
	p.len = 69;
	assert_int_equal(decided(d, &allow, &p), CAPTURE_EXPRESSION_OUT);
	allow.mask = PORT_SET(0);
	assert_int_equal(decided(d, &allow, &p), CAPTURE_RULED_OUT);
	allow.mask = PORT_CAPTURE;
	decide_set_expression(d, 3, NULL);
	assert_int_equal(decided(d, &allow, &p), CAPTURE_CAPTURED);
	decide_free(d);
	expression_free(e);
	expression_free(other);
}

static void so_much_is_kept_as_rule_and_budget_say(void **state)
{
	struct iface_rule all = {.invert = 1};
	struct decide_verdict v;
	struct decide_packet p;
	struct decide *d;
	struct shape s;

	(void)state;
	clear_masks();
	d = new_decide(0);
	tcp_shape(&s);
	p = of_shape(&s);
	v = verdict(d, &all, &p);
	assert_int_equal(v.caplen, p.len);
	assert_int_equal(v.part, CAPTURE_COUNTERS);
	all.slice = 20;
	v = verdict(d, &all, &p);
	assert_int_equal(v.caplen, 20);
	assert_int_equal(v.part, CAPTURE_SLICED);
	all.slice = SLICE_L4 | 2;
	assert_int_equal(verdict(d, &all, &p).caplen, 14 + 20 + 24 + 2);
	decide_degrade(d, &(struct degrade){.slice = SLICE_L4});
	assert_int_equal(verdict(d, &all, &p).caplen, 14 + 20 + 24);
	decide_degrade(d, &(struct degrade){});
	/* The snap length cuts without a word. */
	all.slice = 0;
	p.len = 5000;
	v = verdict(d, &all, &p);
	assert_int_equal(v.caplen, MIN(s.len, SNAPLEN));
	assert_int_equal(v.part, CAPTURE_COUNTERS);
	decide_free(d);
}

static void samples_are_of_packets_or_of_flows(void **state)
{
	struct iface_rule all = {.invert = 1, .sample = 4};
	unsigned int taken = 0, flows = 0;
	struct decide_packet p;
	struct decide *d;
	struct shape s;

	(void)state;
	clear_masks();
	counts = (struct capture_counts){};
	d = new_decide(0);
	tcp_shape(&s);
	p = of_shape(&s);
	for (int i = 0; i < 100; i++)
		taken += decided(d, &all, &p) == CAPTURE_CAPTURED;
	assert_int_equal(taken, 25);
	assert_int_equal(counts.packets[CAPTURE_SAMPLED_OUT], 75);
	all.asks = RULE_SAMPLE_FLOWS;
	for (unsigned int i = 0; i < 1000; i++) {
		enum capture_counter one;

		s.data[s.ports_end - 4] = (uint8_t)i;
		s.data[s.ports_end - 3] = (uint8_t)(i >> 8);
		one = decided(d, &all, &p);
		assert_int_equal(decided(d, &all, &p), one);
		flows += one == CAPTURE_CAPTURED;
	}
	assert_true(flows > 150 && flows < 350);
	decide_free(d);
}

static void a_limit_goes_by_the_packets_own_time(void **state)
{
	struct iface_rule all = {.invert = 1, .slot = 7, .asks = RULE_LIMIT};
	/* 100 packets/s, and no burst but the first. */
	struct bucket b = {.ns_per_packet = NSEC_PER_SEC / 100};
	unsigned int taken = 0;
	struct decide_packet p;
	struct decide *d;
	struct shape s;

	(void)state;
	clear_masks();
	counts = (struct capture_counts){};
	d = new_decide(0);
	decide_set_bucket(d, 8, &b);
	tcp_shape(&s);
	p = of_shape(&s);
	for (int i = 0; i < 1000; i++) {
		taken += decided(d, &all, &p) == CAPTURE_CAPTURED;
		p.time += NSEC_PER_SEC / 1000;
	}
	assert_int_equal(taken, 100);
	assert_int_equal(counts.packets[CAPTURE_RATE_LIMITED], 900);
	assert_int_equal(counts.packets[CAPTURE_SAMPLED_OUT], 900);
	decide_free(d);
}

static void the_same_packet_elsewhere_is_a_duplicate_for_a_while(void **state)
{
	struct iface_rule all = {.invert = 1, .asks = RULE_DEDUP};
	struct iface_rule elsewhere = {.invert = 1, .asks = RULE_DEDUP, .slot = 1};
	struct decide_packet p;
	struct decide *d;
	struct shape s;

	(void)state;
	clear_masks();
	counts = (struct capture_counts){};
	d = new_decide(NSEC_PER_MSEC);
	tcp_shape(&s);
	p = of_shape(&s);
	assert_int_equal(decided(d, &all, &p), CAPTURE_CAPTURED);
	assert_int_equal(decided(d, &all, &p), CAPTURE_CAPTURED); /* sent again */
	s.data[14 + 8]--;                                         /* one hop further */
	assert_int_equal(decided(d, &elsewhere, &p), CAPTURE_RULED_OUT);
	assert_int_equal(counts.packets[CAPTURE_DUPLICATES], 1);
	p.time += 2 * NSEC_PER_MSEC;
	assert_int_equal(decided(d, &elsewhere, &p), CAPTURE_CAPTURED);
	/* What was left out there has none. */
	p.time += 2 * NSEC_PER_MSEC;
	all.sample = 5;
	assert_int_equal(decided(d, &all, &p), CAPTURE_SAMPLED_OUT);
	assert_int_equal(decided(d, &elsewhere, &p), CAPTURE_CAPTURED);
	decide_free(d);
}

static void fragments_are_forgotten_one_day(void **state)
{
	static const struct iface_rule allow = {.mask = PORT_CAPTURE};
	struct decide_packet p = {.time = NSEC_PER_SEC};
	struct shape first, later;
	struct decide *d;

	(void)state;
	clear_masks();
	masks[DPORT] = PORT_CAPTURE;
	d = new_decide(0);
	shape_ethernet(&later, 0x800);
	shape_ipv4(&later, 17, 0, 4, 9);
	shape_fill(&later, 1, 40);
	/* Many more datagrams than there is room for; the last ones are known. */
	for (unsigned int id = 0; id < 40000; id++) {
		shape_ethernet(&first, 0x800);
		shape_ipv4(&first, 17, 0, 0x2000, id);
		shape_ports(&first);
		p = (struct decide_packet){.data = first.data,
					   .caplen = (uint32_t)first.len,
					   .len = (uint32_t)first.len,
					   .time = p.time + 1};
		assert_int_equal(decided(d, &allow, &p), CAPTURE_CAPTURED);
	}
	later.data[14 + 4] = 39999 >> 8;
	later.data[14 + 5] = 39999 & 255;
	p = (struct decide_packet){.data = later.data,
				   .caplen = (uint32_t)later.len,
				   .len = (uint32_t)later.len,
				   .time = p.time};
	assert_int_equal(decided(d, &allow, &p), CAPTURE_CAPTURED);
	p.time += FRAGMENT_TTL_NS + 2;
	assert_int_equal(decided(d, &allow, &p), CAPTURE_RULED_OUT);
	decide_free(d);
}

/* A connection over loopback, told of as the agent tells of its own. */
struct talk {
	struct ownflow *own;
	int listener, fd;
	struct sockaddr_in here, there;
};

static void told(struct talk *t, const struct sockaddr_in *to)
{
	struct err err;

	if (ownflow_socket(t->own, t->fd, (const struct sockaddr *)to, &err))
		fail_msg("%s", err.text);
}

static void talk_begin(struct talk *t)
{
	socklen_t size = sizeof(t->there);

	*t = (struct talk){.own = ownflow_new(), .there = {.sin_family = AF_INET}};
	t->there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	t->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	t->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(t->own && t->listener >= 0 && t->fd >= 0);
	assert_int_equal(bind(t->listener, (struct sockaddr *)&t->there, size), 0);
	assert_int_equal(listen(t->listener, 1), 0);
	assert_int_equal(getsockname(t->listener, (struct sockaddr *)&t->there, &size), 0);
	assert_false(ownflow_active(t->own));
	told(t, &t->there);
	assert_true(ownflow_active(t->own));
	assert_int_equal(connect(t->fd, (struct sockaddr *)&t->there, size), 0);
	told(t, NULL);
	assert_int_equal(getsockname(t->fd, (struct sockaddr *)&t->here, &size), 0);
}

static void talk_end(struct talk *t)
{
	close(t->fd);
	close(t->listener);
	ownflow_free(t->own);
}

static struct ownflow_packet packet_of(const struct talk *t)
{
	return (struct ownflow_packet){
		.src = {t->here.sin_addr.s_addr},
		.dst = {t->there.sin_addr.s_addr},
		.sport = ntohs(t->here.sin_port),
		.dport = ntohs(t->there.sin_port),
		.family = 4,
		.ttl = 64,
		.time = clock_boottime(),
	};
}

static struct ownflow_packet turned(struct ownflow_packet p)
{
	struct ownflow_packet q = p;

	memcpy(q.src, p.dst, sizeof(q.src));
	memcpy(q.dst, p.src, sizeof(q.dst));
	q.sport = p.dport;
	q.dport = p.sport;
	q.ttl = 64;
	return q;
}

static void a_connection_of_ours_is_known_by_its_ends(void **state)
{
	struct ownflow_packet p, other;
	struct talk t;

	(void)state;
	talk_begin(&t);
	p = packet_of(&t);
	assert_true(ownflow_has(t.own, &p));
	other = turned(p);
	assert_true(ownflow_has(t.own, &other));
	other = p;
	other.sport++;
	assert_false(ownflow_has(t.own, &other));
	other = p;
	other.dport++;
	assert_false(ownflow_has(t.own, &other));
	other = p;
	other.dst[0]++;
	assert_false(ownflow_has(t.own, &other));
	other = p;
	other.family = 6;
	assert_false(ownflow_has(t.own, &other));
	talk_end(&t);
}

/* False: the kernel sends none, or they have no offset of their own. */
static bool our_timestamp(const struct talk *t, uint32_t *ret)
{
	socklen_t size = sizeof(*ret);
	uint32_t since = (uint32_t)(clock_monotonic() / NSEC_PER_MSEC);
	struct tcp_info info;
	socklen_t info_size = sizeof(info);

	if (getsockopt(t->fd, IPPROTO_TCP, TCP_TIMESTAMP, ret, &size) ||
	    getsockopt(t->fd, IPPROTO_TCP, TCP_INFO, &info, &info_size))
		return false;
	return (info.tcpi_options & TCPI_OPT_TIMESTAMPS) && *ret - since + 20000 > 40000;
}

static void a_connection_of_ours_is_known_when_nat_has_changed_it(void **state)
{
	struct ownflow_packet p, other;
	socklen_t size = sizeof(int);
	struct talk t;
	int ttl;

	(void)state;
	talk_begin(&t);
	p = packet_of(&t);
	assert_int_equal(getsockopt(t.fd, IPPROTO_IP, IP_TTL, &ttl, &size), 0);
	if (!our_timestamp(&t, &p.timestamp)) {
		talk_end(&t);
		skip();
	}
	p.has_timestamp = true;
	p.ttl = (uint8_t)ttl;
	p.dst[0] = htonl(0xc0000201);
	p.sport = 1234;
	p.dport = 5678;

	/* Not by one of the marks alone. */
	other = p;
	other.ttl = 64;
	assert_false(ownflow_has(t.own, &other));
	other = p;
	other.timestamp += 5000;
	assert_false(ownflow_has(t.own, &other));
	other.timestamp = p.timestamp - 5000;
	assert_false(ownflow_has(t.own, &other));
	other = p;
	other.has_timestamp = false;
	assert_false(ownflow_has(t.own, &other));
	/* By both, a little late, and from then on by its ends. */
	other = turned(p);
	assert_false(ownflow_has(t.own, &other));
	p.timestamp -= 300;
	assert_true(ownflow_has(t.own, &p));
	assert_true(ownflow_has(t.own, &other));
	p.ttl = 64;
	p.has_timestamp = false;
	assert_true(ownflow_has(t.own, &p));
	talk_end(&t);
}

static void a_socket_that_never_connects_stops_nobody(void **state)
{
	struct ownflow_packet p;
	struct talk t;
	int other;

	(void)state;
	talk_begin(&t);
	other = t.fd;
	t.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(t.fd >= 0);
	told(&t, &t.there);
	/* The flow of the former one still counts. */
	p = packet_of(&t);
	assert_true(ownflow_has(t.own, &p));
	p.sport ^= 1;
	assert_false(ownflow_has(t.own, &p));
	told(&t, NULL);
	assert_false(ownflow_has(t.own, &p));
	close(other);
	talk_end(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_coarse_filter_drops_nothing_that_is_wanted),
		cmocka_unit_test(plain_packets_are_judged_in_the_kernel),
		cmocka_unit_test(too_many_ranges_are_left_to_user_space),
		cmocka_unit_test(an_expression_is_asked_after_the_rule),
		cmocka_unit_test(so_much_is_kept_as_rule_and_budget_say),
		cmocka_unit_test(samples_are_of_packets_or_of_flows),
		cmocka_unit_test(a_limit_goes_by_the_packets_own_time),
		cmocka_unit_test(the_same_packet_elsewhere_is_a_duplicate_for_a_while),
		cmocka_unit_test(fragments_are_forgotten_one_day),
		cmocka_unit_test(a_connection_of_ours_is_known_by_its_ends),
		cmocka_unit_test(a_connection_of_ours_is_known_when_nat_has_changed_it),
		cmocka_unit_test(a_socket_that_never_connects_stops_nobody),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
