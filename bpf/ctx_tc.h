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

#include "vmlinux.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ps_ctx __sk_buff

/* TCX_NEXT and TC_ACT_UNSPEC: the next program or filter decides. */
#define CTX_PASS -1

/* Bytes in the data, all fragments of the skb together. */
static __always_inline __u32 ctx_len(const struct ps_ctx *ctx)
{
	return ctx->len;
}

static __always_inline __u32 ctx_ifindex(const struct ps_ctx *ctx)
{
	return ctx->ifindex;
}

/* The four bytes of the tag that is in the metadata, as on the wire; 0: none. */
static __always_inline __be32 ctx_tag(const struct ps_ctx *ctx)
{
	if (!ctx->vlan_present)
		return 0;
	return bpf_htonl((bpf_ntohs((__be16)ctx->vlan_proto) << 16) | (ctx->vlan_tci & 0xffff));
}

/* Of the sending socket; 0 when it is not known (at ingress, when forwarded). */
static __always_inline __u64 ctx_socket_cookie(struct ps_ctx *ctx)
{
	return bpf_get_socket_cookie(ctx);
}

/* An end of a TCP connection: the address as in struct addresses, the port in host order. */
struct ctx_end {
	__u64 addr[2];
	__u16 port;
};

/*
 * The two ends as the sending socket has them, which is not what the packet says
 * when NAT has changed it. False when there is no connected socket.
 */
static __always_inline bool ctx_socket_ends(const struct ps_ctx *ctx, __u8 family,
					    struct ctx_end *local, struct ctx_end *peer)
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
static __always_inline int ctx_load(const struct ps_ctx *ctx, __u32 off, void *to, __u32 len)
{
	return bpf_skb_load_bytes(ctx, off, to, len);
}

/*
 * Copy the object of type *@to from @off: straight out of the linear part when it
 * is there, which costs nearly nothing, else as ctx_load(). The bound on the offset
 * is for the verifier, which wants packet offsets below 64 KiB.
 */
#define ctx_read(ctx, off, to)                                                          \
	({                                                                              \
		__u64 off_ = (off);                                                     \
		int err_;                                                               \
		void *end_ = (void *)(long)(ctx)->data_end;                             \
		void *from_ = (void *)(long)(ctx)->data;                                \
		asm volatile("" : "+r"(off_));                                          \
		if (off_ <= 0x3fff && (from_ += off_) + sizeof(*(to)) <= end_) {        \
			*(to) = *(typeof(to))from_;                                     \
			err_ = 0;                                                       \
		} else {                                                                \
			err_ = bpf_skb_load_bytes(ctx, (__u32)off_, to, sizeof(*(to))); \
		}                                                                       \
		err_;                                                                   \
	})

#endif
