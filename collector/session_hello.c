/* SPDX-License-Identifier: Apache-2.0 */
/* HELLO: may the agent come, where does it go on? */
#include <errno.h>
#include <inttypes.h>

#include "session_internal.h"
#include "util.h"

static void put_welcome(struct session *s, uint64_t resume)
{
	const struct stream_welcome m = {
		.session_id = s->owner.session_id,
		.resume_seq = resume,
		.credit = s->window,
		.max_payload = STREAM_PAYLOAD_MAX,
		.max_raw = STREAM_RAW_MAX,
		.heartbeat_ms = (uint32_t)(s->env->heartbeat / NSEC_PER_MSEC),
		.realtime_ns = clock_realtime(),
		.ack_mode = (uint8_t)commit_ack_mode(s->env->commit),
	};
	struct buf b = {};

	stream_welcome_encode(&b, &m);
	session_put(s, STREAM_WELCOME, &b);
	buf_free(&b);
}

static int attach(struct session *s, const struct stream_hello *m, struct err *err)
{
	const char *identity = tls_peer_identity(s->tls);
	struct commit *c = s->env->commit;
	uint64_t resume;
	int r;

	if (!s->env->any_name && !tls_peer_may_be(s->tls, m->agent_name))
		return err_set(err, -EACCES,
			       "agent name \"%s\" is not in its certificate (%s): set agentName "
			       "on the agent, or agents.names on the collector",
			       m->agent_name, identity);
	r = session_admit(s, err);
	if (r < 0)
		return r;
	commit_enter(c);
	r = registry_attach(s->env->registry, identity, m, &s->owner, &s->feed, &resume, err);
	commit_leave(c, r < 0 ? NULL : s->feed, 0);
	if (r < 0)
		session_forget(s);
	return r;
}

/*
 * Is all that earlier sessions wrote acknowledged? An agent that has no more what it is to begin
 * with takes it for lost, so WELCOME waits for a commit, though not for one that cannot be made.
 */
static bool is_caught_up(const struct session *s, nsec_t now)
{
	uint64_t next;

	pthread_mutex_lock(&s->feed->lock);
	next = s->feed->next_seq;
	pthread_mutex_unlock(&s->feed->lock);
	return atomic_load(&s->feed->committed_seq) + 1 >= next ||
	       now >= s->since + s->env->hello_timeout / 2;
}

static void welcome(struct session *s, const struct stream_hello *m, nsec_t now)
{
	/* What the agent has let go of was committed somewhere, if not here. */
	uint64_t resume = MAX(atomic_load(&s->feed->committed_seq) + 1, m->first_unacked);

	s->state = SESSION_STREAM;
	s->recovered = m->recovered;
	s->ping_at = now + s->env->heartbeat;
	s->taken = resume - 1;
	s->told_written = s->told_durable = s->taken;
	put_welcome(s, resume);
	noise_info(s->env->noise,
		   "agent \"%s\" (%s) connected from %s: epoch %" PRIu64
		   "%s, %zu interfaces, resumes at message %" PRIu64,
		   s->agent_name, s->feed->agent_id_text, s->peer, m->epoch,
		   m->recovered ? " of an earlier run" : "", m->n_ifaces, resume);
}

int session_take_hello(struct session *s, nsec_t now, struct err *err)
{
	struct stream_hello m;
	int r;

	r = stream_hello_decode(s->payload, s->header.payload_len, &m, err);
	if (r < 0)
		return r;
	memcpy(s->agent_name, m.agent_name, sizeof(s->agent_name));
	if (!s->feed)
		r = attach(s, &m, err);
	if (r == 0 && !is_caught_up(s, now)) {
		s->ticket = commit_hurry(s->env->commit);
		r = err_set(err, -EINPROGRESS, "what is here is to be committed first");
	} else if (r == 0) {
		welcome(s, &m, now);
	}
	stream_hello_free(&m);
	return r;
}
