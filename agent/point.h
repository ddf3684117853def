/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A packet may cross several interfaces of a host: that of a pod, the host's end of it, a bridge, a
 * network card. The key capturePoint says at which of them it is captured.
 */
#ifndef PS_POINT_H
#define PS_POINT_H

#include <stdbool.h>

#include "rtnl.h"

enum point { POINT_ALL, POINT_WIRE, POINT_HOST, POINT_POD };

/*
 * Does @link belong to the chosen point? @inside: it is in a namespace of the key netns;
 * @any_inside: that key names some, so pods are captured there and not at the host's ends.
 */
bool point_has(enum point point, const struct rtnl_link *link, bool inside, bool any_inside);

#endif
