// SPDX-License-Identifier: Apache-2.0
#include "nl.h"

#include <errno.h>
#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>

#include "netns.h"
#include "util.h"

int nl_open(int netns_fd, int flags, struct err *err)
{
	int home, fd, e, r = netns_enter(netns_fd, &home, err);

	if (r < 0)
		return r;
	/* A socket stays in the namespace that it was made in. */
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | flags, NETLINK_ROUTE);
	e = errno;
	netns_return(home);
	return fd >= 0 ? fd : err_sys(err, -e, "cannot open a netlink socket");
}

ssize_t nl_receive(int fd, void *buffer, size_t size)
{
	struct sockaddr_nl from = {};
	socklen_t len = sizeof(from);
	ssize_t n = recvfrom(fd, buffer, size, MSG_TRUNC, (struct sockaddr *)&from, &len);

	if (n < 0)
		return -errno;
	if (len != sizeof(from) || from.nl_pid)
		return 0;
	return (size_t)n > size ? -EMSGSIZE : n;
}

/* The kernel minds what is in a query only when it is told to. */
static int open_strict(int netns_fd, struct err *err)
{
	int fd = nl_open(netns_fd, 0, err), on = 1;

	if (fd >= 0)
		setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof(on));
	return fd;
}

static void put(struct nlmsghdr *nlh, const struct nl_query *query)
{
	struct ifinfomsg *link;
	struct ifaddrmsg *address;
	struct rtmsg *route;

	nlh->nlmsg_type = query->type;
	nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	switch (query->type) {
	case RTM_GETADDR:
		address = mnl_nlmsg_put_extra_header(nlh, sizeof(*address));
		address->ifa_family = query->family;
		address->ifa_index = query->ifindex;
		break;
	case RTM_GETROUTE:
		route = mnl_nlmsg_put_extra_header(nlh, sizeof(*route));
		route->rtm_family = query->family;
		if (query->ifindex)
			mnl_attr_put_u32(nlh, RTA_OIF, query->ifindex);
		break;
	default:
		link = mnl_nlmsg_put_extra_header(nlh, sizeof(*link));
		link->ifi_family = query->family;
		link->ifi_index = (int)query->ifindex;
		if (query->ifindex)
			nlh->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	}
}

/*
 * Both begin with an error, 0 in an acknowledgement: what goes wrong during a dump is told by the
 * word that it is done.
 */
static int on_end(const struct nlmsghdr *nlh, void *data)
{
	int e = 0;

	(void)data;
	if (mnl_nlmsg_get_payload_len(nlh) >= sizeof(e))
		memcpy(&e, mnl_nlmsg_get_payload(nlh), sizeof(e));
	if (e >= 0)
		return MNL_CB_STOP;
	errno = -e;
	return MNL_CB_ERROR;
}

static int run(const uint8_t *messages, size_t size, mnl_cb_t fn, void *ctx)
{
	mnl_cb_t control[] = {[NLMSG_ERROR] = on_end, [NLMSG_DONE] = on_end};
	int r = mnl_cb_run2(messages, size, 0, 0, fn, ctx, control, ARRAY_SIZE(control));

	return r < 0 ? -errno : r;
}

int nl_dump(int netns_fd, const struct nl_query *query, mnl_cb_t fn, void *ctx, struct err *err)
{
	uint8_t buffer[NL_BUFFER] __attribute__((aligned(8)));
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buffer);
	_cleanup_close_ int fd = open_strict(netns_fd, err);
	ssize_t n;

	if (fd < 0)
		return fd;
	put(nlh, query);
	n = send(fd, nlh, nlh->nlmsg_len, 0) < 0 ? -errno : MNL_CB_OK;
	while (n > MNL_CB_STOP) {
		n = nl_receive(fd, buffer, sizeof(buffer));
		if (n >= 0)
			n = run(buffer, (size_t)n, fn, ctx);
	}
	return n < 0 ? err_sys(err, (int)n, "cannot ask the kernel for its network settings") : 0;
}
