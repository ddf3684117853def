// SPDX-License-Identifier: Apache-2.0
#include "tc.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>

#include "util.h"

#define BUFFER_BYTES 32768

static void closep(struct mnl_socket **nl)
{
	if (*nl)
		mnl_socket_close(*nl);
}

/* Ask with a struct tcmsg and hand every message of the answer to @fn. */
static int ask(uint16_t type, uint16_t flags, const struct tcmsg *tc, mnl_cb_t fn, void *ctx)
{
	_cleanup_(closep) struct mnl_socket *nl = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	_cleanup_free_ char *buf = malloc(BUFFER_BYTES);
	struct nlmsghdr *nlh;
	unsigned int port;
	ssize_t n;
	int r = MNL_CB_OK;

	if (!buf)
		return -ENOMEM;
	if (!nl || mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0)
		return -errno;
	port = mnl_socket_get_portid(nl);
	nlh = mnl_nlmsg_put_header(buf);
	nlh->nlmsg_type = type;
	nlh->nlmsg_flags = NLM_F_REQUEST | flags;
	memcpy(mnl_nlmsg_put_extra_header(nlh, sizeof(*tc)), tc, sizeof(*tc));
	if (mnl_socket_sendto(nl, nlh, nlh->nlmsg_len) < 0)
		return -errno;
	while (r > MNL_CB_STOP) {
		n = mnl_socket_recvfrom(nl, buf, BUFFER_BYTES);
		if (n < 0)
			return -errno;
		r = mnl_cb_run(buf, (size_t)n, 0, port, fn, ctx);
	}
	return r < 0 ? -errno : 0;
}

static int on_filter(const struct nlmsghdr *nlh, void *ctx)
{
	const struct tcmsg *tc = mnl_nlmsg_get_payload(nlh);
	struct tc_filters *ret = ctx;
	uint16_t priority = (uint16_t)(tc->tcm_info >> 16);
	const struct nlattr *attr;
	uint32_t chain = 0;

	if (nlh->nlmsg_type != RTM_NEWTFILTER)
		return MNL_CB_OK;
	mnl_attr_for_each(attr, nlh, sizeof(*tc))
	{
		if (mnl_attr_get_type(attr) == TCA_CHAIN &&
		    mnl_attr_get_payload_len(attr) == sizeof(chain))
			chain = mnl_attr_get_u32(attr);
	}
	ret->n++;
	/* Packets come to other chains only by a filter of chain 0. */
	if (chain == 0 && (!ret->first || priority < ret->first))
		ret->first = priority;
	return MNL_CB_OK;
}

int tc_filters(uint32_t ifindex, enum direction direction, struct tc_filters *ret)
{
	struct tcmsg tc = {
		.tcm_ifindex = (int)ifindex,
		.tcm_parent =
			TC_H_MAKE(TC_H_CLSACT, direction == DIRECTION_EGRESS ? TC_H_MIN_EGRESS
									     : TC_H_MIN_INGRESS),
	};

	*ret = (struct tc_filters){};
	return ask(RTM_GETTFILTER, NLM_F_DUMP, &tc, on_filter, ret);
}

static int on_qdisc(const struct nlmsghdr *nlh, void *ctx)
{
	const struct nlattr *attr;

	mnl_attr_for_each(attr, nlh, sizeof(struct tcmsg))
	{
		if (mnl_attr_get_type(attr) == TCA_KIND &&
		    !mnl_attr_validate(attr, MNL_TYPE_NUL_STRING))
			*(bool *)ctx = !strcmp(mnl_attr_get_str(attr), "ingress");
	}
	return MNL_CB_OK;
}

bool tc_old_ingress(uint32_t ifindex)
{
	struct tcmsg tc = {.tcm_ifindex = (int)ifindex, .tcm_parent = TC_H_INGRESS};
	bool old = false;

	/* Without ECHO only the group RTNLGRP_TC gets the answer. */
	return !ask(RTM_GETQDISC, NLM_F_ACK | NLM_F_ECHO, &tc, on_qdisc, &old) && old;
}
