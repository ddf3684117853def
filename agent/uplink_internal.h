/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the parts of the uplink:
 *
 *	uplink.c		the thread: which epoch, which server, when
 *	uplink_connect.c	a connection from TCP to WELCOME
 *	uplink_session.c	the session proper, after WELCOME
 *	uplink_leave.c		when and how it ends
 *	uplink_io.c		bytes and whole messages
 */
#ifndef PS_UPLINK_INTERNAL_H
#define PS_UPLINK_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "pace.h"
#include "probe.h"
#include "servers.h"
#include "uplink.h"

#define UPLINK_RECEIVE_BUFFER (STREAM_HEADER_SIZE + STREAM_CONTROL_MAX)
#define UPLINK_BACKOFF_MIN_MS 200u
#define UPLINK_BACKOFF_MAX_MS 30000u
#define UPLINK_RETRY_MAX_MS   (10 * UPLINK_BACKOFF_MAX_MS) /* that an ERROR may ask for */

#define UPLINK_BYE_TIMEOUT (2 * NSEC_PER_SEC) /* for the answer to BYE */

/* How the preferred server is looked at from another one; a quarter more or less. */
#define UPLINK_PROBE_EVERY   (60 * NSEC_PER_SEC)
#define UPLINK_PROBE_MOST    (30 * 60 * NSEC_PER_SEC) /* when its answers led to nothing */
#define UPLINK_PROBE_TIMEOUT 3000                     /* ms */

/* How a session ends that has not failed. */
enum uplink_end {
	UPLINK_FINISHED, /* the epoch is over, and the collector knows */
	UPLINK_LEFT,     /* for now: to come back at once */
};

/* What is known of a server, by its place in the order. */
struct uplink_server {
	nsec_t not_before; /* it asked for that, CLOCK_MONOTONIC */
	char last_error[512];
	nsec_t last_logged;
};

/* Of one connection; all zeros at its beginning. */
struct uplink_session {
	nsec_t since; /* WELCOME; 0: not yet */
	uint64_t epoch;
	uint64_t hello_first, hello_next;
	uint32_t max_payload, max_raw;
	bool durable; /* ACK.durable counts, not ACK.written */

	uint64_t credit;                /* bytes that may still be sent */
	uint64_t unreturned;            /* bytes sent whose credit has not come back */
	uint64_t sent_seq, acked;       /* sent_seq: wholly handed to the connection */
	struct backlog_message sending; /* what is in u->wire; size 0: nothing */
	size_t sending_at;
	size_t piece;      /* that the connection did not take: it has to be the same again */
	nsec_t paced;      /* the budget allows no more before then; 0: it does */
	bool begun;        /* some of it may be on its way */
	nsec_t read_again; /* the backlog could not be read: try again then */

	size_t control_at;
	size_t in_len;

	nsec_t heartbeat, last_heard, last_ping;
	uint32_t retry_after_ms; /* as an ERROR asked for */
	bool refused;            /* an ERROR that another try will not mend */

	nsec_t expires;     /* CLOCK_REALTIME: be gone by then */
	bool leaving;       /* send no more, wait for what is under way, say BYE */
	nsec_t leave_by;    /* then without waiting any longer */
	uint32_t bye_sent;  /* enum stream_bye_reason; 0: not yet */
	uint32_t bye_heard; /* the same */
	nsec_t bye_by;      /* the answer must be there */
};

struct uplink {
	struct uplink_config config;
	pthread_t thread;
	bool started;
	int stop_fd; /* eventfd: readable once the end was asked for */
	int late_fd; /* timerfd: readable when the time to stop has run out */
	int wake_fd; /* eventfd: the credentials may have changed */
	atomic_bool stopping, credentials_changed;
	_Atomic uint64_t budget;      /* bits per second, as asked for */
	_Atomic nsec_t stop_deadline; /* CLOCK_MONOTONIC */
	bool told;                    /* the live epoch's BYE was answered */

	struct servers servers;
	struct uplink_server *known;    /* as many */
	const struct yaml_server *last; /* the one that let us in last */
	struct probe *probe;            /* of the preferred one */
	bool returning;                 /* because the probe says so */
	nsec_t probe_at, probe_interval;
	uint32_t backoff_ms;
	uint64_t failures;

	struct spool_epoch *old_epoch; /* of an earlier run, with its backlog */
	struct backlog *old;
	unsigned int old_refused; /* times in a row */
	uint64_t old_first;       /* where this run began with it */
	uint64_t old_gap_seq;     /* the last GAP in it that was counted */
	uint64_t old_lost_messages, old_lost_packets;
	struct backlog *backlog; /* live or old: of this session */

	struct tls *tls;
	int fd;
	struct uplink_session session;
	struct pace pace;
	struct buf wire;    /* the message under way */
	struct buf control; /* PINGs and such, sent between messages */
	uint8_t *in;
	nsec_t read_logged;
};

/* Anything below @limit. */
uint64_t uplink_random(uint64_t limit);
/* When to look at the preferred server next, CLOCK_MONOTONIC. */
static inline nsec_t uplink_next_probe(const struct uplink *u)
{
	return clock_monotonic() + u->probe_interval / 4 * 3 + uplink_random(u->probe_interval / 2);
}

/*
 * Wait for the connection to be ready for @events, for the probe, for a stop or a change of
 * credentials, and with @backlog_too for the backlog, at most @timeout. -ECANCELED when the
 * time to stop has run out.
 */
int uplink_wait(struct uplink *u, short events, bool backlog_too, nsec_t timeout, struct err *err);

void uplink_put_control(struct uplink *u, uint8_t type, const struct buf *payload);
/* Send what connection and budget allow. 1: all of it is sent; 0: not yet. */
int uplink_send_control(struct uplink *u, struct err *err);
int uplink_send_message(struct uplink *u, struct err *err);
/* Read what there is: 1 something, 0 nothing, -errno the connection is over. */
int uplink_receive(struct uplink *u, struct err *err);
/*
 * Is a whole message at the front of the @n bytes at @in? Then *ret is its header and
 * its size is returned; 0: not yet.
 */
long uplink_whole_message(const uint8_t *in, size_t n, struct stream_header *ret, struct err *err);
/* The first @n bytes that came in are dealt with. */
void uplink_consume(struct uplink *u, size_t n);
/* An ERROR came: take note of it, and return it as one. */
int uplink_on_error(struct uplink *u, const uint8_t *payload, size_t n, struct err *err);

/* Connect to the current server: TCP, TLS, HELLO, WELCOME, each within a bound. */
int uplink_connect(struct uplink *u, struct err *err);
void uplink_disconnect(struct uplink *u);
/* The socket that is about to connect is the agent's own. */
void uplink_own_socket(void *ctx, int fd, const struct sockaddr *to);
/* Take notice of another budget, or of another socket (@fresh). */
void uplink_heed_budget(struct uplink *u, bool fresh);

/* The session proper: enum uplink_end, or -errno. */
int uplink_converse(struct uplink *u, struct err *err);
/* Is it time to leave, or for BYE? */
void uplink_consider_end(struct uplink *u, nsec_t now);
/* How it ends by what was said in BYEs: enum uplink_end, or -errno; -EAGAIN: not yet. */
int uplink_judge_bye(struct uplink *u, nsec_t now, struct err *err);

#endif
