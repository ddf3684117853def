/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets of every shape that the capture rules tell apart, all with the ports SPORT
 * and DPORT if any, and a second opinion on where the ports of a packet are.
 */
#ifndef PS_SHAPES_H
#define PS_SHAPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SPORT 1111
#define DPORT 22222
#define OTHER 80

#define SHAPE_MAX 1024

struct shape {
	uint8_t data[SHAPE_MAX];
	size_t len;
	size_t ports_end; /* bytes that must be there for the ports to be; 0: it has none */
};

static inline void shape_bytes(struct shape *s, const void *data, size_t n)
{
	memcpy(s->data + s->len, data, n);
	s->len += n;
}

static inline void shape_fill(struct shape *s, uint8_t value, size_t n)
{
	memset(s->data + s->len, value, n);
	s->len += n;
}

static inline void shape_be16(struct shape *s, unsigned int v)
{
	shape_bytes(s, (uint8_t[]){(uint8_t)(v >> 8), (uint8_t)v}, 2);
}

static inline void shape_ethernet(struct shape *s, unsigned int type)
{
	*s = (struct shape){};
	shape_bytes(s, "\x02\0\0\0\0\x0b\x02\0\0\0\0\x0a", 12);
	shape_be16(s, type);
}

/* Behind the ethertype that says there is one; @type is the next. */
static inline void shape_tag(struct shape *s, unsigned int vid, unsigned int type)
{
	shape_be16(s, vid);
	shape_be16(s, type);
}

/* @options bytes of options; @fragment as in the header (0x2000: more follow). */
static inline void shape_ipv4(struct shape *s, uint8_t proto, size_t options, unsigned int fragment,
			      unsigned int id)
{
	shape_bytes(s, (uint8_t[]){(uint8_t)(0x45 + options / 4), 0}, 2);
	shape_be16(s, 512);
	shape_be16(s, id);
	shape_be16(s, fragment);
	shape_bytes(s, (uint8_t[]){64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}, 12);
	shape_fill(s, 1, options);
}

static inline void shape_ipv6(struct shape *s, uint8_t next)
{
	shape_bytes(s, (uint8_t[]){0x60, 0, 0, 0, 1, 0, next, 64}, 8);
	shape_bytes(s, "\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\2", 32);
}

/* @len as in the header: in units of eight beyond the first (of four, for AH). */
static inline void shape_extension(struct shape *s, uint8_t type, uint8_t next, uint8_t len)
{
	shape_bytes(s, (uint8_t[]){next, len}, 2);
	shape_fill(s, 0, (type == 51 ? (len + 2u) * 4 : (len + 1u) * 8) - 2);
}

static inline void shape_fragment(struct shape *s, uint8_t next, unsigned int fragment, uint8_t id)
{
	shape_bytes(s, (uint8_t[]){next, 0}, 2);
	shape_be16(s, fragment);
	shape_bytes(s, (uint8_t[]){0, 0, 0, id}, 4);
}

static inline void shape_ports(struct shape *s)
{
	shape_be16(s, SPORT);
	shape_be16(s, DPORT);
	s->ports_end = s->len;
	shape_fill(s, 0xaa, 28);
}

/*
 * The ports of a whole packet or first fragment: written from the RFCs, not from
 * bpf/parse.h. The fuzzer compares the two.
 */
static inline bool shape_find_ports(const uint8_t *p, size_t len, bool raw_ip, uint16_t ret[2])
{
	const uint8_t *end = p + len;
	unsigned int type, next;
	bool ports_at_all;
	int hops = 0;

	if (!raw_ip) {
		int tags = 0;

		if (len < 14)
			return false;
		for (p += 12; end - p >= 2; p += 4) {
			type = p[0] << 8 | p[1];
			if (type != 0x8100 && type != 0x88a8 && type != 0x9100)
				break;
			if (tags++ == 8)
				return false;
		}
		if (end - p < 2)
			return false;
		p += 2;
	} else {
		if (len < 1)
			return false;
		type = p[0] >> 4 == 4 ? 0x800 : p[0] >> 4 == 6 ? 0x86dd : 0;
	}
	if (type == 0x800) {
		if (end - p < 20 || p[0] >> 4 != 4 || (p[0] & 15) < 5 ||
		    ((p[6] << 8 | p[7]) & 0x1fff))
			return false;
		next = p[9];
		p += (p[0] & 15) * 4;
	} else if (type == 0x86dd) {
		if (end - p < 40 || p[0] >> 4 != 6)
			return false;
		next = p[6];
		for (p += 40; next == 0 || next == 43 || next == 44 || next == 51 || next == 60 ||
			      next == 135 || next == 139 || next == 140;) {
			size_t size;

			if (end - p < 8 || hops++ == 24)
				return false;
			if (next == 44 && ((p[2] << 8 | p[3]) & 0xfff8))
				return false;
			size = next == 44 ? 8 : next == 51 ? (p[1] + 2u) * 4 : (p[1] + 1u) * 8;
			next = p[0];
			if ((size_t)(end - p) < size)
				return false;
			p += size;
		}
	} else {
		return false;
	}
	ports_at_all = next == 6 || next == 17 || next == 33 || next == 132 || next == 136;
	if (!ports_at_all || end - p < 4)
		return false;
	ret[0] = (uint16_t)(p[0] << 8 | p[1]);
	ret[1] = (uint16_t)(p[2] << 8 | p[3]);
	return true;
}

static inline uint32_t shape_rnd(void)
{
	static uint32_t x = 2463534242u;

	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return x;
}

/* A packet that is nearly right, with a few bytes changed and its end cut, not below @least. */
static inline void shape_random(struct shape *s, size_t least)
{
	static const uint8_t extensions[] = {0, 43, 51, 60, 135, 139, 140};
	const unsigned int n_extensions = sizeof(extensions);
	unsigned int type = shape_rnd() % 2 ? 0x800 : 0x86dd;
	unsigned int tags = shape_rnd() % 4;

	shape_ethernet(s, tags ? 0x8100 : type);
	for (unsigned int i = 1; i <= tags; i++)
		shape_tag(s, shape_rnd() % 4096, i == tags ? type : 0x88a8);
	if (type == 0x800) {
		shape_ipv4(s, shape_rnd() % 2 ? 6 : 17, shape_rnd() % 11 * 4, 0, 1);
	} else {
		unsigned int n = shape_rnd() % 6;
		uint8_t next = n ? extensions[shape_rnd() % n_extensions] : 6;

		shape_ipv6(s, next);
		while (n--) {
			uint8_t this = next;

			next = n ? extensions[shape_rnd() % n_extensions] : 6;
			shape_extension(s, this, next, (uint8_t)(shape_rnd() % 3));
		}
	}
	shape_ports(s);
	for (unsigned int n = shape_rnd() % 4; n--;)
		s->data[12 + shape_rnd() % (s->len - 12)] = (uint8_t)shape_rnd();
	if (shape_rnd() % 4 == 0)
		s->len = least + shape_rnd() % (s->len - least + 1);
}

/* A fragment, or none, of one of a few datagrams: first and later ones meet. */
static inline void shape_random_fragment(struct shape *s)
{
	static const unsigned int offsets[] = {0, 1, 2, 8};
	unsigned int offset = offsets[shape_rnd() % 4], more = shape_rnd() % 2;
	unsigned int id = shape_rnd() % 4;
	uint8_t proto = shape_rnd() % 4 ? 17 : 1;

	if (shape_rnd() % 2) {
		shape_ethernet(s, 0x800);
		shape_ipv4(s, proto, 0, more << 13 | offset, id);
	} else {
		shape_ethernet(s, 0x86dd);
		shape_ipv6(s, 44);
		shape_fragment(s, proto, offset << 3 | more, (uint8_t)id);
	}
	if (offset)
		shape_fill(s, 0x77, 32);
	else
		shape_ports(s);
	/* Others than all the rest have. */
	if (!offset && shape_rnd() % 2)
		s->data[s->ports_end - 1]++;
}

#endif
