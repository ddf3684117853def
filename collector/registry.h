/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All feeds, by (identity, agent id, epoch). Thread-safe.
 *
 * Peers with a certificate of their own have an identity that nobody shares; plain text (""), the
 * shared key ("psk") and the certificate for all agents ("urn:ps:agent") are shared, and
 * tell agents apart by agent id only. Two identities of the first kind do not use the same
 * agent name: while one is connected, or was in the last hour and has not said goodbye, the other
 * is refused.
 */
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
 * Of one identity (of one agent id, where many have it: those, and "*.berlin.example") so many
 * feeds are kept at rest.
 */
#define REGISTRY_RESTING_MAX 64u

/*
 * To stay within @limits, feeds at rest are dropped: first streams that said goodbye, then
 * the one that ended longest ago, after a last report. @line gets every line of a report,
 * from any thread. Reports that agents cause are left out when there are too many
 * (feed_may_say()); registry_report() is not.
 */
struct registry *registry_new(const struct registry_limits *limits, struct output *output,
			      feed_line_fn *line, void *ctx);
/* For registry_new() with no output yet: commit_open() loads feeds before it opens it. */
void registry_set_output(struct registry *r, struct output *output);
struct registry *registry_free(struct registry *r);

/* At most so many bytes of registry_save() are about an interface, and of a feed beside them. */
#define REGISTRY_IFACE_BYTES 960u
#define REGISTRY_FEED_BYTES  3648u

/*
 * The journal's part (commit.h). A commit is either registry_save(), everything that is known of
 * all feeds, or registry_save_changes(), the feeds that were dropped, then feed_save() for each
 * feed that was touched. All append to @out, while nobody writes (commit_enter()). Each tells what
 * has changed since the last time, so when the journal did not take a commit, the next one has to
 * be a registry_save(); it takes effect wherever it stands.
 */
void registry_save(struct registry *r, struct buf *out);
void registry_save_changes(struct registry *r, struct buf *out);
/*
 * Put one such commit back. Feeds that are loaded are LOST until their agent comes back, unless
 * they ended. -EBADMSG: it is not one, and nothing was done. -ENOMEM.
 */
int registry_load(struct registry *r, const uint8_t *in, size_t n, struct err *err);

/*
 * A session starts to carry the stream of @hello: the feed and the number to resume at, the one
 * after what is committed.
 * A session that carried it before is superseded; once this returns it cannot write any
 * more. -EPROTO when @hello contradicts what is known, -EACCES when another identity goes by the
 * agent's name, -ENOSPC when the table is full, -ENOMEM.
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

/*
 * Ledgers of all feeds, a `clock ` line per agent, a `file ` line per output file, then one line
 * with the total verdict.
 */
void registry_report(struct registry *r);

/*
 * A message begins: wait for the turn. False, without the turn, when the session has
 * been superseded.
 */
bool registry_begin(struct feed *f, const struct registry_owner *owner);
void registry_end(struct feed *f);

#endif
