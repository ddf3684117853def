/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of a session, in and out.
 *
 * Memory: the payload buffer grows to what a header declared and stream_header_decode()
 * allowed, before HELLO no further than a control message. A session keeps it up to
 * PAYLOAD_KEEP; larger ones live for one message and come out of a budget of all sessions,
 * because a peer may leave its message unfinished for as long as it likes. What waits to be sent
 * is bounded too: a peer that lets that much pile up is dropped.
 */
#include <errno.h>
#include <sys/socket.h>

#include "session_internal.h"
#include "util.h"

#define PAYLOAD_KEEP (128u << 10) /* more than a message with default settings */
#define WASTE_BYTES  (1u << 20)   /* at a time */

void session_drop_payload(struct session *s)
{
	if (s->payload_cap > PAYLOAD_KEEP)
		atomic_fetch_sub(&s->env->payload_used, s->payload_cap);
	free(s->payload);
	s->payload = NULL;
	s->payload_cap = 0;
}

/* The buffer has nothing in it when a header asks for more. */
static int grow_payload(struct session *s, size_t n, struct err *err)
{
	struct session_env *env = s->env;

	if (n <= s->payload_cap)
		return 0;
	session_drop_payload(s);
	if (n > PAYLOAD_KEEP && atomic_fetch_add(&env->payload_used, n) + n > env->payload_max) {
		atomic_fetch_sub(&env->payload_used, n);
		return err_set(err, -EBUSY,
			       "large messages of all agents have more than %zu MiB already",
			       env->payload_max >> 20);
	}
	s->payload_cap = n;
	s->payload = malloc(n);
	if (s->payload)
		return 0;
	session_drop_payload(s);
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

int session_receive(struct session *s, nsec_t now, struct err *err)
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

void session_next_message(struct session *s)
{
	s->have = 0;
	if (s->payload_cap > PAYLOAD_KEEP)
		session_drop_payload(s);
}

int session_flush(struct session *s, struct err *err)
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
			if (s->out.len >= SESSION_OUT_BURST)
				return err_set(err, -ENOBUFS,
					       "it does not read what is sent to it");
			return -EAGAIN;
		}
		if (n < 0)
			return (int)n;
		s->tx_done += (size_t)n;
	}
}

bool session_waste(struct session *s)
{
	uint8_t waste[16384];

	for (size_t bytes = 0; bytes < WASTE_BYTES;) {
		ssize_t n = recv(s->fd, waste, sizeof(waste), MSG_DONTWAIT);

		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return false;
		if (n < 0)
			break;
		bytes += (size_t)n;
	}
	return true;
}
