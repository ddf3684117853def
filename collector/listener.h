/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The listening socket, and the connections that have not said HELLO yet: guests. There is room
 * for so many of them, and for a quarter of that from one address (of an IPv6 /64). When that is
 * full, the oldest has to go: agents are through in a moment, so it is nearly always one that only
 * holds its place. Shared by all workers.
 */
#ifndef PS_COLLECTOR_LISTENER_H
#define PS_COLLECTOR_LISTENER_H

#include <pthread.h>
#include <stdatomic.h>

#include "clock.h"
#include "net.h"

#define LISTENER_GUESTS_MIN 64u

struct guest {
	struct guest *older, *newer;
	uint64_t address;
	nsec_t since;
	int wake_fd; /* of the worker, written when it has to go */
	bool listed;
	atomic_bool evicted; /* has to go */
};

struct listener {
	int fd;
	char name[NET_ADDR_TEXT]; /* what it is bound to */
	size_t max_guests;

	pthread_mutex_t lock; /* guards what follows */
	struct guest *oldest, *newest;
	size_t listed, guests; /* guests: with those that have to go and are not gone yet */
	int spare_fd;          /* to be closed when there are no descriptors; -1: none */
	unsigned long refused; /* since the last line about it */
	nsec_t told;           /* when that was */
};

int listener_open(struct listener *l, const char *address, uint16_t port, size_t max_guests,
		  struct err *err);
/* @l may be all zeros with fd -1. */
void listener_close(struct listener *l);

/*
 * The next connection, non-blocking, as a guest of a worker that @wake_fd wakes, at @now.
 * -EAGAIN: none; -EBUSY: there was one, which was turned away; else (-ENOMEM ...) there is no
 * point in trying again at once. Says in the log why connections are not taken, but no more than
 * once a second.
 */
int listener_accept(struct listener *l, struct guest *g, int wake_fd, nsec_t now,
		    char peer[NET_ADDR_TEXT]);
/* It is closed, or no guest any more. May be called again. */
void listener_leave(struct listener *l, struct guest *g);

#endif
