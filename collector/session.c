/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes, states and times of a session:
 *
 *	HANDSHAKE -> HELLO -> STREAM -> CLOSING -> LINGER -> over
 *
 * Handshake and HELLO together have env->hello_timeout. From any of the first three,
 * the peer's goodbye, an error or a stop leads to CLOSING, where what is queued is sent;
 * then LINGER reads on and throws away, because a close with unread bytes would make
 * the kernel drop our last words at the peer.
 *
 * Memory: the payload buffer grows to what a header declared and stream_header_decode()
 * allowed, before HELLO no further than a control message. A session keeps it up to
 * PAYLOAD_KEEP; larger ones live for one message and come out of a budget of all sessions,
 * because a peer may leave its message unfinished for as long as it likes. The queue to the
 * peer is bounded by OUT_MAX. Only the worker's thread touches a session, but for
 * owner.superseded. A message that the output does not take stays here (`stuck`), nothing
 * more is read, and it is tried again every env->retry.
 */
#include "session.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "session_internal.h"
#include "util.h"

#define PAYLOAD_KEEP    (128u << 10) /* more than a message with default settings */
#define OUT_MAX         (64u << 10)
#define OUT_BURST       (OUT_MAX / 2) /* answers in a row, then they are sent */
#define BURST_BYTES     (1u << 20)    /* read at a time, then other sessions have their turn */
#define LINGER_TIMEOUT  (2 * NSEC_PER_SEC)
#define STOP_LINGER     (500 * NSEC_PER_MSEC) /* of an agent; strangers get nothing */
#define HEARTBEATS_LOST 3u

int session_new(struct session_env *env, struct session_scratch *scratch, int fd, const char *peer,
		nsec_t now, struct session **ret, struct err *err)
{
	struct session *s = calloc(1, sizeof(*s));
	int r;

	if (!s) {
		close(fd);
		return err_set(err, -ENOMEM, "out of memory");
	}
	s->env = env;
	s->scratch = scratch;
	s->fd = fd;
	s->since = s->heard = now;
	s->recv_events = POLLIN;
	s->owner.wake_fd = scratch->wake_fd;
	memcpy(s->peer, peer, strnlen(peer, sizeof(s->peer) - 1));
	r = tls_new(env->tls, fd, NULL, &s->tls, err);
	if (r < 0)
		session_free(s);
	else
		*ret = s;
	return r;
}

static void drop_payload(struct session *s)
{
	if (s->payload_cap > PAYLOAD_KEEP)
		atomic_fetch_sub(&s->env->payload_used, s->payload_cap);
	free(s->payload);
	s->payload = NULL;
	s->payload_cap = 0;
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
	set_stuck(s, false);
	tls_free(s->tls);
	close(s->fd);
	drop_payload(s);
	buf_free(&s->tx);
	buf_free(&s->out);
	free(s);
	return NULL;
}

int session_fd(const struct session *s)
{
	return s->fd;
}

bool session_superseded(const struct session *s)
{
	return s->state == SESSION_STREAM && atomic_load(&s->owner.superseded);
}

static bool tx_pending(const struct session *s)
{
	return s->tx_done < s->tx.len || s->out.len;
}

uint32_t session_events(const struct session *s)
{
	short events = 0;

	if (s->state == SESSION_LINGER)
		return EPOLLIN;
	if (s->state != SESSION_CLOSING && !s->stuck)
		events |= s->recv_events;
	if (tx_pending(s))
		events |= s->send_events;
	return (events & POLLIN ? EPOLLIN : 0u) | (events & POLLOUT ? EPOLLOUT : 0u);
}

nsec_t session_deadline(const struct session *s)
{
	switch (s->state) {
	case SESSION_HANDSHAKE:
	case SESSION_HELLO:
		return s->since + s->env->hello_timeout;
	case SESSION_STREAM:
		return s->stuck ? s->retry_at : s->heard + HEARTBEATS_LOST * s->env->heartbeat;
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
	drop_payload(s);
}

static enum stream_error_code error_code(int r)
{
	switch (r) {
	case -ESTALE:
		return STREAM_E_SUPERSEDED;
	case -EMSGSIZE:
		return STREAM_E_TOO_BIG;
	case -EPROTONOSUPPORT:
		return STREAM_E_VERSION;
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
		noise_warn(noise, "agent \"%s\" at %s is disconnected: %s", s->agent_name, s->peer,
			   why);
	else
		noise_warn(noise, "peer %s is disconnected: %s", s->peer, why);
}

/* The peer, or the connection, did something that ends the session. */
static void fail(struct session *s, nsec_t now, int r, const struct err *err)
{
	tell_end(s, now, err->text);
	if (s->state != SESSION_HANDSHAKE) {
		session_put_ack(s);
		session_put_error(s, error_code(r), err->text);
	}
	session_leave(s, FEED_LOST);
	begin_closing(s, now, LINGER_TIMEOUT);
}

/*
 * Errors of a message: the peer's, or of the output. @r as from session_message().
 */
static void message_failed(struct session *s, nsec_t now, int r, const struct err *err)
{
	switch (r) {
	case -EAGAIN:
		set_stuck(s, true);
		s->retry_at = now + s->env->retry;
		/* We do not read its PINGs now; it must not take us for dead. */
		if (now - MAX(s->heard, s->pinged) >= s->env->heartbeat) {
			s->pinged = now;
			session_put_ping(s);
		}
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
	nsec_t linger = s->state == SESSION_STREAM ? STOP_LINGER : 0;

	s->stopping = true;
	if (s->state == SESSION_CLOSING || s->state == SESSION_LINGER) {
		s->linger = MIN(s->linger, STOP_LINGER);
		return;
	}
	if (s->state == SESSION_STREAM) {
		session_put_ack(s);
		session_put_bye(s, STREAM_BYE_DRAIN);
	}
	session_leave(s, FEED_CONNECTED);
	begin_closing(s, now, linger);
}

/* The buffer has nothing in it when a header asks for more. */
static int grow_payload(struct session *s, size_t n, struct err *err)
{
	struct session_env *env = s->env;

	if (n <= s->payload_cap)
		return 0;
	drop_payload(s);
	if (n > PAYLOAD_KEEP && atomic_fetch_add(&env->payload_used, n) + n > env->payload_max) {
		atomic_fetch_sub(&env->payload_used, n);
		return err_set(err, -ENOMEM,
			       "large messages of all agents have more than %zu MiB already",
			       env->payload_max >> 20);
	}
	s->payload_cap = n;
	s->payload = malloc(n);
	if (s->payload)
		return 0;
	drop_payload(s);
	return err_set(err, -ENOMEM, "no memory for a message of %zu bytes", n);
}

static int take_header(struct session *s, struct err *err)
{
	int r = stream_header_decode(s->head, &s->header, err);

	/* The record layer of TLS: handshake, version 3.x. */
	if (r < 0 && !s->env->tls_enable && s->head[0] == 0x16 && s->head[1] == 3)
		return err_set(err, r, "the peer speaks TLS, tls.enable is false here");
	if (r < 0)
		return r;
	if (s->state == SESSION_HELLO && s->header.type != STREAM_HELLO)
		return err_set(err, -EPROTO, "%s message where HELLO should come",
			       stream_type_name(s->header.type));
	return grow_payload(s, s->header.payload_len, err);
}

/* 1: a message is complete; 0: the peer closed; -EAGAIN; -errno. */
static int receive(struct session *s, nsec_t now, struct err *err)
{
	for (;;) {
		bool head = s->have < STREAM_HEADER_SIZE;
		size_t want = STREAM_HEADER_SIZE + (head ? 0 : s->header.payload_len) - s->have;
		ssize_t n;
		int r;

		if (!want)
			return 1;
		n = tls_recv(s->tls,
			     head ? s->head + s->have : s->payload + s->have - STREAM_HEADER_SIZE,
			     want, err);
		if (n == -EAGAIN)
			s->recv_events = tls_events(s->tls);
		if (n <= 0)
			return (int)n;
		s->heard = now;
		s->have += (size_t)n;
		if (!head || s->have < STREAM_HEADER_SIZE)
			continue;
		r = take_header(s, err);
		if (r < 0)
			return r;
	}
}

/* The message in hand is complete: deal with it. False when reading is to stop. */
static bool dispatch(struct session *s, nsec_t now)
{
	struct err err;
	int r = session_message(s, &err);

	if (r < 0) {
		message_failed(s, now, r, &err);
		return false;
	}
	s->have = 0;
	set_stuck(s, false);
	if (s->payload_cap > PAYLOAD_KEEP)
		drop_payload(s);
	if (r > 0)
		begin_closing(s, now, LINGER_TIMEOUT);
	return r == 0;
}

static void peer_closed(struct session *s, nsec_t now)
{
	struct err err;

	if (s->have)
		err_set(&err, -ECONNRESET, "the connection ended in the middle of a message");
	else
		err_set(&err, -ECONNRESET, "the connection ended without a goodbye");
	fail(s, now, -ECONNRESET, &err);
}

/* Read and handle messages for a while. True when there may be more. */
static bool read_burst(struct session *s, nsec_t now)
{
	size_t bytes = 0;
	struct err err;
	int r = 1;

	while (bytes < BURST_BYTES && s->out.len < OUT_BURST) {
		r = receive(s, now, &err);
		if (r <= 0)
			break;
		bytes += s->have;
		if (!dispatch(s, now))
			break;
	}
	if (r == 0)
		peer_closed(s, now);
	else if (r < 0 && r != -EAGAIN)
		fail(s, now, r, &err);
	session_put_ack(s);
	return r > 0 && (bytes >= BURST_BYTES || s->out.len >= OUT_BURST);
}

/* 0: all is sent; -EAGAIN; -errno. */
static int flush(struct session *s, struct err *err)
{
	for (;;) {
		ssize_t n;

		if (s->tx_done == s->tx.len) {
			struct buf empty = s->tx;

			buf_reset(&empty);
			s->tx = s->out;
			s->out = empty;
			s->tx_done = 0;
		}
		if (buf_failed(&s->tx) || buf_failed(&s->out))
			return err_set(err, -ENOMEM, "out of memory");
		if (!s->tx.len)
			return 0;
		n = tls_send(s->tls, s->tx.data + s->tx_done, s->tx.len - s->tx_done, err);
		if (n == -EAGAIN) {
			s->send_events = tls_events(s->tls);
			if (s->tx.len - s->tx_done + s->out.len > OUT_MAX)
				return err_set(err, -ENOBUFS,
					       "it does not read what is sent to it");
			return -EAGAIN;
		}
		if (n < 0)
			return (int)n;
		s->tx_done += (size_t)n;
	}
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
	uint8_t waste[16384];

	for (size_t bytes = 0; bytes < BURST_BYTES;) {
		ssize_t n = recv(s->fd, waste, sizeof(waste), MSG_DONTWAIT);

		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return SESSION_OVER;
		if (n < 0)
			break;
		bytes += (size_t)n;
	}
	return now >= session_deadline(s) ? SESSION_OVER : SESSION_WAIT;
}

static enum session_next run_closing(struct session *s, nsec_t now)
{
	struct err err;
	int r = flush(s, &err);

	if (r == -EAGAIN)
		return now >= session_deadline(s) ? SESSION_OVER : SESSION_WAIT;
	if (r < 0)
		return SESSION_OVER;
	begin_linger(s);
	return run_linger(s, now);
}

static void run_handshake(struct session *s, nsec_t now)
{
	struct err err;
	int r = tls_handshake(s->tls, &err);

	if (r > 0)
		s->state = SESSION_HELLO;
	else if (r == -EAGAIN)
		s->recv_events = tls_events(s->tls);
	else if (r == 0)
		peer_closed(s, now);
	else
		fail(s, now, r, &err);
}

/* A connection that ends without a byte is a health check or a scan: no news. */
static bool left_silently(struct session *s)
{
	uint8_t byte;
	ssize_t n;

	if (s->spoke)
		return false;
	n = recv(s->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	s->spoke = n > 0;
	if (n != 0)
		return false;
	log_debug("peer %s came and went", s->peer);
	return true;
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
	if (now < s->retry_at || !dispatch(s, now))
		return false;
	/* Nothing was read meanwhile, so nothing can be said about its silence. */
	s->heard = now;
	return true;
}

enum session_next session_run(struct session *s, nsec_t now, bool hangup)
{
	bool more = false;
	struct err err;
	int r;

	if (session_superseded(s)) {
		err_set(&err, -ESTALE, "it has connected again");
		fail(s, now, -ESTALE, &err);
	}
	if (s->state <= SESSION_HELLO && left_silently(s))
		return SESSION_OVER;
	if (s->state == SESSION_HANDSHAKE)
		run_handshake(s, now);
	if (s->state == SESSION_HELLO || s->state == SESSION_STREAM) {
		if (!s->stuck || run_stuck(s, now, hangup))
			more = read_burst(s, now);
	}
	/* Read first: a worker that was held up itself must not call a peer silent. */
	if (!more && !s->stuck && s->state <= SESSION_STREAM && now >= session_deadline(s))
		expire(s, now);
	if (s->state == SESSION_LINGER)
		return run_linger(s, now);
	if (s->state == SESSION_CLOSING)
		return run_closing(s, now);
	if (s->state == SESSION_HANDSHAKE)
		return SESSION_WAIT;
	r = flush(s, &err);
	if (r < 0 && r != -EAGAIN) {
		fail(s, now, r, &err);
		return SESSION_OVER;
	}
	return more || (!s->stuck && tls_pending(s->tls)) ? SESSION_AGAIN : SESSION_WAIT;
}
