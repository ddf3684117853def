/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What went wrong, in the words of the one who has to mend it. A peer's refusal comes as
 * an alert, a number that says what the peer thinks of us; the same number means one
 * thing with certificates and another with the shared key. Our own refusals come as
 * GnuTLS errors, and for each there is an alert that lets the peer log a clear line too.
 *
 * Nothing here changes a session. GnuTLS turns some errors of the socket into its own,
 * so what the transport met (struct tls: eof, io_errno, not_tls) counts before them.
 */
#include "tls.h"

#include <errno.h>

#include "tls_internal.h"
#include "util.h"

const char *tls_peer_role(const struct tls_context *ctx)
{
	return ctx->side == TLS_AGENT ? "collector" : "agent";
}

#define NOTHING_FITS "accepts nothing that we offer: it has no TLS 1.3, or "

/* After "the agent" or "the collector". Texts for the shared key where they differ. */
static const struct {
	gnutls_alert_description_t alert;
	const char *with_cert, *with_psk;
} alerts[] = {
	{GNUTLS_A_UNKNOWN_CA, "refused our certificate: signed by nobody in its tls.cafile", NULL},
	{GNUTLS_A_BAD_CERTIFICATE,
	 "refused our certificate: damaged, or not for the name that was asked for", NULL},
	{GNUTLS_A_UNSUPPORTED_CERTIFICATE,
	 "refused our certificate: not made for this purpose (server certificates are for "
	 "collectors, client certificates for agents)",
	 NULL},
	{GNUTLS_A_CERTIFICATE_EXPIRED, "refused our certificate: expired or not yet valid there",
	 NULL},
	{GNUTLS_A_CERTIFICATE_REVOKED, "refused our certificate: revoked", NULL},
	{GNUTLS_A_CERTIFICATE_UNKNOWN,
	 "refused our certificate: cannot tell whether it is good, see its log", NULL},
	{GNUTLS_A_ACCESS_DENIED, "refused our certificate: access denied", NULL},
	{GNUTLS_A_CERTIFICATE_REQUIRED, "wants a certificate and got none from us", NULL},
	{GNUTLS_A_DECRYPT_ERROR,
	 "could not check our signature: does tls.keyfile belong to tls.certfile?",
	 "has another auth.key"},
	{GNUTLS_A_ILLEGAL_PARAMETER, NULL, "has another auth.key"},
	{GNUTLS_A_UNKNOWN_PSK_IDENTITY, NULL, "does not know our kind of auth.key"},
	{GNUTLS_A_HANDSHAKE_FAILURE, NOTHING_FITS "wants auth.key where we have a certificate?",
	 NOTHING_FITS "wants a certificate where we have auth.key?"},
	{GNUTLS_A_MISSING_EXTENSION, NOTHING_FITS "wants auth.key where we have a certificate?",
	 NOTHING_FITS "wants a certificate where we have auth.key?"},
	{GNUTLS_A_PROTOCOL_VERSION, "does not speak TLS 1.3", NULL},
	{GNUTLS_A_NO_APPLICATION_PROTOCOL,
	 "speaks TLS but not " TLS_ALPN ": not ours, or another version", NULL},
	{GNUTLS_A_UNEXPECTED_MESSAGE, "did not expect what we sent: does it speak TLS?", NULL},
};

/* The peer sent @alert instead of going on: what that means for this side. */
static int alert_error(const struct tls_context *ctx, gnutls_alert_description_t alert,
		       struct err *err)
{
	const char *role = tls_peer_role(ctx);
	const char *name = gnutls_alert_get_name(alert);

	for (size_t i = 0; i < ARRAY_SIZE(alerts); i++) {
		const char *text = alerts[i].with_cert;

		if (alerts[i].alert != alert)
			continue;
		if (ctx->use_psk && alerts[i].with_psk)
			text = alerts[i].with_psk;
		if (text)
			return err_set(err, -EACCES, "the %s %s", role, text);
	}
	return err_set(err, -EACCES, "the %s refused the connection: %s (TLS alert %u)", role,
		       name ? name : "unknown", (unsigned int)alert);
}

bool tls_is_alert(int r)
{
	return r == GNUTLS_E_FATAL_ALERT_RECEIVED || r == GNUTLS_E_WARNING_ALERT_RECEIVED;
}

int tls_handshake_error(struct tls *t, int r, int *ret_alert, struct err *err)
{
	const char *role = tls_peer_role(t->ctx);
	int level;

	*ret_alert = -1;
	if (tls_is_alert(r))
		return alert_error(t->ctx, gnutls_alert_get(t->session), err);
	if (t->not_tls) {
		*ret_alert = GNUTLS_A_UNEXPECTED_MESSAGE;
		return err_set(err, -EPROTO, "the %s does not speak TLS (tls.enable: false there?)",
			       role);
	}
	if (t->eof)
		return err_set(err, -ECONNRESET,
			       "the %s closed the connection during the TLS handshake", role);
	if (t->io_errno)
		return err_sys(err, -t->io_errno, "the TLS handshake with the %s was cut off",
			       role);

	*ret_alert = gnutls_error_to_alert(r, &level);
	if (t->verdict) {
		*ret_alert = t->peer.alert;
		return t->verdict;
	}
	/* A TLS 1.2 hello to a collector: the version counts as agreed, and then no cipher fits. */
	if (r == GNUTLS_E_NO_CIPHER_SUITES &&
	    gnutls_protocol_get_version(t->session) < GNUTLS_TLS1_3) {
		*ret_alert = GNUTLS_A_PROTOCOL_VERSION;
		r = GNUTLS_E_UNSUPPORTED_VERSION_PACKET;
	}
	switch (r) {
	case GNUTLS_E_MEMORY_ERROR:
		return err_sys(err, -ENOMEM, "the TLS handshake with the %s failed", role);
	case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
		return err_set(err, -EPROTO, "the %s does not speak TLS 1.3", role);
	case GNUTLS_E_CERTIFICATE_REQUIRED:
	case GNUTLS_E_NO_CERTIFICATE_FOUND:
		*ret_alert = GNUTLS_A_CERTIFICATE_REQUIRED;
		return err_set(err, -EKEYREJECTED, "the %s sent no certificate", role);
	case GNUTLS_E_NO_APPLICATION_PROTOCOL:
		return err_set(err, -EPROTO, "the %s speaks TLS but not " TLS_ALPN, role);
	case GNUTLS_E_NO_CIPHER_SUITES:
	case GNUTLS_E_NO_COMMON_KEY_SHARE:
	case GNUTLS_E_MISSING_EXTENSION:
	case GNUTLS_E_INSUFFICIENT_CREDENTIALS:
		return err_set(err, -EPROTO,
			       "the %s %s: one side has auth.key, the other certificates?", role,
			       t->ctx->side == TLS_AGENT ? "accepts nothing that we offer"
							 : "offers nothing that we accept");
	case GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER:
		/* So GnuTLS puts a binder that does not fit; RFC 8446, 6.2 has a better alert. */
		if (!t->ctx->psk_server)
			break;
		*ret_alert = GNUTLS_A_DECRYPT_ERROR;
		return err_set(err, -EKEYREJECTED, "the %s has another auth.key", role);
	default:
		break;
	}
	return err_set(err, -EPROTO, "the TLS handshake with the %s failed: %s", role,
		       gnutls_strerror(r));
}

int tls_record_error(struct tls *t, int r, struct err *err)
{
	const char *role = tls_peer_role(t->ctx);

	if (tls_is_alert(r))
		return alert_error(t->ctx, gnutls_alert_get(t->session), err);
	if (t->eof)
		return err_set(err, -ECONNRESET,
			       "the %s closed the connection without a goodbye (was it killed?)",
			       role);
	if (t->io_errno)
		return err_sys(err, -t->io_errno, "the connection to the %s failed", role);
	return err_set(err, -EPROTO, "the TLS connection to the %s failed: %s", role,
		       gnutls_strerror(r));
}
