/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rtnetlink sockets. Whoever has CAP_NET_ADMIN in a network namespace may send to any of them
 * there: what does not come from the kernel is no message.
 */
#ifndef PS_NL_H
#define PS_NL_H

#include <libmnl/libmnl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "err.h"

#define NL_BUFFER 32768 /* the kernel's messages are no longer */

/* A socket in a namespace (-1: our own), with more @flags of socket(2). */
int nl_open(int netns_fd, int flags, struct err *err);
/* What the kernel sent, for mnl_cb_run(). 0: another sender's message, dropped. -errno. */
ssize_t nl_receive(int fd, void *buffer, size_t size);
struct nl_query {
	uint16_t type; /* RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE */
	uint8_t family;
	uint32_t ifindex; /* only this link, or what there is of it; 0: all */
};

/*
 * Call @fn for everything that there is of a kind; kernels before 4.20 tell of the addresses and
 * routes of all interfaces.
 * -EINTR: it changed meanwhile, so something may be missing; -ENODEV: the interface is gone.
 */
int nl_dump(int netns_fd, const struct nl_query *query, mnl_cb_t fn, void *ctx, struct err *err);

#endif
