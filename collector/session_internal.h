/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between session.c (states and time), session_io.c (bytes), session_message.c, session_hello.c,
 * session_data.c and session_note.c (what messages mean) and session_ack.c (acknowledgements and
 * credit).
 */
#ifndef PS_COLLECTOR_SESSION_INTERNAL_H
#define PS_COLLECTOR_SESSION_INTERNAL_H

#include "buf.h"
#include "net.h"
#include "session.h"
#include "stream.h"

#define SESSION_OUT_BURST (32u << 10) /* answers in a row, then they are sent */
#define SESSION_NEVER     UINT64_MAX

enum session_state {
	SESSION_HANDSHAKE,
	SESSION_HELLO,
	SESSION_STREAM,
	SESSION_SETTLING, /* until what was taken is committed, then the last words */
	SESSION_CLOSING,  /* what is in tx and out goes first */
	SESSION_LINGER,   /* until the peer closes, so that it gets to read our last words */
};

struct session {
	struct session_env *env;
	struct session_scratch *scratch;
	struct tls *tls;     /* NULL until the first byte came, and at the end */
	uint64_t generation; /* of the credentials that it was accepted with */
	int fd;
	char peer[NET_ADDR_TEXT];
	char agent_name[STREAM_NAME_MAX + 1];
	enum session_state state;
	nsec_t since;   /* of accept, then of settling or closing */
	nsec_t linger;  /* when settling or closing: how long at most */
	nsec_t heard;   /* when bytes came last */
	nsec_t expires; /* a certificate, CLOCK_REALTIME */
	bool spoke;     /* a byte of it was seen */
	bool introduced;

	/* The message that comes in. */
	uint8_t head[STREAM_HEADER_SIZE];
	struct stream_header header;
	size_t have; /* bytes of both */
	uint8_t *payload;
	size_t payload_cap;
	bool stuck; /* complete, but the output does not take it now */
	nsec_t retry_at;

	struct feed *feed;
	struct registry_owner owner;
	bool recovered;  /* HELLO said so */
	bool stopping;   /* we end it, not the agent */
	uint32_t bye;    /* enum stream_bye_reason of our answer */
	uint64_t ticket; /* of the commit that is waited for */

	nsec_t ping_at;
	uint64_t pinged; /* CLOCK_REALTIME of our PING that is not answered; 0: none */

	/* Acknowledgements: what came, and what was said last. */
	uint64_t taken, told_written, told_durable;
	/*
	 * Credit: what the agent has (`window`), what it is to get back, what is kept back to make
	 * the window smaller, its largest message, when the last one came.
	 */
	uint64_t window, used, withheld, largest;
	nsec_t took;

	/* tx is being sent and does not move meanwhile, out grows behind it. */
	struct buf tx, out;
	size_t tx_done;
	short recv_events, send_events;
};

/* session_ack.c */

/* Room for one more session? -EBUSY. Sets the window; session_forget() gives the room back. */
int session_admit(struct session *s, struct err *err);
void session_forget(struct session *s);
/* A numbered message was taken: @seq is its last number. */
void session_took(struct session *s, uint64_t seq, nsec_t now);
/* Was something committed that the agent does not know of? */
bool session_ack_is_news(const struct session *s);
/* Queue an ACK if it says anything new. */
void session_put_ack(struct session *s);
/* All that was taken is committed. */
void session_put_last_ack(struct session *s);
/* When to give back credit that was kept back, if nothing comes until then. */
nsec_t session_quiet_at(const struct session *s);
void session_quiet(struct session *s);

/* session_message.c: queue one control message. */
void session_put(struct session *s, uint8_t type, const struct buf *payload);
void session_put_error(struct session *s, enum stream_error_code code, const char *text);
void session_put_bye(struct session *s, enum stream_bye_reason reason);
void session_put_ping(struct session *s, nsec_t now);

/* The stream is over for this session. */
void session_leave(struct session *s, enum feed_state state);

/*
 * The complete message in header and payload. 0; 1: the agent said goodbye; -EAGAIN:
 * the output does not take it now, -EINPROGRESS: nor before session->ticket: call again later with
 * the same message; -ESTALE: superseded; -ECANCELED: we are stopping; -EPIPE: the output is gone;
 * else the peer's fault.
 */
int session_message(struct session *s, nsec_t now, struct err *err);

/* session_hello.c: -EINPROGRESS: the feed is taken over, WELCOME has to wait. */
int session_take_hello(struct session *s, nsec_t now, struct err *err);

/* session_data.c: DATA, with the turn. @ret_written: bytes that went to the output. */
int session_take_data(struct session *s, size_t *ret_written, struct err *err);

/* session_note.c: NOTE, with the turn. */
int session_take_note(struct session *s, struct err *err);
/* How the interface of META, which was taken, is captured. */
void session_tell_meta(struct session *s, const struct stream_meta *m);

/* session_io.c */
void session_drop_payload(struct session *s);
/* 1: a message is complete; 0: the peer closed; -EAGAIN; -errno. */
int session_receive(struct session *s, nsec_t now, struct err *err);
/* The message in hand is done. */
void session_next_message(struct session *s);
/* 0: all is sent; -EAGAIN; -errno. */
int session_flush(struct session *s, struct err *err);
/* Read and throw away. False: the peer has closed. */
bool session_waste(struct session *s);

#endif
