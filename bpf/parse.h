/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the first byte of a packet to its ports: VLAN tags, IPv4 with options, IPv6
 * with extension headers, fragments. Needs the verbs of a ctx_*.h. What is cut
 * short or malformed simply has no ports.
 */
#ifndef PS_PARSE_H
#define PS_PARSE_H

#include <bpf/bpf_endian.h>

#define PARSE_TAGS    8  /* in the data; one more can be in the metadata */
#define PARSE_HEADERS 24 /* IPv6 extension headers */

#define ETHERTYPE_OFFSET 12
#define ETH_P_QINQ_OLD   0x9100 /* 802.1ad before it had a number */
#define IP_MF            0x2000
#define IP_OFFSET        0x1fff
#define IP6_OFFSET       0xfff8
#define IP6_MF           0x0001
#define NEXT_HIP         139 /* RFC 7401 */
#define NEXT_SHIM6       140 /* RFC 5533 */

/* FIRST: the first of several; LATER: has no ports of its own. */
enum fragment_kind { FRAGMENT_NONE, FRAGMENT_FIRST, FRAGMENT_LATER };

struct parsed {
	__u32 l3;      /* offset of the IP header */
	__u32 l4;      /* of what follows it and its extensions; valid when family != 0 */
	__u8 family;   /* 4, 6; 0: not IP, or malformed */
	__u8 says;     /* 4, 6; 0: what it says to be; l3 is valid when that is not 0 */
	__u8 proto;    /* behind all extension headers */
	__u8 fragment; /* enum fragment_kind */
	__u8 has_ports;
	__u8 deep;          /* there are extension headers */
	__u16 sport, dport; /* host order */
	__u32 id;           /* of the datagram, when it is a fragment */
};

struct addresses {
	__u64 src[2], dst[2]; /* IPv4: in the first half of [0] */
};

/* What the fragments of a datagram have in common. */
struct datagram {
	struct addresses addresses;
	__u32 id;
	__u8 family, proto;
	__u16 pad;
};

/* A TCP connection, the same in both directions: the lower end comes first. */
struct flow {
	__u64 lo[2], hi[2];
	__u16 lo_port, hi_port;
	__u32 family;
};

/* Any extension header; the last two only in a fragment header. */
struct extension {
	__u8 next, len;
	__be16 fragment;
	__be32 id;
};

struct port_pair {
	__be16 src, dst;
};

static __always_inline bool parse_is_tag(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD) ||
	       type == bpf_htons(ETH_P_QINQ_OLD);
}

static __always_inline __u8 parse_family(__be16 type)
{
	return type == bpf_htons(ETH_P_IP) ? 4 : type == bpf_htons(ETH_P_IPV6) ? 6 : 0;
}

/* 4, 6 or 0, and where the IP header is. */
static __always_inline __u8 parse_ethernet(struct ps_ctx *ctx, __u32 *l3)
{
	__u32 off = ETHERTYPE_OFFSET;
	__be16 type;

	if (ctx_read(ctx, off, &type))
		return 0;
	for (int i = 0; i < PARSE_TAGS && parse_is_tag(type); i++) {
		off += 4;
		if (ctx_read(ctx, off, &type))
			return 0;
	}
	*l3 = off + 2;
	return parse_family(type);
}

static __always_inline bool parse_ipv4(struct ps_ctx *ctx, struct parsed *p)
{
	struct {
		__u8 version_ihl, tos;
		__be16 len, id, fragment;
		__u8 ttl, proto;
		__be16 check;
	} ip;
	__u16 fragment;

	if (ctx_read(ctx, p->l3, &ip) || ip.version_ihl < 0x45 || ip.version_ihl > 0x4f)
		return false;
	p->proto = ip.proto;
	p->id = ip.id;
	fragment = bpf_ntohs(ip.fragment);
	if (fragment & IP_OFFSET)
		p->fragment = FRAGMENT_LATER;
	else if (fragment & IP_MF)
		p->fragment = FRAGMENT_FIRST;
	p->l4 = p->l3 + (ip.version_ihl & 0xf) * 4;
	return true;
}

static __always_inline bool parse_is_extension(__u8 next)
{
	switch (next) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_AH:
	case IPPROTO_DSTOPTS:
	case IPPROTO_MH:
	case NEXT_HIP:
	case NEXT_SHIM6:
		return true;
	}
	return false;
}

static __always_inline bool parse_ipv6(struct ps_ctx *ctx, struct parsed *p)
{
	struct {
		__be32 version;
		__be16 len;
		__u8 next, hops;
	} ip;
	__u32 off = p->l3 + 40;
	__u8 next;

	if (ctx_read(ctx, p->l3, &ip) || (bpf_ntohl(ip.version) >> 28) != 6)
		return false;
	next = ip.next;
	for (int i = 0; i < PARSE_HEADERS && parse_is_extension(next); i++) {
		struct extension ext;

		/*
		 * From here on not ctx_read(): it would make the verifier follow every
		 * offset that the headers can add up to.
		 */
		if (ctx_load(ctx, off, &ext, sizeof(ext)))
			return false;
		p->deep = 1;
		if (next == IPPROTO_FRAGMENT) {
			__u16 fragment = bpf_ntohs(ext.fragment);

			p->id = ext.id;
			if (fragment & IP6_OFFSET) {
				p->fragment = FRAGMENT_LATER;
				p->l4 = off + sizeof(ext);
				return true;
			}
			if (fragment & IP6_MF)
				p->fragment = FRAGMENT_FIRST;
			off += sizeof(ext);
		} else if (next == IPPROTO_AH) {
			off += (ext.len + 2) * 4;
		} else {
			off += (ext.len + 1) * 8;
		}
		next = ext.next;
	}
	p->proto = next;
	p->l4 = off;
	return true;
}

static __always_inline bool parse_proto_has_ports(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_SCTP ||
	       proto == IPPROTO_DCCP || proto == IPPROTO_UDPLITE;
}

static __always_inline void parse(struct ps_ctx *ctx, bool raw_ip, struct parsed *p)
{
	struct port_pair ports;
	bool ok = false;
	__u8 first;

	__builtin_memset(p, 0, sizeof(*p));
	if (!raw_ip) {
		p->family = parse_ethernet(ctx, &p->l3);
	} else if (!ctx_read(ctx, 0, &first)) {
		first >>= 4;
		p->family = first == 4 || first == 6 ? first : 0;
	}
	p->says = p->family;
	if (p->family == 4)
		ok = parse_ipv4(ctx, p);
	else if (p->family == 6)
		ok = parse_ipv6(ctx, p);
	if (!ok) {
		p->family = 0;
		return;
	}
	if (p->fragment == FRAGMENT_LATER || !parse_proto_has_ports(p->proto))
		return;
	if (p->deep ? ctx_load(ctx, p->l4, &ports, sizeof(ports)) : ctx_read(ctx, p->l4, &ports))
		return;
	p->sport = bpf_ntohs(ports.src);
	p->dport = bpf_ntohs(ports.dst);
	p->has_ports = 1;
}

static __always_inline int parse_addresses(struct ps_ctx *ctx, const struct parsed *p,
					   struct addresses *to)
{
	struct {
		__be32 src, dst;
	} v4;

	if (p->family == 6)
		return ctx_load(ctx, p->l3 + 8, to, sizeof(*to));
	if (ctx_load(ctx, p->l3 + 12, &v4, sizeof(v4)))
		return -1;
	*to = (struct addresses){.src = {v4.src}, .dst = {v4.dst}};
	return 0;
}

static __always_inline int parse_datagram(struct ps_ctx *ctx, const struct parsed *p,
					  struct datagram *to)
{
	to->id = p->id;
	to->family = p->family;
	/* In IPv6 only the first fragment's next header counts (RFC 8200, section 4.5). */
	to->proto = p->family == 4 ? p->proto : 0;
	to->pad = 0;
	return parse_addresses(ctx, p, &to->addresses);
}

static __always_inline void parse_make_flow(const struct addresses *a, __u8 family, __u16 sport,
					    __u16 dport, struct flow *to)
{
	bool src_lower;

	if (a->src[1] != a->dst[1])
		src_lower = a->src[1] < a->dst[1];
	else if (a->src[0] != a->dst[0])
		src_lower = a->src[0] < a->dst[0];
	else
		src_lower = sport < dport;
	if (src_lower)
		*to = (struct flow){
			{a->src[0], a->src[1]}, {a->dst[0], a->dst[1]}, sport, dport, family};
	else
		*to = (struct flow){
			{a->dst[0], a->dst[1]}, {a->src[0], a->src[1]}, dport, sport, family};
}

#endif
