/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credentials of one side: its own certificate and key and the CA of its peers, or the
 * shared key. They are loaded and checked as a whole, then never changed: a reload makes
 * a new context for new sessions, and the old one goes with its last session. So
 * contexts are counted (atomically: sessions live on many threads) and otherwise
 * read-only.
 *
 * A list of revoked certificates is taken only when an authority of cafile has signed it,
 * and only as long as it says that it is good for: with one that is out of date nobody
 * is let in, because who was revoked meanwhile is not known (RFC 5280, 6.3.3).
 */
#include "tls.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <time.h>

#include "tls_internal.h"
#include "util.h"

#define PSK_LABEL "ps/1 auth.key"

/*
 * TLS 1.3 only: the list starts from nothing, so nothing older leaks in. SECURE256 would
 * refuse P-256 certificates. The profile refuses RSA keys below 2048 bits.
 */
#define PRIORITY_CERT                                                            \
	"SECURE128:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM" \
	":+CHACHA20-POLY1305:%PROFILE_MEDIUM"
/* An external PSK goes with SHA-256 suites only; of those AES-128-GCM is by far the fastest. */
#define PRIORITY_PSK "SECURE128:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:-KX-ALL:+ECDHE-PSK"

static int check_dates(const char *key, const char *path, gnutls_x509_crt_t crt, struct err *err)
{
	time_t now = time(NULL);
	time_t from = gnutls_x509_crt_get_activation_time(crt);
	time_t until = gnutls_x509_crt_get_expiration_time(crt);
	char day[TLS_DAY_SIZE];

	if (until < now) {
		tls_show_day(until, day);
		return err_set(err, -EKEYEXPIRED, "%s: the certificate in \"%s\" expired on %s",
			       key, path, day);
	}
	if (from > now) {
		tls_show_day(from, day);
		return err_set(err, -EKEYREJECTED,
			       "%s: the certificate in \"%s\" is not valid before %s "
			       "(is the clock right?)",
			       key, path, day);
	}
	return 0;
}

static int load_own(struct tls_context *ctx, const struct tls_config *config, struct err *err)
{
	_cleanup_(tls_certs_done) struct tls_certs chain = {0};
	_cleanup_(tls_key_done) gnutls_x509_privkey_t key = NULL;
	nsec_t now = clock_realtime();
	int r;

	r = tls_load_certs("tls.certfile", config->certfile, ctx->digest, &chain, err);
	r = r ? r : check_dates("tls.certfile", config->certfile, chain.list[0], err);
	r = r ? r : tls_load_key(config->keyfile, ctx->digest, &key, err);
	if (r)
		return r;
	r = gnutls_certificate_set_x509_key(ctx->cert, chain.list, (int)chain.count, key);
	if (r == GNUTLS_E_CERTIFICATE_KEY_MISMATCH)
		return err_set(err, -EINVAL,
			       "tls.keyfile: the key in \"%s\" does not belong to the certificate "
			       "in \"%s\"",
			       config->keyfile, config->certfile);
	if (r < 0)
		return err_set(err, -EINVAL, "tls.certfile: cannot use \"%s\": %s",
			       config->certfile, gnutls_strerror(r));
	for (unsigned int i = 0; i < chain.count; i++) {
		nsec_t expires = tls_crt_expires(chain.list[i]);

		/* One that has expired already is no part of the chain that peers accept. */
		if (expires > now)
			ctx->expires = MIN(ctx->expires, expires);
	}
	return 0;
}

/* Who signed the list? One of several authorities of the same name may have. */
static int check_crl_signer(gnutls_x509_crl_t crl, const struct tls_certs *cas,
			    const struct tls_config *config, struct err *err)
{
	/* Of these check_crl_dates() has more to say. */
	const unsigned int dates = GNUTLS_CERT_REVOCATION_DATA_SUPERSEDED |
				   GNUTLS_CERT_REVOCATION_DATA_ISSUED_IN_FUTURE;
	const unsigned int not_it = GNUTLS_CERT_SIGNER_NOT_FOUND | GNUTLS_CERT_SIGNATURE_FAILURE;
	const unsigned int may_not =
		GNUTLS_CERT_SIGNER_NOT_CA | GNUTLS_CERT_SIGNER_CONSTRAINTS_FAILURE;
	/* GnuTLS would take weaker ones than for a certificate. */
	bool weak = !gnutls_sign_is_secure2(gnutls_x509_crl_get_signature_algorithm(crl),
					    GNUTLS_SIGN_FLAG_SECURE_FOR_CERTS);
	unsigned int why = 0; /* of the authority that did sign it */

	for (unsigned int i = 0; i < cas->count; i++) {
		unsigned int status = 0;

		if (gnutls_x509_crl_verify(crl, &cas->list[i], 1, 0, &status) < 0)
			continue;
		if (status & dates)
			status &= ~(dates | GNUTLS_CERT_INVALID);
		if (weak)
			status |= GNUTLS_CERT_INSECURE_ALGORITHM;
		if (!status)
			return 0;
		if (!(status & not_it))
			why = status;
	}
	if (why & may_not)
		return err_set(
			err, -EKEYREJECTED,
			"tls.crlfile: the list in \"%s\" is signed by an authority in \"%s\" "
			"that may not sign such lists (its key usage has no CRL signing)",
			config->crlfile, config->cafile);
	if (why)
		return err_set(err, -EKEYREJECTED,
			       "tls.crlfile: the list in \"%s\" cannot be trusted: %s",
			       config->crlfile,
			       why & GNUTLS_CERT_INSECURE_ALGORITHM
				       ? "its signature is too weak"
				       : "it has an extension that nobody here understands");
	return err_set(err, -EKEYREJECTED,
		       "tls.crlfile: the list in \"%s\" is signed by nobody in \"%s\"",
		       config->crlfile, config->cafile);
}

static int check_crl_dates(gnutls_x509_crl_t crl, const struct tls_config *config, struct err *err)
{
	time_t now = time(NULL);
	time_t from = gnutls_x509_crl_get_this_update(crl);
	time_t until = gnutls_x509_crl_get_next_update(crl);
	char day[TLS_DAY_SIZE];

	if (until > 0 && until < now) {
		tls_show_day(until, day);
		return err_set(
			err, -EKEYEXPIRED,
			"tls.crlfile: the list in \"%s\" is out of date: the next one was to "
			"come by %s",
			config->crlfile, day);
	}
	if (from > now) {
		tls_show_day(from, day);
		return err_set(err, -EKEYREJECTED,
			       "tls.crlfile: the list in \"%s\" is not valid before %s (is the "
			       "clock right?)",
			       config->crlfile, day);
	}
	return 0;
}

static int load_crls(struct tls_context *ctx, const struct tls_certs *cas,
		     const struct tls_config *config, struct err *err)
{
	_cleanup_(tls_crls_done) struct tls_crls crls = {0};
	int r;

	r = tls_load_crls(config->crlfile, ctx->digest, &crls, err);
	for (unsigned int i = 0; !r && i < crls.count; i++) {
		time_t until = gnutls_x509_crl_get_next_update(crls.list[i]);

		r = check_crl_signer(crls.list[i], cas, config, err);
		r = r ? r : check_crl_dates(crls.list[i], config, err);
		if (until > 0 && (!ctx->crl_until || until < ctx->crl_until))
			ctx->crl_until = until;
	}
	if (r)
		return r;
	r = gnutls_certificate_set_x509_crl(ctx->cert, crls.list, (int)crls.count);
	if (r < 0)
		return err_set(err, -EINVAL, "tls.crlfile: cannot use \"%s\": %s", config->crlfile,
			       gnutls_strerror(r));
	ctx->crlfile = strdup(config->crlfile);
	return ctx->crlfile ? 0 : tls_out_of_memory(err);
}

/* Old CAs may stay in the file while a new one is rolled out: one that is valid will do. */
static int load_cas(struct tls_context *ctx, const struct tls_config *config, struct err *err)
{
	_cleanup_(tls_certs_done) struct tls_certs cas = {0};
	int r;

	r = tls_load_certs("tls.cafile", config->cafile, ctx->digest, &cas, err);
	if (r)
		return r;
	for (unsigned int i = 0; i < cas.count; i++) {
		r = check_dates("tls.cafile", config->cafile, cas.list[i], err);
		if (!r)
			break;
	}
	if (r)
		return r;
	r = gnutls_certificate_set_x509_trust(ctx->cert, cas.list, (int)cas.count);
	if (r < 0)
		return err_set(err, -EINVAL, "tls.cafile: cannot use \"%s\": %s", config->cafile,
			       gnutls_strerror(r));
	ctx->cafile = strdup(config->cafile);
	if (!ctx->cafile)
		return tls_out_of_memory(err);
	/* After the authorities: GnuTLS files the lists under them. */
	return config->crlfile ? load_crls(ctx, &cas, config, err) : 0;
}

/* 32 bytes from auth.key, bound to this protocol so that no other use of the key meets it. */
static int derive_psk(const char *psk, unsigned char out[32])
{
	gnutls_hash_hd_t hash;
	int r;

	r = gnutls_hash_init(&hash, GNUTLS_DIG_SHA256);
	if (r < 0)
		return r;
	r = gnutls_hash(hash, PSK_LABEL, sizeof(PSK_LABEL)); /* with its NUL */
	if (r >= 0)
		r = gnutls_hash(hash, psk, strlen(psk));
	gnutls_hash_deinit(hash, out);
	return r;
}

static int load_psk(struct tls_context *ctx, const struct tls_config *config, struct err *err)
{
	gnutls_datum_t key = {.data = ctx->psk_key, .size = sizeof(ctx->psk_key)};
	int r;

	if (!*config->psk)
		return err_set(err, -EINVAL, "auth.key: is empty");
	r = derive_psk(config->psk, ctx->psk_key);
	if (r >= 0 && ctx->side == TLS_AGENT) {
		r = gnutls_psk_allocate_client_credentials(&ctx->psk_client);
		if (r >= 0)
			r = gnutls_psk_set_client_credentials(ctx->psk_client, TLS_PSK_IDENTITY,
							      &key, GNUTLS_PSK_KEY_RAW);
	} else if (r >= 0) {
		r = gnutls_psk_allocate_server_credentials(&ctx->psk_server);
		if (r >= 0)
			gnutls_psk_set_server_credentials_function(ctx->psk_server, tls_find_psk);
	}
	if (r < 0)
		return err_set(err, -ENOMEM, "cannot set up TLS: %s", gnutls_strerror(r));
	return 0;
}

static int load(struct tls_context *ctx, const struct tls_config *config, struct err *err)
{
	const char *priority = ctx->use_psk ? PRIORITY_PSK : PRIORITY_CERT;
	int r;

	r = gnutls_priority_init2(&ctx->priority, priority, NULL, 0);
	if (r < 0)
		return err_set(err, -EINVAL, "cannot set up TLS 1.3 (\"%s\"): %s", priority,
			       gnutls_strerror(r));
	if (ctx->use_psk)
		return load_psk(ctx, config, err);
	if (gnutls_certificate_allocate_credentials(&ctx->cert) < 0)
		return tls_out_of_memory(err);
	r = load_own(ctx, config, err);
	return r ? r : load_cas(ctx, config, err);
}

int tls_context_new(enum tls_side side, const struct tls_config *config, struct tls_context **ret,
		    struct err *err)
{
	struct tls_context *ctx = calloc(1, sizeof(*ctx));
	int r;

	if (!ctx)
		return tls_out_of_memory(err);
	ctx->refs = 1;
	ctx->side = side;
	ctx->enable = config->enable;
	ctx->use_psk = config->psk != NULL;
	ctx->expires = UINT64_MAX;
	r = ctx->enable ? load(ctx, config, err) : 0;
	if (r) {
		tls_context_free(ctx);
		return r;
	}
	*ret = ctx;
	return 0;
}

struct tls_context *tls_context_ref(struct tls_context *ctx)
{
	atomic_fetch_add(&ctx->refs, 1);
	return ctx;
}

struct tls_context *tls_context_free(struct tls_context *ctx)
{
	if (!ctx || atomic_fetch_sub(&ctx->refs, 1) != 1)
		return NULL;
	if (ctx->cert)
		gnutls_certificate_free_credentials(ctx->cert);
	if (ctx->psk_client)
		gnutls_psk_free_client_credentials(ctx->psk_client);
	if (ctx->psk_server)
		gnutls_psk_free_server_credentials(ctx->psk_server);
	if (ctx->priority)
		gnutls_priority_deinit(ctx->priority);
	gnutls_memset(ctx->psk_key, 0, sizeof(ctx->psk_key));
	free(ctx->cafile);
	free(ctx->crlfile);
	free(ctx);
	return NULL;
}
