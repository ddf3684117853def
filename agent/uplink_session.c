/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session after WELCOME: one poll loop that sends what credit allows and takes
 * acknowledgements, until uplink_leave.c says that it is over. Belongs to the uplink thread.
 *
 * Invariants: sent_seq is the last message wholly handed to the connection; what is above
 * `acked` waits for an ACK and is kept by the backlog. The message under way is a copy of
 * ours, so that the backlog may move or give up its own meanwhile.
 */
#include <errno.h>
#include <poll.h>

#include "log.h"
#include "uplink_internal.h"
#include "util.h"

#define MISSED_HEARTBEATS   3
#define CONTROL_WAITING_MAX (64u << 10)
#define INPUT_MAX           64 /* reads, before it is the other direction's turn */
#define WAIT_MOST           (5 * NSEC_PER_SEC)
#define READ_AGAIN          NSEC_PER_SEC
#define REPEAT_LOG          (60 * NSEC_PER_SEC)

/* A hole in an epoch of an earlier run: for the line that tells of it. */
static void count_gap(struct uplink *u)
{
	struct stream_gap gap;

	if (u->session.sending.type != STREAM_GAP || u->session.sending.seq <= u->old_gap_seq ||
	    stream_gap_decode(u->wire.data + STREAM_HEADER_SIZE, u->wire.len - STREAM_HEADER_SIZE,
			      &gap, NULL) < 0)
		return;
	u->old_gap_seq = u->session.sending.seq;
	u->old_lost_messages += gap.last_seq - gap.first_seq + 1;
	for (size_t i = 0; i < gap.n_parts; i++)
		u->old_lost_packets += gap.parts[i].lost.packets;
	stream_gap_free(&gap);
}

/* A collector that takes less than we may send is set up wrong, or no collector. */
static int check_size(const struct uplink *u, struct err *err)
{
	const struct uplink_session *s = &u->session;
	struct stream_header h;
	int r = stream_header_decode(u->wire.data, &h, err);

	if (r < 0)
		return err_wrap(err, r, "message %llu", (unsigned long long)s->sending.seq);
	if (h.payload_len > s->max_payload || h.raw_len > s->max_raw)
		return err_set(err, -EMSGSIZE,
			       "the collector takes messages of at most %u bytes (%u inflated), "
			       "but one of %u (%u) is to be sent",
			       s->max_payload, s->max_raw, h.payload_len, h.raw_len);
	return 0;
}

/* A disk that gives nothing now may do so later: that is no fault of the collector. */
static void read_failed(struct uplink *u, const struct err *err)
{
	nsec_t now = clock_monotonic();

	u->session.read_again = now + READ_AGAIN;
	if (u->read_logged && now - u->read_logged < REPEAT_LOG)
		return;
	u->read_logged = now;
	log_error("nothing can be sent now: %s", err->text);
}

/* Have the next message in u->wire: 1; 0: there is none; -errno: the session cannot go on. */
static int load_message(struct uplink *u, struct err *err)
{
	struct uplink_session *s = &u->session;
	struct err why;
	int r;

	if (s->sending.size)
		return 1;
	if (backlog_empty(u->backlog) || clock_monotonic() < s->read_again)
		return 0;
	r = backlog_read(u->backlog, s->sent_seq + 1, &u->wire, &s->sending, &why);
	if (r < 0)
		read_failed(u, &why);
	if (r <= 0) {
		s->sending.size = 0;
		return 0;
	}
	s->sending_at = 0;
	if (backlog_is_recovered(u->backlog))
		count_gap(u);
	r = check_size(u, err);
	return r < 0 ? r : 1;
}

/* 1: nothing left that could be sent now; 0: the connection is full, or the budget used up. */
static int send_waiting(struct uplink *u, struct err *err)
{
	struct uplink_session *s = &u->session;

	for (;;) {
		int r;

		if (!s->begun) {
			r = uplink_send_control(u, err);
			if (r <= 0)
				return r;
			if (s->leaving || s->bye_sent)
				return 1;
			r = load_message(u, err);
			if (r < 0)
				return r;
			if (r == 0 || (s->sending.size > s->credit && s->unreturned))
				return 1;
		}
		r = uplink_send_message(u, err);
		if (r <= 0)
			return r;
	}
}

static int on_ack(struct uplink *u, const uint8_t *payload, size_t n, struct err *err)
{
	struct uplink_session *s = &u->session;
	struct stream_ack ack;
	uint64_t seq;
	int r = stream_ack_decode(payload, n, &ack, err);

	if (r < 0)
		return r;
	seq = MAX(ack.written, ack.durable);
	if (seq > s->sent_seq)
		return err_set(err, -EPROTO, "the collector acknowledged %llu, but %llu was sent",
			       (unsigned long long)seq, (unsigned long long)s->sent_seq);
	if (__builtin_add_overflow(s->credit, ack.credit, &s->credit))
		s->credit = UINT64_MAX;
	s->unreturned -= MIN(s->unreturned, ack.credit);
	seq = s->durable ? ack.durable : ack.written;
	if (seq > s->acked) {
		s->acked = seq;
		backlog_ack(u->backlog, seq);
	}
	return 0;
}

static int on_ping(struct uplink *u, const uint8_t *payload, size_t n, struct err *err)
{
	_cleanup_(buf_free) struct buf answer = {};
	struct stream_ping ping;
	int r = stream_ping_decode(payload, n, &ping, err);

	if (r < 0)
		return r;
	/* Answers that it does not take must not pile up here. */
	if (u->control.len > CONTROL_WAITING_MAX)
		return err_set(err, -EPROTO, "the collector asks more than it takes answers");
	ping.received_ns = clock_realtime();
	stream_ping_encode(&answer, &ping);
	uplink_put_control(u, STREAM_PONG, &answer);
	return 0;
}

static int on_bye(struct uplink *u, const uint8_t *payload, size_t n, struct err *err)
{
	struct stream_bye bye;
	int r = stream_bye_decode(payload, n, &bye, err);

	if (r < 0)
		return r;
	u->session.bye_heard = MAX(bye.reason, 1u);
	return 0;
}

static int on_message(struct uplink *u, const struct stream_header *h, const uint8_t *payload,
		      struct err *err)
{
	switch (h->type) {
	case STREAM_ACK:
		return on_ack(u, payload, h->payload_len, err);
	case STREAM_PING:
		return on_ping(u, payload, h->payload_len, err);
	case STREAM_PONG:
		return 0;
	case STREAM_BYE:
		return on_bye(u, payload, h->payload_len, err);
	case STREAM_ERROR:
		return uplink_on_error(u, payload, h->payload_len, err);
	default:
		if (h->flags & STREAM_FLAG_OPTIONAL)
			return 0;
		return err_set(err, -EPROTO, "the collector sent an unexpected %s message",
			       stream_type_name(h->type));
	}
}

/* Deal with the whole messages that were read: the first may have come along with WELCOME. */
static int handle_messages(struct uplink *u, struct err *err)
{
	struct stream_header h;
	size_t at = 0;
	long n = 0;

	while (!u->session.bye_heard &&
	       (n = uplink_whole_message(u->in + at, u->session.in_len - at, &h, err)) > 0) {
		int r = on_message(u, &h, u->in + at + STREAM_HEADER_SIZE, err);

		if (r < 0)
			return r;
		at += (size_t)n;
	}
	uplink_consume(u, at);
	return (int)MIN(n, 0);
}

/* 1: there may be more; 0: that was all. */
static int handle_input(struct uplink *u, struct err *err)
{
	for (int i = 0; i < INPUT_MAX; i++) {
		int r = handle_messages(u, err);

		if (r == 0 && u->session.bye_heard)
			return 0;
		if (r == 0)
			r = uplink_receive(u, err);
		if (r <= 0)
			return r;
	}
	return 1;
}

static int heartbeat(struct uplink *u, nsec_t now, struct err *err)
{
	_cleanup_(buf_free) struct buf payload = {};
	struct stream_ping ping = {.sent_ns = clock_realtime()};
	struct uplink_session *s = &u->session;

	if (now - s->last_heard >= MISSED_HEARTBEATS * s->heartbeat)
		return err_set(err, -ETIMEDOUT, "the collector has been silent for %llu s",
			       (unsigned long long)((now - s->last_heard) / NSEC_PER_SEC));
	if (now - s->last_ping < s->heartbeat || s->bye_sent)
		return 0;
	s->last_ping = now;
	stream_ping_encode(&payload, &ping);
	uplink_put_control(u, STREAM_PING, &payload);
	return 0;
}

/* Would this collector still be let in? */
static int check_credentials(struct uplink *u, struct err *err)
{
	struct tls_context *now;
	int r;

	if (!atomic_exchange(&u->credentials_changed, false))
		return 0;
	now = tls_store_get(u->config.tls);
	r = tls_recheck(u->tls, now, err);
	tls_context_free(now);
	return r < 0 ? err_wrap(err, r, "by the new credentials") : 0;
}

/* How long there is nothing to do if nothing happens. */
static nsec_t next_event(const struct uplink *u, nsec_t now)
{
	const struct uplink_session *s = &u->session;
	nsec_t at = MIN(now + WAIT_MOST, s->last_heard + MISSED_HEARTBEATS * s->heartbeat);
	nsec_t real = clock_realtime();

	if (!s->leaving && s->expires > real && s->expires - real < WAIT_MOST)
		at = MIN(at, now + (s->expires - real));
	if (s->bye_sent)
		at = MIN(at, s->bye_by);
	else
		at = MIN(at, s->last_ping + s->heartbeat);
	if (s->leaving && !s->bye_sent)
		at = MIN(at, s->leave_by > now ? s->leave_by : s->leave_by + UPLINK_BYE_TIMEOUT);
	if (s->read_again > now)
		at = MIN(at, s->read_again);
	if (s->paced)
		at = MIN(at, s->paced);
	return at > now ? at - now : NSEC_PER_MSEC;
}

/* One turn, which ends as uplink_judge_bye() says; then what to wait for, and how long. */
static int turn(struct uplink *u, short *ret_events, nsec_t *ret_wait, struct err *err)
{
	bool more;
	nsec_t now;
	int r;

	/* Input first: after a standstill of ours the collector was not silent. */
	r = handle_input(u, err);
	if (r < 0)
		return r;
	more = r > 0;
	now = clock_monotonic();
	r = heartbeat(u, now, err);
	if (r == 0)
		r = check_credentials(u, err);
	if (r < 0)
		return r;
	uplink_heed_budget(u, false);
	uplink_consider_end(u, now);
	r = send_waiting(u, err);
	if (r < 0)
		return r;
	/* The message that was under way may have been the last. */
	uplink_consider_end(u, now);
	*ret_events = u->session.paced || (r > 0 && !u->control.len) ? POLLIN : POLLIN | POLLOUT;
	*ret_wait = more ? 0 : next_event(u, now);
	return uplink_judge_bye(u, now, err);
}

int uplink_converse(struct uplink *u, struct err *err)
{
	struct uplink_session *s = &u->session;

	s->last_heard = s->last_ping = clock_monotonic();
	uplink_heed_budget(u, true);
	for (;;) {
		nsec_t wait = 0;
		short events = 0;
		int r = turn(u, &events, &wait, err);

		if (r == -EAGAIN)
			r = uplink_wait(u, events, !s->bye_sent, wait, err);
		else if (r >= 0)
			return r;
		/* Whoever leaves for now has said so, and need not hear that it was heard. */
		if (r < 0)
			return s->bye_sent == STREAM_BYE_DRAIN ? UPLINK_LEFT : r;
	}
}
