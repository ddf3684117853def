/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a packet to the one that a tunnel carries in it: VXLAN (RFC 7348), Geneve
 * (RFC 8926), GRE (RFC 2784, 2890) with Ethernet, IP or ERSPAN inside, IP in IP.
 */
#ifndef PS_TUNNEL_H
#define PS_TUNNEL_H

#include "abi.h"
#include "parse.h"

#define VXLAN_PORT       4789
#define VXLAN_PORT_LINUX 8472 /* of the kernel and of flannel, from before there was a number */
#define VXLAN_VNI        0x08 /* the flag that is always set */
#define GENEVE_PORT      6081
#define UDP_HEADER       8

#define GRE_VERSION    0x0007
#define GRE_SEQUENCE   0x1000
#define GRE_KEY        0x2000
#define GRE_ROUTING    0x4000 /* gone since RFC 2784 */
#define GRE_CHECKSUM   0x8000
#define PROTO_ETHERNET 0x6558 /* transparent Ethernet bridging */
#define PROTO_ERSPAN   0x88be /* type I without, type II with a sequence number */
#define ERSPAN_HEADER  8

static __always_inline __u8 tunnel_type(__be16 proto)
{
	if (proto == bpf_htons(PROTO_ETHERNET))
		return INNER_ETHERNET;
	return parse_family(proto) ? INNER_IP : INNER_NONE;
}

static __always_inline __u8 tunnel_udp(struct ps_ctx *ctx, const struct parsed *p, __u32 *off)
{
	struct {
		__u8 version_options, flags;
		__be16 proto;
	} geneve;

	__u8 flags;

	*off = p->l4 + UDP_HEADER;
	if (p->dport == VXLAN_PORT || p->dport == VXLAN_PORT_LINUX) {
		if (ctx_load(ctx, *off, &flags, sizeof(flags)) || !(flags & VXLAN_VNI))
			return INNER_NONE;
		*off += 8;
		return INNER_ETHERNET;
	}
	if (p->dport != GENEVE_PORT || ctx_load(ctx, *off, &geneve, sizeof(geneve)) ||
	    geneve.version_options >> 6)
		return INNER_NONE;
	*off += 8 + (geneve.version_options & 0x3f) * 4;
	return tunnel_type(geneve.proto);
}

static __always_inline __u8 tunnel_gre(struct ps_ctx *ctx, const struct parsed *p, __u32 *off)
{
	struct {
		__be16 flags, proto;
	} gre;
	__u16 flags;

	if (ctx_load(ctx, p->l4, &gre, sizeof(gre)))
		return INNER_NONE;
	flags = bpf_ntohs(gre.flags);
	if (flags & (GRE_VERSION | GRE_ROUTING))
		return INNER_NONE;
	*off = p->l4 + sizeof(gre) + ((flags & GRE_CHECKSUM) ? 4 : 0) +
	       ((flags & GRE_KEY) ? 4 : 0) + ((flags & GRE_SEQUENCE) ? 4 : 0);
	if (gre.proto != bpf_htons(PROTO_ERSPAN))
		return tunnel_type(gre.proto);
	*off += (flags & GRE_SEQUENCE) ? ERSPAN_HEADER : 0;
	return INNER_ETHERNET;
}

static __always_inline __u8 tunnel_find(struct ps_ctx *ctx, const struct parsed *p, __u32 *off)
{
	*off = p->l4;
	if (!p->family || p->fragment == FRAGMENT_LATER)
		return INNER_NONE;
	switch (p->proto) {
	case IPPROTO_UDP:
		return p->has_ports ? tunnel_udp(ctx, p, off) : INNER_NONE;
	case IPPROTO_GRE:
		return tunnel_gre(ctx, p, off);
	case IPPROTO_IPIP:
	case IPPROTO_IPV6:
		return INNER_IP;
	}
	return INNER_NONE;
}

/* Fill in what @s says of the inner packet. */
static __always_inline void tunnel_parse(struct ps_ctx *ctx, const struct parsed *p,
					 struct scratch *s)
{
	__u32 off, type_off;
	__be16 type;
	__u8 first;

	s->inner_family = 0;
	s->inner_type = tunnel_find(ctx, p, &off);
	s->inner = s->inner_l3 = off;
	if (s->inner_type == INNER_IP) {
		if (ctx_load(ctx, off, &first, sizeof(first)))
			s->inner_type = INNER_NONE;
		else
			s->inner_family = first >> 4 == 4 ? 4 : first >> 4 == 6 ? 6 : 0;
	} else if (s->inner_type == INNER_ETHERNET) {
		type_off = off + ETHERTYPE_OFFSET;
		for (int i = 0; i <= PARSE_TAGS; i++, type_off += 4) {
			if (ctx_load(ctx, type_off, &type, sizeof(type)))
				return;
			if (!parse_is_tag(type))
				break;
		}
		s->inner_l3 = type_off + 2;
		s->inner_family = parse_family(type);
	}
}

#endif
