/* SPDX-License-Identifier: Apache-2.0 */
/* Network interfaces as rtnetlink tells of them: all now, then every change. */
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
	bool deleted;   /* it is gone */
	uint8_t mac[6]; /* zeros when it has none of six bytes */
};

struct rtnl;

/* Opens the monitor before anything is listed, so that no change is missed. */
int rtnl_new(struct rtnl **ret, struct err *err);
struct rtnl *rtnl_free(struct rtnl *r);
/* Readable when there are changes. */
int rtnl_fd(const struct rtnl *r);

typedef void rtnl_link_fn(void *ctx, const struct rtnl_link *link);

/* Call @fn for every interface there is. */
int rtnl_list(struct rtnl *r, rtnl_link_fn *fn, void *ctx, struct err *err);
/*
 * Call @fn for some of the changes that wait: others have their turn meanwhile.
 * -ENOBUFS: the kernel had more to say than the
 * socket could hold; list again.
 */
int rtnl_read(struct rtnl *r, rtnl_link_fn *fn, void *ctx, struct err *err);

#endif
