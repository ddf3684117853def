/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small public key infrastructure in one go: a CA that may sign only end entities, a
 * certificate for collectors and one for agents, told apart by their purpose. Later, with
 * the same CA, certificates for single agents.
 *
 * Everything is made in memory first, then written (pki_files.c). Runs once, instead of
 * the daemon, on the only thread.
 */
#include "pki.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "pki_internal.h"
#include "util.h"

#define DAY_SEC        (24 * 3600)
#define CA_DAYS        3650
#define LEAF_DAYS      730
#define CLOCK_SKEW_SEC 3600 /* the peers' clocks may be behind */
#define SERIAL_SIZE    16
#define DNS_NAME_MAX   253
#define NAMES_MAX      1000

static const char *const always[] = {"localhost", "127.0.0.1", "::1"};

enum { CA, COLLECTOR, AGENT, N_PAIRS, ONE_AGENT = N_PAIRS };

static const struct {
	const char *name; /* of the files */
	const char *cn;
	const char *purpose;
} kinds[] = {
	[CA] = {"ca", "ps CA", NULL},
	[COLLECTOR] = {"collector", "ps-collector", GNUTLS_KP_TLS_WWW_SERVER},
	[AGENT] = {"agent", "ps-agent", GNUTLS_KP_TLS_WWW_CLIENT},
	[ONE_AGENT] = {"agent-", "ps-agent", GNUTLS_KP_TLS_WWW_CLIENT},
};

struct pki {
	struct pki_pair pairs[N_PAIRS];
};

static void pki_done(struct pki *pki)
{
	for (size_t i = 0; i < N_PAIRS; i++)
		pki_pair_done(&pki->pairs[i]);
}

/* A host name as certificates carry it (RFC 1123), perhaps with "*." in front. */
static bool is_dns_name(const char *name)
{
	size_t label = 0;
	const char *c = name;

	if (strlen(name) > DNS_NAME_MAX)
		return false;
	if (!strncmp(name, "*.", 2))
		c += 2;
	for (; *c; c++) {
		if (*c == '.' && label == 0)
			return false;
		if (*c != '.' && !isalnum((unsigned char)*c) && *c != '-' && *c != '_')
			return false;
		label = *c == '.' ? 0 : label + 1;
		if (label > 63)
			return false;
	}
	return label > 0;
}

static int check_names(char *const names[], size_t n_names, struct err *err)
{
	unsigned char addr[16];

	if (n_names > NAMES_MAX)
		return err_set(err, -EINVAL, "more than %d names for one certificate", NAMES_MAX);
	for (size_t i = 0; i < n_names; i++)
		if (inet_pton(AF_INET, names[i], addr) != 1 &&
		    inet_pton(AF_INET6, names[i], addr) != 1 && !is_dns_name(names[i]))
			return err_set(err, -EINVAL,
				       "\"%s\" is neither a host name nor an IP address", names[i]);
	return 0;
}

static int add_name(gnutls_x509_crt_t crt, const char *name)
{
	unsigned char addr[16];

	if (inet_pton(AF_INET, name, addr) == 1)
		return gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_IPADDRESS, addr, 4,
							    GNUTLS_FSAN_APPEND);
	if (inet_pton(AF_INET6, name, addr) == 1)
		return gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_IPADDRESS, addr, 16,
							    GNUTLS_FSAN_APPEND);
	return gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME, name,
						    (unsigned int)strlen(name), GNUTLS_FSAN_APPEND);
}

static bool is_listed(const char *name, char *const names[], size_t n_names)
{
	for (size_t i = 0; i < n_names; i++)
		if (!strcasecmp(name, names[i]))
			return true;
	return false;
}

/* The collector's names: those asked for, then those that it always has, none twice. */
static int add_collector_names(gnutls_x509_crt_t crt, char *const names[], size_t n_names)
{
	int r = 0;

	for (size_t i = 0; i < n_names && r >= 0; i++)
		if (!is_listed(names[i], names, i))
			r = add_name(crt, names[i]);
	for (size_t i = 0; i < ARRAY_SIZE(always) && r >= 0; i++)
		if (!is_listed(always[i], names, n_names))
			r = add_name(crt, always[i]);
	return r;
}

static int add_agent_names(gnutls_x509_crt_t crt)
{
	static const char uri[] = "urn:ps:agent";
	int r;

	r = gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_URI, uri, sizeof(uri) - 1,
						 GNUTLS_FSAN_SET);
	return r < 0 ? r : add_name(crt, "ps-agent");
}

/* Subject, a random serial number, dates and the two key identifiers. */
static int set_common(struct pki_pair *p, struct pki_pair *ca, const char *cn, int days)
{
	unsigned char serial[SERIAL_SIZE], id[64];
	char unique[64];
	time_t now = time(NULL), until = now + (time_t)days * DAY_SEC;
	size_t id_size = sizeof(id);
	int r;

	r = gnutls_rnd(GNUTLS_RND_NONCE, serial, sizeof(serial));
	if (r < 0)
		return r;
	/* Positive, and of the same length whatever the bits. */
	serial[0] = (serial[0] & 0x3f) | 0x40;
	/* None is good for longer than the one that signs it. */
	if (p != ca)
		until = MIN(until, gnutls_x509_crt_get_expiration_time(ca->crt));
	/* Two CAs that are called the same confuse people and path building. */
	if (p == ca)
		snprintf(unique, sizeof(unique), "%s %02x%02x%02x%02x", cn, serial[1], serial[2],
			 serial[3], serial[4]);
	else
		snprintf(unique, sizeof(unique), "%s", cn);

	r = gnutls_x509_crt_set_version(p->crt, 3);
	if (r >= 0)
		r = gnutls_x509_crt_set_serial(p->crt, serial, sizeof(serial));
	if (r >= 0)
		r = gnutls_x509_crt_set_dn_by_oid(p->crt, GNUTLS_OID_X520_COMMON_NAME, 0, unique,
						  (unsigned int)strlen(unique));
	if (r >= 0)
		r = gnutls_x509_crt_set_activation_time(p->crt, now - CLOCK_SKEW_SEC);
	if (r >= 0)
		r = gnutls_x509_crt_set_expiration_time(p->crt, until);
	if (r >= 0)
		r = gnutls_x509_crt_set_key(p->crt, p->key);
	if (r >= 0)
		r = gnutls_x509_crt_get_key_id(p->crt, GNUTLS_KEYID_USE_SHA1, id, &id_size);
	if (r >= 0)
		r = gnutls_x509_crt_set_subject_key_id(p->crt, id, id_size);
	id_size = sizeof(id);
	if (r >= 0)
		r = gnutls_x509_crt_get_key_id(ca->crt, GNUTLS_KEYID_USE_SHA1, id, &id_size);
	if (r >= 0)
		r = gnutls_x509_crt_set_authority_key_id(p->crt, id, id_size);
	return r;
}

/* @ca may be @p itself. */
static int make_pair(struct pki_pair *p, struct pki_pair *ca, int kind, char *const names[],
		     size_t n_names)
{
	unsigned int usage = kind == CA ? GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN
					: GNUTLS_KEY_DIGITAL_SIGNATURE;
	int r;

	snprintf(p->name, sizeof(p->name), "%s%s", kinds[kind].name,
		 kind == ONE_AGENT ? names[0] : "");
	r = gnutls_x509_privkey_init(&p->key);
	if (r >= 0)
		r = gnutls_x509_privkey_generate(p->key, GNUTLS_PK_ECDSA,
						 GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1),
						 0);
	if (r >= 0)
		r = gnutls_x509_crt_init(&p->crt);
	if (r >= 0)
		r = set_common(p, ca, kinds[kind].cn, kind == CA ? CA_DAYS : LEAF_DAYS);
	if (r >= 0)
		r = gnutls_x509_crt_set_basic_constraints(p->crt, kind == CA, kind == CA ? 0 : -1);
	if (r >= 0)
		r = gnutls_x509_crt_set_key_usage(p->crt, usage);
	if (r >= 0 && kinds[kind].purpose)
		r = gnutls_x509_crt_set_key_purpose_oid(p->crt, kinds[kind].purpose, 0);
	if (r >= 0 && kind == COLLECTOR)
		r = add_collector_names(p->crt, names, n_names);
	if (r >= 0 && kind == AGENT)
		r = add_agent_names(p->crt);
	if (r >= 0 && kind == ONE_AGENT)
		r = add_name(p->crt, names[0]);
	if (r >= 0)
		r = gnutls_x509_crt_sign2(p->crt, ca->crt, ca->key, GNUTLS_DIG_SHA256, 0);
	if (r >= 0)
		r = gnutls_x509_crt_export2(p->crt, GNUTLS_X509_FMT_PEM, &p->crt_pem);
	if (r >= 0)
		r = gnutls_x509_privkey_export2_pkcs8(p->key, GNUTLS_X509_FMT_PEM, NULL,
						      GNUTLS_PKCS_PLAIN, &p->key_pem);
	return r;
}

static int cannot_make(const struct pki_pair *p, int r, struct err *err)
{
	return err_set(err, -EIO, "cannot make the certificate %s.crt: %s", p->name,
		       gnutls_strerror(r));
}

int pki_init(const char *dir, char *const names[], size_t n_names, struct err *err)
{
	_cleanup_(pki_done) struct pki pki = {0};
	_cleanup_close_ int dir_fd = -1;
	bool made = false;
	int r;

	r = check_names(names, n_names, err);
	if (r)
		return r;
	for (int kind = 0; kind < N_PAIRS; kind++) {
		r = make_pair(&pki.pairs[kind], &pki.pairs[CA], kind, names, n_names);
		if (r < 0)
			return cannot_make(&pki.pairs[kind], r, err);
	}

	made = !mkdir(dir, 0700);
	if (!made && errno != EEXIST)
		return err_sys(err, -errno, "cannot make the directory \"%s\"", dir);
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0)
		r = err_sys(err, -errno, "cannot open the directory \"%s\"", dir);
	else
		r = pki_write(dir, dir_fd, pki.pairs, N_PAIRS, err);
	if (r && made)
		rmdir(dir);
	return r;
}

int pki_issue_agent(const char *dir, const char *name, struct err *err)
{
	_cleanup_(pki_pair_done) struct pki_pair ca = {0}, agent = {0};
	_cleanup_close_ int dir_fd = -1;
	char copy[DNS_NAME_MAX + 1];
	unsigned char addr[16];
	int r;

	/* What a certificate says for an agent's name must be that name and nothing else. */
	if (!is_dns_name(name) || *name == '*' || inet_pton(AF_INET, name, addr) == 1)
		return err_set(err, -EINVAL,
			       "\"%s\" is no host name, so no certificate can be for it", name);
	snprintf(copy, sizeof(copy), "%s", name);
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir_fd < 0)
		return err_sys(err, -errno, "cannot open the directory \"%s\"", dir);
	r = pki_load(dir, dir_fd, kinds[CA].name, &ca, err);
	if (r)
		return r;
	r = make_pair(&agent, &ca, ONE_AGENT, (char *const[]){copy}, 1);
	return r < 0 ? cannot_make(&agent, r, err) : pki_write(dir, dir_fd, &agent, 1, err);
}
