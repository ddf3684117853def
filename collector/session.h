/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection of an agent, from accept to close. Non-blocking; belongs to one
 * worker thread, which calls session_run() whenever something may have changed.
 */
#ifndef PS_COLLECTOR_SESSION_H
#define PS_COLLECTOR_SESSION_H

#include <stdatomic.h>

#include "commit.h"
#include "gzip.h"
#include "noise.h"
#include "registry.h"
#include "tls_store.h"

#define SESSION_WINDOW_MIN (256u << 10) /* credit that every session gets */
#define SESSION_COST       (64u << 10)  /* memory of one beside its credit: TLS, queues */

/* What all sessions share. */
struct session_env {
	struct tls_store *tls;
	bool tls_enable;
	const struct yaml_strings *allow; /* globs of identities; none: any */
	bool any_name;                    /* a name need not be in the certificate */
	struct registry *registry;
	struct output *output;
	struct commit *commit;
	struct noise *noise;
	size_t max_sessions; /* that said HELLO, and are not over */
	atomic_size_t sessions;
	uint64_t memory;    /* of these together: their credit and what they cost */
	size_t payload_max; /* bytes of large messages that come in, all sessions together */
	atomic_size_t payload_used;
	uint64_t credit;      /* bytes of numbered messages under way, per session, at most */
	nsec_t hello_timeout; /* for handshake and HELLO together */
	nsec_t heartbeat;     /* an agent silent for three of them is gone */
	nsec_t retry;         /* between two tries to write to a full disk */
	atomic_uint stuck;    /* sessions with a message that the output does not take */
	atomic_bool storage_failing;
	/* The output is gone for good (-EPIPE). Called on a worker thread, any number of times. */
	void (*fatal)(void *ctx, const struct err *err);
	void *ctx;
};

/* What the sessions of one worker share. */
struct session_scratch {
	struct gzip *gzip;
	uint8_t *raw; /* STREAM_RAW_MAX */
	int wake_fd;  /* eventfd: a session of this worker was superseded */
};

struct session;

/*
 * Takes @fd, on failure too. @peer is the address, for people. NULL when out of memory;
 * that is said in *err, as are other errors.
 */
int session_new(struct session_env *env, struct session_scratch *scratch, int fd, const char *peer,
		nsec_t now, struct session **ret, struct err *err);
struct session *session_free(struct session *s);

/* WAIT for session_events(), session_deadline() or session_has_news(); AGAIN soon; OVER: free it.
 */
enum session_next { SESSION_WAIT, SESSION_AGAIN, SESSION_OVER };
enum session_next session_run(struct session *s, nsec_t now, bool hangup);

/* We stop: acknowledge what is committed, say goodbye; run it until it is over. */
void session_stop(struct session *s, nsec_t now);

int session_fd(const struct session *s);
uint32_t session_events(const struct session *s); /* EPOLLIN, EPOLLOUT */
nsec_t session_deadline(const struct session *s); /* monotonic: call session_run() then */
/* Superseded, something was committed, credentials have changed: call session_run(). */
bool session_has_news(const struct session *s);
/* It has said HELLO, and was taken in. */
bool session_is_introduced(const struct session *s);

#endif
