/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The uplink's connection: waiting for it, handing messages to it piece by piece, finding
 * whole messages in what comes in. Never blocks but in uplink_wait(). Belongs to the uplink
 * thread.
 *
 * Invariant: a control message is sent only between numbered ones, so the stream never has one
 * message inside another. Control messages do not wait for the budget.
 */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "gzip.h"
#include "uplink_internal.h"
#include "util.h"

int uplink_wait(struct uplink *u, short events, bool backlog_too, nsec_t timeout, struct err *err)
{
	bool stopping = atomic_load(&u->stopping);
	struct pollfd fds[] = {
		{.fd = u->fd, .events = events},
		{.fd = stopping ? -1 : u->stop_fd, .events = POLLIN},
		{.fd = backlog_too ? backlog_fd(u->backlog) : -1, .events = POLLIN},
		{.fd = u->wake_fd, .events = POLLIN},
		{.fd = u->probe ? probe_fd(u->probe) : -1, .events = POLLIN},
	};
	nsec_t now = clock_monotonic();

	if (stopping) {
		nsec_t deadline = atomic_load(&u->stop_deadline);

		if (now >= deadline)
			return err_set(err, -ECANCELED, "the time to stop has run out");
		timeout = MIN(timeout, deadline - now);
	}
	if (poll(fds, ARRAY_SIZE(fds), timeout ? (int)(timeout / NSEC_PER_MSEC + 1) : 0) < 0 &&
	    errno != EINTR)
		return err_sys(err, -errno, "cannot wait for the collector");
	if (fds[2].revents)
		backlog_clear(u->backlog);
	if (fds[3].revents)
		event_clear(u->wake_fd);
	return 0;
}

void uplink_put_control(struct uplink *u, uint8_t type, const struct buf *payload)
{
	stream_message(&u->control, type, 0, payload->data, payload->len);
	u->control.failed |= buf_failed(payload);
}

/* Send of @data from *at on what the connection takes. 1: all of it is sent. */
static int send_some(struct uplink *u, const struct buf *data, size_t *at, struct err *err)
{
	while (*at < data->len) {
		ssize_t n = tls_send(u->tls, data->data + *at, data->len - *at, err);

		if (n == -EAGAIN)
			return 0;
		if (n < 0)
			return (int)n;
		*at += (size_t)n;
	}
	return 1;
}

/*
 * As long as the budget allows. The collector's stalls must not add up to a burst from the
 * socket's buffer, so the kernel paces too (uplink_heed_budget()).
 */
static int send_paced(struct uplink *u, struct err *err)
{
	struct uplink_session *s = &u->session;

	s->paced = 0;
	while (s->sending_at < u->wire.len) {
		size_t left = u->wire.len - s->sending_at;
		nsec_t now = clock_monotonic();
		ssize_t n;

		if (!s->piece)
			s->piece = pace_allow(&u->pace, now, left, &s->paced);
		if (!s->piece)
			return 0;
		n = tls_send(u->tls, u->wire.data + s->sending_at, s->piece, err);
		if (n == -EAGAIN)
			return 0;
		if (n < 0)
			return (int)n;
		s->piece = 0;
		s->sending_at += (size_t)n;
		pace_charge(&u->pace, now, (size_t)n);
	}
	return 1;
}

void uplink_heed_budget(struct uplink *u, bool fresh)
{
	uint64_t budget = atomic_load(&u->budget);
	uint32_t rate = budget ? (uint32_t)MIN(budget / 8, UINT32_MAX - 1) : UINT32_MAX;

	if (budget != u->pace.bits_per_s)
		pace_set(&u->pace, budget);
	else if (!fresh || !budget)
		return;
	/* It only smooths what the agent bounds: no harm where the kernel cannot. */
	setsockopt(u->fd, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof(rate));
}

int uplink_send_control(struct uplink *u, struct err *err)
{
	int r;

	if (buf_failed(&u->control))
		return err_set(err, -ENOMEM, "out of memory");
	if (u->session.control_at == u->control.len)
		return 1;
	r = send_some(u, &u->control, &u->session.control_at, err);
	if (r == 1) {
		buf_reset(&u->control);
		u->session.control_at = 0;
	}
	return r;
}

int uplink_send_message(struct uplink *u, struct err *err)
{
	struct uplink_session *s = &u->session;
	int r;

	s->begun = true;
	r = send_paced(u, err);
	if (r <= 0)
		return r;
	s->sent_seq = s->sending.last_seq;
	s->unreturned += s->sending.size;
	s->credit -= MIN(s->credit, s->sending.size);
	s->sending.size = 0;
	s->begun = false;
	return 1;
}

long uplink_whole_message(const uint8_t *in, size_t n, struct stream_header *ret, struct err *err)
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

	if (u->session.in_len >= sizeof(alert) && memcmp(u->in, alert, sizeof(alert)) == 0)
		return err_set(err, -EPROTO,
			       "the collector answers with TLS, but tls.enable is false here");
	return r < 0 ? r : err_set(err, -ECONNRESET, "the collector closed the connection");
}

int uplink_receive(struct uplink *u, struct err *err)
{
	struct uplink_session *s = &u->session;
	ssize_t n = tls_recv(u->tls, u->in + s->in_len, UPLINK_RECEIVE_BUFFER - s->in_len, err);

	if (n == -EAGAIN)
		return 0;
	if (n <= 0)
		return connection_over(u, (int)n, err);
	s->in_len += (size_t)n;
	s->last_heard = clock_monotonic();
	return 1;
}

void uplink_consume(struct uplink *u, size_t n)
{
	u->session.in_len -= n;
	memmove(u->in, u->in + n, u->session.in_len);
}

int uplink_on_error(struct uplink *u, const uint8_t *payload, size_t n, struct err *err)
{
	struct uplink_session *s = &u->session;
	struct stream_error e;
	int r = stream_error_decode(payload, n, &e, err);

	if (r < 0)
		return r;
	s->retry_after_ms = MIN(e.retry_after_ms, UPLINK_RETRY_MAX_MS);
	s->refused = e.code == STREAM_E_AUTH || e.code == STREAM_E_VERSION ||
		     e.code == STREAM_E_PROTOCOL || e.code == STREAM_E_TOO_BIG;
	return err_set(err, -ECONNREFUSED, "the collector says: %s", e.text);
}
