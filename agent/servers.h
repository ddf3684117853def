/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which collector to try next. Agents spread over a list by rendezvous hashing: each agent
 * orders the servers by a hash of its id and the server's name, so that without any
 * agreement all servers get their share, and the agents of one that is gone spread over the
 * others. Pure: no clock, no socket.
 */
#ifndef PS_SERVERS_H
#define PS_SERVERS_H

#include "config.h"

struct servers {
	const struct yaml_server **order; /* preferred first */
	size_t n, current;
};

/* -ENOMEM. @list outlives it. */
int servers_init(struct servers *s, const struct yaml_servers *list, const uint8_t agent_id[16]);
void servers_done(struct servers *s);

static inline const struct yaml_server *servers_current(const struct servers *s)
{
	return s->order[s->current];
}
/* The current one cannot be used now: go on to the next. True when all had their turn. */
bool servers_next(struct servers *s);
/* Begin with the preferred one again. */
void servers_first(struct servers *s);
bool servers_preferred(const struct servers *s);

#endif
