/* SPDX-License-Identifier: Apache-2.0 */
/* A thread with an epoll loop that accepts connections and runs their sessions. */
#ifndef PS_COLLECTOR_WORKER_H
#define PS_COLLECTOR_WORKER_H

#include "listener.h"
#include "session.h"

struct worker;

/* Starts the thread, number @index of its kind. @env and @listener outlive it. */
int worker_new(struct session_env *env, struct listener *listener, unsigned int index,
	       struct worker **ret, struct err *err);
/* Sessions may have news (session_has_news()). Any thread. */
void worker_wake(struct worker *w);
/* Ask it to end its sessions and then itself. Any thread. */
void worker_stop(struct worker *w);
/* Has it ended by @deadline (monotonic)? */
bool worker_wait(struct worker *w, nsec_t deadline);
/* Waits for the end. worker_wake() may still be called. */
void worker_join(struct worker *w);
/* Waits for the end, too. */
struct worker *worker_free(struct worker *w);

#endif
