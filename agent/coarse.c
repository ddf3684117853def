// SPDX-License-Identifier: Apache-2.0
/*
 * The program, for Ethernet; on devices without a link header it begins at the IP header.
 *
 *	direction: PACKET_OUTGOING or not		else drop
 *	IPv4, no fragment, a protocol with ports	look at its ports
 *	IPv6, such a protocol right behind the header	look at its ports
 *	any other fragment, IPv6, tagged frame		take
 *	anything else has no ports			take when the rule is inverted
 *
 * A look at the ports: one in `drop` (ignorePorts, and the lists of an inverted rule)
 * drops, else one in `take` takes; without that list everything is taken.
 *
 * Jumps of classic BPF reach 255 instructions, hence the bound on the ranges. Offsets are those
 * of the data: a tag that the kernel took out is not in it, and changes no port.
 */
#include "coarse.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "util.h"

#define PORTS 65536u

struct range {
	uint16_t first, last;
};

struct ranges {
	struct range v[COARSE_RANGES];
	unsigned int n;
	bool too_many;
};

static void emit(struct coarse *f, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf)
{
	f->code[f->n++] = (struct sock_filter){.code = code, .jt = jt, .jf = jf, .k = k};
}

static void load_byte(struct coarse *f, uint32_t off)
{
	emit(f, BPF_LD | BPF_B | BPF_ABS, off, 0, 0);
}

static void load_half(struct coarse *f, uint32_t off)
{
	emit(f, BPF_LD | BPF_H | BPF_ABS, off, 0, 0);
}

static void ret(struct coarse *f, uint32_t snaplen)
{
	emit(f, BPF_RET | BPF_K, snaplen, 0, 0);
}

/* The ports whose mask has one of @bits. */
static void find_ranges(struct ranges *r, const uint64_t *masks, uint64_t bits)
{
	*r = (struct ranges){};
	for (unsigned int p = 0; p < PORTS; p++) {
		if (!(masks[p] & bits))
			continue;
		if (r->n && r->v[r->n - 1].last == p - 1) {
			r->v[r->n - 1].last = (uint16_t)p;
		} else if (r->n == COARSE_RANGES) {
			r->too_many = true;
			return;
		} else {
			r->v[r->n++] = (struct range){(uint16_t)p, (uint16_t)p};
		}
	}
}

/* Return @snaplen when the port in the accumulator is in @r. */
static void if_in(struct coarse *f, const struct ranges *r, uint32_t snaplen)
{
	/* Two instructions for each range, then the jump around the return. */
	unsigned int left = 2 * r->n;

	if (!r->n)
		return;
	for (unsigned int i = 0; i < r->n; i++) {
		/* Below the first port of a range: below all that follow. */
		emit(f, BPF_JMP | BPF_JGE | BPF_K, r->v[i].first, 0, (uint8_t)(left - 1));
		emit(f, BPF_JMP | BPF_JGT | BPF_K, r->v[i].last, 0, (uint8_t)(left - 1));
		left -= 2;
	}
	emit(f, BPF_JMP | BPF_JA, 1, 0, 0);
	ret(f, snaplen);
}

/* Both ports; they are at X + @off, with @by_x, else at @off. */
static void look_at_ports(struct coarse *f, const struct ranges *drop, const struct ranges *take,
			  uint32_t off, bool by_x, uint32_t snaplen)
{
	const struct ranges *const lists[] = {drop, take};
	uint16_t mode = by_x ? BPF_IND : BPF_ABS;

	for (unsigned int i = 0; i < ARRAY_SIZE(lists); i++) {
		for (unsigned int at = 0; at < 4 && lists[i]->n; at += 2) {
			emit(f, BPF_LD | BPF_H | mode, off + at, 0, 0);
			if_in(f, lists[i], i ? snaplen : 0);
		}
	}
}

/* Go on when the packet has @end bytes, else take it: there is no telling. */
static void if_long(struct coarse *f, uint32_t end, uint32_t snaplen)
{
	emit(f, BPF_LD | BPF_W | BPF_LEN, 0, 0, 0);
	emit(f, BPF_JMP | BPF_JGE | BPF_K, end, 1, 0);
	ret(f, snaplen);
}

/* Go on when the protocol in the accumulator has ports, else return @other. */
static void if_ports(struct coarse *f, uint32_t other)
{
	static const uint8_t protocols[] = {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP, IPPROTO_DCCP,
					    IPPROTO_UDPLITE};
	const unsigned int n = ARRAY_SIZE(protocols);

	for (unsigned int i = 0; i < n; i++)
		emit(f, BPF_JMP | BPF_JEQ | BPF_K, protocols[i], (uint8_t)(n - i), 0);
	ret(f, other);
}

struct lists {
	struct ranges drop, take;
	uint32_t no_ports; /* what to return for a packet that has none */
	uint32_t rest;     /* and for one with ports that are in no list */
	uint32_t snaplen;
};

/* Return for every packet with an IPv4 header at @l3 that can be judged, and every other. */
static void judge_ipv4(struct coarse *f, const struct lists *l, uint32_t l3)
{
	if_long(f, l3 + 24, l->snaplen);
	/* A version or a length that no IPv4 header has. */
	load_byte(f, l3);
	emit(f, BPF_JMP | BPF_JGE | BPF_K, 0x45, 0, 1);
	emit(f, BPF_JMP | BPF_JGT | BPF_K, 0x4f, 0, 1);
	ret(f, l->snaplen);
	load_half(f, l3 + 6);
	emit(f, BPF_JMP | BPF_JSET | BPF_K, 0x3fff, 0, 1); /* more fragments, offset */
	ret(f, l->snaplen);
	load_byte(f, l3 + 9);
	if_ports(f, l->no_ports);
	/* Are the ports there, behind the options? */
	emit(f, BPF_LDX | BPF_B | BPF_MSH, l3, 0, 0);
	emit(f, BPF_MISC | BPF_TXA, 0, 0, 0);
	emit(f, BPF_ALU | BPF_ADD | BPF_K, l3 + 4, 0, 0);
	emit(f, BPF_LDX | BPF_W | BPF_LEN, 0, 0, 0);
	emit(f, BPF_JMP | BPF_JGT | BPF_X, 0, 0, 1);
	ret(f, l->snaplen);
	emit(f, BPF_LDX | BPF_B | BPF_MSH, l3, 0, 0);
	look_at_ports(f, &l->drop, &l->take, l3, true, l->snaplen);
	ret(f, l->rest);
}

static void judge_ipv6(struct coarse *f, const struct lists *l, uint32_t l3)
{
	if_long(f, l3 + 44, l->snaplen);
	load_byte(f, l3);
	emit(f, BPF_ALU | BPF_AND | BPF_K, 0xf0, 0, 0);
	emit(f, BPF_JMP | BPF_JEQ | BPF_K, 0x60, 1, 0);
	ret(f, l->snaplen);
	load_byte(f, l3 + 6);
	if_ports(f, l->snaplen);
	look_at_ports(f, &l->drop, &l->take, l3 + 40, false, l->snaplen);
	ret(f, l->rest);
}

/* Begin a piece that only packets with @value in the accumulator run; returns where. */
static unsigned short piece_begin(struct coarse *f, uint32_t value)
{
	emit(f, BPF_JMP | BPF_JEQ | BPF_K, value, 1, 0);
	emit(f, BPF_JMP | BPF_JA, 0, 0, 0);
	return f->n;
}

static void piece_end(struct coarse *f, unsigned short begin)
{
	f->code[begin - 1].k = (uint32_t)(f->n - begin);
}

static void judge_ethernet(struct coarse *f, const struct lists *l)
{
	static const uint16_t tags[] = {ETH_P_8021Q, ETH_P_8021AD, 0x9100};
	unsigned short begin;

	if_long(f, ETH_HLEN, l->snaplen);
	load_half(f, 12);
	begin = piece_begin(f, ETH_P_IP);
	judge_ipv4(f, l, ETH_HLEN);
	piece_end(f, begin);
	begin = piece_begin(f, ETH_P_IPV6);
	judge_ipv6(f, l, ETH_HLEN);
	piece_end(f, begin);
	for (unsigned int i = 0; i < ARRAY_SIZE(tags); i++) {
		emit(f, BPF_JMP | BPF_JEQ | BPF_K, tags[i], 0, 1);
		ret(f, l->snaplen);
	}
	ret(f, l->no_ports);
}

static void judge_raw(struct coarse *f, const struct lists *l)
{
	unsigned short begin;

	if_long(f, 1, l->snaplen);
	load_byte(f, 0);
	emit(f, BPF_ALU | BPF_AND | BPF_K, 0xf0, 0, 0);
	begin = piece_begin(f, 0x40);
	judge_ipv4(f, l, 0);
	piece_end(f, begin);
	begin = piece_begin(f, 0x60);
	judge_ipv6(f, l, 0);
	piece_end(f, begin);
	ret(f, l->no_ports);
}

static void make_ports(struct coarse *f, const struct iface_rule *rule, const uint64_t *masks,
		       uint32_t snaplen)
{
	struct lists l = {
		.no_ports = rule->invert ? snaplen : 0,
		.rest = rule->invert ? snaplen : 0,
		.snaplen = snaplen,
	};

	f->ports = false;
	if (masks) {
		find_ranges(&l.drop, masks, PORT_IGNORE | (rule->invert ? rule->mask : 0));
		find_ranges(&l.take, masks, rule->invert ? 0 : rule->mask);
		f->ports = !l.drop.too_many && !l.take.too_many &&
			   l.drop.n + l.take.n <= COARSE_RANGES && (l.drop.n || !rule->invert);
	}
	if (!f->ports)
		ret(f, snaplen);
	else if (rule->raw_ip)
		judge_raw(f, &l);
	else
		judge_ethernet(f, &l);
}

void coarse_make_ports(struct coarse *f, const struct iface_rule *rule, const uint64_t *port_masks,
		       uint32_t snaplen)
{
	f->n = 0;
	make_ports(f, rule, port_masks, snaplen);
}

void coarse_make(struct coarse *f, const struct iface_rule *rule, const uint64_t *port_masks,
		 enum direction direction, uint32_t snaplen)
{
	bool egress = direction == DIRECTION_EGRESS;

	f->n = 0;
	load_byte(f, (uint32_t)(SKF_AD_OFF + SKF_AD_PKTTYPE));
	emit(f, BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING, egress, !egress);
	ret(f, 0);
	make_ports(f, rule, port_masks, snaplen);
}

static int attach(struct sock_filter *code, unsigned short n, int fd, struct err *err)
{
	struct sock_fprog program = {.len = n, .filter = code};

	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0)
		return err_sys(err, -errno, "cannot filter what a packet socket takes");
	return 0;
}

int coarse_attach(const struct coarse *f, int fd, struct err *err)
{
	struct coarse copy = *f;

	return attach(copy.code, copy.n, fd, err);
}

int coarse_block(int fd, struct err *err)
{
	struct sock_filter nothing = {.code = BPF_RET | BPF_K};

	return attach(&nothing, 1, fd, err);
}
