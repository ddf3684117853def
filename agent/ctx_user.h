/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A packet in user space, with the verbs that bpf/parse.h is written in: and select.h
 * and slice.h on top of it: so one code decides, in the kernel and here.
 */
#ifndef PS_CTX_USER_H
#define PS_CTX_USER_H

#include <linux/if_ether.h>
#include <linux/types.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct ps_ctx {
	const uint8_t *data;
	uint32_t caplen; /* bytes there are */
};

static inline uint32_t ctx_len(const struct ps_ctx *ctx)
{
	return ctx->caplen;
}

static inline int ctx_load(const struct ps_ctx *ctx, uint32_t off, void *to, uint32_t len)
{
	if (off > ctx->caplen || len > ctx->caplen - off)
		return -1;
	memcpy(to, ctx->data + off, len);
	return 0;
}

#define ctx_read(ctx, off, to) ctx_load(ctx, off, to, sizeof(*(to)))

#endif
