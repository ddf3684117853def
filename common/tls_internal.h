/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tls.c (sessions), tls_context.c and tls_files.c (credentials), tls_verify.c and
 * tls_names.c (the peer) and tls_error.c share.
 */
#ifndef PS_TLS_INTERNAL_H
#define PS_TLS_INTERNAL_H

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdatomic.h>
#include <time.h>

#include "tls.h"

#define TLS_ALPN         "ps/1"
#define TLS_PSK_IDENTITY "ps"
#define TLS_IDENTITY_MAX 255
#define TLS_NAMES_SHOWN  256 /* bytes of a certificate's names in a sentence */
#define TLS_DIGEST_SIZE  32
#define TLS_DAY_SIZE     32

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
	char *cafile, *crlfile; /* for sentences; crlfile NULL: no list */
	time_t crl_until;       /* when the first list has to be replaced; 0: never */
	nsec_t expires;         /* the first certificate of our own; UINT64_MAX: never */
	/* Of the content of all files: two contexts with the same one are the same. */
	unsigned char digest[TLS_DIGEST_SIZE];
};

/* What tls_verify_peer() finds out. */
struct tls_peer {
	char identity[TLS_IDENTITY_MAX + 1];
	nsec_t expires;                   /* the first certificate of the chain */
	gnutls_alert_description_t alert; /* on refusal: what to tell the peer */
};

struct tls {
	struct tls_context *ctx;
	gnutls_session_t session; /* NULL: plain text */
	int fd;
	short events;
	bool established;
	bool verified; /* the callback has seen the certificate and agreed */
	bool said_goodbye;
	bool heard; /* data has come in, so the peer has accepted us */
	int failed; /* -errno of the error that ended it */

	/* What the transport met, for the sentence. */
	unsigned int sniffed; /* bytes of the first record header looked at: 0..2 */
	bool not_tls;
	bool eof;
	int io_errno; /* not EAGAIN: an error of the socket */

	/* For the verify callback: where tls_handshake() wants the verdict. */
	struct err *err;
	int verdict;

	char *server_name;
	struct tls_peer peer;
};

struct tls_context *tls_context_ref(struct tls_context *ctx);

/* GnuTLS asks for the key that belongs to @identity (collector, any session). */
int tls_find_psk(gnutls_session_t session, const char *identity, gnutls_datum_t *ret_key);

/* "collector" or "agent": who is at the other end. */
const char *tls_peer_role(const struct tls_context *ctx);

/*
 * Judge the certificate that the peer of @session sent: chain, dates, purpose, revocation,
 * name (@server_name, the agent only), and say who it is. The session uses @ctx.
 */
int tls_verify_peer(const struct tls_context *ctx, gnutls_session_t session,
		    const char *server_name, struct tls_peer *ret, struct err *err);

/* "2026-01-02", UTC */
void tls_show_day(time_t when, char out[TLS_DAY_SIZE]);
/* When @crt expires; UINT64_MAX: never. */
nsec_t tls_crt_expires(gnutls_x509_crt_t crt);
/* The peer's own certificate, for the caller to free; a GnuTLS error. */
int tls_peer_crt(gnutls_session_t session, gnutls_x509_crt_t *ret);
void tls_crt_done(gnutls_x509_crt_t *crt);

/* "a.example, 192.0.2.1": the names that a client could ask for; "" when there are none. */
void tls_names_list(gnutls_x509_crt_t crt, char out[TLS_NAMES_SHOWN]);
/* Is it the certificate of the host, or of the address, @wanted? */
bool tls_names_have_host(gnutls_x509_crt_t crt, const char *wanted);
/*
 * The first URI, else the first DNS name, else @fallback (may be NULL). Never the common
 * name, which CAs do not check. False: nobody.
 */
bool tls_names_identity(gnutls_x509_crt_t crt, const char *fallback,
			char identity[TLS_IDENTITY_MAX + 1]);

struct tls_certs {
	gnutls_x509_crt_t *list;
	unsigned int count;
};

struct tls_crls {
	gnutls_x509_crl_t *list;
	unsigned int count;
};

/*
 * The content of file @path, which configuration key @key names. @digest goes on over
 * what was read. What was loaded is the caller's, also on failure: call ..._done().
 */
int tls_load_certs(const char *key, const char *path, unsigned char digest[TLS_DIGEST_SIZE],
		   struct tls_certs *ret, struct err *err);
int tls_load_crls(const char *path, unsigned char digest[TLS_DIGEST_SIZE], struct tls_crls *ret,
		  struct err *err);
int tls_load_key(const char *path, unsigned char digest[TLS_DIGEST_SIZE],
		 gnutls_x509_privkey_t *ret, struct err *err);
void tls_certs_done(struct tls_certs *certs);
void tls_crls_done(struct tls_crls *crls);
void tls_key_done(gnutls_x509_privkey_t *key);
int tls_out_of_memory(struct err *err);

bool tls_is_alert(int r);

/*
 * What GnuTLS error @r of a handshake means. @ret_alert is what to tell the peer, -1
 * for nothing.
 */
int tls_handshake_error(struct tls *t, int r, int *ret_alert, struct err *err);

/* What GnuTLS error @r of sending or receiving means. */
int tls_record_error(struct tls *t, int r, struct err *err);

#endif
