/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a session tells its agent: how far it has come, and how much more may be under way.
 *
 * Credit is a window of bytes. The windows of all sessions share env->memory: each has its part
 * of that, between SESSION_WINDOW_MIN and env->credit. With each grant a window goes towards what
 * its part is now: a smaller one by keeping back what the agent used, a larger one by giving more.
 *
 * An agent may begin a message larger than its credit when all it used was given back. So nothing
 * may be kept back for ever: it is given when nothing came for a while, and a window is
 * never made smaller than the largest message of its session.
 */
#include <errno.h>

#include "session_internal.h"
#include "util.h"

#define QUIET (250 * NSEC_PER_MSEC) /* an agent that waits for credit would send by then */

static uint64_t part_of_budget(const struct session_env *env)
{
	uint64_t part = env->memory / MAX(atomic_load(&env->sessions), 1u);

	return MIN(MAX(part, SESSION_WINDOW_MIN), env->credit);
}

int session_admit(struct session *s, struct err *err)
{
	struct session_env *env = s->env;
	size_t n = atomic_fetch_add(&env->sessions, 1) + 1;
	bool no_place = n > env->max_sessions;

	if (no_place || n * (uint64_t)(SESSION_WINDOW_MIN + SESSION_COST) > env->memory) {
		atomic_fetch_sub(&env->sessions, 1);
		return err_set(err, -EBUSY, "there are %zu sessions already (%s)", n - 1,
			       no_place ? "maxSessions" : "memoryBudget");
	}
	s->introduced = true;
	s->window = part_of_budget(env);
	return 0;
}

void session_forget(struct session *s)
{
	if (s->introduced)
		atomic_fetch_sub(&s->env->sessions, 1);
	s->introduced = false;
}

void session_took(struct session *s, uint64_t seq, nsec_t now)
{
	uint64_t size = STREAM_HEADER_SIZE + s->header.payload_len;

	s->taken = MAX(s->taken, seq);
	s->used += size;
	s->largest = MAX(s->largest, size);
	s->took = now;
}

/* The credit to give now. */
static uint64_t grant(struct session *s)
{
	uint64_t part = MAX(part_of_budget(s->env), MIN(s->largest, s->env->credit));
	uint64_t give = s->used;

	s->used = 0;
	if (s->window > part) {
		uint64_t keep = MIN(give, s->window - part);

		s->window -= keep;
		s->withheld += keep;
		return give - keep;
	}
	give += part - s->window;
	s->withheld -= MIN(s->withheld, part - s->window);
	s->window = part;
	return give;
}

/* What may be said: never more than came in this session, as the agent may not know of it. */
static struct stream_ack progress(const struct session *s)
{
	uint64_t committed = MIN(s->taken, atomic_load(&s->feed->committed_seq));

	if (commit_ack_mode(s->env->commit) == STREAM_ACK_DURABLE)
		return (struct stream_ack){.written = s->taken, .durable = committed};
	return (struct stream_ack){.written = committed};
}

bool session_ack_is_news(const struct session *s)
{
	struct stream_ack ack = {};

	if (s->feed)
		ack = progress(s);
	return ack.written > s->told_written || ack.durable > s->told_durable;
}

static void say(struct session *s, const struct stream_ack *ack)
{
	struct buf b = {};

	stream_ack_encode(&b, ack);
	session_put(s, STREAM_ACK, &b);
	buf_free(&b);
	s->told_written = ack->written;
	s->told_durable = ack->durable;
}

void session_put_ack(struct session *s)
{
	struct stream_ack ack;

	if (!s->feed)
		return;
	ack = progress(s);
	ack.credit = grant(s);
	if (ack.credit || ack.written > s->told_written || ack.durable > s->told_durable)
		say(s, &ack);
}

void session_put_last_ack(struct session *s)
{
	struct stream_ack ack = {.written = s->taken};

	if (commit_ack_mode(s->env->commit) == STREAM_ACK_DURABLE)
		ack.durable = s->taken;
	if (ack.written > s->told_written || ack.durable > s->told_durable)
		say(s, &ack);
}

nsec_t session_quiet_at(const struct session *s)
{
	return s->withheld ? s->took + QUIET : SESSION_NEVER;
}

void session_quiet(struct session *s)
{
	struct stream_ack ack = progress(s);

	ack.credit = s->withheld;
	s->window += s->withheld;
	s->withheld = 0;
	say(s, &ack);
}
