/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration read again while the agent runs. */
#ifndef PS_RELOAD_H
#define PS_RELOAD_H

#include "config.h"
#include "filters.h"
#include "iface.h"

/*
 * Read @path, and go over to what it says of filters, sets and the rest of filters.h: all of it, or
 * nothing and a negative errno. Whatever is wrong goes to the log, line by line. *ret is in use
 * then, until the next reload.
 */
int reload(const char *path, struct filters *filters, struct ifaces *ifaces, struct config **ret);

#endif
