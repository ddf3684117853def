// SPDX-License-Identifier: Apache-2.0
/*
 * A build without libxdp has no AF_XDP. The configuration is refused already (agent/config.c), so
 * nothing is ever opened, and the rest is only there to be linked.
 */
#include <errno.h>
#include <stdlib.h>

#include "xsk.h"

int xsk_open(const struct xsk_config *config, struct xsk **ret, struct err *err)
{
	(void)config;
	(void)ret;
	return err_set(err, -EOPNOTSUPP, "this build has no AF_XDP, for want of libxdp");
}

struct xsk *xsk_free(struct xsk *x)
{
	return x;
}

#define NEVER(declaration)                    \
	__attribute__((noreturn)) declaration \
	{                                     \
		abort();                      \
	}

/* clang-format off */
NEVER(void xsk_shut(struct xsk *))
NEVER(unsigned int xsk_queues(const struct xsk *))
NEVER(uint32_t xsk_frames(const struct xsk *))
NEVER(bool xsk_zero_copy(const struct xsk *))
NEVER(uint32_t xsk_room(const struct xsk *))
NEVER(int xsk_fd(const struct xsk *, unsigned int))
NEVER(uint8_t *xsk_data(const struct xsk *, uint64_t))
NEVER(uint32_t xsk_waiting(const struct xsk *, unsigned int))
NEVER(uint32_t xsk_peek(struct xsk *, unsigned int, struct xdp_desc *, uint32_t))
NEVER(void xsk_take(struct xsk *, unsigned int, uint32_t, uint32_t))
NEVER(void xsk_refill(struct xsk *, unsigned int, const uint64_t *, uint32_t))
/* clang-format on */
