/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether the peer is who it should be.
 *
 * GnuTLS checks the chain, the dates, the purpose and revocation: without the purpose a
 * collector's certificate would do as an agent's. The name is checked here, because the
 * sentence must say which names the certificate does carry. A certificate that is refused
 * is answered with the alert that says why, so that both sides can log a clear line. The
 * same is done again for sessions that are open when the credentials change.
 *
 * Everything here runs on the thread of the session and keeps no state.
 */
#include "tls.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "tls_internal.h"
#include "util.h"

/* GnuTLS wants these writable. */
static unsigned char server_purpose[] = GNUTLS_KP_TLS_WWW_SERVER;
static unsigned char client_purpose[] = GNUTLS_KP_TLS_WWW_CLIENT;

struct peer {
	const struct tls_context *ctx;
	const char *role;
	gnutls_x509_crt_t crt;
	gnutls_alert_description_t alert;
};

void tls_crt_done(gnutls_x509_crt_t *crt)
{
	if (*crt)
		gnutls_x509_crt_deinit(*crt);
}

void tls_show_day(time_t when, char out[TLS_DAY_SIZE])
{
	struct tm tm;

	if (!gmtime_r(&when, &tm) || !strftime(out, TLS_DAY_SIZE, "%Y-%m-%d", &tm))
		snprintf(out, TLS_DAY_SIZE, "an unknown day");
}

/* It, or one that signed it, is out of its dates. */
static int refuse_dates(struct peer *p, unsigned int status, struct err *err)
{
	time_t now = time(NULL);
	time_t from = gnutls_x509_crt_get_activation_time(p->crt);
	time_t until = gnutls_x509_crt_get_expiration_time(p->crt);
	char day[TLS_DAY_SIZE];

	p->alert = GNUTLS_A_CERTIFICATE_EXPIRED;
	if (until < now) {
		tls_show_day(until, day);
		return err_set(err, -EKEYEXPIRED, "the certificate of the %s expired on %s",
			       p->role, day);
	}
	if (from > now) {
		tls_show_day(from, day);
		return err_set(err, -EKEYREJECTED,
			       "the certificate of the %s is not valid before %s (are the clocks "
			       "right?)",
			       p->role, day);
	}
	return err_set(err, -EKEYEXPIRED, "a certificate that signed that of the %s %s", p->role,
		       status & GNUTLS_CERT_EXPIRED ? "has expired" : "is not valid yet");
}

static int refuse_chain(struct peer *p, unsigned int status, struct err *err)
{
	gnutls_datum_t text = {0};

	/* What nobody we trust has signed may say of itself what it likes: this comes first. */
	if (status & (GNUTLS_CERT_SIGNER_NOT_FOUND | GNUTLS_CERT_SIGNATURE_FAILURE)) {
		p->alert = GNUTLS_A_UNKNOWN_CA;
		return err_set(err, -EKEYREJECTED,
			       "the certificate of the %s is signed by nobody in \"%s\"", p->role,
			       p->ctx->cafile);
	}
	if (status & (GNUTLS_CERT_SIGNER_NOT_CA | GNUTLS_CERT_SIGNER_CONSTRAINTS_FAILURE)) {
		p->alert = GNUTLS_A_UNKNOWN_CA;
		return err_set(err, -EKEYREJECTED,
			       "the certificate of the %s is signed by one that may not sign it",
			       p->role);
	}
	if (status & GNUTLS_CERT_REVOKED) {
		p->alert = GNUTLS_A_CERTIFICATE_REVOKED;
		return err_set(err, -EKEYREVOKED, "the certificate of the %s was revoked", p->role);
	}
	if (status & (GNUTLS_CERT_EXPIRED | GNUTLS_CERT_NOT_ACTIVATED))
		return refuse_dates(p, status, err);
	if (status & GNUTLS_CERT_PURPOSE_MISMATCH) {
		p->alert = GNUTLS_A_UNSUPPORTED_CERTIFICATE;
		return err_set(err, -EKEYREJECTED,
			       "the certificate of the %s is not made for %s authentication",
			       p->role, p->ctx->side == TLS_AGENT ? "server" : "client");
	}
	p->alert = GNUTLS_A_BAD_CERTIFICATE;
	if (status & GNUTLS_CERT_INSECURE_ALGORITHM)
		return err_set(
			err, -EKEYREJECTED,
			"the certificate of the %s has a key or a signature that is too weak",
			p->role);
	gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0);
	err_set(err, -EKEYREJECTED, "the certificate of the %s cannot be trusted: %s", p->role,
		text.data ? (const char *)text.data : "no reason given");
	gnutls_free(text.data);
	return -EKEYREJECTED;
}

static int check_name(struct peer *p, const char *wanted, struct err *err)
{
	char names[TLS_NAMES_SHOWN];

	if (tls_names_have_host(p->crt, wanted))
		return 0;
	p->alert = GNUTLS_A_BAD_CERTIFICATE;
	tls_names_list(p->crt, names);
	if (!names[0])
		return err_set(err, -EKEYREJECTED,
			       "the certificate of the %s carries no host name and no address, so "
			       "it is not for %s",
			       p->role, wanted);
	return err_set(err, -EKEYREJECTED, "the certificate of the %s is for %s, not for %s",
		       p->role, names, wanted);
}

/* A collector may go by an address alone, and that is its identity then. */
static int take_identity(struct peer *p, const char *server_name,
			 char identity[TLS_IDENTITY_MAX + 1], struct err *err)
{
	if (tls_names_identity(p->crt, server_name, identity))
		return 0;
	p->alert = GNUTLS_A_BAD_CERTIFICATE;
	return err_set(err, -EKEYREJECTED,
		       "the certificate of the %s names nobody: it needs a URI or a DNS name as "
		       "subject alternative name",
		       p->role);
}

nsec_t tls_crt_expires(gnutls_x509_crt_t crt)
{
	time_t until = gnutls_x509_crt_get_expiration_time(crt);

	/* There is a date for "never", and it is beyond what nanoseconds count up to. */
	if (until < 0 || (nsec_t)until >= UINT64_MAX / NSEC_PER_SEC)
		return UINT64_MAX;
	return (nsec_t)until * NSEC_PER_SEC;
}

static int import(const gnutls_datum_t *der, gnutls_x509_crt_t *ret)
{
	int r = gnutls_x509_crt_init(ret);

	return r < 0 ? r : gnutls_x509_crt_import(*ret, der, GNUTLS_X509_FMT_DER);
}

int tls_peer_crt(gnutls_session_t session, gnutls_x509_crt_t *ret)
{
	unsigned int count = 0;
	const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &count);

	return chain && count ? import(&chain[0], ret) : GNUTLS_E_NO_CERTIFICATE_FOUND;
}

/*
 * Those that have expired already and did no harm are no part of the chain that was
 * verified: an old root that is sent along, say.
 */
static nsec_t chain_expires(const gnutls_datum_t *chain, unsigned int count)
{
	nsec_t now = clock_realtime(), first = UINT64_MAX;

	for (unsigned int i = 0; i < count; i++) {
		_cleanup_(tls_crt_done) gnutls_x509_crt_t crt = NULL;
		nsec_t expires;

		if (import(&chain[i], &crt) < 0)
			continue;
		expires = tls_crt_expires(crt);
		if (expires > now)
			first = MIN(first, expires);
	}
	return first;
}

/* GnuTLS looks for names on the list, and not at its date. */
static int check_crl_date(struct peer *p, struct err *err)
{
	char day[TLS_DAY_SIZE];

	if (!p->ctx->crl_until || p->ctx->crl_until >= time(NULL))
		return 0;
	tls_show_day(p->ctx->crl_until, day);
	p->alert = GNUTLS_A_CERTIFICATE_UNKNOWN;
	return err_set(err, -EKEYREJECTED,
		       "whether the certificate of the %s was revoked is not known: the list in "
		       "\"%s\" is out of date, the next one was to come by %s",
		       p->role, p->ctx->crlfile, day);
}

int tls_verify_peer(const struct tls_context *ctx, gnutls_session_t session,
		    const char *server_name, struct tls_peer *ret, struct err *err)
{
	_cleanup_(tls_crt_done) gnutls_x509_crt_t crt = NULL;
	struct peer p = {.ctx = ctx, .role = tls_peer_role(ctx), .alert = GNUTLS_A_BAD_CERTIFICATE};
	gnutls_typed_vdata_st purpose = {
		.type = GNUTLS_DT_KEY_PURPOSE_OID,
		.data = ctx->side == TLS_AGENT ? server_purpose : client_purpose,
	};
	const gnutls_datum_t *chain;
	unsigned int count = 0, status = 0;
	int r;

	ret->alert = p.alert;
	chain = gnutls_certificate_get_peers(session, &count);
	if (!chain || !count) {
		ret->alert = GNUTLS_A_CERTIFICATE_REQUIRED;
		return err_set(err, -EKEYREJECTED, "the %s sent no certificate", p.role);
	}
	r = import(&chain[0], &crt);
	p.crt = crt;
	if (r >= 0)
		r = gnutls_certificate_verify_peers(session, &purpose, 1, &status);
	if (r < 0)
		return err_set(err, -EKEYREJECTED, "the certificate of the %s cannot be read: %s",
			       p.role, gnutls_strerror(r));

	r = status ? refuse_chain(&p, status, err) : check_crl_date(&p, err);
	if (!r && ctx->side == TLS_AGENT)
		r = check_name(&p, server_name, err);
	r = r ? r : take_identity(&p, server_name, ret->identity, err);
	ret->alert = p.alert;
	ret->expires = r ? 0 : chain_expires(chain, count);
	return r;
}

nsec_t tls_expires(const struct tls *t)
{
	return MIN(t->ctx->expires, t->peer.expires);
}

int tls_recheck(struct tls *t, const struct tls_context *now, struct err *err)
{
	const struct tls_context *then = t->ctx;
	const char *role = tls_peer_role(then);
	struct tls_peer peer;
	int r;

	if (!t->established)
		return err_set(err, -ENOTCONN, "the connection to the %s is not set up yet", role);
	if (now->enable != then->enable || now->use_psk != then->use_psk)
		return err_set(err, -EKEYREJECTED,
			       "the stream of the %s is not secured as it has to be now", role);
	if (!t->session)
		return 0;
	if (now->use_psk) {
		if (gnutls_memcmp(now->psk_key, then->psk_key, sizeof(now->psk_key)))
			return err_set(err, -EKEYREJECTED, "the %s has another auth.key", role);
		return 0;
	}
	/* GnuTLS judges by the credentials of the session, so it gets the others for a moment. */
	r = gnutls_credentials_set(t->session, GNUTLS_CRD_CERTIFICATE, now->cert);
	if (r < 0)
		return tls_out_of_memory(err);
	r = tls_verify_peer(now, t->session, t->server_name, &peer, err);
	gnutls_credentials_set(t->session, GNUTLS_CRD_CERTIFICATE, then->cert);
	return r;
}
