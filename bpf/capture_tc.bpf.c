// SPDX-License-Identifier: Apache-2.0
/* The capture programs for TC (a TCX link or a clsact filter), one for each direction. */
/* clang-format off: the context's verbs come before what is written in them. */
#include "ctx_tc.h"
#include "emit.h"
#include "engine.h"
/* clang-format on */

SEC("tc")
int ps_tc_ingress(struct ps_ctx *ctx)
{
	return enter(ctx, DIRECTION_INGRESS, 0);
}

SEC("tc")
int ps_tc_egress(struct ps_ctx *ctx)
{
	return enter(ctx, DIRECTION_EGRESS, 0);
}

SEC("tc")
int ps_tc_ingress_in(struct ps_ctx *ctx)
{
	return enter(ctx, DIRECTION_INGRESS, noted_netns());
}

SEC("tc")
int ps_tc_egress_in(struct ps_ctx *ctx)
{
	return enter(ctx, DIRECTION_EGRESS, noted_netns());
}

SEC("tc")
int ps_tc_find_inner(struct ps_ctx *ctx)
{
	return find_inner(ctx);
}

SEC("tc")
int ps_tc_decided(struct ps_ctx *ctx)
{
	return decided(ctx);
}

/* No helper in use asks for a GPL-compatible one. */
char LICENSE[] SEC("license") = "Apache-2.0";
