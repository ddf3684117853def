/* SPDX-License-Identifier: Apache-2.0 */
/* May an interface be taken away from the host? */
#ifndef PS_TAP_GUARD_H
#define PS_TAP_GUARD_H

#include <stdint.h>

#include "err.h"

/*
 * -EADDRINUSE and a sentence when the host uses the interface: it has an address (but the
 * link-local one that IPv6 gives itself), a route leads out of it, or another interface is above it
 * (a bridge or bond that it is a port of, a VLAN). What the kernel makes of a router's
 * advertisement, which anybody on the mirrored wire can send, is no use. One above it that is in
 * another network namespace is not seen. Other errors when it cannot be told; -EINTR: as everything
 * changes all the time.
 */
int tap_guard(uint32_t ifindex, struct err *err);

#endif
