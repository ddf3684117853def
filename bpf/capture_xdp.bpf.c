// SPDX-License-Identifier: Apache-2.0
/*
 * The capture program for XDP: packets as they come from the device, before the stack has
 * made anything of them. What is sent is not to be seen there, so beside it a
 * program of capture_tc.bpf.c watches for the agent's own stream.
 *
 * For the hooks in drivers they are loaded as ones that take packets in several buffers, for the
 * generic one as ones that do not (agent/programs.c).
 */
/* clang-format off: the context's verbs come before what is written in them. */
#include "ctx_xdp.h"
#include "emit.h"
#include "engine.h"
/* clang-format on */

SEC("xdp")
int ps_xdp(struct ps_ctx *ctx)
{
	return enter(ctx, DIRECTION_INGRESS, 0);
}

SEC("xdp")
int ps_xdp_in(struct ps_ctx *ctx)
{
	return enter(ctx, DIRECTION_INGRESS, noted_netns());
}

SEC("xdp")
int ps_xdp_find_inner(struct ps_ctx *ctx)
{
	return find_inner(ctx);
}

SEC("xdp")
int ps_xdp_decided(struct ps_ctx *ctx)
{
	return decided(ctx);
}

char LICENSE[] SEC("license") = "Apache-2.0";
