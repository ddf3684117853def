/* SPDX-License-Identifier: Apache-2.0 */
/* All feeds, by (identity, agent id, epoch). Thread-safe. */
#ifndef PS_COLLECTOR_REGISTRY_H
#define PS_COLLECTOR_REGISTRY_H

#include <stdatomic.h>

#include "feed.h"

struct registry;

/* The registry's handle on a session. */
struct registry_owner {
	atomic_bool superseded; /* another session has taken the feed over */
	int wake_fd;            /* eventfd, written when that happens */
	uint64_t session_id;    /* set by registry_attach() */
};

/* So many feeds; interfaces of those that no session carries; interfaces of all. */
struct registry_limits {
	size_t feeds, resting_ifaces, ifaces;
};

/*
 * To stay within @limits, feeds at rest are dropped: first streams that said goodbye, then
 * the one that ended longest ago, after a last report. @line gets every line of a report,
 * from any thread.
 */
struct registry *registry_new(const struct registry_limits *limits, struct output *output,
			      feed_line_fn *line, void *ctx);
/* For registry_new() with no output yet: commit_open() loads feeds before it opens it. */
void registry_set_output(struct registry *r, struct output *output);
struct registry *registry_free(struct registry *r);

/*
 * The journal's part (commit.h): everything that is known of all feeds, appended to @out; and
 * one commit's worth of it, or of what feed_save() wrote, put back. Feeds that are loaded are
 * LOST until their agent comes back, unless they ended. -EBADMSG.
 */
void registry_save(struct registry *r, struct buf *out);
int registry_load(struct registry *r, const uint8_t *in, size_t n, struct err *err);

/*
 * A session starts to carry the stream of @hello: the feed and the number to resume at, the one
 * after what is committed.
 * A session that carried it before is superseded; once this returns it cannot write any
 * more. -EPROTO when @hello contradicts what is known, -ENOSPC when the table is full,
 * -ENOMEM.
 */
int registry_attach(struct registry *r, const char *identity, const struct stream_hello *hello,
		    struct registry_owner *owner, struct feed **ret, uint64_t *ret_resume,
		    struct err *err);

/*
 * The session is over. FEED_ENDED: the agent said goodbye, its ledger is reported. FEED_BROKEN:
 * the same, and what came after @unknown_after (0: the last STATS) is unknown. FEED_CONNECTED: we
 * stop, nothing is wrong with the stream. Without effect on the feed's state when the session was
 * superseded.
 */
void registry_detach(struct registry *r, struct feed *f, struct registry_owner *owner,
		     enum feed_state state, nsec_t unknown_after);

/* Ledgers of all feeds, then one line with the total verdict. */
void registry_report(struct registry *r);

/*
 * A message begins: wait for the turn. False, without the turn, when the session has
 * been superseded.
 */
bool registry_begin(struct feed *f, const struct registry_owner *owner);
void registry_end(struct feed *f);

#endif
