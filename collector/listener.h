/* SPDX-License-Identifier: Apache-2.0 */
/* The listening socket, and how many sessions there may be. Shared by all workers. */
#ifndef PS_COLLECTOR_LISTENER_H
#define PS_COLLECTOR_LISTENER_H

#include <stdatomic.h>

#include "clock.h"
#include "net.h"

struct listener {
	int fd;
	char name[NET_ADDR_TEXT]; /* what it is bound to */
	uint64_t max_sessions;
	atomic_ulong sessions;
	atomic_ulong refused; /* since the last line about it */
	_Atomic(nsec_t) told; /* when the last line was written, monotonic */
};

int listener_open(struct listener *l, const char *address, uint16_t port, uint64_t max_sessions,
		  struct err *err);
void listener_close(struct listener *l);

/*
 * The next connection, non-blocking; listener_done() when it is closed. -EAGAIN: none;
 * -EBUSY: one was there, but is one too many; else (-EMFILE, -ENFILE, -ENOMEM ...) there
 * is no point in trying again at once. Says in the log why connections are not taken, but
 * no more than once a second.
 */
int listener_accept(struct listener *l, char peer[NET_ADDR_TEXT]);
void listener_done(struct listener *l);

#endif
