/* SPDX-License-Identifier: Apache-2.0 */
#include "rtnl.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdlib.h>

#include "util.h"

#define BUFFER_BYTES         32768
#define READ_AT_ONCE         64
#define MONITOR_BUFFER_BYTES (4 << 20) /* a node may get hundreds of pods at once */

struct rtnl {
	struct mnl_socket *monitor;
	uint8_t buffer[BUFFER_BYTES];
};

int rtnl_new(struct rtnl **ret, struct err *err)
{
	struct rtnl *r = calloc(1, sizeof(*r));
	int size = MONITOR_BUFFER_BYTES, e;

	if (!r)
		return err_set(err, -ENOMEM, "out of memory");
	r->monitor = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (!r->monitor || mnl_socket_bind(r->monitor, RTMGRP_LINK, MNL_SOCKET_AUTOPID) < 0) {
		e = -errno;
		rtnl_free(r);
		return err_sys(err, e, "cannot watch the network interfaces");
	}
	/* FORCE needs CAP_NET_ADMIN; without it the default size does, with more listing. */
	if (setsockopt(rtnl_fd(r), SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
		setsockopt(rtnl_fd(r), SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	*ret = r;
	return 0;
}

struct rtnl *rtnl_free(struct rtnl *r)
{
	if (!r)
		return NULL;
	if (r->monitor)
		mnl_socket_close(r->monitor);
	free(r);
	return NULL;
}

int rtnl_fd(const struct rtnl *r)
{
	return mnl_socket_get_fd(r->monitor);
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
		}
	}
	call->fn(call->ctx, &link);
	return MNL_CB_OK;
}

int rtnl_list(struct rtnl *r, rtnl_link_fn *fn, void *ctx, struct err *err)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(r->buffer);
	struct call call = {fn, ctx};
	struct mnl_socket *nl;
	struct ifinfomsg *info;
	ssize_t n;
	int e = 0;

	nl = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (!nl || mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0)
		goto fail;
	nlh->nlmsg_type = RTM_GETLINK;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	info = mnl_nlmsg_put_extra_header(nlh, sizeof(*info));
	info->ifi_family = AF_UNSPEC;
	if (mnl_socket_sendto(nl, nlh, nlh->nlmsg_len) < 0)
		goto fail;
	do {
		n = mnl_socket_recvfrom(nl, r->buffer, sizeof(r->buffer));
		if (n < 0)
			goto fail;
		n = mnl_cb_run(r->buffer, (size_t)n, 0, mnl_socket_get_portid(nl), on_message,
			       &call);
	} while (n > MNL_CB_STOP);
	if (n == MNL_CB_STOP)
		goto out;
fail:
	e = err_sys(err, -errno, "cannot list the network interfaces");
out:
	if (nl)
		mnl_socket_close(nl);
	return e;
}

int rtnl_read(struct rtnl *r, rtnl_link_fn *fn, void *ctx, struct err *err)
{
	struct call call = {fn, ctx};

	for (int i = 0; i < READ_AT_ONCE; i++) {
		ssize_t n = mnl_socket_recvfrom(r->monitor, r->buffer, sizeof(r->buffer));

		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return 0;
		if (n < 0)
			return err_sys(err, -errno, "cannot read changes of network interfaces");
		mnl_cb_run(r->buffer, (size_t)n, 0, 0, on_message, &call);
	}
	return 0;
}
