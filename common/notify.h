/* SPDX-License-Identifier: Apache-2.0 */
/* The service manager's readiness protocol, sd_notify(3), without its library. */
#ifndef PS_NOTIFY_H
#define PS_NOTIFY_H

#include "err.h"

/*
 * Send @state ("READY=1", "STOPPING=1") to the socket that $NOTIFY_SOCKET names,
 * an abstract one ("@name") too. Returns 1 when it was sent, 0 when there is no
 * service manager to tell, or -errno.
 */
int notify(const char *state, struct err *err);

#endif
