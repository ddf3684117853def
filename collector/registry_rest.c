/* SPDX-License-Identifier: Apache-2.0 */
/* Feeds at rest: how many are kept, and which go first. */
#include <errno.h>

#include "registry_internal.h"
#include "util.h"

/* So long the feed of a stream that is over is loaded with the journal. */
#define OVER_KEPT (3600 * NSEC_PER_SEC)

bool registry_may_report(struct registry *r, const struct feed *f)
{
	return feed_may_say(&r->room, 2 * (f->n_ifaces + FEED_FILES) + 1);
}

void registry_drop(struct registry *r, struct feed *f, bool quiet)
{
	const struct feed_report_how how = {.quiet = quiet || !registry_may_report(r, f)};

	feed_report(f, r->output, how, &r->dropped);
	r->total_changed = true;
	registry_remove(r, f);
}

/* Is @a, of feeds at rest, to go before @b? A stream that is over never comes back. */
static bool goes_before(const struct feed *a, const struct feed *b)
{
	if (feed_is_over(a) != feed_is_over(b))
		return feed_is_over(a);
	return a->ended < b->ended;
}

/* A certificate for all names of a domain is shared, too, though not with everybody. */
static bool is_of_many(const char *identity)
{
	return registry_is_shared(identity) || !strncmp(identity, "*.", 2);
}

/* Do the two belong to one agent, as far as anybody can tell? */
static bool same_holder(const struct feed *a, const struct feed *b)
{
	return !strcmp(a->identity, b->identity) &&
	       (!is_of_many(a->identity) || !memcmp(a->agent_id, b->agent_id, sizeof(a->agent_id)));
}

int registry_evict(struct registry *r, const struct feed *like, bool quiet)
{
	struct feed *first = NULL;

	for (struct feed *f = r->feeds; f; f = f->next)
		if (registry_is_idle(f) && (!like || same_holder(f, like)) &&
		    (!first || goes_before(f, first)))
			first = f;
	if (!first)
		return -ENOSPC;
	registry_drop(r, first, quiet);
	return 0;
}

void registry_drop_old(struct registry *r)
{
	nsec_t now = clock_realtime();
	struct feed *next;

	for (struct feed *f = r->feeds; f; f = next) {
		next = f->next;
		if (f->loaded && registry_is_idle(f) && feed_is_over(f) &&
		    now > f->ended + OVER_KEPT)
			registry_drop(r, f, true);
	}
}

void registry_bound_holder(struct registry *r, const struct feed *of)
{
	struct feed like = {};
	size_t n = 0;

	memcpy(like.identity, of->identity, sizeof(like.identity));
	memcpy(like.agent_id, of->agent_id, sizeof(like.agent_id));
	for (struct feed *f = r->feeds; f; f = f->next)
		n += !f->refs && same_holder(f, &like);
	while (n-- > REGISTRY_RESTING_MAX && registry_evict(r, &like, false) == 0)
		;
}
