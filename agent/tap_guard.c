// SPDX-License-Identifier: Apache-2.0
/* Asks rtnetlink for links, and for addresses and routes of the interface. */
#include "tap_guard.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "nl.h"
#include "util.h"

#define TRIES 10

struct guard {
	uint32_t ifindex;
	int family;
	char use[128]; /* what the host has it for; "": nothing */
};

static uint32_t get_u32(const struct nlattr *attr)
{
	return attr ? mnl_attr_get_u32(attr) : 0;
}

static int collect(const struct nlattr *attr, void *data)
{
	const struct nlattr **table = data;

	/* The highest that is asked for. */
	if (mnl_attr_get_type(attr) <= IFLA_LINK_NETNSID)
		table[mnl_attr_get_type(attr)] = attr;
	return MNL_CB_OK;
}

/* The other end of a pair of devices is linked to it, and not above it. */
static bool is_pair(const struct nlattr *info)
{
	const struct nlattr *attr;

	if (!info)
		return false;
	mnl_attr_for_each_nested(attr, info)
	{
		const char *kind = mnl_attr_get_str(attr);

		if (mnl_attr_get_type(attr) == IFLA_INFO_KIND)
			return !strcmp(kind, "veth") || !strcmp(kind, "netkit");
	}
	return false;
}

static int on_link(const struct nlmsghdr *nlh, void *data)
{
	const struct ifinfomsg *info = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *a[IFLA_LINK_NETNSID + 1] = {};
	struct guard *g = data;
	char name[IF_NAMESIZE];
	uint32_t master;

	mnl_attr_parse(nlh, sizeof(*info), collect, a);
	master = get_u32(a[IFLA_MASTER]);
	if ((uint32_t)info->ifi_index == g->ifindex && master)
		snprintf(g->use, sizeof(g->use), "it is a port of \"%s\"",
			 if_indextoname(master, name) ? name : "another");
	else if (get_u32(a[IFLA_LINK]) == g->ifindex && !a[IFLA_LINK_NETNSID] &&
		 (uint32_t)info->ifi_index != g->ifindex && a[IFLA_IFNAME] &&
		 !is_pair(a[IFLA_LINKINFO]))
		snprintf(g->use, sizeof(g->use), "\"%s\" is on top of it",
			 mnl_attr_get_str(a[IFLA_IFNAME]));
	return MNL_CB_OK;
}

/*
 * Of a router's advertisement, which a mirrored wire shows to the host like any other. Only the
 * kernel makes temporary addresses; before Linux 5.18 it does not say what it made.
 */
static bool is_advertised(const struct ifaddrmsg *info, const struct nlattr *const *a)
{
	uint32_t flags = a[IFA_FLAGS] ? mnl_attr_get_u32(a[IFA_FLAGS]) : info->ifa_flags;

	if (info->ifa_family != AF_INET6 || (flags & IFA_F_PERMANENT))
		return false;
	return (a[IFA_PROTO] && mnl_attr_get_u8(a[IFA_PROTO]) == IFAPROT_KERNEL_RA) ||
	       (flags & (IFA_F_MANAGETEMPADDR | IFA_F_TEMPORARY));
}

static int on_address(const struct nlmsghdr *nlh, void *data)
{
	const struct ifaddrmsg *info = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *a[IFLA_LINK_NETNSID + 1] = {}, *address;
	char text[INET6_ADDRSTRLEN] = "?";
	struct guard *g = data;

	if (info->ifa_index != g->ifindex || info->ifa_scope == RT_SCOPE_LINK)
		return MNL_CB_OK;
	mnl_attr_parse(nlh, sizeof(*info), collect, a);
	if (is_advertised(info, a))
		return MNL_CB_OK;
	address = a[IFA_LOCAL] ? a[IFA_LOCAL] : a[IFA_ADDRESS];
	if (address)
		inet_ntop(info->ifa_family, mnl_attr_get_payload(address), text, sizeof(text));
	snprintf(g->use, sizeof(g->use), "it has the address %s", text);
	return MNL_CB_OK;
}

/*
 * What every interface has with IPv6: the link-local network, multicast. And what the kernel made
 * by itself: of a router's advertisement, or to go with an address, which is a use or not.
 */
static bool is_own(const struct rtmsg *info, const struct nlattr *to)
{
	struct in6_addr address;

	if (info->rtm_type != RTN_UNICAST)
		return true;
	if (info->rtm_family != AF_INET6)
		return false;
	if (info->rtm_protocol == RTPROT_RA || info->rtm_protocol == RTPROT_KERNEL)
		return true;
	if (!to)
		return false;
	memcpy(&address, mnl_attr_get_payload(to), sizeof(address));
	return IN6_IS_ADDR_LINKLOCAL(&address) || IN6_IS_ADDR_MULTICAST(&address);
}

static bool leads_out(const struct nlattr *const *a, uint32_t ifindex)
{
	const struct rtnexthop *hop;
	int left;

	if (!a[RTA_MULTIPATH])
		return get_u32(a[RTA_OIF]) == ifindex;
	hop = mnl_attr_get_payload(a[RTA_MULTIPATH]);
	left = mnl_attr_get_payload_len(a[RTA_MULTIPATH]);
	for (; RTNH_OK(hop, left); left -= (int)RTNH_ALIGN(hop->rtnh_len), hop = RTNH_NEXT(hop))
		if ((uint32_t)hop->rtnh_ifindex == ifindex)
			return true;
	return false;
}

static int on_route(const struct nlmsghdr *nlh, void *data)
{
	const struct rtmsg *info = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *a[IFLA_LINK_NETNSID + 1] = {};
	char text[INET6_ADDRSTRLEN] = "";
	struct guard *g = data;

	mnl_attr_parse(nlh, sizeof(*info), collect, a);
	if (!leads_out(a, g->ifindex) || is_own(info, a[RTA_DST]))
		return MNL_CB_OK;
	if (a[RTA_DST])
		inet_ntop(info->rtm_family, mnl_attr_get_payload(a[RTA_DST]), text, sizeof(text));
	if (text[0])
		snprintf(g->use, sizeof(g->use), "the route to %s/%u leads out of it", text,
			 info->rtm_dst_len);
	else
		snprintf(g->use, sizeof(g->use), "the default route leads out of it");
	return MNL_CB_OK;
}

/* What is seen of a dump that something changes under is not all there is. */
static int ask(struct guard *g, const struct nl_query *query, mnl_cb_t fn, struct err *err)
{
	int r = -EINTR;

	for (int i = 0; r == -EINTR && !g->use[0] && i < TRIES; i++)
		r = nl_dump(-1, query, fn, g, err);
	return g->use[0] ? 0 : r;
}

int tap_guard(uint32_t ifindex, struct err *err)
{
	const struct {
		struct nl_query query;
		mnl_cb_t fn;
	} dumps[] = {
		{{RTM_GETLINK, AF_UNSPEC, 0}, on_link}, /* one above it may be any */
		{{RTM_GETADDR, AF_UNSPEC, ifindex}, on_address},
		{{RTM_GETROUTE, AF_INET, ifindex}, on_route},
		{{RTM_GETROUTE, AF_INET6, ifindex}, on_route},
	};
	struct guard g = {.ifindex = ifindex};
	int r = 0;

	for (size_t i = 0; !r && !g.use[0] && i < ARRAY_SIZE(dumps); i++)
		r = ask(&g, &dumps[i].query, dumps[i].fn, err);
	if (r == -EINTR)
		return err_set(err, r,
			       "cannot tell whether the host uses it: its links, addresses or "
			       "routes change all the time");
	if (r)
		return err_wrap(err, r, "cannot tell whether the host uses it");
	if (g.use[0])
		return err_set(err, -EADDRINUSE,
			       "a tap takes packets away from the host, and the host uses it: %s",
			       g.use);
	return 0;
}
