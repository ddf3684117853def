/* SPDX-License-Identifier: Apache-2.0 */
/* Between session.c (bytes, states, time) and session_message.c (what messages mean). */
#ifndef PS_COLLECTOR_SESSION_INTERNAL_H
#define PS_COLLECTOR_SESSION_INTERNAL_H

#include "buf.h"
#include "net.h"
#include "session.h"
#include "stream.h"

enum session_state {
	SESSION_HANDSHAKE,
	SESSION_HELLO,
	SESSION_STREAM,
	SESSION_CLOSING, /* what is in tx and out goes first */
	SESSION_LINGER,  /* until the peer closes, so that it gets to read our last words */
};

struct session {
	struct session_env *env;
	struct session_scratch *scratch;
	struct tls *tls;
	int fd;
	char peer[NET_ADDR_TEXT];
	char agent_name[STREAM_NAME_MAX + 1];
	enum session_state state;
	nsec_t since;  /* of accept, then of closing */
	nsec_t linger; /* when closing: how long at most */
	nsec_t heard;  /* when bytes came last */
	nsec_t retry_at;
	nsec_t pinged; /* while stuck: when we last gave a sign of life */
	bool spoke;    /* a byte of it was seen */

	/* The message that comes in. */
	uint8_t head[STREAM_HEADER_SIZE];
	struct stream_header header;
	size_t have; /* bytes of both */
	uint8_t *payload;
	size_t payload_cap;
	bool stuck; /* complete, but the output does not take it now */

	struct feed *feed;
	struct registry_owner owner;
	bool stopping; /* we end it, not the agent */

	/* To be acknowledged. */
	bool ack_due;
	uint64_t written, credit;

	/* tx is being sent and does not move meanwhile, out grows behind it. */
	struct buf tx, out;
	size_t tx_done;
	short recv_events, send_events;
};

/* Queue one control message. */
void session_put(struct session *s, uint8_t type, const struct buf *payload);
/* Queue the ACK that is due, if one is. */
void session_put_ack(struct session *s);
void session_put_error(struct session *s, enum stream_error_code code, const char *text);
void session_put_bye(struct session *s, enum stream_bye_reason reason);
void session_put_ping(struct session *s);

/* The stream is over for this session. */
void session_leave(struct session *s, enum feed_state state);

/*
 * The complete message in header and payload. 0; 1: the agent said goodbye; -EAGAIN:
 * the output does not take it now, call again later with the same message;
 * -ESTALE: superseded; -ECANCELED: we are stopping; -EPIPE: the output is gone; else the
 * peer's fault.
 */
int session_message(struct session *s, struct err *err);

#endif
