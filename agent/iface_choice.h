/* SPDX-License-Identifier: Apache-2.0 */
/* Which interfaces are captured, and how: for a run, and for --check beforehand. */
#ifndef PS_IFACE_CHOICE_H
#define PS_IFACE_CHOICE_H

#include "iface.h"

/* Is @link in @place to be captured once it is up? */
bool iface_wanted(const struct config *c, const struct place *place, const struct rtnl_link *link);
/*
 * What a back end is told of @link, but for the slot and the id of its rule. -errno and a sentence
 * when it is not to be attached to. Of @c it takes the configuration, rules and filters.
 */
int iface_prepare(const struct ifaces_config *c, const struct place *place,
		  const struct rtnl_link *link, struct capture_iface *ret, struct err *err);

#endif
