/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The names in a certificate: what a client may ask for, who its owner is, and what the
 * owner may call itself. Only subject alternative names count. GnuTLS would go by the
 * common name when a certificate carries no other, and CAs do not check that one.
 *
 * Functions without state; every name passes get_name(), which drops the deceitful ones.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <strings.h>

#include "tls_internal.h"
#include "util.h"

#define ANY_AGENT "urn:ps:agent"

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

void tls_names_list(gnutls_x509_crt_t crt, char out[TLS_NAMES_SHOWN])
{
	char name[TLS_IDENTITY_MAX + 1];
	size_t len = 0;
	int type;

	out[0] = '\0';
	for (unsigned int i = 0; (type = get_name(crt, i, name, sizeof(name))) >= 0; i++) {
		if (type != GNUTLS_SAN_DNSNAME && type != GNUTLS_SAN_IPADDRESS)
			continue;
		if (len + strlen(name) + sizeof(", ...") >= TLS_NAMES_SHOWN) {
			snprintf(out + len, TLS_NAMES_SHOWN - len, ", ...");
			return;
		}
		len += (size_t)snprintf(out + len, TLS_NAMES_SHOWN - len, "%s%s", len ? ", " : "",
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

bool tls_names_have_host(gnutls_x509_crt_t crt, const char *wanted)
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

bool tls_names_identity(gnutls_x509_crt_t crt, const char *fallback,
			char identity[TLS_IDENTITY_MAX + 1])
{
	char name[TLS_IDENTITY_MAX + 1];
	int type;

	identity[0] = '\0';
	for (unsigned int i = 0; (type = get_name(crt, i, name, sizeof(name))) >= 0; i++) {
		if (type == GNUTLS_SAN_URI || (type == GNUTLS_SAN_DNSNAME && !identity[0]))
			snprintf(identity, TLS_IDENTITY_MAX + 1, "%s", name);
		if (type == GNUTLS_SAN_URI)
			return true;
	}
	if (!identity[0] && fallback)
		snprintf(identity, TLS_IDENTITY_MAX + 1, "%s", fallback);
	return identity[0];
}

/* `node-1` and `node-1.example` by the DNS name node-1.example; `a.nodes` by *.nodes. */
static bool dns_allows(const char *dns, const char *name)
{
	size_t label = strcspn(dns, ".");
	const char *dot;

	if (!strcasecmp(dns, name))
		return *dns != '*';
	if (!strncmp(dns, "*.", 2)) {
		dot = strchr(name, '.');
		return dot && dot != name && *name != '*' && !strcasecmp(dot + 1, dns + 2);
	}
	return label == strlen(name) && !strncasecmp(dns, name, label);
}

/* `node-1` by spiffe://corp/ns/node-1 or urn:corp:node-1; query and fragment are no names. */
static bool uri_allows(const char *uri, const char *name)
{
	size_t end = strcspn(uri, "?#"), begin = end;
	char separator = memchr(uri, '/', end) ? '/' : ':';

	if (!strcasecmp(uri, ANY_AGENT))
		return true;
	while (begin && uri[begin - 1] != separator)
		begin--;
	return begin && end - begin == strlen(name) && !strncasecmp(uri + begin, name, end - begin);
}

bool tls_peer_may_be(const struct tls *t, const char *name)
{
	_cleanup_(tls_crt_done) gnutls_x509_crt_t crt = NULL;
	char own[TLS_IDENTITY_MAX + 1];
	int type;

	if (!t->session || !t->established || t->ctx->use_psk)
		return t->established;
	if (!*name || tls_peer_crt(t->session, &crt) < 0)
		return false;
	for (unsigned int i = 0; (type = get_name(crt, i, own, sizeof(own))) >= 0; i++)
		if ((type == GNUTLS_SAN_DNSNAME && dns_allows(own, name)) ||
		    (type == GNUTLS_SAN_URI && uri_allows(own, name)))
			return true;
	return false;
}
