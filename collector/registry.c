/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of feeds. Workers attach and detach sessions, the main thread reports.
 *
 * Locks nest as registry, then a feed's `lock`; never the other way round. A feed's
 * `turn` is taken with neither held, because its holder may be waiting for the disk or
 * for a slow reader, and a report or a stop must not wait for that.
 *
 * Fencing: a feed has the session id of its owner. registry_attach() puts a new id in,
 * then waits for the turn once, so the write that was under way is finished and
 * counted before the resume number is read; the old session finds the foreign id at
 * its next registry_begin(). A feed is freed only when no session refers to it.
 *
 * Feeds at rest are kept for an agent that comes back and for reports, as long as they and
 * their interfaces are within bounds: one peer could otherwise leave any number behind.
 */
#include "registry.h"

#include <errno.h>
#include <stdio.h>

#include "util.h"

struct registry {
	pthread_mutex_t lock;
	struct feed *feeds;
	size_t n_feeds;
	size_t n_resting; /* interfaces of feeds that no session refers to */
	struct registry_limits limits;
	struct feed_room room; /* atomic: feeds grow without our lock */
	uint64_t last_session_id;
	struct feed_total evicted; /* what is in the table no more */
	struct output *output;
	feed_line_fn *line;
	void *ctx;
};

struct registry *registry_new(const struct registry_limits *limits, struct output *output,
			      feed_line_fn *line, void *ctx)
{
	struct registry *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	pthread_mutex_init(&r->lock, NULL);
	r->limits = *limits;
	r->room.max = limits->ifaces;
	r->output = output;
	r->line = line;
	r->ctx = ctx;
	r->evicted.verdict = VERDICT_COMPLETE;
	/* Ids are only compared, but tell sessions before and after a restart apart. */
	r->last_session_id = clock_realtime();
	return r;
}

struct registry *registry_free(struct registry *r)
{
	if (!r)
		return NULL;
	while (r->feeds) {
		struct feed *f = r->feeds;

		r->feeds = f->next;
		feed_free(f);
	}
	pthread_mutex_destroy(&r->lock);
	free(r);
	return NULL;
}

/* Is @a, of feeds at rest, to go before @b? A stream that said goodbye never comes back. */
static bool goes_before(const struct feed *a, const struct feed *b)
{
	if ((a->state == FEED_ENDED) != (b->state == FEED_ENDED))
		return a->state == FEED_ENDED;
	return a->ended < b->ended;
}

/* Make room: drop a feed at rest. */
static int evict(struct registry *r, struct err *err)
{
	struct feed **oldest = NULL, *f;

	for (struct feed **at = &r->feeds; *at; at = &(*at)->next)
		if (!(*at)->refs && (!oldest || goes_before(*at, *oldest)))
			oldest = at;
	if (!oldest)
		return err_set(err, -ENOSPC, "%zu streams are connected, no more are taken",
			       r->n_feeds);
	f = *oldest;
	feed_report(f, r->output, false, r->line, r->ctx, &r->evicted);
	*oldest = f->next;
	r->n_feeds--;
	r->n_resting -= f->n_ifaces;
	feed_free(f);
	return 0;
}

/* A session begins to refer to @f. Nothing adds interfaces to a feed at rest. */
static void hold(struct registry *r, struct feed *f)
{
	if (!f->refs++)
		r->n_resting -= f->n_ifaces;
}

static void let_go(struct registry *r, struct feed *f)
{
	if (!--f->refs)
		r->n_resting += f->n_ifaces;
}

static int find_or_make(struct registry *r, const char *identity, const struct stream_hello *hello,
			struct feed **ret, bool *ret_made, struct err *err)
{
	struct feed *f;
	int e;

	for (f = r->feeds; f && !feed_is(f, identity, hello);)
		f = f->next;
	*ret = f;
	*ret_made = !f;
	if (f)
		return 0;
	if (r->n_feeds >= r->limits.feeds) {
		e = evict(r, err);
		if (e < 0)
			return e;
	}
	f = feed_new(identity, hello, &r->room);
	if (!f)
		return err_set(err, -ENOMEM, "out of memory");
	f->next = r->feeds;
	r->feeds = f;
	r->n_feeds++;
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

/* Returns the state that the feed goes back to if the session is refused after all. */
static enum feed_state take_over(struct registry *r, struct feed *f, struct registry_owner *owner)
{
	enum feed_state before;

	supersede(f);
	owner->session_id = ++r->last_session_id;
	f->owner = owner;
	hold(r, f);
	pthread_mutex_lock(&f->lock);
	before = f->state == FEED_CONNECTED ? FEED_LOST : f->state;
	f->session_id = owner->session_id;
	f->state = FEED_CONNECTED;
	pthread_mutex_unlock(&f->lock);
	return before;
}

static int introduce(struct feed *f, const struct stream_hello *hello, bool made, struct err *err)
{
	/* Another collector took what is missing here: its counts come along. */
	bool elsewhere = hello->first_unacked > f->next_seq;
	int r;

	if (hello->next_seq < f->next_seq)
		return err_set(
			err, -EPROTO, "the agent's next number is %llu, but %llu is expected here",
			(unsigned long long)hello->next_seq, (unsigned long long)f->next_seq);
	r = feed_introduce(f, hello, made || elsewhere, err);
	if (r == 0 && elsewhere)
		feed_advance(f, hello->first_unacked);
	return r;
}

/* Undo take_over(): a refused HELLO leaves no trace in the ledgers. */
static void give_back(struct registry *r, struct feed *f, struct registry_owner *owner,
		      enum feed_state before, bool made)
{
	struct feed **at = &r->feeds;

	pthread_mutex_lock(&r->lock);
	let_go(r, f);
	if (f->owner == owner) {
		f->owner = NULL;
		pthread_mutex_lock(&f->lock);
		f->state = before;
		pthread_mutex_unlock(&f->lock);
	}
	if (made && !f->refs) {
		while (*at != f)
			at = &(*at)->next;
		*at = f->next;
		r->n_feeds--;
		r->n_resting -= f->n_ifaces;
		feed_free(f);
	}
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
	e = introduce(f, hello, made, err);
	*ret_resume = f->next_seq;
	pthread_mutex_unlock(&f->turn);
	if (e < 0)
		give_back(r, f, owner, before, made);
	else
		*ret = f;
	return e;
}

void registry_detach(struct registry *r, struct feed *f, struct registry_owner *owner,
		     enum feed_state state)
{
	struct feed_total total = {};

	pthread_mutex_lock(&r->lock);
	let_go(r, f);
	if (f->owner == owner) {
		f->owner = NULL;
		pthread_mutex_lock(&f->lock);
		f->state = state;
		f->ended = clock_realtime();
		pthread_mutex_unlock(&f->lock);
		if (state == FEED_ENDED)
			feed_report(f, r->output, true, r->line, r->ctx, &total);
	}
	while (r->n_resting > r->limits.resting_ifaces)
		evict(r, NULL);
	pthread_mutex_unlock(&r->lock);
}

void registry_report(struct registry *r)
{
	struct feed_total total;
	char text[1024];
	int n;

	pthread_mutex_lock(&r->lock);
	total = r->evicted;
	for (struct feed *f = r->feeds; f; f = f->next)
		feed_report(f, r->output, false, r->line, r->ctx, &total);
	pthread_mutex_unlock(&r->lock);
	n = snprintf(text, sizeof(text), "verdict over %zu streams: ", total.feeds);
	feed_verdict_text(&total.sum, total.verdict, text + n, sizeof(text) - (size_t)n);
	r->line(r->ctx, LOG_LEVEL_INFO, text);
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
