/* SPDX-License-Identifier: Apache-2.0 */
/* Between the registry_*.c. Functions are called with the registry's lock held. */
#ifndef PS_COLLECTOR_REGISTRY_INTERNAL_H
#define PS_COLLECTOR_REGISTRY_INTERNAL_H

#include <string.h>

#include "buf.h"
#include "registry.h"

#define REGISTRY_BUCKETS 4096u /* of feeds by number */

struct registry {
	pthread_mutex_t lock;
	struct feed *feeds;
	struct feed *by_number[REGISTRY_BUCKETS];
	size_t n_feeds;
	size_t n_resting; /* interfaces of feeds that no session refers to */
	struct registry_limits limits;
	struct feed_room room; /* atomic: feeds grow without our lock */
	uint64_t last_session_id, last_number;
	/* What is in the table no more: dropped before this start, and since. */
	struct feed_total loaded, dropped;
	bool total_changed;
	struct buf forgotten; /* the numbers of dropped feeds that the journal still has, le64 */
	struct output *output;
};

struct feed *registry_find(struct registry *r, uint64_t number);
/* Put a new feed in. The number is the next one when it has none. */
void registry_add(struct registry *r, struct feed *f);
/* Take it out and free it. Nobody refers to it. */
void registry_remove(struct registry *r, struct feed *f);
/* Or were there too many lines about streams already? */
bool registry_may_report(struct registry *r, const struct feed *f);
/* As registry_remove(), but it goes on to count, after a last report unless @quiet. */
void registry_drop(struct registry *r, struct feed *f, bool quiet);
/*
 * Drop the feed at rest that is needed least, of those with the same holder as @like (NULL: of
 * all). -ENOSPC: there is none.
 */
int registry_evict(struct registry *r, const struct feed *like, bool quiet);
/* Drop loaded feeds that ended long ago; the run that they ended in reported them. */
void registry_drop_old(struct registry *r);

/* Of one holder's feeds the least needed go, so that it cannot push out anybody else's. */
void registry_bound_holder(struct registry *r, const struct feed *of);

/* Of such an identity nobody can say that he is somebody else than he is. */
static inline bool registry_is_shared(const char *identity)
{
	return !identity[0] || !strcmp(identity, "psk") || !strcmp(identity, "urn:ps:agent");
}

static inline bool registry_is_idle(const struct feed *f)
{
	return !f->refs && !atomic_load(&f->commits);
}

/* A session (or a load) begins to refer to @f, and ends to. */
void registry_hold(struct registry *r, struct feed *f);
void registry_let_go(struct registry *r, struct feed *f);

#endif
