// SPDX-License-Identifier: Apache-2.0
#include "point.h"

#include <string.h>

/* What has neither a kind nor a device behind it is a driver's that is older than both. */
static bool is_wire(const struct rtnl_link *link)
{
	return !link->loopback && (link->has_device || !link->kind[0]);
}

/* The host's end of a pod's link. */
static bool is_pod_end(const struct rtnl_link *link)
{
	return link->peer_elsewhere &&
	       (strcmp(link->kind, "veth") == 0 || strcmp(link->kind, "netkit") == 0);
}

bool point_has(enum point point, const struct rtnl_link *link, bool inside, bool any_inside)
{
	switch (point) {
	case POINT_ALL:
		return true;
	case POINT_WIRE:
		return is_wire(link);
	case POINT_HOST:
		return !inside && !is_wire(link) && !is_pod_end(link);
	case POINT_POD:
		return any_inside ? inside : is_pod_end(link);
	}
	return false;
}
