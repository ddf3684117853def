/* SPDX-License-Identifier: Apache-2.0 */
/* Between backlog.c (what is where) and backlog_mover.c (the thread that moves it). */
#ifndef PS_BACKLOG_INTERNAL_H
#define PS_BACKLOG_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "backlog.h"

struct backlog {
	struct backlog_config config;
	struct spool_epoch *epoch; /* NULL: memory only */
	bool recovered;

	pthread_mutex_t lock;
	uint64_t acked;   /* by the collector, up to here */
	uint64_t settled; /* forgotten and booked, up to here */
	uint64_t moving;  /* the message that is on its way to the disk; 0: none */

	_Atomic uint64_t sent;        /* what may have been sent from memory, up to here */
	_Atomic nsec_t offline_since; /* 0: connected */
	_Atomic uint64_t evicted;     /* packets that the spool had no room for */

	/* The mover's. */
	pthread_t thread;
	bool started;
	atomic_bool stopping;
	int wake_fd; /* eventfd */
	struct buf wire;
	size_t high, low; /* bytes in the queue: begin to move, be content */
	size_t watched;
	bool overflowing;
	bool unsynced;
	nsec_t sync_due, tend_due, retry_due;
	bool failing; /* and said so */
	nsec_t told_failing, told_evicted;
	uint64_t evicted_told;
};

/* Move the oldest message to the disk. 1; 0: there is none; -errno. */
int backlog_move(struct backlog *b, struct err *err);

/* Idempotent. */
void backlog_stop_mover(struct backlog *b);

#endif
