/* SPDX-License-Identifier: Apache-2.0 */
/* What tls.c (sessions), tls_context.c, tls_verify.c and tls_error.c share. */
#ifndef PS_TLS_INTERNAL_H
#define PS_TLS_INTERNAL_H

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdatomic.h>

#include "tls.h"

#define TLS_ALPN         "ps/1"
#define TLS_PSK_IDENTITY "ps"
#define TLS_IDENTITY_MAX 255

/* GnuTLS keeps pointers to credentials in a session, so every session holds a reference. */
struct tls_context {
	atomic_uint refs;
	enum tls_side side;
	bool enable;
	bool use_psk;
	gnutls_priority_t priority;
	gnutls_certificate_credentials_t cert;
	gnutls_psk_client_credentials_t psk_client;
	gnutls_psk_server_credentials_t psk_server;
	unsigned char psk_key[32];
	char *cafile; /* for sentences */
};

struct tls {
	struct tls_context *ctx;
	gnutls_session_t session; /* NULL: plain text */
	int fd;
	short events;
	bool established;
	bool verified; /* the callback has seen the certificate and agreed */
	bool heard;    /* data has come in, so the peer has accepted us */
	int failed;    /* -errno of the error that ended it */

	/* What the transport met, for the sentence. */
	unsigned int sniffed; /* bytes of the first record header looked at: 0..2 */
	bool not_tls;
	bool eof;
	int io_errno; /* not EAGAIN: an error of the socket */

	/* For the verify callback: where tls_handshake() wants the verdict. */
	struct err *err;
	int verdict;
	gnutls_alert_description_t alert;

	char *server_name;
	char identity[TLS_IDENTITY_MAX + 1];
};

struct tls_context *tls_context_ref(struct tls_context *ctx);

/* GnuTLS asks for the key that belongs to @identity (collector, any session). */
int tls_find_psk(gnutls_session_t session, const char *identity, gnutls_datum_t *ret_key);

/* "collector" or "agent": who is at the other end. */
const char *tls_peer_role(const struct tls_context *ctx);

/*
 * Judge the certificate that the peer of @session sent: chain, dates, purpose, name
 * (@server_name, the agent only), and take its identity. On refusal @ret_alert is what to
 * tell the peer.
 */
int tls_verify_peer(const struct tls_context *ctx, gnutls_session_t session,
		    const char *server_name, char identity[TLS_IDENTITY_MAX + 1],
		    gnutls_alert_description_t *ret_alert, struct err *err);

bool tls_is_alert(int r);

/*
 * What GnuTLS error @r of a handshake means. @ret_alert is what to tell the peer, -1
 * for nothing.
 */
int tls_handshake_error(struct tls *t, int r, int *ret_alert, struct err *err);

/* What GnuTLS error @r of sending or receiving means. */
int tls_record_error(struct tls *t, int r, struct err *err);

#endif
