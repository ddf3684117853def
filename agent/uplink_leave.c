/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When and how a session ends that has not failed: when its epoch is over, at a stop, before
 * a certificate expires, and to return to the preferred server. Belongs to the uplink thread.
 *
 * A session that is left for now first waits for what is under way, so that nothing is sent
 * twice. After BYE nothing numbered is sent, and an epoch is over only when the collector has
 * answered its BYE.
 */
#include <errno.h>

#include "log.h"
#include "uplink_internal.h"
#include "util.h"

/* What is under way may take so long to be acknowledged. */
#define LEAVE_TIMEOUT (10 * NSEC_PER_SEC)
/* For the answer to BYE where an epoch is recovered, which has time. */
#define BYE_RECOVERED_TIMEOUT (10 * NSEC_PER_SEC)

static void leave(struct uplink *u, nsec_t now)
{
	u->session.leaving = true;
	u->session.leave_by = now + LEAVE_TIMEOUT;
}

static void consider_expiry(struct uplink *u, nsec_t now)
{
	if (u->session.leaving || clock_realtime() < u->session.expires)
		return;
	log_info("a certificate of this connection ends soon: making a new one");
	leave(u, now);
}

/* On a server that is not the preferred one: does that one answer again? */
static void consider_return(struct uplink *u, nsec_t now)
{
	const struct yaml_server *first = u->servers.order[0];
	struct err err;

	if (u->session.leaving || servers_preferred(&u->servers))
		return;
	if (!u->probe) {
		if (now < MAX(u->probe_at, u->known[0].not_before))
			return;
		u->probe_at = uplink_next_probe(u);
		if (probe_start(first->host, first->port, UPLINK_PROBE_TIMEOUT, uplink_own_socket,
				u, &u->probe, &err) < 0)
			u->probe = NULL;
		return;
	}
	switch (probe_result(u->probe)) {
	case -EAGAIN:
		return;
	case 0:
		log_info("the preferred collector \"%s\" port %u answers: going back to it",
			 first->host, first->port);
		u->returning = true;
		leave(u, now);
	}
	u->probe = probe_free(u->probe);
	/* The hooks know few sockets, those that they were told of last. */
	uplink_own_socket(u, u->fd, NULL);
}

static void say_bye(struct uplink *u, struct stream_bye bye, nsec_t timeout)
{
	_cleanup_(buf_free) struct buf payload = {};

	stream_bye_encode(&payload, &bye);
	uplink_put_control(u, STREAM_BYE, &payload);
	u->session.bye_sent = bye.reason;
	u->session.bye_by = clock_monotonic() + timeout;
}

/* Is it time for BYE? */
static void consider_bye(struct uplink *u, nsec_t now)
{
	struct uplink_session *s = &u->session;
	bool stopping = atomic_load(&u->stopping), recovered = backlog_is_recovered(u->backlog);
	struct stream_bye bye = {.reason = STREAM_BYE_DRAIN, .last_seq = s->sent_seq};

	if (s->bye_sent)
		return;
	/* Pushes have ended before a stop: what is empty then stays empty. */
	if (recovered && stopping) {
		/* It stays in the spool, and this run's epoch goes there too. */
		s->leave_by = s->leaving ? MIN(s->leave_by, now) : now;
		s->leaving = true;
	}
	if ((recovered || stopping) && backlog_empty(u->backlog)) {
		bye = backlog_bye(u->backlog);
		/* The collector may have more of an unclean epoch than was found here. */
		bye.last_seq = MAX(bye.last_seq, s->sent_seq);
		say_bye(u, bye,
			recovered && !stopping ? BYE_RECOVERED_TIMEOUT : UPLINK_BYE_TIMEOUT);
	} else if (s->leaving && !s->begun && (s->acked == s->sent_seq || now >= s->leave_by)) {
		say_bye(u, bye, UPLINK_BYE_TIMEOUT);
	}
}

void uplink_consider_end(struct uplink *u, nsec_t now)
{
	consider_expiry(u, now);
	consider_return(u, now);
	consider_bye(u, now);
}

int uplink_judge_bye(struct uplink *u, nsec_t now, struct err *err)
{
	struct uplink_session *s = &u->session;

	if (!s->bye_sent && !s->bye_heard)
		/* In the middle of a message that it does not take there is no goodbye. */
		return s->leaving && now >= s->leave_by + UPLINK_BYE_TIMEOUT ? UPLINK_LEFT
									     : -EAGAIN;
	/* A collector that goes away may have overlooked ours. */
	if (s->bye_heard && s->bye_sent != STREAM_BYE_DRAIN &&
	    (!s->bye_sent || s->bye_heard == STREAM_BYE_DRAIN))
		return err_set(err, -ESHUTDOWN, "the collector is stopping");
	if (s->bye_heard)
		return s->bye_sent == STREAM_BYE_DRAIN ? UPLINK_LEFT : UPLINK_FINISHED;
	if (now < s->bye_by)
		return -EAGAIN;
	if (s->bye_sent == STREAM_BYE_DRAIN)
		return UPLINK_LEFT;
	return err_set(err, -ETIMEDOUT, "the collector does not answer the goodbye");
}
