/* SPDX-License-Identifier: Apache-2.0 */
#include "rtnl.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "nl.h"
#include "util.h"

#define READ_AT_ONCE         64
#define DISCARD_MAX          65536     /* more than the buffer holds */
#define MONITOR_BUFFER_BYTES (4 << 20) /* a node may get hundreds of pods at once */

struct rtnl {
	int netns_fd;
	int fd; /* of the monitor */
	uint8_t buffer[NL_BUFFER] __attribute__((aligned(8)));
};

int rtnl_new(int netns_fd, struct rtnl **ret, struct err *err)
{
	const struct sockaddr_nl links = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
	struct rtnl *r = calloc(1, sizeof(*r));
	int size = MONITOR_BUFFER_BYTES, e;

	if (!r)
		return err_set(err, -ENOMEM, "out of memory");
	r->netns_fd = netns_fd;
	r->fd = e = nl_open(netns_fd, SOCK_NONBLOCK, err);
	if (e >= 0 && bind(r->fd, (const struct sockaddr *)&links, sizeof(links)) < 0)
		e = err_sys(err, -errno, "cannot watch the network interfaces");
	if (e < 0) {
		rtnl_free(r);
		return e;
	}
	/* FORCE needs CAP_NET_ADMIN; without it the default size does, with more listing. */
	if (setsockopt(r->fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
		setsockopt(r->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	*ret = r;
	return 0;
}

struct rtnl *rtnl_free(struct rtnl *r)
{
	if (!r)
		return NULL;
	if (r->fd >= 0)
		close(r->fd);
	free(r);
	return NULL;
}

int rtnl_fd(const struct rtnl *r)
{
	return r->fd;
}

static void read_link_info(const struct nlattr *info, struct rtnl_link *link)
{
	const struct nlattr *attr;

	mnl_attr_for_each_nested(attr, info)
	{
		if (mnl_attr_get_type(attr) == IFLA_INFO_KIND &&
		    !mnl_attr_validate(attr, MNL_TYPE_NUL_STRING))
			snprintf(link->kind, sizeof(link->kind), "%s", mnl_attr_get_str(attr));
	}
}

struct call {
	rtnl_link_fn *fn;
	void *ctx;
};

static int on_message(const struct nlmsghdr *nlh, void *data)
{
	const struct ifinfomsg *info = mnl_nlmsg_get_payload(nlh);
	const struct call *call = data;
	const struct nlattr *attr;
	struct rtnl_link link = {
		.ifindex = (uint32_t)info->ifi_index,
		.type = info->ifi_type,
		.up = info->ifi_flags & IFF_UP,
		.loopback = info->ifi_flags & IFF_LOOPBACK,
		.deleted = nlh->nlmsg_type == RTM_DELLINK,
	};

	if (nlh->nlmsg_type != RTM_NEWLINK && nlh->nlmsg_type != RTM_DELLINK)
		return MNL_CB_OK;
	/* Bridges tell of their ports in the same words; that is not about the link itself. */
	if (info->ifi_family != AF_UNSPEC)
		return MNL_CB_OK;
	mnl_attr_for_each(attr, nlh, sizeof(*info))
	{
		switch (mnl_attr_get_type(attr)) {
		case IFLA_IFNAME:
			strncpy(link.name, mnl_attr_get_str(attr), sizeof(link.name) - 1);
			break;
		case IFLA_ADDRESS:
			if (mnl_attr_get_payload_len(attr) == sizeof(link.mac))
				memcpy(link.mac, mnl_attr_get_payload(attr), sizeof(link.mac));
			break;
		case IFLA_LINKINFO:
			read_link_info(attr, &link);
			break;
		case IFLA_LINK_NETNSID:
			link.peer_elsewhere = true;
			break;
		case IFLA_PARENT_DEV_NAME:
			link.has_device = true;
			break;
		}
	}
	call->fn(call->ctx, &link);
	return MNL_CB_OK;
}

int rtnl_list(struct rtnl *r, rtnl_link_fn *fn, void *ctx, struct err *err)
{
	const struct nl_query all = {.type = RTM_GETLINK};
	struct call call = {fn, ctx};
	int e = nl_dump(r->netns_fd, &all, on_message, &call, err);

	return e < 0 ? err_wrap(err, e, "cannot list the network interfaces") : 0;
}

/*
 * From the first change that finds no room until everything before it has been read, the kernel
 * leaves out what comes, and says nothing more. So all that waits is void then. False: more came
 * all the time.
 */
static bool discard(struct rtnl *r)
{
	ssize_t n = 0;

	for (int i = 0; i < DISCARD_MAX && n != -EAGAIN; i++)
		n = nl_receive(r->fd, r->buffer, sizeof(r->buffer));
	return n == -EAGAIN;
}

int rtnl_read(struct rtnl *r, rtnl_link_fn *fn, void *ctx, struct err *err)
{
	struct call call = {fn, ctx};

	for (int i = 0; i < READ_AT_ONCE; i++) {
		ssize_t n = nl_receive(r->fd, r->buffer, sizeof(r->buffer));

		if (n == -EAGAIN)
			return 0;
		if (n == -ENOBUFS && !discard(r))
			return err_set(err, -EBUSY,
				       "changes of network interfaces come faster than they can be "
				       "read");
		if (n < 0)
			return err_sys(err, (int)n, "cannot read changes of network interfaces");
		mnl_cb_run(r->buffer, (size_t)n, 0, 0, on_message, &call);
	}
	return 0;
}

static void keep(void *ctx, const struct rtnl_link *link)
{
	*(struct rtnl_link *)ctx = *link;
}

bool rtnl_name_holds(int netns_fd, const struct rtnl_link *link)
{
	const struct nl_query query = {.type = RTM_GETLINK, .ifindex = link->ifindex};
	struct rtnl_link now = *link;
	struct call call = {keep, &now};
	struct err err;

	if (nl_dump(netns_fd, &query, on_message, &call, &err) == -ENODEV)
		return false;
	return !strcmp(now.name, link->name);
}
