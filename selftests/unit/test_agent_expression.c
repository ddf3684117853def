// SPDX-License-Identifier: Apache-2.0
/* Filter expressions: how a text is taken apart, what is refused and why, what matches. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "bpf/shapes.h"
#include "cbpf.h"
#include "expression.h"
#include "expression_tree.h"
#include "packet.h"
#include "sets.h"
#include "util.h"

static struct sets *sets;

static int setup(void **state)
{
	static const char *const bad[] = {"10.0.0.1", "192.0.2.0/24", "fd00::2"};
	static const char *const none[] = {"203.0.113.77"};
	struct err err;

	(void)state;
	sets = sets_new(100);
	assert_non_null(sets);
	assert_int_equal(sets_add_list(sets, "bad", bad, ARRAY_SIZE(bad), &err), 0);
	assert_int_equal(sets_add_list(sets, "none", none, ARRAY_SIZE(none), &err), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	sets = sets_free(sets);
	return 0;
}

static struct expression *compile(const char *text, uint32_t link_type)
{
	struct expression *e;
	struct err err = {};

	if (expression_compile(text, link_type, sets, &e, &err))
		fail_msg("\"%s\": %s", text, err.text);
	return e;
}

/* The program is libpcap's for @text. */
static bool is_program(const struct cbpf_program *p, const char *text, uint32_t link_type)
{
	struct cbpf_program other;
	struct err err = {};
	bool same;

	if (cbpf_compile(text, link_type, &other, &err))
		fail_msg("\"%s\": %s", text, err.text);
	same = p->n == other.n && !memcmp(p->insns, other.insns, p->n * sizeof(*p->insns));
	cbpf_release(&other);
	return same;
}

/*
 * A tree as text: & | ! and parentheses; {text} for libpcap's program of it; a set by its
 * name behind <, > or = (source, destination, either); [Ethernet tree,IP tree] for inner().
 * Eats what it finds of @shape; false when it is something else.
 */
static bool eat(const char **shape, char c)
{
	if (**shape != c)
		return false;
	(*shape)++;
	return true;
}

static bool has_shape(const struct node *n, const char **shape, uint32_t link_type);

static bool has_program(const struct node *n, const char **shape, uint32_t link_type)
{
	size_t len = strcspn(*shape, "}");
	char text[256];

	if (!eat(shape, '{'))
		return false;
	snprintf(text, sizeof(text), "%.*s", (int)len - 1, *shape);
	*shape += len - 1;
	return is_program(&n->classic, text, link_type) && eat(shape, '}');
}

static bool has_inner(const struct node *n, const char **shape)
{
	if (!eat(shape, '['))
		return false;
	if (n->a && !has_shape(n->a, shape, LINK_ETHERNET))
		return false;
	if (!eat(shape, ','))
		return false;
	if (n->b && !has_shape(n->b, shape, LINK_RAW))
		return false;
	return eat(shape, ']');
}

static bool has_shape(const struct node *n, const char **shape, uint32_t link_type)
{
	static const char ends[] = {[SET_SRC] = '<', [SET_DST] = '>', [SET_EITHER] = '='};

	switch (n->kind) {
	case NODE_AND:
	case NODE_OR:
		return eat(shape, '(') && has_shape(n->a, shape, link_type) &&
		       eat(shape, n->kind == NODE_AND ? '&' : '|') &&
		       has_shape(n->b, shape, link_type) && eat(shape, ')');
	case NODE_NOT:
		return eat(shape, '!') && has_shape(n->a, shape, link_type);
	case NODE_SET:
		if (!eat(shape, ends[n->end]) ||
		    strncmp(*shape, set_name(n->set), strlen(set_name(n->set))))
			return false;
		*shape += strlen(set_name(n->set));
		return true;
	case NODE_INNER:
		return has_inner(n, shape);
	case NODE_CLASSIC:
		break;
	}
	return has_program(n, shape, link_type);
}

static void check_shape(const char *text, const char *shape, uint32_t link_type)
{
	struct expression *e = compile(text, link_type);
	const char *rest = shape;

	if (!has_shape(e->root, &rest, link_type) || *rest)
		fail_msg("\"%s\" is not %s: see before \"%s\"", text, shape, rest);
	expression_free(e);
}

static void a_text_without_extensions_is_libpcaps_own(void **state)
{
	static const char *const texts[] = {
		"",
		"tcp",
		"port 80 or 443",
		"tcp or udp and port 53",
		"vlan 7 and tcp port 443",
		"src or dst host 10.0.0.1",
		"(ip[2:2] - ((ip[0]&0xf)<<2)) != 0",
		"ether proto \\ip && !(tcp || udp)",
		"host localhost and not inbound",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		char shape[256];

		snprintf(shape, sizeof(shape), "{%s}", texts[i]);
		check_shape(texts[i], shape, LINK_ETHERNET);
	}
	check_shape("tcp port 80", "{tcp port 80}", LINK_RAW);
}

static void extensions_split_a_text_as_libpcap_would(void **state)
{
	static const struct {
		const char *text, *shape;
	} cases[] = {
		{"host @bad", "=bad"},
		{"net @bad", "=bad"},
		{"src host @bad", "<bad"},
		{"dst net @bad", ">bad"},
		{"src @bad", "<bad"},
		{"src or dst host @bad", "=bad"},
		{"dst or src net @bad", "=bad"},
		{"src and dst host @bad", "(<bad&>bad)"},
		{"not host @bad", "!=bad"},
		{"! not !host @bad", "!=bad"},
		{"(host @bad)", "=bad"},
		{"((not (host @bad)))", "!=bad"},
		{"host @bad and tcp", "(=bad&{tcp})"},
		{"host @bad&&tcp", "(=bad&{tcp})"},
		{"tcp||host @bad", "({tcp}|=bad)"},
		/* Equal precedence, from the left. */
		{"tcp or udp and host @bad", "({tcp or udp}&=bad)"},
		{"tcp and port 80 or host @bad", "({tcp and port 80}|=bad)"},
		{"host @bad or host @none and tcp", "((=bad|=none)&{tcp})"},
		{"host @bad and tcp or host @none", "((=bad&{tcp})|=none)"},
		{"host @bad or tcp and host @none", "((=bad|{tcp})&=none)"},
		/* Runs keep together what belongs together. */
		{"port 80 or 443 and host @bad", "({port 80 or 443}&=bad)"},
		{"host @bad and tcp and port 80", "(=bad&{tcp and port 80})"},
		{"host @bad or port 80 or 443", "(=bad|{port 80 or 443})"},
		{"host @bad and (port 80 or 443)", "(=bad&{(port 80 or 443)})"},
		{"host @bad and not (tcp or udp)", "(=bad&{not (tcp or udp)})"},
		{"vlan 7 and tcp and host @bad", "({vlan 7 and tcp}&=bad)"},
		{"host @bad and vlan 7 and tcp", "(=bad&{vlan 7 and tcp})"},
		{"src or dst port 53 and host @bad", "({src or dst port 53}&=bad)"},
		{"tcp[tcpflags] & (tcp-syn|tcp-fin) != 0 and host @bad",
		 "({tcp[tcpflags] & (tcp-syn|tcp-fin) != 0}&=bad)"},
		{"(tcp[12] & 0xf0) >> 2 = 20 and (host @bad or tcp)",
		 "({(tcp[12] & 0xf0) >> 2 = 20}&(=bad|{tcp}))"},
		{"(tcp or host @bad) and (udp or host @none)", "(({tcp}|=bad)&({udp}|=none))"},
		/* What is in tunnels. */
		{"inner(tcp)", "[{tcp},{tcp}]"},
		{"inner (tcp or udp)", "[{tcp or udp},{tcp or udp}]"},
		{"not inner(tcp port 80)", "![{tcp port 80},{tcp port 80}]"},
		{"udp port 4789 and inner(tcp or udp) and not port 53",
		 "(({udp port 4789}&[{tcp or udp},{tcp or udp}])&{not port 53})"},
		{"inner(host @bad and tcp)", "[(=bad&{tcp}),(=bad&{tcp})]"},
		{"inner(vlan 7)", "[{vlan 7},]"},
		{"inner(ether host 0:1:2:3:4:5)", "[{ether host 0:1:2:3:4:5},]"},
		{"vlan and inner(port 80)", "({vlan}&[{port 80},{port 80}])"},
		{"inner(vlan and tcp) and port 80", "([{vlan and tcp},]&{port 80})"},
		/* Only a parenthesis makes it one of ours. */
		{"host inner.example or host @bad or tcp", NULL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		if (cases[i].shape)
			check_shape(cases[i].text, cases[i].shape, LINK_ETHERNET);
	}
	check_shape("host @bad and tcp", "(=bad&{tcp})", LINK_RAW);
}

static const struct {
	const char *text, *why;
} refused[] = {
	/* libpcap's own */
	{"tpc", "\"tpc\": "},
	{"tcp and", "syntax error"},
	{"(tcp", "syntax error"},
	{"10.0.0.1", "syntax error"},
	{"port 70000", "illegal port number 70000 > 65535"},
	{"port nosuchservice", "unknown port 'nosuchservice'"},
	{"net 10.0.0.1/8", "non-network bits set in \"10.0.0.1/8\""},
	{"tcp proto 6", "proto"},
	{"ip host fe80::1", "'ip' modifier applied to ip6 host"},
	{"ether[0] << 40 = 0", "shift by more than 31 bits"},
	{"ether[0] / 0 = 0", "division by zero"},
	{"ip and arp", "expression rejects all packets"},
	{"gateway localhost", "gateway"},
	{"ip broadcast", "netmask not known"},
	{"type mgt", "802.11"},
	{"lane", "lane"},
	{"vpi 3", "vpi"},
	{"fisu", "fisu"},
	{"ether proto nosuch", "unknown ether proto 'nosuch'"},
	{"ifname eth0", "ifname"},
	{"wlan addr1 0:0:0:0:0:0", "802.11"},
	{"radio[0] = 1", "radio"},
	{"rnr 5", "rnr"},
	{"vlan 70000", "VLAN tag 70000 greater than maximum 4095"},
	{"tcp[0:3] = 1", "data size must be 1, 2, or 4"},
	{"tcp[0]", "syntax error"},
	{"dir 1", "802.11"},
	/* ours, of libpcap's language */
	{"ifindex 3", "only inbound and outbound can be had"},
	/* sets */
	{"host @nosuch", "\"@nosuch\": there is no set of that name"},
	{"host @", "\"@\": there is no set of that name"},
	{"@bad", "\"@bad\": a set stands as [src|dst] host|net @NAME"},
	{"host 10.0.0.1 or @bad", "\"@bad\": a set stands as"},
	{"ip host @bad", "\"ip host @bad\": a set stands as"},
	{"ether host @bad", "a set stands as"},
	{"port @bad", "a set stands as"},
	{"host @bad 10.0.0.1", "a set stands as"},
	{"host (@bad or 10.0.0.1)", "a set stands as"},
	{"src or host @bad", "\"src\": "},
	{"src src host @bad", "a set stands as"},
	{"host net @bad", "a set stands as"},
	{"tcp host @bad and udp", "\"tcp host @bad\": a set stands as"},
	{"(host @bad) tcp", "\"(host @bad) tcp\": a set stands as"},
	{"src or dst", "syntax error"},
	{"src or dst or host @bad", "\"src or dst\": "},
	{"src and dst @", "there is no set"},
	/* what belongs together is in question */
	{"host @bad and tcp or udp",
	 "\"tcp or udp\": and, or have the same rank and both follow a set or inner()"},
	{"host @bad or tcp and port 80 or host @none", "\"tcp and port 80\": and, or have"},
	{"host @bad or 10.0.0.1", "\"10.0.0.1\": "},
	{"port 80 or host @bad or 443", "\"443\": "},
	{"vlan 7 and host @bad and port 80",
	 "\"port 80\": what follows \"vlan\" is looked for behind it"},
	{"(mpls or host @bad) and tcp", "what follows \"mpls\""},
	{"geneve and host @bad or inner(tcp) and udp", "what follows \"geneve\""},
	{"pppoes or inner(udp) or tcp", "what follows \"pppoes\""},
	{"inner(vlan and host @bad and tcp)", "what follows \"vlan\""},
	/* half of something */
	{"host @bad and", "something is missing there"},
	{"and host @bad", "something is missing there"},
	{"host @bad and or tcp", "something is missing there"},
	{"tcp and (host @bad or )", "something is missing there"},
	{"not", "syntax error"},
	{"not and host @bad", ""},
	{"() and host @bad", "\"()\": "},
	{"host @bad and (tcp", "no \")\" for \"(tcp\""},
	{"host @bad) and tcp", "a \")\" too many before \" and tcp\""},
	{"inner()", "parentheses with nothing inside"},
	{"inner(tcp", "no \")\""},
	{"inner(tcp) udp", "a set stands as"},
	{"inner(inner(tcp))", "\"inner(tcp)\": inside of another inner()"},
	{"inner(host @nosuch)", "there is no set"},
	{"inner(tpc)", "\"tpc\": "},
	{"inner(ip and arp)", "expression rejects all packets"},
};

static void what_cannot_be_had_is_refused_with_the_reason(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		struct expression *e = NULL;
		struct err err = {};
		int got = expression_compile(refused[i].text, LINK_ETHERNET, sets, &e, &err);

		if (got != -EINVAL)
			fail_msg("\"%s\": %d", refused[i].text, got);
		if (!strstr(err.text, refused[i].why) || !err.text[0])
			fail_msg("\"%s\": %s", refused[i].text, err.text);
		assert_null(e);
	}
}

static void what_a_link_type_has_not_is_refused(void **state)
{
	static const char *const texts[] = {"vlan 7", "ether host 0:1:2:3:4:5", "arp", "mpls"};
	struct expression *e;
	struct err err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		assert_int_equal(expression_compile(texts[i], LINK_RAW, NULL, &e, &err), -EINVAL);
}

static char *repeat(const char *head, const char *item, size_t n, const char *tail)
{
	size_t size = strlen(head) + n * strlen(item) + strlen(tail) + 1, at;
	char *text = malloc(size);

	assert_non_null(text);
	at = (size_t)snprintf(text, size, "%s", head);
	while (n--)
		at += (size_t)snprintf(text + at, size - at, "%s", item);
	snprintf(text + at, size - at, "%s", tail);
	return text;
}

static void expect_refusal(char *text, const char *why)
{
	struct expression *e;
	struct err err = {};

	assert_int_equal(expression_compile(text, LINK_ETHERNET, sets, &e, &err), -EINVAL);
	if (!strstr(err.text, why))
		fail_msg("%s", err.text);
	free(text);
}

static void sizes_are_limited(void **state)
{
	char *text;

	(void)state;
	expect_refusal(repeat("tcp", " ", 65536, ""), "longer than 65536 bytes");
	expect_refusal(repeat("", "(", 65, "host @bad"), "more than 64 parentheses");
	expect_refusal(repeat("", "!", 32768, "host @bad"), "more than 32768 words");
	text = repeat("host @bad", " or host @none", 1000, "");
	expression_free(compile(text, LINK_ETHERNET));
	free(text);
	text = repeat("", "not ", 10000, "host @bad");
	check_shape(text, "=bad", LINK_ETHERNET);
	free(text);
}

static void what_the_entry_program_must_find_is_told(void **state)
{
	static const struct {
		const char *text;
		bool l3, inner;
	} cases[] = {
		{"tcp", false, false},
		{"host @bad", true, false},
		{"inner(tcp)", false, true},
		{"inner(host @bad)", false, true},
		{"tcp and (udp or not (inner(host @bad) or src host @none))", true, true},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct expression *e = compile(cases[i].text, LINK_ETHERNET);

		assert_int_equal(expression_needs_l3(e), cases[i].l3);
		assert_int_equal(expression_needs_inner(e), cases[i].inner);
		expression_free(e);
	}
}

static bool matches_at(const char *text, const struct shape *s, uint32_t link_type,
		       enum direction direction)
{
	struct expression *e = compile(text, link_type);
	size_t skip = link_type == LINK_RAW ? 14 : 0;
	bool match = expression_match(e, direction, s->data + skip, (uint32_t)(s->len - skip),
				      (uint32_t)(s->len - skip));

	expression_free(e);
	return match;
}

static bool matches(const char *text, const struct shape *s)
{
	return matches_at(text, s, LINK_ETHERNET, DIRECTION_INGRESS);
}

static void sets_match_addresses_behind_tags_and_without_a_link_header(void **state)
{
	struct shape s;

	(void)state;
	/* 10.0.0.1 to 10.0.0.2; fd00::1 to fd00::2. */
	shape_ethernet(&s, 0x800);
	shape_ipv4(&s, 6, 0, 0, 1);
	shape_ports(&s);
	for (int raw = 0; raw < 2; raw++) {
		uint32_t link_type = raw ? LINK_RAW : LINK_ETHERNET;

		assert_true(matches_at("host @bad", &s, link_type, DIRECTION_INGRESS));
		assert_true(matches_at("src net @bad", &s, link_type, DIRECTION_INGRESS));
		assert_false(matches_at("dst host @bad", &s, link_type, DIRECTION_INGRESS));
		assert_false(matches_at("src and dst host @bad", &s, link_type, DIRECTION_INGRESS));
		assert_false(matches_at("host @none", &s, link_type, DIRECTION_INGRESS));
		assert_true(matches_at("tcp and not host @none", &s, link_type, DIRECTION_INGRESS));
	}
	/* Cut inside of the addresses. */
	s.len = 14 + 15;
	assert_false(matches("host @bad", &s));

	shape_ethernet(&s, 0x88a8);
	shape_tag(&s, 5, 0x8100);
	shape_tag(&s, 6, 0x86dd);
	shape_ipv6(&s, 17);
	assert_true(matches("dst host @bad", &s));
	assert_false(matches("src host @bad", &s));
	shape_ethernet(&s, 0x806);
	shape_fill(&s, 10, 28);
	assert_false(matches("host @bad", &s));
}

/* An inner packet behind what is in @s: Ethernet or not, IPv4 or 6, TCP. */
static void add_inner(struct shape *s, bool ethernet, bool v6)
{
	if (ethernet) {
		shape_bytes(s, "\x02\0\0\0\0\x0d\x02\0\0\0\0\x0c", 12);
		shape_be16(s, v6 ? 0x86dd : 0x800);
	}
	if (v6)
		shape_ipv6(s, 6);
	else
		shape_ipv4(s, 6, 0, 0, 2);
	shape_ports(s);
}

static void start_udp(struct shape *s, bool v6, unsigned int port)
{
	shape_ethernet(s, v6 ? 0x86dd : 0x800);
	if (v6)
		shape_ipv6(s, 17);
	else
		shape_ipv4(s, 17, 8, 0, 1);
	shape_be16(s, 50000);
	shape_be16(s, port);
	shape_fill(s, 0, 4);
}

static void check_inner(struct shape *s, bool ethernet)
{
	size_t whole = s->len;

	assert_true(matches("inner(tcp port 22222)", s));
	assert_true(matches("inner(tcp) and not tcp", s));
	assert_false(matches("inner(udp)", s));
	assert_true(matches("inner(host @bad)", s));
	assert_false(matches("inner(host @none)", s));
	assert_int_equal(matches("inner(ether dst 02:00:00:00:00:0d)", s), ethernet);
	assert_int_equal(matches("inner(not ether dst 02:00:00:00:00:0d)", s), false);
	s->len -= 32;
	assert_false(matches("inner(tcp port 22222)", s));
	s->len = whole;
}

static void inner_finds_what_is_in_every_tunnel(void **state)
{
	struct shape s;

	(void)state;
	for (int v6 = 0; v6 < 4; v6++) {
		bool outer = v6 & 1, inner = v6 & 2;

		start_udp(&s, outer, 4789);
		shape_bytes(&s, "\x08\0\0\0\0\0\x07\0", 8);
		add_inner(&s, true, inner);
		check_inner(&s, true);

		start_udp(&s, outer, 6081);
		shape_bytes(&s, "\x02\0\x65\x58\0\0\x07\0options!", 16);
		add_inner(&s, true, inner);
		check_inner(&s, true);
		start_udp(&s, outer, 6081);
		shape_bytes(&s, inner ? "\0\0\x86\xdd\0\0\x07\0" : "\0\0\x08\0\0\0\x07\0", 8);
		add_inner(&s, false, inner);
		check_inner(&s, false);

		for (unsigned int flags = 0; flags < 8; flags++) {
			static const unsigned int bits[] = {0x8000, 0x2000, 0x1000};
			unsigned int field = 0;
			bool bridged = flags & 1;

			shape_ethernet(&s, outer ? 0x86dd : 0x800);
			if (outer)
				shape_ipv6(&s, 47);
			else
				shape_ipv4(&s, 47, 0, 0, 1);
			for (int i = 0; i < 3; i++)
				field |= flags >> i & 1 ? bits[i] : 0;
			shape_be16(&s, field);
			shape_be16(&s, bridged ? 0x6558 : inner ? 0x86dd : 0x800);
			shape_fill(&s, 0, 4 * (size_t)__builtin_popcount(flags));
			add_inner(&s, bridged, inner);
			check_inner(&s, bridged);
		}

		shape_ethernet(&s, outer ? 0x86dd : 0x800);
		if (outer) {
			shape_ipv6(&s, 60);
			shape_extension(&s, 60, inner ? 41 : 4, 1);
		} else {
			shape_ipv4(&s, inner ? 41 : 4, 4, 0x2000, 1);
		}
		add_inner(&s, false, inner);
		check_inner(&s, false);
	}
}

static void nothing_is_in_what_is_no_tunnel(void **state)
{
	static const char *const heads[] = {
		"\0\0\0\0\0\0\x07\0",     /* VXLAN without an identifier */
		"\x40\0\x65\x58\0\0\0\0", /* Geneve, version 1 */
		"\0\0\x88\x47\0\0\0\0",   /* Geneve with MPLS */
	};
	struct shape s;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(heads); i++) {
		start_udp(&s, false, i ? 6081 : 4789);
		shape_bytes(&s, heads[i], 8);
		add_inner(&s, true, false);
		assert_false(matches("inner(greater 1)", &s));
	}
	/* GRE of version 1 (PPTP), with routing, of another type; a later fragment. */
	for (unsigned int i = 0; i < 4; i++) {
		static const unsigned int flags[] = {0x0001, 0x4000, 0, 0};

		shape_ethernet(&s, 0x800);
		shape_ipv4(&s, 47, 0, i == 3 ? 0x0010 : 0, 1);
		shape_be16(&s, flags[i]);
		shape_be16(&s, i == 2 ? 0x880b : 0x800);
		add_inner(&s, false, false);
		assert_false(matches("inner(greater 1)", &s));
		assert_true(matches("not inner(greater 1)", &s));
	}
	shape_ethernet(&s, 0x800);
	shape_ipv4(&s, 6, 0, 0, 1);
	shape_ports(&s);
	assert_false(matches("inner(greater 1)", &s));
}

static void inbound_and_outbound_are_the_packets_direction(void **state)
{
	struct shape s;

	(void)state;
	shape_ethernet(&s, 0x800);
	shape_ipv4(&s, 6, 0, 0, 1);
	shape_ports(&s);
	for (int d = DIRECTION_INGRESS; d <= DIRECTION_EGRESS; d++) {
		bool in = d == DIRECTION_INGRESS;

		assert_int_equal(matches_at("inbound", &s, LINK_ETHERNET, (enum direction)d), in);
		assert_int_equal(matches_at("outbound", &s, LINK_ETHERNET, (enum direction)d), !in);
		assert_int_equal(matches_at("tcp and not inbound", &s, LINK_RAW, (enum direction)d),
				 !in);
		assert_int_equal(
			matches_at("host @bad and outbound", &s, LINK_ETHERNET, (enum direction)d),
			!in);
	}
}

static void lengths_are_of_the_wire_and_loads_of_what_is_there(void **state)
{
	struct expression *e = compile("len > 1000 and ether[100] = 5", LINK_ETHERNET);
	uint8_t packet[101] = {[100] = 5};

	(void)state;
	assert_true(expression_match(e, DIRECTION_INGRESS, packet, 101, 1001));
	assert_false(expression_match(e, DIRECTION_INGRESS, packet, 101, 1000));
	assert_false(expression_match(e, DIRECTION_INGRESS, packet, 100, 1001));
	expression_free(e);
}

/* What the optimiser makes of many values takes minutes. */
static void a_list_of_many_values_is_not_optimised(void **state)
{
	static const unsigned int counts[] = {200, 260};
	char text[4000];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
		struct expression *e;
		size_t len = 0;

		for (unsigned int n = 0; n < counts[i]; n++)
			len += (size_t)snprintf(text + len, sizeof(text) - len, "%s10.0.%u.1",
						n ? " or " : "host ", n % 256);
		e = compile(text, LINK_ETHERNET);
		assert_true(i ? e->root->classic.n > 4000 : e->root->classic.n < 1500);
		expression_free(e);
	}
}

static void expressions_are_the_same_with_the_same_programs_and_sets(void **state)
{
	static const char *const texts[] = {"tcp",
					    "udp",
					    "host @bad",
					    "src @bad",
					    "host @none",
					    "inner(host @bad or udp)",
					    "host @bad and tcp",
					    "host @bad or tcp",
					    "not host @bad"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		for (size_t k = 0; k < ARRAY_SIZE(texts); k++) {
			struct expression *a = compile(texts[i], LINK_ETHERNET);
			struct expression *b = compile(texts[k], LINK_ETHERNET);

			assert_int_equal(expression_same(a, b), i == k);
			expression_free(a);
			expression_free(b);
		}
	}
}

/* An authentication header that says it has another one at the same place. */
static void a_loop_without_end_rejects(void **state)
{
	struct shape s;

	(void)state;
	shape_ethernet(&s, 0x86dd);
	shape_ipv6(&s, 51);
	shape_fill(&s, 0, 16);
	shape_bytes(&s, (uint8_t[]){51, 8}, 2);
	shape_fill(&s, 51, 200);
	assert_false(matches("ip6 protochain 6", &s));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_text_without_extensions_is_libpcaps_own),
		TEST(extensions_split_a_text_as_libpcap_would),
		TEST(what_cannot_be_had_is_refused_with_the_reason),
		TEST(what_a_link_type_has_not_is_refused),
		TEST(sizes_are_limited),
		TEST(what_the_entry_program_must_find_is_told),
		TEST(sets_match_addresses_behind_tags_and_without_a_link_header),
		TEST(inner_finds_what_is_in_every_tunnel),
		TEST(nothing_is_in_what_is_no_tunnel),
		TEST(inbound_and_outbound_are_the_packets_direction),
		TEST(lengths_are_of_the_wire_and_loads_of_what_is_there),
		TEST(a_list_of_many_values_is_not_optimised),
		TEST(expressions_are_the_same_with_the_same_programs_and_sets),
		TEST(a_loop_without_end_rejects),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
