/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each message means (ps-stream(7)). Runs on the session's worker; the numbered
 * ones have the feed's turn, within a commit. A message has an effect only after all of it was
 * checked, and its number counts as taken only after all of it was written.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/random.h>

#include "log.h"
#include "session_internal.h"
#include "util.h"

#define RETRY_AFTER_MIN_MS 1000u
#define RETRY_AFTER_MAX_MS 5000u

void session_put(struct session *s, uint8_t type, const struct buf *payload)
{
	stream_message(&s->out, type, 0, payload->data, payload->len);
	s->out.failed |= buf_failed(payload);
}

/* So that those who were sent away do not come back in one instant. */
static uint32_t retry_after_ms(void)
{
	uint32_t random = (uint32_t)clock_monotonic();
	ssize_t n = getrandom(&random, sizeof(random), GRND_NONBLOCK);

	(void)n;
	return RETRY_AFTER_MIN_MS + random % (RETRY_AFTER_MAX_MS - RETRY_AFTER_MIN_MS + 1);
}

void session_put_error(struct session *s, enum stream_error_code code, const char *text)
{
	struct stream_error m = {.code = code};
	struct buf b = {};

	if (code == STREAM_E_BUSY || code == STREAM_E_STORAGE)
		m.retry_after_ms = retry_after_ms();
	snprintf(m.text, sizeof(m.text), "%s", text);
	stream_error_encode(&b, &m);
	session_put(s, STREAM_ERROR, &b);
	buf_free(&b);
}

void session_put_bye(struct session *s, enum stream_bye_reason reason)
{
	const struct stream_bye bye = {.reason = reason, .last_seq = s->taken};
	struct buf b = {};

	stream_bye_encode(&b, &bye);
	session_put(s, STREAM_BYE, &b);
	buf_free(&b);
}

void session_put_ping(struct session *s, nsec_t now)
{
	const struct stream_ping ping = {.sent_ns = clock_realtime()};
	struct buf b = {};

	stream_ping_encode(&b, &ping);
	session_put(s, STREAM_PING, &b);
	buf_free(&b);
	s->pinged = ping.sent_ns;
	s->ping_at = now + s->env->heartbeat;
}

/* The feed may be gone when this returns. */
static void detach(struct session *s, enum feed_state state, nsec_t unknown_after)
{
	struct commit *c = s->env->commit;

	commit_enter(c);
	commit_touch(c, s->feed);
	registry_detach(s->env->registry, s->feed, &s->owner, state, unknown_after);
	commit_leave(c, NULL, 0);
	s->feed = NULL;
}

void session_leave(struct session *s, enum feed_state state)
{
	if (s->feed)
		detach(s, state, 0);
}

static int take_meta(struct session *s, struct err *err)
{
	struct stream_meta m;
	int r = stream_meta_decode(s->payload, s->header.payload_len, &m, err);

	if (r == 0)
		r = feed_describe(s->feed, &m.iface, err);
	if (r == 0)
		session_tell_meta(s, &m);
	return r;
}

static int take_gap(struct session *s, uint64_t *ret_next, struct err *err)
{
	static const char *const reasons[] = {
		[STREAM_GAP_EVICTED] = "the agent's queue was full",
		[STREAM_GAP_CORRUPT] = "the agent's spool is damaged",
		[STREAM_GAP_UNCLEAN] = "the agent did not stop cleanly",
	};
	struct stream_gap m;
	uint64_t packets = 0;
	int r;

	r = stream_gap_decode(s->payload, s->header.payload_len, &m, err);
	if (r < 0)
		return r;
	if (m.first_seq != s->header.seq || m.last_seq == UINT64_MAX)
		r = err_set(err, -EPROTO, "GAP %" PRIu64 " speaks of %" PRIu64 " to %" PRIu64,
			    s->header.seq, m.first_seq, m.last_seq);
	else
		r = feed_gap(s->feed, &m, err);
	if (r == 0) {
		for (size_t i = 0; i < m.n_parts; i++)
			packets += m.parts[i].lost.packets;
		noise_warn(s->env->noise,
			   "agent \"%s\": messages %" PRIu64 " to %" PRIu64 " with %" PRIu64
			   " packets are lost: %s",
			   s->agent_name, m.first_seq, m.last_seq, packets,
			   m.reason && m.reason < ARRAY_SIZE(reasons) ? reasons[m.reason]
								      : "no reason given");
		*ret_next = m.last_seq + 1;
	}
	stream_gap_free(&m);
	return r;
}

static int take_stats(struct session *s, struct err *err)
{
	struct stream_stats m;
	int r = stream_stats_decode(s->payload, s->header.payload_len, &m, err);

	if (r < 0)
		return r;
	r = feed_stats(s->feed, &m, err);
	stream_stats_free(&m);
	return r;
}

/* The message is the expected one and the session has the turn. */
static int take_expected(struct session *s, size_t *ret_written, struct err *err)
{
	uint64_t next = s->header.seq + 1;
	int r;

	switch (s->header.type) {
	case STREAM_META:
		r = take_meta(s, err);
		break;
	case STREAM_DATA:
		r = session_take_data(s, ret_written, err);
		break;
	case STREAM_GAP:
		r = take_gap(s, &next, err);
		break;
	case STREAM_NOTE:
		r = session_take_note(s, err);
		break;
	default:
		r = take_stats(s, err);
		break;
	}
	if (r == 0)
		feed_advance(s->feed, next);
	return r;
}

/* The last number of a message that is here already. */
static uint64_t last_of_repeated(const struct session *s, uint64_t next)
{
	struct stream_gap m;
	uint64_t last = s->header.seq;

	if (s->header.type == STREAM_GAP &&
	    stream_gap_decode(s->payload, s->header.payload_len, &m, NULL) == 0) {
		last = MAX(last, MIN(m.last_seq, next - 1));
		stream_gap_free(&m);
	}
	return last;
}

/* The rule of no holes. With the turn; *ret_last is set when the message was taken. */
static int take_in_order(struct session *s, uint64_t *ret_last, size_t *ret_written,
			 struct err *err)
{
	uint64_t next = s->feed->next_seq;
	int r;

	if (s->header.seq > next)
		return err_set(err, -EPROTO, "message %" PRIu64 " where %" PRIu64 " should come",
			       s->header.seq, next);
	if (s->header.seq < next) {
		*ret_last = last_of_repeated(s, next);
		return 0;
	}
	r = take_expected(s, ret_written, err);
	*ret_last = s->feed->next_seq - 1;
	return r;
}

static int take_numbered(struct session *s, nsec_t now, struct err *err)
{
	struct commit *c = s->env->commit;
	size_t written = 0;
	uint64_t last = 0;
	int r;

	commit_enter(c);
	if (!registry_begin(s->feed, &s->owner)) {
		commit_leave(c, NULL, 0);
		return err_set(err, -ESTALE, "another session carries the stream on");
	}
	r = take_in_order(s, &last, &written, err);
	registry_end(s->feed);
	/* What was written of a message that then failed is news, too. */
	commit_leave(c, s->feed, written);
	if (r == -EINPROGRESS)
		s->ticket = commit_hurry(c);
	if (r == 0)
		session_took(s, last, now);
	return r;
}

static int take_ping(struct session *s, struct err *err)
{
	struct stream_ping m;
	struct buf b = {};
	int r = stream_ping_decode(s->payload, s->header.payload_len, &m, err);

	if (r < 0)
		return r;
	m.received_ns = clock_realtime();
	stream_ping_encode(&b, &m);
	session_put(s, STREAM_PONG, &b);
	buf_free(&b);
	return 0;
}

static int take_pong(struct session *s, struct err *err)
{
	nsec_t received = clock_realtime();
	struct commit *c = s->env->commit;
	struct stream_ping m;
	int r = stream_ping_decode(s->payload, s->header.payload_len, &m, err);

	if (r < 0)
		return r;
	/* One answer to each PING of ours. */
	if (!s->pinged || m.sent_ns != s->pinged)
		return 0;
	s->pinged = 0;
	commit_enter(c);
	if (registry_begin(s->feed, &s->owner)) {
		feed_clock(s->feed, m.sent_ns, m.received_ns, received);
		registry_end(s->feed);
	}
	commit_leave(c, s->feed, 0);
	return 0;
}

/* What is known of the stream after that goodbye. @last: the number that it has come to here. */
static enum feed_state state_after(const struct session *s, const struct stream_bye *bye,
				   uint64_t last)
{
	/* Its last counters are among what it kept back. */
	if (bye->last_seq > last || (bye->last_seq < last && !s->recovered))
		noise_warn(s->env->noise,
			   "agent \"%s\" speaks of message %" PRIu64 ", the last here is %" PRIu64,
			   s->agent_name, bye->last_seq, last);
	else if (bye->reason == STREAM_BYE_UNCLEAN)
		return FEED_BROKEN;
	else if (bye->reason == STREAM_BYE_STOP)
		return FEED_ENDED;
	return FEED_LOST;
}

static int take_bye(struct session *s, struct err *err)
{
	struct commit *c = s->env->commit;
	struct stream_bye m;
	uint64_t last = 0;
	int r = stream_bye_decode(s->payload, s->header.payload_len, &m, err);

	if (r < 0)
		return r;
	commit_enter(c);
	r = registry_begin(s->feed, &s->owner) ? 0 : -ESTALE;
	if (r == 0) {
		last = s->feed->next_seq - 1;
		registry_end(s->feed);
	}
	commit_leave(c, NULL, 0);
	if (r < 0)
		return err_set(err, r, "another session carries the stream on");
	s->bye = m.reason == STREAM_BYE_DRAIN ? STREAM_BYE_DRAIN : STREAM_BYE_STOP;
	session_put_ack(s);
	noise_info(s->env->noise, "agent \"%s\" at %s %s", s->agent_name, s->peer,
		   m.reason == STREAM_BYE_DRAIN ? "goes away for now" : "said goodbye");
	detach(s, state_after(s, &m, last), m.unknown_after);
	s->ticket = commit_hurry(c);
	return 1;
}

static int take_error(struct session *s, struct err *err)
{
	struct stream_error m;
	int r = stream_error_decode(s->payload, s->header.payload_len, &m, err);

	return r < 0 ? r : err_set(err, -ECONNABORTED, "the agent gave up: %s", m.text);
}

int session_message(struct session *s, nsec_t now, struct err *err)
{
	if (gzip_crc32(0, s->payload, s->header.payload_len) != s->header.payload_crc)
		return err_set(err, -EBADMSG, "%s message %" PRIu64 " is damaged",
			       stream_type_name(s->header.type), s->header.seq);
	if (s->state == SESSION_HELLO)
		return session_take_hello(s, now, err);
	switch (s->header.type) {
	case STREAM_META:
	case STREAM_DATA:
	case STREAM_GAP:
	case STREAM_STATS:
	case STREAM_NOTE:
		return take_numbered(s, now, err);
	case STREAM_PING:
		return take_ping(s, err);
	case STREAM_PONG:
		return take_pong(s, err);
	case STREAM_BYE:
		return take_bye(s, err);
	case STREAM_ERROR:
		return take_error(s, err);
	default:
		if (s->header.flags & STREAM_FLAG_OPTIONAL)
			return 0;
		return err_set(err, -EPROTO, "%s message (type %u) from an agent",
			       stream_type_name(s->header.type), s->header.type);
	}
}
