/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A packet at an XDP hook: the verbs of ctx_tc.h. It has no socket, no metadata, and
 * nothing was made of it yet; a tag that the device took out is nowhere to be seen.
 */
#ifndef PS_CTX_XDP_H
#define PS_CTX_XDP_H

#include "ctx.h"
#include "vmlinux.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ps_ctx xdp_md

#define CTX_PASS XDP_PASS

/*
 * The kernel's helper takes offsets and lengths up to 65,535 only (bpf_xdp_pointer() in
 * net/core/filter.c). Longer ones (BIG TCP) come to the generic hook only.
 */
#define LOAD_MAX  0xffffu
#define CTX_REACH (2 * LOAD_MAX)

static __always_inline __u32 ctx_len(struct ps_ctx *ctx)
{
	return bpf_xdp_get_buff_len(ctx);
}

static __always_inline __u32 ctx_ifindex(struct ps_ctx *ctx)
{
	return ctx->ingress_ifindex;
}

static __always_inline __be32 ctx_tag(struct ps_ctx *ctx)
{
	(void)ctx;
	return 0;
}

static __always_inline __u32 ctx_gso_size(struct ps_ctx *ctx)
{
	(void)ctx;
	return 0;
}

static __always_inline __u32 ctx_gso_segs(struct ps_ctx *ctx)
{
	(void)ctx;
	return 0;
}

static __always_inline bool ctx_csum_verified(struct ps_ctx *ctx)
{
	(void)ctx;
	return false;
}

static __always_inline __u64 ctx_socket_cookie(struct ps_ctx *ctx)
{
	(void)ctx;
	return 0;
}

static __always_inline bool ctx_socket_ends(struct ps_ctx *ctx, __u8 family, struct ctx_end *local,
					    struct ctx_end *peer)
{
	(void)ctx;
	(void)family;
	(void)local;
	(void)peer;
	return false;
}

static __always_inline int ctx_load(struct ps_ctx *ctx, __u32 off, void *to, __u32 len)
{
	return bpf_xdp_load_bytes(ctx, off, to, len);
}

static __always_inline int ctx_load_start(struct ps_ctx *ctx, void *to, __u32 len)
{
	if (len <= LOAD_MAX)
		return ctx_load(ctx, 0, to, len);
	if (ctx_load(ctx, 0, to, LOAD_MAX))
		return -1;
	return ctx_load(ctx, LOAD_MAX, to + LOAD_MAX, len - LOAD_MAX);
}

#endif
