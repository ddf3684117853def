/* SPDX-License-Identifier: Apache-2.0 */
/* --check: what a run needs, tried beforehand. */
#ifndef PS_CHECK_H
#define PS_CHECK_H

#include "config.h"

/*
 * Try everything that a run needs and undo it: rights, BPF, interfaces, credentials, spool.
 * Prints a table on stdout, attaches nothing, leaves nothing behind. 0 when a run would work,
 * else -errno.
 */
int agent_check(const struct config *config);

#endif
