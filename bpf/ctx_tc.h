/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A packet at a TC hook: the verbs that parse.h, rules.h and emit.h are written
 * in. A ctx_xdp.h with the same verbs makes them work for XDP.
 *
 * Offsets count from the first byte of skb->data: the MAC header at both hooks,
 * the IP header on a device that has none. A VLAN tag that the NIC or the kernel
 * took out of the data is not at any offset: ctx_tag() has it.
 */
#ifndef PS_CTX_TC_H
#define PS_CTX_TC_H

#include "ctx.h"
#include "vmlinux.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ps_ctx __sk_buff

/* TCX_NEXT and TC_ACT_UNSPEC: the next program or filter decides. */
#define CTX_PASS -1

/* How many bytes of a packet can be had; no packet is longer. */
#define CTX_REACH ~0u

/* Bytes in the data, all fragments of the skb together. */
static __always_inline __u32 ctx_len(struct ps_ctx *ctx)
{
	return ctx->len;
}

static __always_inline __u32 ctx_ifindex(struct ps_ctx *ctx)
{
	return ctx->ifindex;
}

/* The four bytes of the tag that is in the metadata, as on the wire; 0: none. */
static __always_inline __be32 ctx_tag(struct ps_ctx *ctx)
{
	if (!ctx->vlan_present)
		return 0;
	return bpf_htonl((bpf_ntohs((__be16)ctx->vlan_proto) << 16) | (ctx->vlan_tci & 0xffff));
}

/* What segmentation offload will make of it: the size and number of segments; 0: nothing. */
static __always_inline __u32 ctx_gso_size(struct ps_ctx *ctx)
{
	return ctx->gso_size;
}

static __always_inline __u32 ctx_gso_segs(struct ps_ctx *ctx)
{
	return ctx->gso_segs;
}

/* Has somebody verified the checksum of the transport header? */
static __always_inline bool ctx_csum_verified(struct ps_ctx *ctx)
{
	return bpf_csum_level(ctx, BPF_CSUM_LEVEL_QUERY) >= 0;
}

/* Of the sending socket; 0 when it is not known (at ingress, when forwarded). */
static __always_inline __u64 ctx_socket_cookie(struct ps_ctx *ctx)
{
	return bpf_get_socket_cookie(ctx);
}

/*
 * The two ends as the sending socket has them, which is not what the packet says
 * when NAT has changed it. False when there is no connected socket.
 */
static __always_inline bool ctx_socket_ends(struct ps_ctx *ctx, __u8 family, struct ctx_end *local,
					    struct ctx_end *peer)
{
	/* Volatile: the verifier allows a load of each member, not of two in one. */
	const volatile struct bpf_sock *sk = ctx->sk;

	if (!sk)
		return false;
	local->port = sk->src_port;
	peer->port = bpf_ntohs(sk->dst_port);
	if (family == 4) {
		local->addr[0] = sk->src_ip4;
		local->addr[1] = 0;
		peer->addr[0] = sk->dst_ip4;
		peer->addr[1] = 0;
	} else {
		local->addr[0] = (__u64)sk->src_ip6[1] << 32 | sk->src_ip6[0];
		local->addr[1] = (__u64)sk->src_ip6[3] << 32 | sk->src_ip6[2];
		peer->addr[0] = (__u64)sk->dst_ip6[1] << 32 | sk->dst_ip6[0];
		peer->addr[1] = (__u64)sk->dst_ip6[3] << 32 | sk->dst_ip6[2];
	}
	return peer->port != 0;
}

/* Copy @len bytes from @off wherever they are; < 0 when the packet is too short. */
static __always_inline int ctx_load(struct ps_ctx *ctx, __u32 off, void *to, __u32 len)
{
	return bpf_skb_load_bytes(ctx, off, to, len);
}

/* The same from the first byte on, up to CTX_REACH. */
static __always_inline int ctx_load_start(struct ps_ctx *ctx, void *to, __u32 len)
{
	return ctx_load(ctx, 0, to, len);
}

#endif
