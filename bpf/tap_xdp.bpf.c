// SPDX-License-Identifier: Apache-2.0
/*
 * The program for taps, which takes the wanted packets away from the host. Packets in several
 * buffers are a flag that the agent loads with, as in capture_xdp.bpf.c.
 */
/* clang-format off: the context's verbs come before what is written in them. */
#include "ctx_xdp.h"
#include "divert.h"
#include "engine.h"
/* clang-format on */

SEC("xdp")
int ps_tap(struct ps_ctx *ctx)
{
	return enter(ctx, DIRECTION_INGRESS, 0);
}

SEC("xdp")
int ps_tap_find_inner(struct ps_ctx *ctx)
{
	return find_inner(ctx);
}

SEC("xdp")
int ps_tap_decided(struct ps_ctx *ctx)
{
	return decided(ctx);
}

char LICENSE[] SEC("license") = "Apache-2.0";
