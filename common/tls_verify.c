/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether the peer is who it should be.
 *
 * GnuTLS checks the chain, the dates and the purpose: without the purpose a collector's
 * certificate would do as an agent's. The name is checked here, because GnuTLS would
 * take the common name when a certificate carries no other, and because the sentence
 * must say which names the certificate does carry. A certificate that is refused is
 * answered with the alert that says why, so that both sides can log a clear line.
 *
 * Everything here runs on the thread of the session and keeps no state.
 */
#include "tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "tls_internal.h"
#include "util.h"

#define NAMES_SHOWN 256 /* bytes of a certificate's names in a sentence */

/* GnuTLS wants these writable. */
static unsigned char server_purpose[] = GNUTLS_KP_TLS_WWW_SERVER;
static unsigned char client_purpose[] = GNUTLS_KP_TLS_WWW_CLIENT;

struct peer {
	const struct tls_context *ctx;
	const char *role;
	gnutls_x509_crt_t crt;
	gnutls_alert_description_t alert;
};

static void crt_done(gnutls_x509_crt_t *crt)
{
	if (*crt)
		gnutls_x509_crt_deinit(*crt);
}

static void format_day(time_t when, char out[32])
{
	struct tm tm;

	if (!gmtime_r(&when, &tm) || !strftime(out, 32, "%Y-%m-%d", &tm))
		snprintf(out, 32, "an unknown day");
}

/* It, or one that signed it, is out of its dates. */
static int refuse_dates(struct peer *p, unsigned int status, struct err *err)
{
	time_t now = time(NULL);
	time_t from = gnutls_x509_crt_get_activation_time(p->crt);
	time_t until = gnutls_x509_crt_get_expiration_time(p->crt);
	char day[32];

	p->alert = GNUTLS_A_CERTIFICATE_EXPIRED;
	if (until < now) {
		format_day(until, day);
		return err_set(err, -EKEYEXPIRED, "the certificate of the %s expired on %s",
			       p->role, day);
	}
	if (from > now) {
		format_day(from, day);
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

/*
 * Name number @i of the certificate as text in @out: its type (GNUTLS_SAN_...), 0 when it
 * is of no use here, < 0 after the last one.
 */
static int get_name(gnutls_x509_crt_t crt, unsigned int i, char *out, size_t size)
{
	unsigned char raw[TLS_IDENTITY_MAX + 1];
	size_t n = sizeof(raw);
	int type;

	type = gnutls_x509_crt_get_subject_alt_name(crt, i, raw, &n, NULL);
	if (type == GNUTLS_E_SHORT_MEMORY_BUFFER)
		return 0;
	if (type == GNUTLS_SAN_IPADDRESS && (n == 4 || n == 16))
		return inet_ntop(n == 4 ? AF_INET : AF_INET6, raw, out, (socklen_t)size) ? type : 0;
	if ((type != GNUTLS_SAN_DNSNAME && type != GNUTLS_SAN_URI) || !n || n >= size)
		return type < 0 ? type : 0;
	/* A name with a NUL or a line break in it means to deceive somebody. */
	for (size_t k = 0; k < n; k++)
		if (raw[k] <= ' ' || raw[k] >= 0x7f)
			return 0;
	memcpy(out, raw, n);
	out[n] = '\0';
	return type;
}

/* "a.example, 192.0.2.1": the names that a client could ask for. */
static void list_names(gnutls_x509_crt_t crt, char out[NAMES_SHOWN])
{
	char name[TLS_IDENTITY_MAX + 1];
	size_t len = 0;
	int type;

	out[0] = '\0';
	for (unsigned int i = 0; (type = get_name(crt, i, name, sizeof(name))) >= 0; i++) {
		if (type != GNUTLS_SAN_DNSNAME && type != GNUTLS_SAN_IPADDRESS)
			continue;
		if (len + strlen(name) + sizeof(", ...") >= NAMES_SHOWN) {
			snprintf(out + len, NAMES_SHOWN - len, ", ...");
			return;
		}
		len += (size_t)snprintf(out + len, NAMES_SHOWN - len, "%s%s", len ? ", " : "",
					name);
	}
}

static bool has_dns_name(gnutls_x509_crt_t crt)
{
	char name[TLS_IDENTITY_MAX + 1];
	int type;

	for (unsigned int i = 0; (type = get_name(crt, i, name, sizeof(name))) >= 0; i++)
		if (type == GNUTLS_SAN_DNSNAME)
			return true;
	return false;
}

static bool matches_name(gnutls_x509_crt_t crt, const char *wanted)
{
	unsigned char addr[16];

	if (inet_pton(AF_INET, wanted, addr) == 1)
		return gnutls_x509_crt_check_ip(crt, addr, 4, 0);
	if (inet_pton(AF_INET6, wanted, addr) == 1)
		return gnutls_x509_crt_check_ip(crt, addr, 16, 0);
	/* Without this GnuTLS would go by the common name. */
	return has_dns_name(crt) &&
	       gnutls_x509_crt_check_hostname2(crt, wanted, GNUTLS_VERIFY_DO_NOT_ALLOW_IP_MATCHES);
}

static int check_name(struct peer *p, const char *wanted, struct err *err)
{
	char names[NAMES_SHOWN];

	if (matches_name(p->crt, wanted))
		return 0;
	p->alert = GNUTLS_A_BAD_CERTIFICATE;
	list_names(p->crt, names);
	if (!names[0])
		return err_set(err, -EKEYREJECTED,
			       "the certificate of the %s carries no host name and no address, so "
			       "it is not for %s",
			       p->role, wanted);
	return err_set(err, -EKEYREJECTED, "the certificate of the %s is for %s, not for %s",
		       p->role, names, wanted);
}

/*
 * The first URI, else the first DNS name. Never the common name, which CAs do not
 * check. A collector may go by an address alone, and that is its identity then.
 */
static int take_identity(struct peer *p, const char *server_name,
			 char identity[TLS_IDENTITY_MAX + 1], struct err *err)
{
	char name[TLS_IDENTITY_MAX + 1];
	int type;

	identity[0] = '\0';
	for (unsigned int i = 0; (type = get_name(p->crt, i, name, sizeof(name))) >= 0; i++) {
		if (type == GNUTLS_SAN_URI || (type == GNUTLS_SAN_DNSNAME && !identity[0]))
			snprintf(identity, TLS_IDENTITY_MAX + 1, "%s", name);
		if (type == GNUTLS_SAN_URI)
			return 0;
	}
	if (!identity[0] && server_name)
		snprintf(identity, TLS_IDENTITY_MAX + 1, "%s", server_name);
	if (identity[0])
		return 0;
	p->alert = GNUTLS_A_BAD_CERTIFICATE;
	return err_set(err, -EKEYREJECTED,
		       "the certificate of the %s names nobody: it needs a URI or a DNS name as "
		       "subject alternative name",
		       p->role);
}

int tls_verify_peer(const struct tls_context *ctx, gnutls_session_t session,
		    const char *server_name, char identity[TLS_IDENTITY_MAX + 1],
		    gnutls_alert_description_t *ret_alert, struct err *err)
{
	_cleanup_(crt_done) gnutls_x509_crt_t crt = NULL;
	struct peer p = {.ctx = ctx, .role = tls_peer_role(ctx)};
	gnutls_typed_vdata_st purpose = {
		.type = GNUTLS_DT_KEY_PURPOSE_OID,
		.data = ctx->side == TLS_AGENT ? server_purpose : client_purpose,
	};
	const gnutls_datum_t *chain;
	unsigned int count = 0, status = 0;
	int r;

	*ret_alert = GNUTLS_A_BAD_CERTIFICATE;
	chain = gnutls_certificate_get_peers(session, &count);
	if (!chain || !count) {
		*ret_alert = GNUTLS_A_CERTIFICATE_REQUIRED;
		return err_set(err, -EKEYREJECTED, "the %s sent no certificate", p.role);
	}
	r = gnutls_x509_crt_init(&crt);
	if (r >= 0)
		r = gnutls_x509_crt_import(crt, &chain[0], GNUTLS_X509_FMT_DER);
	p.crt = crt;
	if (r >= 0)
		r = gnutls_certificate_verify_peers(session, &purpose, 1, &status);
	if (r < 0)
		return err_set(err, -EKEYREJECTED, "the certificate of the %s cannot be read: %s",
			       p.role, gnutls_strerror(r));

	r = status ? refuse_chain(&p, status, err) : 0;
	if (!r && ctx->side == TLS_AGENT)
		r = check_name(&p, server_name, err);
	r = r ? r : take_identity(&p, server_name, identity, err);
	*ret_alert = p.alert;
	return r;
}
