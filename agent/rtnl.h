/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network interfaces as rtnetlink tells of them: all now, then every change; of what anybody but
 * the kernel tells, nothing.
 */
#ifndef PS_RTNL_H
#define PS_RTNL_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"

#define RTNL_NAME_MAX 64

struct rtnl_link {
	uint32_t ifindex;
	char name[RTNL_NAME_MAX];
	uint16_t type; /* ARPHRD_ */
	bool up, loopback;
	bool deleted;        /* it is gone */
	uint8_t mac[6];      /* zeros when it has none of six bytes */
	char kind[16];       /* IFLA_INFO_KIND: "veth", "bridge", ...; empty: none */
	bool has_device;     /* a device of some bus is behind it (told since Linux 5.14) */
	bool peer_elsewhere; /* it belongs to one in another network namespace */
};

struct rtnl;

/*
 * Opens the monitor before anything is listed, so that no change is missed. @netns_fd: of
 * which network namespace, -1 of our own; it stays the caller's, and has to stay open.
 */
int rtnl_new(int netns_fd, struct rtnl **ret, struct err *err);
struct rtnl *rtnl_free(struct rtnl *r);
/* Readable when there are changes. */
int rtnl_fd(const struct rtnl *r);

typedef void rtnl_link_fn(void *ctx, const struct rtnl_link *link);

/* Call @fn for every interface there is. -EINTR: some changed meanwhile; list again. */
int rtnl_list(struct rtnl *r, rtnl_link_fn *fn, void *ctx, struct err *err);
/*
 * Call @fn for some of the changes that wait: others have their turn meanwhile.
 * -ENOBUFS: the kernel had more to say than the socket could hold, and what it held has been
 * thrown away; list again. -EBUSY: not all of it could be; list, but not at once.
 */
int rtnl_read(struct rtnl *r, rtnl_link_fn *fn, void *ctx, struct err *err);
/*
 * Does the interface have the name still that a message told? It may have waited long, and that
 * of another name wait behind it. When the kernel cannot be asked, what was told holds.
 */
bool rtnl_name_holds(int netns_fd, const struct rtnl_link *link);

#endif
