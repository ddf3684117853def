/* SPDX-License-Identifier: Apache-2.0 */
/* For net.c: names to addresses, and waiting, both with a limit and a way out. */
#ifndef PS_NET_RESOLVE_H
#define PS_NET_RESOLVE_H

#include <netdb.h>

#include "clock.h"
#include "err.h"

/*
 * The TCP addresses of @host, without ports; freeaddrinfo() is the caller's.
 * -ETIMEDOUT at @deadline (clock_monotonic()), -ECANCELED as soon as @stop_fd
 * (-1: none) is readable.
 */
int net_resolve(const char *host, nsec_t deadline, int stop_fd, struct addrinfo **ret,
		struct err *err);

/* What a failed getaddrinfo() said: as -errno, and in words. */
int net_resolve_code(int rc, int sys_errno);
const char *net_resolve_text(int rc, int sys_errno);

/* Wait until @fd has one of @events (poll(2)): 0, or as net_resolve() ends. */
int net_wait(int fd, short events, nsec_t deadline, int stop_fd);

#endif
