/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of feeds. Workers attach and detach sessions, the main thread reports, the
 * committer saves.
 *
 * Locks nest as registry, then a feed's `lock`; never the other way round. A feed's
 * `turn` is taken with neither held, because its holder may be waiting for the disk or
 * for a slow reader, and a report or a stop must not wait for that.
 *
 * Fencing: a feed has the session id of its owner. registry_attach() puts a new id in,
 * then waits for the turn once, so the write that was under way is finished and
 * counted before the resume number is read; the old session finds the foreign id at
 * its next registry_begin(). A feed is freed only when no session and no commit refers to it.
 *
 * Feeds at rest are kept for an agent that comes back and for reports, as long as they and
 * their interfaces are within bounds: one peer could otherwise leave any number behind.
 */
#include "registry.h"

#include <errno.h>
#include <stdio.h>
#include <strings.h>

#include "registry_internal.h"
#include "util.h"

/* So long an identity has a name after its connection was lost. */
#define NAME_KEPT (3600 * NSEC_PER_SEC)
struct registry *registry_new(const struct registry_limits *limits, struct output *output,
			      feed_line_fn *line, void *ctx)
{
	struct registry *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	pthread_mutex_init(&r->lock, NULL);
	r->limits = *limits;
	r->room.max = limits->ifaces;
	r->room.line = line;
	r->room.ctx = ctx;
	pthread_mutex_init(&r->room.lock, NULL);
	r->room.counted = clock_monotonic();
	r->room.lines = FEED_LINES_MAX;
	r->output = output;
	/* Ids are only compared, but tell sessions before and after a restart apart. */
	r->last_session_id = clock_realtime();
	return r;
}

void registry_set_output(struct registry *r, struct output *output)
{
	pthread_mutex_lock(&r->lock);
	r->output = output;
	pthread_mutex_unlock(&r->lock);
}

struct registry *registry_free(struct registry *r)
{
	if (!r)
		return NULL;
	while (r->feeds)
		registry_remove(r, r->feeds);
	feed_total_free(&r->loaded);
	feed_total_free(&r->dropped);
	buf_free(&r->forgotten);
	pthread_mutex_destroy(&r->room.lock);
	pthread_mutex_destroy(&r->lock);
	free(r);
	return NULL;
}

struct feed *registry_find(struct registry *r, uint64_t number)
{
	struct feed *f = r->by_number[number % REGISTRY_BUCKETS];

	while (f && f->number != number)
		f = f->next_by_number;
	return f;
}

void registry_add(struct registry *r, struct feed *f)
{
	struct feed **bucket;

	if (!f->number)
		f->number = r->last_number + 1;
	r->last_number = MAX(r->last_number, f->number);
	bucket = &r->by_number[f->number % REGISTRY_BUCKETS];
	f->next_by_number = *bucket;
	*bucket = f;
	f->next = r->feeds;
	r->feeds = f;
	r->n_feeds++;
	r->n_resting += f->n_ifaces;
}

void registry_remove(struct registry *r, struct feed *f)
{
	struct feed **at = &r->feeds;

	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	at = &r->by_number[f->number % REGISTRY_BUCKETS];
	while (*at != f)
		at = &(*at)->next_by_number;
	*at = f->next_by_number;
	r->n_feeds--;
	if (!f->refs)
		r->n_resting -= f->n_ifaces;
	if (f->saved)
		buf_put_le64(&r->forgotten, f->number);
	feed_free(f);
}

/* Nothing adds interfaces to a feed at rest. */
void registry_hold(struct registry *r, struct feed *f)
{
	if (!f->refs++)
		r->n_resting -= f->n_ifaces;
}

void registry_let_go(struct registry *r, struct feed *f)
{
	if (!--f->refs)
		r->n_resting += f->n_ifaces;
}

/* Does another identity go by the name that @hello says? */
static int check_name(struct registry *r, const char *identity, const struct stream_hello *hello,
		      struct err *err)
{
	nsec_t now = clock_realtime();
	bool taken = false;

	if (registry_is_shared(identity))
		return 0;
	for (struct feed *f = r->feeds; f && !taken; f = f->next) {
		if (registry_is_shared(f->identity) || !strcmp(f->identity, identity))
			continue;
		pthread_mutex_lock(&f->lock);
		taken = (f->refs || (f->state == FEED_LOST && now < f->ended + NAME_KEPT)) &&
			!strcasecmp(f->agent_name, hello->agent_name);
		pthread_mutex_unlock(&f->lock);
		if (taken)
			return err_set(
				err, -EACCES,
				"the name \"%s\" belongs to %s, which %s; \"%s\" cannot have it",
				hello->agent_name, f->identity,
				f->refs ? "is connected" : "was connected within the last hour",
				identity);
	}
	return 0;
}

static int find_or_make(struct registry *r, const char *identity, const struct stream_hello *hello,
			struct feed **ret, bool *ret_made, struct err *err)
{
	struct feed *f;
	int e;

	e = check_name(r, identity, hello, err);
	if (e < 0)
		return e;
	for (f = r->feeds; f && !feed_is(f, identity, hello);)
		f = f->next;
	*ret = f;
	*ret_made = !f;
	if (f)
		return 0;
	registry_drop_old(r);
	if (r->n_feeds >= r->limits.feeds && registry_evict(r, NULL, false) < 0)
		return err_set(err, -ENOSPC, "%zu streams are connected, no more are taken",
			       r->n_feeds);
	f = feed_new(identity, hello, &r->room);
	if (!f)
		return err_set(err, -ENOMEM, "out of memory");
	registry_add(r, f);
	*ret = f;
	return 0;
}

static void supersede(struct feed *f)
{
	if (!f->owner)
		return;
	atomic_store(&f->owner->superseded, true);
	event_signal(f->owner->wake_fd);
}

/* Returns the state that the feed was in, for give_back(). */
static enum feed_state take_over(struct registry *r, struct feed *f, struct registry_owner *owner)
{
	enum feed_state before;

	supersede(f);
	owner->session_id = ++r->last_session_id;
	f->owner = owner;
	f->loaded = false;
	registry_hold(r, f);
	pthread_mutex_lock(&f->lock);
	before = f->state;
	f->session_id = owner->session_id;
	f->state = FEED_CONNECTED;
	pthread_mutex_unlock(&f->lock);
	return before;
}

static int introduce(struct feed *f, const struct stream_hello *hello, bool made,
		     uint64_t *ret_resume, struct err *err)
{
	/* Another collector took what is missing here: its counts come along. */
	bool elsewhere = hello->first_unacked > f->next_seq;
	int r;

	/* A disk may have less than what was sent from memory. */
	if (hello->next_seq < f->next_seq && !hello->recovered)
		return err_set(
			err, -EPROTO, "the agent's next number is %llu, but %llu is expected here",
			(unsigned long long)hello->next_seq, (unsigned long long)f->next_seq);
	r = feed_introduce(f, hello, made || elsewhere, err);
	if (r < 0)
		return r;
	if (elsewhere) {
		feed_advance(f, hello->first_unacked);
		feed_commit(f, hello->first_unacked - 1);
	}
	/* What the agent has let go of was committed somewhere, if not here. */
	*ret_resume = MAX(atomic_load(&f->committed_seq) + 1, hello->first_unacked);
	return 0;
}

/* Undo take_over(): a refused HELLO leaves no trace in the ledgers. */
static void give_back(struct registry *r, struct feed *f, struct registry_owner *owner,
		      enum feed_state before, bool made)
{
	bool ours;

	pthread_mutex_lock(&r->lock);
	registry_let_go(r, f);
	ours = f->owner == owner;
	if (ours) {
		f->owner = NULL;
		pthread_mutex_lock(&f->lock);
		f->state = before;
		pthread_mutex_unlock(&f->lock);
		/* The session that it was taken from is over, too. */
		if (before == FEED_CONNECTED)
			feed_rest(f, FEED_LOST, 0);
	}
	if (made && ours && registry_is_idle(f))
		registry_remove(r, f);
	pthread_mutex_unlock(&r->lock);
}

int registry_attach(struct registry *r, const char *identity, const struct stream_hello *hello,
		    struct registry_owner *owner, struct feed **ret, uint64_t *ret_resume,
		    struct err *err)
{
	enum feed_state before = FEED_LOST;
	struct feed *f;
	bool made;
	int e;

	pthread_mutex_lock(&r->lock);
	e = find_or_make(r, identity, hello, &f, &made, err);
	if (e == 0)
		before = take_over(r, f, owner);
	pthread_mutex_unlock(&r->lock);
	if (e < 0)
		return e;

	pthread_mutex_lock(&f->turn);
	e = introduce(f, hello, made, ret_resume, err);
	pthread_mutex_unlock(&f->turn);
	if (e < 0)
		give_back(r, f, owner, before, made);
	else
		*ret = f;
	return e;
}

void registry_detach(struct registry *r, struct feed *f, struct registry_owner *owner,
		     enum feed_state state, nsec_t unknown_after)
{
	const struct feed_report_how how = {.final = true};
	struct feed_total total = {};

	pthread_mutex_lock(&r->lock);
	registry_let_go(r, f);
	if (f->owner == owner) {
		f->owner = NULL;
		feed_rest(f, state, unknown_after);
		if (feed_is_over(f) && registry_may_report(r, f))
			feed_report(f, r->output, how, &total);
		feed_total_free(&total);
	}
	if (!f->refs)
		registry_bound_holder(r, f);
	while (r->n_resting > r->limits.resting_ifaces && registry_evict(r, NULL, false) == 0)
		;
	pthread_mutex_unlock(&r->lock);
}

bool registry_begin(struct feed *f, const struct registry_owner *owner)
{
	bool mine;

	pthread_mutex_lock(&f->turn);
	pthread_mutex_lock(&f->lock);
	mine = f->session_id == owner->session_id;
	pthread_mutex_unlock(&f->lock);
	if (!mine)
		pthread_mutex_unlock(&f->turn);
	return mine;
}

void registry_end(struct feed *f)
{
	pthread_mutex_unlock(&f->turn);
}
