// SPDX-License-Identifier: Apache-2.0
#include "exprrandom.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "util.h"

static uint64_t state = 1;

void random_seed(uint64_t seed)
{
	state = seed * 2654435769u + 1;
}

/* xorshift64*, see Vigna (2016). */
uint32_t random_below(uint32_t n)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (uint32_t)((state * 0x2545f4914f6cdd1dull >> 32) % n);
}

#define PICK(a) ((a)[random_below((uint32_t)ARRAY_SIZE(a))])

static const char *const hosts4[] = {"10.0.0.1", "10.0.0.2", "192.168.1.1", "224.0.0.5"};
static const char *const hosts6[] = {"fd00::1", "fd00::2", "fe80::1", "ff02::1"};
static const char *const ethers[] = {"2:0:0:0:0:a", "2:0:0:0:0:b", "ff:ff:ff:ff:ff:ff"};
static const uint16_t ports[] = {53, 80, 443, 6081, 4789, 1024};
static const uint8_t protocols[] = {6, 17, 132, 1, 58, 47, 4, 41, 2, 51, 0, 43, 44, 60, 103, 112};

struct writer {
	char *at, *end;
	unsigned int depth;
};

__attribute__((format(printf, 2, 3))) static void put(struct writer *w, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(w->at, (size_t)(w->end - w->at), fmt, ap);
	va_end(ap);
	w->at = n < w->end - w->at ? w->at + n : w->end - 1;
}

static void put_arithmetic(struct writer *w);

static void put_access(struct writer *w)
{
	static const char *const bases[] = {"ether", "ip",   "ip6",  "tcp", "udp",   "icmp",
					    "icmp6", "sctp", "igmp", "arp", "ether", "ip"};
	static const char *const sizes[] = {"", ":1", ":2", ":4", ":4", ":2"};

	put(w, "%s[", PICK(bases));
	if (random_below(3)) {
		put(w, "%u", random_below(3) ? random_below(24) : random_below(90));
	} else if (random_below(2)) {
		/* Around a tag. */
		put(w, "(");
		put_arithmetic(w);
		put(w, " & %u) + %u", PICK(((const uint8_t[]){1, 3, 7, 15})), random_below(16));
	} else {
		put_arithmetic(w);
	}
	put(w, "%s]", PICK(sizes));
}

static void put_number(struct writer *w)
{
	switch (random_below(4)) {
	case 0:
		put(w, "%u", random_below(16));
		break;
	case 1:
		put(w, "%u", random_below(2000));
		break;
	case 2:
		put(w, "0x%x", 1u << random_below(32));
		break;
	default:
		put(w, "%u", random_below(0xffffffff));
	}
}

static void put_arithmetic(struct writer *w)
{
	static const char *const ops[] = {"+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>"};

	if (w->depth > 3 || random_below(2)) {
		switch (random_below(5)) {
		case 0:
			put_number(w);
			break;
		case 1:
			put(w, "len");
			break;
		default:
			w->depth++;
			put_access(w);
			w->depth--;
		}
		return;
	}
	w->depth++;
	put(w, "(");
	put_arithmetic(w);
	put(w, " %s ", PICK(ops));
	put_arithmetic(w);
	put(w, ")");
	w->depth--;
}

static void put_direction(struct writer *w)
{
	static const char *const words[] = {"", "", "src ", "dst ", "src or dst ", "src and dst "};

	put(w, "%s", PICK(words));
}

static void put_address(struct writer *w)
{
	switch (random_below(6)) {
	case 0:
		put_direction(w);
		put(w, "host %s", PICK(hosts4));
		break;
	case 1:
		put_direction(w);
		put(w, "host %s", PICK(hosts6));
		break;
	case 2:
		put_direction(w);
		put(w, "net %s",
		    PICK(((const char *const[]){"10.0.0.0/8", "192.168", "0.0.0.0/0", "224.0.0.0/4",
						"10.0.0.0/31"})));
		break;
	case 3:
		put_direction(w);
		put(w, "net %s",
		    PICK(((const char *const[]){"fd00::/16", "fe80::/10", "::/0", "fd00::/127"})));
		break;
	case 4:
		put(w, "%s ", PICK(((const char *const[]){"ip", "arp", "rarp"})));
		put_direction(w);
		put(w, "host %s", PICK(hosts4));
		break;
	default:
		put(w, "ether %s %s", PICK(((const char *const[]){"src", "dst", "host"})),
		    PICK(ethers));
	}
}

static void put_port(struct writer *w)
{
	put(w, "%s", PICK(((const char *const[]){"", "", "tcp ", "udp ", "sctp "})));
	put_direction(w);
	if (random_below(3))
		put(w, "port %u", PICK(ports));
	else
		put(w, "portrange %u-%u", random_below(2000), random_below(10000));
}

static void put_keyword(struct writer *w)
{
	static const char *const words[] = {
		"ip",    "ip6",    "tcp",       "udp",       "sctp",         "icmp",
		"icmp6", "igmp",   "arp",       "rarp",      "ah",           "esp",
		"pim",   "vrrp",   "broadcast", "multicast", "ip multicast", "ip6 multicast",
		"llc",   "llc u",  "stp",       "iso",       "isis",         "vlan",
		"mpls",  "pppoes", "geneve",    "pppoed",    "ipx",          "atalk",
	};

	put(w, "%s", PICK(words));
}

static void put_numbered(struct writer *w)
{
	switch (random_below(8)) {
	case 0:
		put(w, "vlan %u", random_below(4));
		break;
	case 1:
		put(w, "mpls %u", random_below(4));
		break;
	case 2:
		put(w, "pppoes %u", random_below(4));
		break;
	case 3:
		put(w, "geneve %u", random_below(4));
		break;
	case 4:
		put(w, "%s %u", PICK(((const char *const[]){"less", "greater"})),
		    random_below(300));
		break;
	case 5:
		put(w, "%sproto %u", PICK(((const char *const[]){"", "ip ", "ip6 "})),
		    PICK(protocols));
		break;
	case 6:
		put(w, "ether proto 0x%x",
		    PICK(((const uint16_t[]){0x800, 0x86dd, 0x806, 0x8100, 0x8847, 0x8864, 0x42})));
		break;
	default:
		put(w, "%sprotochain %u", PICK(((const char *const[]){"", "ip ", "ip6 "})),
		    PICK(protocols));
	}
}

static void put_relation(struct writer *w)
{
	put_arithmetic(w);
	put(w, " %s ", PICK(((const char *const[]){"=", "!=", "<", ">", "<=", ">="})));
	put_arithmetic(w);
}

static void put_primitive(struct writer *w)
{
	switch (random_below(9)) {
	case 0:
	case 1:
		put_address(w);
		break;
	case 2:
	case 3:
		put_port(w);
		break;
	case 4:
		put_numbered(w);
		break;
	case 5:
	case 6:
		put_keyword(w);
		break;
	default:
		put_relation(w);
	}
}

static void put_expression(struct writer *w, unsigned int levels)
{
	uint32_t n = 1 + random_below(3);

	for (uint32_t i = 0; i < n; i++) {
		if (i)
			put(w, " %s ", PICK(((const char *const[]){"and", "or", "&&", "||"})));
		if (!random_below(5))
			put(w, "not ");
		if (levels && !random_below(3)) {
			put(w, "(");
			put_expression(w, levels - 1);
			put(w, ")");
		} else {
			put_primitive(w);
		}
	}
}

void random_expression(char *text, size_t size)
{
	struct writer w = {.at = text, .end = text + size};

	*text = '\0';
	put_expression(&w, 3);
}

struct packet_writer {
	uint8_t *data;
	uint32_t len;
};

static void add(struct packet_writer *w, const void *data, size_t n)
{
	memcpy(w->data + w->len, data, n);
	w->len += (uint32_t)n;
}

static void add16(struct packet_writer *w, unsigned int v)
{
	add(w, (uint8_t[]){(uint8_t)(v >> 8), (uint8_t)v}, 2);
}

static void add_random(struct packet_writer *w, uint32_t n)
{
	while (n--)
		w->data[w->len++] = random_below(2) ? 0 : (uint8_t)random_below(256);
}

static void add_ethernet(struct packet_writer *w)
{
	static const uint8_t addresses[][6] = {
		{2, 0, 0, 0, 0, 0xa}, {2, 0, 0, 0, 0, 0xb}, {255, 255, 255, 255, 255, 255}};

	add(w, PICK(addresses), 6);
	add(w, PICK(addresses), 6);
}

static void add_address(struct packet_writer *w, int family)
{
	uint8_t address[16];

	inet_pton(family, family == AF_INET ? PICK(hosts4) : PICK(hosts6), address);
	add(w, address, family == AF_INET ? 4 : 16);
}

static void add_ip4(struct packet_writer *w, uint8_t protocol)
{
	uint32_t options = random_below(4) ? 0 : random_below(11);

	add(w, (uint8_t[]){(uint8_t)(0x45 + options), (uint8_t)random_below(4)}, 2);
	add16(w, random_below(300));
	add16(w, random_below(65536));
	add16(w, PICK(((const uint16_t[]){0, 0, 0, 0x4000, 0x2000, 0x0010, 0x2001})));
	add(w, (uint8_t[]){(uint8_t)random_below(256), protocol, 0, 0}, 4);
	add_address(w, AF_INET);
	add_address(w, AF_INET);
	add_random(w, options * 4);
}

static void add_ip6(struct packet_writer *w, uint8_t protocol)
{
	uint32_t n = random_below(2) ? 0 : random_below(5);
	static const uint8_t types[] = {0, 43, 44, 60, 51};
	uint8_t next = n ? PICK(types) : protocol;

	add(w, (uint8_t[]){0x60, 0, 0, 0, 0, 100, next, 64}, 8);
	add_address(w, AF_INET6);
	add_address(w, AF_INET6);
	while (n--) {
		uint8_t this = next, len = (uint8_t)random_below(3);

		next = n ? PICK(types) : protocol;
		add(w, (uint8_t[]){next, len}, 2);
		add_random(w, (this == 51 ? (len + 2u) * 4 : (len + 1u) * 8) - 2);
	}
}

static void add_transport(struct packet_writer *w)
{
	add16(w, PICK(ports));
	add16(w, PICK(ports));
	add_random(w, 8 + random_below(60));
}

static void add_ip(struct packet_writer *w, unsigned int type)
{
	uint8_t protocol = PICK(protocols);

	if (type == 0x86dd)
		add_ip6(w, protocol);
	else
		add_ip4(w, protocol);
	add_transport(w);
}

/* What comes behind an Ethernet type, the type first. */
static void add_layer(struct packet_writer *w, unsigned int levels)
{
	static const uint16_t types[] = {0x800,  0x800,  0x800,  0x86dd, 0x86dd, 0x8100, 0x88a8,
					 0x9100, 0x8847, 0x8864, 0x806,  0x8035, 0x0040};
	unsigned int type = levels ? PICK(types) : 0x800;

	add16(w, type);
	switch (type) {
	case 0x8100:
	case 0x88a8:
	case 0x9100:
		add16(w, random_below(4));
		add_layer(w, levels - 1);
		break;
	case 0x8847:
		add(w, (uint8_t[]){0, 0, (uint8_t)(random_below(4) << 4), 64}, 4);
		add(w, (uint8_t[]){0, 0, (uint8_t)(random_below(4) << 4 | 1), 64}, 4);
		add_ip(w, random_below(2) ? 0x800 : 0x86dd);
		break;
	case 0x8864:
		add(w, (uint8_t[]){0x11, 0, 0, (uint8_t)random_below(4), 0, 60}, 6);
		add16(w, random_below(2) ? 0x21 : 0x57);
		add_ip(w, random_below(2) ? 0x800 : 0x86dd);
		break;
	case 0x806:
	case 0x8035:
		add(w, "\0\1\x08\0\6\4\0\1", 8);
		add(w, "\2\0\0\0\0\x0a", 6);
		add_address(w, AF_INET);
		add(w, "\2\0\0\0\0\x0b", 6);
		add_address(w, AF_INET);
		add_random(w, 18);
		break;
	case 0x0040:
		add(w,
		    PICK(((const uint8_t[][3]){{0xfe, 0xfe, 3}, {0x42, 0x42, 3}, {0xaa, 0xaa, 3}})),
		    3);
		add_random(w, 60);
		break;
	default:
		add_ip(w, type);
	}
}

static void add_geneve(struct packet_writer *w)
{
	add16(w, 0x800);
	add_ip4(w, 17);
	add16(w, PICK(ports));
	add16(w, 6081);
	add(w, "\0\0\0\0", 4);
	add(w, (uint8_t[]){(uint8_t)random_below(3), 0}, 2);
	add16(w, random_below(2) ? 0x6558 : 0x800);
	add(w, (uint8_t[]){0, 0, (uint8_t)random_below(4), 0}, 4);
	add_random(w, 4 * random_below(3));
	add_ethernet(w);
	add_layer(w, 1);
}

uint32_t random_packet(uint8_t data[RANDOM_PACKET_MAX])
{
	struct packet_writer w = {.data = data};

	add_ethernet(&w);
	if (random_below(8))
		add_layer(&w, 3);
	else
		add_geneve(&w);
	/* Nearly right is worse than random. */
	for (uint32_t n = random_below(4); n--;)
		data[random_below(w.len)] = (uint8_t)random_below(256);
	if (!random_below(4))
		w.len = 18 + random_below(w.len - 17);
	return w.len;
}
