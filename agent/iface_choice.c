// SPDX-License-Identifier: Apache-2.0
#include "iface_choice.h"

#include <errno.h>
#include <string.h>

#include "link_type.h"
#include "netns_list.h"
#include "packet.h"
#include "point.h"
#include "tap_guard.h"
#include "util.h"

bool iface_wanted(const struct config *c, const struct place *place, const struct rtnl_link *link)
{
	return config_wants_interface(c, link->name, link->loopback) &&
	       point_has((enum point)c->point, link, place->number != 0,
			 netns_list_others(&c->netns));
}

static bool is_ipsec(const struct rtnl_link *link)
{
	return !strcmp(link->kind, "xfrm") || !strcmp(link->kind, "vti") ||
	       !strcmp(link->kind, "vti6");
}

int iface_prepare(const struct ifaces_config *c, const struct place *place,
		  const struct rtnl_link *link, struct capture_iface *ret, struct err *err)
{
	bool tap = !place->number && config_is_tap(c->config, link->name);
	uint32_t link_type = link_type_of(link->type);
	int r = tap ? tap_guard(link->ifindex, err) : 0;

	if (r < 0)
		return r;
	if (!link_type)
		return err_set(err, -ENOTSUP, "its link type (ARPHRD %u) is not supported",
			       link->type);
	*ret = (struct capture_iface){
		.ifindex = link->ifindex,
		.netns = place->number,
		.netns_fd = place->fd,
		.name = link->name,
		.loopback = link->loopback,
		.ipsec = is_ipsec(link),
		.rule = rules_for(c->rules, link->name),
	};
	ret->rule.raw_ip = link_type == LINK_RAW;
	return filters_rule(c->filters, link->name, link_type, &ret->rule, &ret->limit, err);
}
