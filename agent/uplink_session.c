/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is said on a connection: straight-line code over a non-blocking socket. First
 * TLS, HELLO and WELCOME, then one poll loop that sends what credit allows and takes
 * acknowledgements. No DATA leaves before WELCOME: in TLS 1.3 the client's handshake
 * succeeds before the server has judged the client's certificate.
 *
 * Invariants: sent_seq is the last message wholly handed to the connection; what is
 * above the queue's oldest and up to sent_seq waits for an ACK and counts against
 * the credit. After a reconnect sending goes on from the collector's resume number.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>

#include "gzip.h"
#include "log.h"
#include "uplink_internal.h"
#include "util.h"

#define HANDSHAKE_TIMEOUT (10 * NSEC_PER_SEC)
#define BYE_TIMEOUT       (2 * NSEC_PER_SEC)
#define MISSED_HEARTBEATS 3
/* A collector that says something else means trouble for itself or for us. */
#define HEARTBEAT_MIN_MS    100u
#define HEARTBEAT_MAX_MS    600000u
#define CONTROL_WAITING_MAX (64u << 10)

int uplink_wait(struct uplink *u, short events, bool queue_too, nsec_t timeout, struct err *err)
{
	bool stopping = atomic_load(&u->stopping);
	struct pollfd fds[] = {
		{.fd = u->fd, .events = events},
		{.fd = stopping ? -1 : u->stop_fd, .events = POLLIN},
		{.fd = queue_too ? queue_fd(u->config.queue) : -1, .events = POLLIN},
	};
	nsec_t now = clock_monotonic();

	if (stopping) {
		nsec_t deadline = atomic_load(&u->stop_deadline);

		if (now >= deadline)
			return err_set(err, -ECANCELED, "the time to stop has run out");
		timeout = MIN(timeout, deadline - now);
	}
	if (poll(fds, ARRAY_SIZE(fds), (int)(timeout / NSEC_PER_MSEC + 1)) < 0 && errno != EINTR)
		return err_sys(err, -errno, "cannot wait for the collector");
	if (fds[2].revents)
		event_clear(queue_fd(u->config.queue));
	return 0;
}

static void put_control(struct uplink *u, uint8_t type, const struct buf *payload)
{
	stream_message(&u->control, type, 0, payload->data, payload->len);
}

/* Send of @data from *at on what the connection takes. 1: all of it is sent. */
static int send_some(struct uplink *u, const uint8_t *data, size_t size, size_t *at,
		     struct err *err)
{
	while (*at < size) {
		ssize_t n = tls_send(u->tls, data + *at, size - *at, err);

		if (n == -EAGAIN)
			return 0;
		if (n < 0)
			return (int)n;
		*at += (size_t)n;
	}
	return 1;
}

static int send_control(struct uplink *u, struct err *err)
{
	int r;

	if (buf_failed(&u->control))
		return err_set(err, -ENOMEM, "out of memory");
	if (u->control_at == u->control.len)
		return 1;
	r = send_some(u, u->control.data, u->control.len, &u->control_at, err);
	if (r == 1) {
		buf_reset(&u->control);
		u->control_at = 0;
	}
	return r;
}

/* Is there a message that credit allows to begin with now? */
static bool next_message(struct uplink *u)
{
	if (!queue_next(u->config.queue, u->sent_seq + 1, &u->sending)) {
		u->sending.size = 0;
		return false;
	}
	if (u->sending.size > u->credit && u->unacked) {
		u->sending.size = 0;
		return false;
	}
	u->sending_at = 0;
	return true;
}

/* 1: nothing left that could be sent now; 0: the connection is full. */
static int send_queue(struct uplink *u, struct err *err)
{
	for (;;) {
		int r;

		if (!u->sending.size) {
			r = send_control(u, err);
			if (r <= 0)
				return r;
			if (!next_message(u))
				return 1;
		}
		r = send_some(u, u->sending.wire, u->sending.size, &u->sending_at, err);
		if (r <= 0)
			return r;
		u->sent_seq = u->sending.seq;
		u->unacked += u->sending.size;
		u->credit -= MIN(u->credit, u->sending.size);
		u->sending.size = 0;
	}
}

static void settle_committed(void *ctx, const struct tally *tally)
{
	struct uplink *u = ctx;

	book_settle(u->config.book, tally, LEDGER_COMMITTED);
}

static int on_ack(struct uplink *u, const uint8_t *payload, size_t n, struct err *err)
{
	struct stream_ack ack;
	int r = stream_ack_decode(payload, n, &ack, err);

	if (r < 0)
		return r;
	if (ack.written > u->sent_seq)
		return err_set(err, -EPROTO, "the collector acknowledged %llu, but %llu was sent",
			       (unsigned long long)ack.written, (unsigned long long)u->sent_seq);
	u->credit += ack.credit;
	u->unacked -= MIN(u->unacked, ack.credit);
	queue_ack(u->config.queue, ack.written, settle_committed, u);
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
	put_control(u, STREAM_PONG, &answer);
	return 0;
}

static int on_error(struct uplink *u, const uint8_t *payload, size_t n, struct err *err)
{
	struct stream_error e;
	int r = stream_error_decode(payload, n, &e, err);

	if (r < 0)
		return r;
	u->retry_after_ms = MIN(e.retry_after_ms, 10 * UPLINK_BACKOFF_MAX_MS);
	return err_set(err, -ECONNREFUSED, "the collector says: %s", e.text);
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
		u->bye_heard = true;
		return 0;
	case STREAM_ERROR:
		return on_error(u, payload, h->payload_len, err);
	default:
		if (h->flags & STREAM_FLAG_OPTIONAL)
			return 0;
		return err_set(err, -EPROTO, "the collector sent an unexpected %s message",
			       stream_type_name(h->type));
	}
}

/*
 * Is a whole message at the front of the @n bytes at @in? Then *ret is its header and
 * its size is returned; 0: not yet.
 */
static long whole_message(const uint8_t *in, size_t n, struct stream_header *ret, struct err *err)
{
	int r;

	if (n < STREAM_HEADER_SIZE)
		return 0;
	r = stream_header_decode(in, ret, err);
	if (r < 0)
		return err_wrap(err, r, "the collector's answer cannot be read");
	if (ret->payload_len > STREAM_CONTROL_MAX)
		return err_set(err, -EMSGSIZE, "the collector sent a message of %u bytes",
			       ret->payload_len);
	if (n < STREAM_HEADER_SIZE + ret->payload_len)
		return 0;
	if (gzip_crc32(0, in + STREAM_HEADER_SIZE, ret->payload_len) != ret->payload_crc)
		return err_set(err, -EBADMSG, "a message from the collector is damaged");
	return (long)(STREAM_HEADER_SIZE + ret->payload_len);
}

/*
 * The connection ended with @r. A collector with TLS answers plain text with an alert, which
 * is shorter than any message, and hangs up: that says more than the end does.
 */
static int connection_over(const struct uplink *u, int r, struct err *err)
{
	static const uint8_t alert[] = {0x15, 3}; /* RFC 8446, 5.1: type, major version */

	if (u->in_len >= sizeof(alert) && memcmp(u->in, alert, sizeof(alert)) == 0)
		return err_set(err, -EPROTO,
			       "the collector answers with TLS, but tls.enable is false here");
	return r < 0 ? r : err_set(err, -ECONNRESET, "the collector closed the connection");
}

/* Read what there is: 1 something, 0 nothing, -errno the connection is over. */
static int receive(struct uplink *u, struct err *err)
{
	ssize_t n = tls_recv(u->tls, u->in + u->in_len, UPLINK_RECEIVE_BUFFER - u->in_len, err);

	if (n == -EAGAIN)
		return 0;
	if (n <= 0)
		return connection_over(u, (int)n, err);
	u->in_len += (size_t)n;
	u->last_heard = clock_monotonic();
	return 1;
}

static void consume(struct uplink *u, size_t n)
{
	u->in_len -= n;
	memmove(u->in, u->in + n, u->in_len);
}

/* Deal with the whole messages that were read: the first may have come along with WELCOME. */
static int handle_messages(struct uplink *u, struct err *err)
{
	struct stream_header h;
	size_t at = 0;
	long n;

	while ((n = whole_message(u->in + at, u->in_len - at, &h, err)) > 0) {
		int r = on_message(u, &h, u->in + at + STREAM_HEADER_SIZE, err);

		if (r < 0)
			return r;
		at += (size_t)n;
	}
	consume(u, at);
	return (int)n;
}

static int handle_input(struct uplink *u, struct err *err)
{
	int r;

	do {
		r = handle_messages(u, err);
		if (r == 0)
			r = receive(u, err);
	} while (r > 0);
	return r;
}

static int say_hello(struct uplink *u, struct err *err)
{
	_cleanup_(buf_free) struct buf payload = {};
	_cleanup_free_ struct stream_iface *ifaces = NULL;
	struct stream_hello hello = {
		.epoch = u->config.epoch,
		.first_unacked = queue_first_seq(u->config.queue),
		.next_seq = queue_next_seq(u->config.queue),
		.realtime_ns = clock_realtime(),
		.boottime_ns = clock_boottime(),
		.version = PS_VERSION,
	};
	long n = book_interfaces(u->config.book, &ifaces);

	if (n < 0)
		return err_set(err, (int)n, "out of memory");
	if (n > STREAM_INTERFACES_MAX)
		log_warn("%ld interfaces have packets under way, at most %u can be announced", n,
			 STREAM_INTERFACES_MAX);
	memcpy(hello.agent_id, u->config.agent_id, sizeof(hello.agent_id));
	memcpy(hello.boot_id, u->config.boot_id, sizeof(hello.boot_id));
	snprintf(hello.agent_name, sizeof(hello.agent_name), "%s", u->config.agent_name);
	hello.ifaces = ifaces;
	hello.n_ifaces = MIN((size_t)n, STREAM_INTERFACES_MAX);
	stream_hello_encode(&payload, &hello);
	if (buf_failed(&payload))
		return err_set(err, -ENOMEM, "out of memory");
	put_control(u, STREAM_HELLO, &payload);
	return 0;
}

static int take_welcome(struct uplink *u, const struct stream_welcome *w, struct err *err)
{
	uint64_t first = queue_first_seq(u->config.queue), next = queue_next_seq(u->config.queue);

	/* The numbers that are here change all the time; the sentence must not. */
	if (w->resume_seq < first || w->resume_seq > next)
		return err_set(err, -EPROTO, "the collector wants message %llu, which is not here",
			       (unsigned long long)w->resume_seq);
	u->sent_seq = w->resume_seq - 1;
	u->credit = w->credit;
	u->unacked = 0;
	u->heartbeat =
		MIN(MAX(w->heartbeat_ms, HEARTBEAT_MIN_MS), HEARTBEAT_MAX_MS) * NSEC_PER_MSEC;
	queue_ack(u->config.queue, u->sent_seq, settle_committed, u);
	/* It may be another collector, or one that has just started. */
	book_report_again(u->config.book);
	return 0;
}

int uplink_introduce(struct uplink *u, struct err *err)
{
	nsec_t deadline = clock_monotonic() + HANDSHAKE_TIMEOUT;
	struct stream_header h;
	struct stream_welcome w;
	bool secure = false;
	long n = 0;
	int r;

	for (;;) {
		nsec_t now = clock_monotonic();

		r = secure ? send_control(u, err) : tls_handshake(u->tls, err);
		if (r < 0 && r != -EAGAIN)
			return r;
		if (!secure && r > 0) {
			secure = true;
			r = say_hello(u, err);
			if (r < 0)
				return r;
			continue;
		}
		if (secure) {
			r = receive(u, err);
			if (r < 0)
				return r;
			n = whole_message(u->in, u->in_len, &h, err);
			if (n < 0)
				return (int)n;
			if (n > 0)
				break;
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
	if (h.type == STREAM_ERROR)
		return on_error(u, u->in + STREAM_HEADER_SIZE, h.payload_len, err);
	if (h.type != STREAM_WELCOME)
		return err_set(err, -EPROTO, "the collector answered with %s instead of WELCOME",
			       stream_type_name(h.type));
	r = stream_welcome_decode(u->in + STREAM_HEADER_SIZE, h.payload_len, &w, err);
	if (r < 0)
		return r;
	consume(u, (size_t)n);
	return take_welcome(u, &w, err);
}

static void say_bye(struct uplink *u)
{
	_cleanup_(buf_free) struct buf payload = {};
	struct stream_bye bye = {
		.reason = STREAM_BYE_STOP,
		.last_seq = queue_next_seq(u->config.queue) - 1,
	};

	stream_bye_encode(&payload, &bye);
	put_control(u, STREAM_BYE, &payload);
	u->bye_sent = true;
}

static int heartbeat(struct uplink *u, nsec_t now, struct err *err)
{
	_cleanup_(buf_free) struct buf payload = {};
	struct stream_ping ping = {.sent_ns = clock_realtime()};

	if (now - u->last_heard > MISSED_HEARTBEATS * u->heartbeat)
		return err_set(err, -ETIMEDOUT, "the collector has been silent for %llu s",
			       (unsigned long long)((now - u->last_heard) / NSEC_PER_SEC));
	if (now - u->last_ping < u->heartbeat)
		return 0;
	u->last_ping = now;
	stream_ping_encode(&payload, &ping);
	put_control(u, STREAM_PING, &payload);
	return 0;
}

int uplink_converse(struct uplink *u, struct err *err)
{
	u->last_heard = u->last_ping = clock_monotonic();
	for (;;) {
		nsec_t now = clock_monotonic();
		short events = POLLIN;
		int r;

		r = heartbeat(u, now, err);
		if (r == 0)
			r = send_queue(u, err);
		if (r == 0)
			events |= POLLOUT;
		if (r >= 0)
			r = handle_input(u, err);
		if (r < 0)
			return u->bye_sent && queue_bytes(u->config.queue) == 0 ? 0 : r;
		if (u->bye_heard) {
			if (u->bye_sent)
				return 0;
			u->retry_after_ms = UPLINK_BACKOFF_MIN_MS;
			return err_set(err, -ECONNRESET, "the collector is stopping");
		}
		if (atomic_load(&u->stopping) && !u->bye_sent && !queue_bytes(u->config.queue)) {
			atomic_store(&u->stop_deadline,
				     MIN(atomic_load(&u->stop_deadline), now + BYE_TIMEOUT));
			say_bye(u);
			continue;
		}
		/* An ACK may have given credit for more. */
		if (!(events & POLLOUT) && !u->sending.size && next_message(u))
			continue;
		r = uplink_wait(u, events, true, u->heartbeat / 2, err);
		if (r < 0)
			return u->bye_sent ? 0 : r;
	}
}
