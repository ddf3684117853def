/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection of the stream: TLS 1.3 with both sides verified, by certificates
 * or by the shared key, or plain TCP where the configuration spells that out.
 * Never blocks, whatever the socket does. The GnuTLS traps that shape this file are in
 * tls.c.
 */
#ifndef PS_TLS_H
#define PS_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "clock.h"
#include "err.h"

enum tls_side { TLS_AGENT, TLS_COLLECTOR }; /* TLS client; TLS server */

struct tls_config {
	bool enable;          /* false: plain text; the rest is ignored */
	const char *certfile; /* PEM chain of this side */
	const char *keyfile;
	const char *cafile;  /* PEM: who may sign the peer's certificate */
	const char *crlfile; /* PEM: revoked ones; NULL: none */
	const char *psk;     /* the shared key (auth.key); then certificates are not used */
};

struct tls_context; /* credentials; immutable, shared by all sessions of a side (counted) */
struct tls;         /* one session */

/*
 * Load and check the files. Errors name the file and what is wrong with it
 * (missing, unreadable, no PEM in it, key does not belong to the certificate,
 * expired or not yet valid).
 */
int tls_context_new(enum tls_side side, const struct tls_config *config, struct tls_context **ret,
		    struct err *err);
/* Sessions that are open keep it alive: a reload frees the old one at once. */
struct tls_context *tls_context_free(struct tls_context *ctx);

/*
 * A session over the connected non-blocking socket @fd, which stays the caller's.
 * @server_name: agent only, the name or address that the collector's certificate
 * must carry.
 */
int tls_new(struct tls_context *ctx, int fd, const char *server_name, struct tls **ret,
	    struct err *err);
/*
 * Nothing more will be sent: tell the peer, as far as that goes without waiting. What it
 * still says can be received. Plain text has no such word.
 */
void tls_goodbye(struct tls *t);
/* Says goodbye if it can without waiting, and frees. */
struct tls *tls_free(struct tls *t);

/*
 * All three: > 0 progress (bytes; 1 for a handshake that is done), -EAGAIN wait for
 * what tls_events() says (level-triggered) and call again with the same arguments, 0 the
 * peer closed (tls_recv only), else -errno with a sentence that names the cause as a person would:
 * "the certificate of the collector is signed by nobody in ca.crt", "... is for
 * a.example, not for b.example", "... expired on 2026-01-02", "the peer does not
 * speak TLS (tls.enable: false there?)", "the peer refused our certificate", ...
 * A handshake is done only when the peer's certificate, its purpose (server or
 * client authentication), name, and the ALPN protocol have been checked. An agent's may
 * be done before the collector has judged the agent: a refusal then comes from the first
 * tls_recv() or tls_send(). An error ends the session.
 */
int tls_handshake(struct tls *t, struct err *err);
ssize_t tls_send(struct tls *t, const void *data, size_t size, struct err *err);
ssize_t tls_recv(struct tls *t, void *data, size_t size, struct err *err);

/* POLLIN or POLLOUT: what the last -EAGAIN waits for. */
short tls_events(const struct tls *t);
/* Bytes that tls_recv() has without reading the socket: ask before a poll. */
size_t tls_pending(const struct tls *t);

/*
 * Who the verified peer is: its first URI, else DNS name of the certificate (never the
 * common name; a collector that has neither goes by the address that was asked for),
 * "psk" for the shared key, "" in plain text and before the handshake is done.
 */
const char *tls_peer_identity(const struct tls *t);

/*
 * May the verified peer call itself @name? Yes when one of the certificate's names says so: a
 * DNS name that is @name, or whose first label it is (`node-1` of `node-1.example`), or a
 * wildcard that matches it; a URI whose last segment it is (`spiffe://corp/ns/node-1`).
 * Letter case does not matter. A certificate with the URI "urn:ps:agent" is made for all
 * agents, and may; so may the shared key, and plain text.
 */
bool tls_peer_may_be(const struct tls *t, const char *name);

/*
 * When the first certificate of this session expires, ours or one of the peer's chain, in
 * CLOCK_REALTIME; UINT64_MAX: never.
 */
nsec_t tls_expires(const struct tls *t);

/*
 * Would the peer of an open session still be accepted with the credentials @now (another
 * authority, a newer list of revoked certificates, another shared key)? 0, or as
 * tls_handshake().
 */
int tls_recheck(struct tls *t, const struct tls_context *now, struct err *err);

#endif
