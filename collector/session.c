/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The states and times of a session:
 *
 *	HANDSHAKE -> HELLO -> STREAM -> (SETTLING ->) CLOSING -> LINGER -> over
 *
 * Handshake and HELLO together have env->hello_timeout; nothing is made for a peer before its
 * first byte. From any of the first three, an error leads to CLOSING, where what is queued is
 * sent; then LINGER reads on and throws away, because a close with unread bytes would make the
 * kernel drop our last words at the peer. The peer's goodbye, a stop, and the end of a
 * certificate lead to SETTLING first: what was taken gets committed and acknowledged.
 *
 * Only the worker's thread touches a session, but for owner.superseded. A message that the output
 * does not take stays here (`stuck`), nothing more is read, and it is tried again every
 * env->retry.
 */
#include "session.h"

#include <errno.h>
#include <fnmatch.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "log.h"
#include "session_internal.h"
#include "util.h"

#define BURST_BYTES     (1u << 20) /* taken at a time, then other sessions have their turn */
#define BURST_MESSAGES  512u
#define INFLATE_COST    4u /* bytes inflated that cost as much as one that is read */
#define LINGER_TIMEOUT  (2 * NSEC_PER_SEC)
#define STOP_LINGER     (500 * NSEC_PER_MSEC) /* of an agent; strangers get nothing */
#define STOP_SETTLE     (1500 * NSEC_PER_MSEC)
#define BYE_SETTLE      (60 * NSEC_PER_SEC) /* longer than an agent waits */
#define HEARTBEATS_LOST 3u

int session_new(struct session_env *env, struct session_scratch *scratch, int fd, const char *peer,
		nsec_t now, struct session **ret, struct err *err)
{
	struct session *s = calloc(1, sizeof(*s));

	if (!s) {
		close(fd);
		return err_set(err, -ENOMEM, "out of memory");
	}
	s->env = env;
	s->scratch = scratch;
	s->fd = fd;
	s->since = s->heard = now;
	s->expires = SESSION_NEVER;
	s->recv_events = POLLIN;
	s->owner.wake_fd = scratch->wake_fd;
	memcpy(s->peer, peer, strnlen(peer, sizeof(s->peer) - 1));
	*ret = s;
	return 0;
}

static void set_stuck(struct session *s, bool stuck)
{
	if (stuck && !s->stuck)
		atomic_fetch_add(&s->env->stuck, 1);
	else if (!stuck && s->stuck)
		atomic_fetch_sub(&s->env->stuck, 1);
	s->stuck = stuck;
}

struct session *session_free(struct session *s)
{
	if (!s)
		return NULL;
	session_leave(s, s->stopping ? FEED_CONNECTED : FEED_LOST);
	session_forget(s);
	set_stuck(s, false);
	tls_free(s->tls);
	close(s->fd);
	session_drop_payload(s);
	buf_free(&s->tx);
	buf_free(&s->out);
	free(s);
	return NULL;
}

int session_fd(const struct session *s)
{
	return s->fd;
}

static bool is_superseded(const struct session *s)
{
	return s->feed && atomic_load(&s->owner.superseded);
}

static bool has_new_credentials(const struct session *s)
{
	return (s->state == SESSION_HELLO || s->state == SESSION_STREAM) &&
	       tls_store_generation(s->env->tls) != s->generation;
}

/* Is the commit there that it waits for? */
static bool is_settled(const struct session *s)
{
	return (s->state == SESSION_SETTLING || s->ticket) &&
	       commit_is_done(s->env->commit, s->ticket);
}

bool session_has_news(const struct session *s)
{
	return is_superseded(s) || has_new_credentials(s) || is_settled(s) ||
	       (s->state == SESSION_STREAM && session_ack_is_news(s));
}

bool session_is_introduced(const struct session *s)
{
	return s->introduced;
}

uint32_t session_events(const struct session *s)
{
	short events = 0;

	if (s->state == SESSION_LINGER)
		return EPOLLIN;
	if (s->state < SESSION_SETTLING && !s->stuck)
		events |= s->recv_events;
	if (s->tx_done < s->tx.len || s->out.len)
		events |= s->send_events;
	return (events & POLLIN ? EPOLLIN : 0u) | (events & POLLOUT ? EPOLLOUT : 0u);
}

/* When a certificate of the session expires. */
static nsec_t expiry(const struct session *s)
{
	nsec_t wall = clock_realtime();

	if (s->expires == SESSION_NEVER)
		return SESSION_NEVER;
	return clock_monotonic() + (s->expires > wall ? s->expires - wall : 0);
}

/* When the peer has been silent for too long. Nothing is read from one that is stuck. */
static nsec_t silence(const struct session *s)
{
	return s->stuck ? SESSION_NEVER : s->heard + HEARTBEATS_LOST * s->env->heartbeat;
}

nsec_t session_deadline(const struct session *s)
{
	nsec_t at;

	switch (s->state) {
	case SESSION_HANDSHAKE:
	case SESSION_HELLO:
		at = s->since + s->env->hello_timeout;
		return s->stuck ? MIN(at, s->retry_at) : at;
	case SESSION_STREAM:
		at = MIN(silence(s), s->ping_at);
		at = MIN(at, session_quiet_at(s));
		at = MIN(at, expiry(s));
		return s->stuck ? MIN(at, s->retry_at) : at;
	case SESSION_SETTLING:
		return MIN(s->since + s->linger, s->ping_at);
	default:
		return s->since + s->linger;
	}
}

static void begin_closing(struct session *s, nsec_t now, nsec_t linger)
{
	s->state = SESSION_CLOSING;
	set_stuck(s, false);
	s->since = now;
	s->linger = linger;
	session_drop_payload(s);
}

static void begin_settling(struct session *s, nsec_t now, nsec_t longest)
{
	s->state = SESSION_SETTLING;
	set_stuck(s, false);
	s->since = now;
	s->linger = longest;
	s->ticket = commit_hurry(s->env->commit);
	session_drop_payload(s);
}

static enum stream_error_code error_code(int r)
{
	switch (r) {
	case -ESTALE:
		return STREAM_E_SUPERSEDED;
	case -EACCES:
		return STREAM_E_AUTH;
	case -EMSGSIZE:
		return STREAM_E_TOO_BIG;
	case -EPROTONOSUPPORT:
		return STREAM_E_VERSION;
	case -EBUSY:
	case -ENOSPC:
	case -ENOMEM:
		return STREAM_E_BUSY;
	case -EPIPE:
		return STREAM_E_STORAGE;
	default:
		return STREAM_E_PROTOCOL;
	}
}

static void tell_end(struct session *s, nsec_t now, const char *why)
{
	struct noise *noise = s->env->noise;

	if (noise_repeats(noise, now, s->peer, s->agent_name, why))
		return;
	if (s->agent_name[0])
		noise_warn(noise, "agent \"%s\" at %s is %s: %s", s->agent_name, s->peer,
			   s->introduced ? "disconnected" : "refused", why);
	else
		noise_warn(noise, "peer %s is disconnected: %s", s->peer, why);
}

/* The peer, or the connection, did something that ends the session. */
static void fail_with(struct session *s, nsec_t now, enum stream_error_code code, const char *why)
{
	tell_end(s, now, why);
	if (s->state != SESSION_HANDSHAKE) {
		if (s->state == SESSION_STREAM)
			session_put_ack(s);
		session_put_error(s, code, why);
	}
	session_leave(s, FEED_LOST);
	begin_closing(s, now, LINGER_TIMEOUT);
}

static void fail(struct session *s, nsec_t now, int r, const struct err *err)
{
	fail_with(s, now, error_code(r), err->text);
}

/*
 * Errors of a message: the peer's, or of the output. @r as from session_message().
 */
static void message_failed(struct session *s, nsec_t now, int r, const struct err *err)
{
	switch (r) {
	case -EAGAIN:
	case -EINPROGRESS:
		set_stuck(s, true);
		s->retry_at = now + s->env->retry;
		return;
	case -ECANCELED:
		session_stop(s, now);
		return;
	case -EPIPE:
		s->env->fatal(s->env->ctx, err);
		session_stop(s, now);
		return;
	default:
		fail(s, now, r, err);
	}
}

void session_stop(struct session *s, nsec_t now)
{
	s->stopping = true;
	switch (s->state) {
	case SESSION_HANDSHAKE:
	case SESSION_HELLO:
		begin_closing(s, now, 0);
		break;
	case SESSION_STREAM:
		s->bye = STREAM_BYE_DRAIN;
		begin_settling(s, now, STOP_SETTLE);
		break;
	case SESSION_SETTLING:
		s->linger = MIN(s->linger, now - s->since + STOP_SETTLE);
		break;
	default:
		s->linger = MIN(s->linger, STOP_LINGER);
	}
}

/* The message in hand is complete: deal with it. False when reading is to stop. */
static bool dispatch(struct session *s, nsec_t now)
{
	struct err err;
	int r = session_message(s, now, &err);

	if (r < 0) {
		message_failed(s, now, r, &err);
		return false;
	}
	session_next_message(s);
	set_stuck(s, false);
	if (r > 0)
		begin_settling(s, now, BYE_SETTLE);
	return r == 0;
}

static void peer_closed(struct session *s, nsec_t now)
{
	/* In plain text hear_first_byte() has seen to it. */
	if (s->state == SESSION_HELLO && !s->have) {
		log_debug("peer %s looked whether it would be let in", s->peer);
		begin_closing(s, now, LINGER_TIMEOUT);
		return;
	}
	fail_with(s, now, STREAM_E_PROTOCOL,
		  s->have ? "the connection ended in the middle of a message"
			  : "the connection ended without a goodbye");
}

/* Read and handle messages for a while. True when there may be more. */
static bool read_burst(struct session *s, nsec_t now)
{
	size_t bytes = 0, messages = 0;
	struct err err;
	int r = 1;

	while (bytes < BURST_BYTES && messages < BURST_MESSAGES && s->out.len < SESSION_OUT_BURST) {
		r = session_receive(s, now, &err);
		if (r <= 0)
			break;
		bytes += s->have + s->header.raw_len / INFLATE_COST;
		messages++;
		if (!dispatch(s, now))
			break;
	}
	if (r == 0)
		peer_closed(s, now);
	else if (r < 0 && r != -EAGAIN)
		fail(s, now, r, &err);
	if (s->state == SESSION_STREAM)
		session_put_ack(s);
	return r > 0 && s->state <= SESSION_STREAM && !s->stuck;
}

/* The goodbye of TLS, then that of TCP. */
static void begin_linger(struct session *s)
{
	s->tls = tls_free(s->tls);
	shutdown(s->fd, SHUT_WR);
	s->state = SESSION_LINGER;
}

static enum session_next run_linger(struct session *s, nsec_t now)
{
	if (!session_waste(s))
		return SESSION_OVER;
	return now >= session_deadline(s) ? SESSION_OVER : SESSION_WAIT;
}

static enum session_next run_closing(struct session *s, nsec_t now)
{
	struct err err;
	int r = session_flush(s, &err);

	if (r == -EAGAIN)
		return now >= session_deadline(s) ? SESSION_OVER : SESSION_WAIT;
	if (r < 0)
		return SESSION_OVER;
	begin_linger(s);
	return run_linger(s, now);
}

/* Until the commit is done, then say goodbye. A stop does not wait for it for ever. */
static void run_settling(struct session *s, nsec_t now, bool hangup)
{
	bool settled = is_settled(s), late = now >= s->since + s->linger;

	if (hangup) {
		begin_closing(s, now, 0);
		return;
	}
	if (!settled && !late) {
		if (now >= s->ping_at)
			session_put_ping(s, now);
		return;
	}
	if (settled)
		session_put_last_ack(s);
	else if (s->feed)
		session_put_ack(s);
	if (settled || s->feed)
		session_put_bye(s, s->bye);
	else
		session_put_error(s, STREAM_E_STORAGE, "the last messages cannot be committed");
	session_leave(s, s->stopping ? FEED_CONNECTED : FEED_LOST);
	begin_closing(s, now, s->stopping ? STOP_LINGER : LINGER_TIMEOUT);
}

/* One of agents.allow; any when there are none. */
static bool is_allowed(const struct session *s)
{
	const struct yaml_strings *allow = s->env->allow;

	for (size_t i = 0; allow && i < allow->n; i++)
		if (fnmatch(allow->v[i], tls_peer_identity(s->tls), 0) == 0)
			return true;
	return !allow || !allow->n;
}

static void run_handshake(struct session *s, nsec_t now)
{
	struct err err;
	int r = tls_handshake(s->tls, &err);

	if (r == -EAGAIN) {
		s->recv_events = tls_events(s->tls);
	} else if (r == 0) {
		peer_closed(s, now);
	} else if (r < 0) {
		fail(s, now, r, &err);
	} else {
		s->state = SESSION_HELLO;
		s->expires = tls_expires(s->tls);
		if (!is_allowed(s)) {
			err_set(&err, -EACCES, "\"%s\" is none of agents.allow",
				tls_peer_identity(s->tls));
			fail(s, now, -EACCES, &err);
		}
	}
}

/*
 * Nothing is made for a connection before its first byte. One that ends without is a health check
 * or a scan: no news. False: over.
 */
static bool hear_first_byte(struct session *s, nsec_t now)
{
	struct tls_context *ctx;
	struct err err;
	uint8_t byte;
	ssize_t n;
	int r;

	n = recv(s->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	if (n == 0)
		log_debug("peer %s came and went", s->peer);
	if (n <= 0)
		return n < 0 && (errno == EAGAIN || errno == EINTR);
	s->spoke = true;
	s->generation = tls_store_generation(s->env->tls);
	ctx = tls_store_get(s->env->tls);
	r = tls_new(ctx, s->fd, NULL, &s->tls, &err);
	tls_context_free(ctx);
	if (r < 0)
		fail(s, now, r, &err);
	return true;
}

/* Would the peer be let in with the credentials of now? */
static void check_credentials(struct session *s, nsec_t now)
{
	uint64_t generation = tls_store_generation(s->env->tls);
	struct tls_context *ctx = tls_store_get(s->env->tls);
	struct err err;
	int r = tls_recheck(s->tls, ctx, &err);

	tls_context_free(ctx);
	s->generation = generation;
	if (r < 0)
		fail_with(s, now, STREAM_E_AUTH, err.text);
}

static void expire(struct session *s, nsec_t now)
{
	struct err err;

	if (s->state == SESSION_STREAM)
		err_set(&err, -ETIMEDOUT, "nothing was heard for %llu s",
			(unsigned long long)((now - s->heard) / NSEC_PER_SEC));
	else
		err_set(&err, -ETIMEDOUT, "no %s within %llu s",
			s->state == SESSION_HANDSHAKE ? "TLS handshake" : "HELLO",
			(unsigned long long)(s->env->hello_timeout / NSEC_PER_SEC));
	fail(s, now, -ETIMEDOUT, &err);
}

/* A message that the output did not take. True when it is out of the way. */
static bool run_stuck(struct session *s, nsec_t now, bool hangup)
{
	if (hangup) {
		peer_closed(s, now);
		return false;
	}
	if (now < s->retry_at && !is_settled(s))
		return false;
	s->ticket = 0;
	if (!dispatch(s, now))
		return false;
	/* Nothing was read meanwhile, so nothing can be said about its silence. */
	s->heard = now;
	return true;
}

/* What time brings to a stream. */
static void keep_time(struct session *s, nsec_t now)
{
	if (s->expires <= clock_realtime()) {
		noise_info(s->env->noise,
			   "agent \"%s\" at %s is asked to come back: a certificate expires",
			   s->agent_name, s->peer);
		s->bye = STREAM_BYE_DRAIN;
		begin_settling(s, now, STOP_SETTLE);
		return;
	}
	if (session_ack_is_news(s))
		session_put_ack(s);
	if (now >= session_quiet_at(s))
		session_quiet(s);
	if (now >= s->ping_at)
		session_put_ping(s, now);
}

/* Before and during the stream. True when there may be more to read. */
static bool run_peer(struct session *s, nsec_t now, bool hangup)
{
	bool more = false;

	if (s->state == SESSION_HANDSHAKE && s->tls)
		run_handshake(s, now);
	if (has_new_credentials(s))
		check_credentials(s, now);
	if (s->state == SESSION_HELLO || s->state == SESSION_STREAM) {
		if (!s->stuck || run_stuck(s, now, hangup))
			more = read_burst(s, now);
	}
	/* Read first: a worker that was held up itself must not call a peer silent. */
	if (s->state == SESSION_STREAM)
		keep_time(s, now);
	if (!more && (s->state == SESSION_STREAM  ? now >= silence(s)
		      : s->state < SESSION_STREAM ? now >= session_deadline(s)
						  : false))
		expire(s, now);
	return more;
}

enum session_next session_run(struct session *s, nsec_t now, bool hangup)
{
	bool more = false;
	struct err err;
	int r;

	if (s->state <= SESSION_STREAM && is_superseded(s))
		fail_with(s, now, STREAM_E_SUPERSEDED, "it has connected again");
	if (!s->spoke && s->state == SESSION_HANDSHAKE && !hear_first_byte(s, now))
		return SESSION_OVER;
	if (s->state <= SESSION_STREAM)
		more = run_peer(s, now, hangup);
	if (s->state == SESSION_SETTLING)
		run_settling(s, now, hangup);
	if (s->state == SESSION_LINGER)
		return run_linger(s, now);
	if (s->state == SESSION_CLOSING)
		return run_closing(s, now);
	if (s->state == SESSION_HANDSHAKE)
		return SESSION_WAIT;
	r = session_flush(s, &err);
	if (r < 0 && r != -EAGAIN) {
		fail(s, now, r, &err);
		return SESSION_OVER;
	}
	if (s->state == SESSION_SETTLING)
		return SESSION_WAIT;
	return more || (!s->stuck && tls_pending(s->tls)) ? SESSION_AGAIN : SESSION_WAIT;
}
