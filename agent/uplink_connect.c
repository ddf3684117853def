/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From nothing to WELCOME: TCP, TLS, HELLO, each within a bound and with a way out at a stop.
 * Nothing but HELLO leaves before WELCOME: in TLS 1.3 the client's handshake succeeds before
 * the server has judged the client's certificate. Belongs to the uplink thread.
 *
 * Every connection takes the credentials of that moment and looks the name up anew.
 */
#include <errno.h>
#include <poll.h>

#include "log.h"
#include "uplink_internal.h"
#include "util.h"

#define CONNECT_TIMEOUT_MS 5000
#define HANDSHAKE_TIMEOUT  (10 * NSEC_PER_SEC)
/* A collector that says something else means trouble for itself or for us. */
#define HEARTBEAT_MIN_MS 100u
#define HEARTBEAT_MAX_MS 600000u
/*
 * A session ends so long before its certificates do, and as much again for the lot: all
 * agents of a collector have its certificate in common.
 */
#define EXPIRY_MARGIN      (30 * NSEC_PER_SEC)
#define EXPIRY_MARGIN_LAST NSEC_PER_SEC

void uplink_own_socket(void *ctx, int fd, const struct sockaddr *to)
{
	struct uplink *u = ctx;
	struct err err;

	if (u->config.ops && u->config.ops->own_socket(u->config.capture, fd, to, &err) < 0)
		log_warn("the agent's own stream may be captured: %s", err.text);
}

static int say_hello(struct uplink *u, struct err *err)
{
	_cleanup_(buf_free) struct buf payload = {};
	struct stream_hello hello = {};
	int r = backlog_hello(u->backlog, &hello, err);

	if (r < 0)
		return r;
	/* Of this session, also when the epoch is an old one. */
	hello.realtime_ns = clock_realtime();
	hello.boottime_ns = clock_boottime();
	u->session.epoch = hello.epoch;
	u->session.hello_first = hello.first_unacked;
	u->session.hello_next = hello.next_seq;
	stream_hello_encode(&payload, &hello);
	stream_hello_free(&hello);
	uplink_put_control(u, STREAM_HELLO, &payload);
	return 0;
}

static int take_welcome(struct uplink *u, const struct stream_welcome *w, struct err *err)
{
	struct uplink_session *s = &u->session;
	bool recovered = backlog_is_recovered(u->backlog);

	/* The numbers that are here change all the time; the sentence must not. */
	if (w->resume_seq < s->hello_first || (w->resume_seq > s->hello_next && !recovered))
		return err_set(err, -EPROTO, "the collector wants message %llu, which is not here",
			       (unsigned long long)w->resume_seq);
	s->sent_seq = s->acked = w->resume_seq - 1;
	s->credit = w->credit;
	s->max_payload = w->max_payload;
	s->max_raw = w->max_raw;
	s->durable = w->ack_mode == STREAM_ACK_DURABLE;
	s->heartbeat =
		MIN(MAX(w->heartbeat_ms, HEARTBEAT_MIN_MS), HEARTBEAT_MAX_MS) * NSEC_PER_MSEC;
	backlog_ack(u->backlog, MIN(w->resume_seq, s->hello_next) - 1);
	/* It may be another collector, or one that has just started. */
	if (!recovered)
		book_report_again(u->config.book);
	return 0;
}

/*
 * One of ours has run out since it was loaded. A collector whose clock is behind would take it,
 * but the session would be over at once.
 */
static int check_expiry(const struct uplink *u, struct err *err)
{
	if (tls_expires(u->tls) > clock_realtime())
		return 0;
	return err_set(err, -EKEYEXPIRED, "the certificate of this agent has expired");
}

/* HELLO out, the first message in. Returns its size, or -errno. */
static long exchange(struct uplink *u, struct stream_header *ret, struct err *err)
{
	nsec_t deadline = clock_monotonic() + HANDSHAKE_TIMEOUT;
	bool secure = false;
	long n;
	int r;

	for (;;) {
		nsec_t now = clock_monotonic();

		r = secure ? uplink_send_control(u, err) : tls_handshake(u->tls, err);
		if (r < 0 && r != -EAGAIN)
			return r;
		if (!secure && r > 0) {
			secure = true;
			r = check_expiry(u, err);
			if (r == 0)
				r = say_hello(u, err);
			if (r < 0)
				return r;
			continue;
		}
		if (secure) {
			r = uplink_receive(u, err);
			if (r < 0)
				return r;
			n = uplink_whole_message(u->in, u->session.in_len, ret, err);
			if (n != 0)
				return n;
		}
		if (now >= deadline)
			return err_set(err, -ETIMEDOUT, "the collector did not answer within %d s",
				       (int)(HANDSHAKE_TIMEOUT / NSEC_PER_SEC));
		if (secure && tls_pending(u->tls))
			continue;
		r = uplink_wait(u, (short)(tls_events(u->tls) | (u->control.len ? POLLOUT : 0)),
				false, deadline - now, err);
		if (r < 0)
			return r;
	}
}

static int introduce(struct uplink *u, struct err *err)
{
	const uint8_t *payload = u->in + STREAM_HEADER_SIZE;
	struct stream_welcome w;
	struct stream_header h;
	long n = exchange(u, &h, err);
	int r;

	if (n < 0)
		return (int)n;
	if (h.type == STREAM_ERROR)
		return uplink_on_error(u, payload, h.payload_len, err);
	if (h.type != STREAM_WELCOME)
		return err_set(err, -EPROTO, "the collector answered with %s instead of WELCOME",
			       stream_type_name(h.type));
	r = stream_welcome_decode(payload, h.payload_len, &w, err);
	if (r < 0)
		return r;
	uplink_consume(u, (size_t)n);
	return take_welcome(u, &w, err);
}

/*
 * When to be gone. A certificate that is to end in a moment is all there is to have, so it is
 * used nearly to its end.
 */
static nsec_t leave_before(nsec_t expires)
{
	nsec_t margin = EXPIRY_MARGIN + uplink_random(EXPIRY_MARGIN), now = clock_realtime();

	if (expires == UINT64_MAX || expires < now)
		return expires;
	if (expires - now <= margin)
		margin = expires - now > 2 * EXPIRY_MARGIN_LAST ? EXPIRY_MARGIN_LAST : 0;
	return expires - margin;
}

int uplink_connect(struct uplink *u, struct err *err)
{
	const struct yaml_server *server = servers_current(&u->servers);
	const char *name = u->config.server_name ? u->config.server_name : server->host;
	struct tls_context *credentials;
	int r;

	u->session = (struct uplink_session){};
	buf_reset(&u->control);
	u->control.failed = false;
	u->fd = net_connect(server->host, server->port, CONNECT_TIMEOUT_MS,
			    atomic_load(&u->stopping) ? u->late_fd : u->stop_fd, uplink_own_socket,
			    u, err);
	if (u->fd < 0)
		return u->fd;
	credentials = tls_store_get(u->config.tls);
	r = tls_new(credentials, u->fd, name, &u->tls, err);
	tls_context_free(credentials);
	if (r == 0)
		r = introduce(u, err);
	if (r < 0)
		return r;
	u->session.since = clock_monotonic();
	u->session.expires = leave_before(tls_expires(u->tls));
	return 0;
}

void uplink_disconnect(struct uplink *u)
{
	u->tls = tls_free(u->tls);
	if (u->fd >= 0)
		close(u->fd);
	u->fd = -1;
}
