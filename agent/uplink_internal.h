/* SPDX-License-Identifier: Apache-2.0 */
/* Between uplink.c (the thread, connections) and uplink_session.c (what is said). */
#ifndef PS_UPLINK_INTERNAL_H
#define PS_UPLINK_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "uplink.h"

#define UPLINK_RECEIVE_BUFFER (STREAM_HEADER_SIZE + STREAM_CONTROL_MAX)
#define UPLINK_BACKOFF_MIN_MS 200u
#define UPLINK_BACKOFF_MAX_MS 30000u

struct uplink {
	struct uplink_config config;
	pthread_t thread;
	bool started;
	int stop_fd; /* eventfd: readable once the end was asked for */
	atomic_bool stopping;
	_Atomic nsec_t stop_deadline; /* CLOCK_MONOTONIC */
	bool drained;

	struct tls *tls;
	int fd;
	uint64_t credit;  /* bytes that may still be sent */
	uint64_t unacked; /* bytes sent and not acknowledged */
	uint64_t sent_seq;
	struct queue_message sending; /* the one under way; size 0: none */
	size_t sending_at;
	struct buf control; /* PINGs and such, sent between messages */
	size_t control_at;
	uint8_t *in;
	size_t in_len;
	nsec_t heartbeat, last_heard, last_ping;
	bool bye_sent, bye_heard;
	uint32_t retry_after_ms; /* as an ERROR asked for */

	uint32_t backoff_ms;
	char last_error[512];
	nsec_t last_logged;
	uint64_t failures;
};

/*
 * Wait for the connection to be ready for @events, for a stop, and with @queue_too for
 * the queue, at most @timeout. -ECANCELED when the time to stop has run out.
 */
int uplink_wait(struct uplink *u, short events, bool queue_too, nsec_t timeout, struct err *err);

/* TLS, HELLO, WELCOME: within a bound. */
int uplink_introduce(struct uplink *u, struct err *err);

/* The session proper. Returns 0 when it ended as it should, after a stop. */
int uplink_converse(struct uplink *u, struct err *err);

#endif
