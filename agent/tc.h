/* SPDX-License-Identifier: Apache-2.0 */
/* What others have at the traffic control hooks of an interface, asked over rtnetlink. */
#ifndef PS_TC_H
#define PS_TC_H

#include <stdbool.h>
#include <stdint.h>

#include "abi.h"

/* Filters of one direction of a clsact qdisc. */
struct tc_filters {
	unsigned int n;
	uint16_t first; /* the lowest priority among those that packets meet first; 0: none */
};

/* 0 (also when there is no qdisc, or no such interface) or -errno. */
int tc_filters(uint32_t ifindex, enum direction direction, struct tc_filters *ret);

/*
 * Is there a qdisc of the kind "ingress" where a clsact one would be? Not when that
 * cannot be known.
 */
bool tc_old_ingress(uint32_t ifindex);

#endif
