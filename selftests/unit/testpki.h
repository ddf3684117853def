/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates for tests, good ones and bad ones, as PEM files in a folder of their own. */
#ifndef PS_TESTPKI_H
#define PS_TESTPKI_H

#include <arpa/inet.h>
#include <dirent.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define TESTPKI_PATH 64
#define TESTPKI_DAY  (24 * 3600)

struct testpki_ca {
	gnutls_x509_crt_t crt;
	gnutls_x509_privkey_t key;
};

struct testpki_leaf {
	const char *dns, *ip, *uri; /* NULL: none */
	const char *cn;             /* NULL: "test" */
	const char *purpose;        /* GNUTLS_KP_...; NULL: no extension */
	time_t from, until;         /* relative to now; 0, 0: valid */
};

#define testpki_must(call)                                                   \
	do {                                                                 \
		int must_r_ = (call);                                        \
		if (must_r_ < 0)                                             \
			fail_msg("%s: %s", #call, gnutls_strerror(must_r_)); \
	} while (0)

static char testpki_dir[TESTPKI_PATH];

static inline const char *testpki_path(const char *name, const char *suffix)
{
	static char paths[8][TESTPKI_PATH + 512];
	static unsigned int next;
	char *path = paths[next++ % 8];

	snprintf(path, sizeof(paths[0]), "%s/%s%s", testpki_dir, name, suffix);
	return path;
}

static inline void testpki_write(const char *name, const char *suffix, const void *data,
				 size_t size)
{
	FILE *f = fopen(testpki_path(name, suffix), "we");

	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, size, f), size);
	assert_int_equal(fclose(f), 0);
}

static inline void testpki_open(void)
{
	snprintf(testpki_dir, sizeof(testpki_dir), "/tmp/ps-test-XXXXXX");
	assert_non_null(mkdtemp(testpki_dir));
}

static inline void testpki_remove(void)
{
	DIR *dir = opendir(testpki_dir);
	struct dirent *e;

	assert_non_null(dir);
	while ((e = readdir(dir)))
		if (e->d_name[0] != '.')
			unlink(testpki_path(e->d_name, ""));
	closedir(dir);
	rmdir(testpki_dir);
}

static inline gnutls_x509_privkey_t testpki_key(void)
{
	gnutls_x509_privkey_t key;

	testpki_must(gnutls_x509_privkey_init(&key));
	testpki_must(gnutls_x509_privkey_generate(
		key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0));
	return key;
}

static inline gnutls_x509_crt_t testpki_crt(const char *cn, gnutls_x509_privkey_t key, time_t from,
					    time_t until)
{
	static unsigned char serial = 1;
	gnutls_x509_crt_t crt;

	testpki_must(gnutls_x509_crt_init(&crt));
	testpki_must(gnutls_x509_crt_set_version(crt, 3));
	testpki_must(gnutls_x509_crt_set_serial(crt, &serial, 1));
	serial++;
	testpki_must(gnutls_x509_crt_set_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, cn,
						   (unsigned int)strlen(cn)));
	testpki_must(gnutls_x509_crt_set_activation_time(crt, time(NULL) + from));
	testpki_must(gnutls_x509_crt_set_expiration_time(crt, time(NULL) + until));
	testpki_must(gnutls_x509_crt_set_key(crt, key));
	return crt;
}

static inline void testpki_write_crt(const char *name, gnutls_x509_crt_t crt)
{
	gnutls_datum_t pem;

	testpki_must(gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &pem));
	testpki_write(name, ".crt", pem.data, pem.size);
	gnutls_free(pem.data);
}

static inline void testpki_write_key(const char *name, gnutls_x509_privkey_t key)
{
	gnutls_datum_t pem;

	testpki_must(gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL,
						       GNUTLS_PKCS_PLAIN, &pem));
	testpki_write(name, ".key", pem.data, pem.size);
	gnutls_free(pem.data);
}

/* A CA; its certificate goes to NAME.crt. */
static inline void testpki_ca_new(struct testpki_ca *ca, const char *name, time_t from,
				  time_t until)
{
	ca->key = testpki_key();
	ca->crt = testpki_crt("test CA", ca->key, from, until);
	testpki_must(gnutls_x509_crt_set_basic_constraints(ca->crt, 1, 0));
	testpki_must(gnutls_x509_crt_set_key_usage(ca->crt,
						   GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN));
	testpki_must(gnutls_x509_crt_sign2(ca->crt, ca->crt, ca->key, GNUTLS_DIG_SHA256, 0));
	testpki_write_crt(name, ca->crt);
}

static inline void testpki_ca_free(struct testpki_ca *ca)
{
	gnutls_x509_crt_deinit(ca->crt);
	gnutls_x509_privkey_deinit(ca->key);
}

/* A certificate signed by @ca, in NAME.crt and NAME.key. */
static inline void testpki_issue(const struct testpki_ca *ca, const char *name,
				 const struct testpki_leaf *leaf)
{
	gnutls_x509_privkey_t key = testpki_key();
	time_t from = leaf->from || leaf->until ? leaf->from : -TESTPKI_DAY;
	time_t until = leaf->from || leaf->until ? leaf->until : TESTPKI_DAY;
	gnutls_x509_crt_t crt = testpki_crt(leaf->cn ? leaf->cn : "test", key, from, until);
	unsigned char addr[16];

	testpki_must(gnutls_x509_crt_set_basic_constraints(crt, 0, -1));
	if (leaf->dns)
		testpki_must(gnutls_x509_crt_set_subject_alt_name(
			crt, GNUTLS_SAN_DNSNAME, leaf->dns, (unsigned int)strlen(leaf->dns),
			GNUTLS_FSAN_APPEND));
	if (leaf->ip) {
		int v4 = inet_pton(AF_INET, leaf->ip, addr) == 1;

		assert_true(v4 || inet_pton(AF_INET6, leaf->ip, addr) == 1);
		testpki_must(gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_IPADDRESS, addr,
								  v4 ? 4 : 16, GNUTLS_FSAN_APPEND));
	}
	if (leaf->uri)
		testpki_must(gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_URI, leaf->uri,
								  (unsigned int)strlen(leaf->uri),
								  GNUTLS_FSAN_APPEND));
	if (leaf->purpose)
		testpki_must(gnutls_x509_crt_set_key_purpose_oid(crt, leaf->purpose, 0));
	testpki_must(gnutls_x509_crt_sign2(crt, ca->crt, ca->key, GNUTLS_DIG_SHA256, 0));
	testpki_write_crt(name, crt);
	testpki_write_key(name, key);
	gnutls_x509_crt_deinit(crt);
	gnutls_x509_privkey_deinit(key);
}

/*
 * A list of revoked certificates signed by @ca, in NAME.crl: those in the files of @names.
 * @from and @until are relative to now; @until 0: no date for the next one.
 */
static inline void testpki_crl(const struct testpki_ca *ca, const char *name,
			       const char *const names[], size_t n, time_t from, time_t until)
{
	static unsigned char number = 1;
	gnutls_datum_t pem;
	gnutls_x509_crl_t crl;

	testpki_must(gnutls_x509_crl_init(&crl));
	testpki_must(gnutls_x509_crl_set_version(crl, 2));
	testpki_must(gnutls_x509_crl_set_number(crl, &number, 1));
	number++;
	testpki_must(gnutls_x509_crl_set_this_update(crl, time(NULL) + from));
	if (until)
		testpki_must(gnutls_x509_crl_set_next_update(crl, time(NULL) + until));
	for (size_t i = 0; i < n; i++) {
		gnutls_x509_crt_t crt;

		testpki_must(gnutls_load_file(testpki_path(names[i], ".crt"), &pem));
		testpki_must(gnutls_x509_crt_init(&crt));
		testpki_must(gnutls_x509_crt_import(crt, &pem, GNUTLS_X509_FMT_PEM));
		testpki_must(gnutls_x509_crl_set_crt(crl, crt, time(NULL) - TESTPKI_DAY));
		gnutls_x509_crt_deinit(crt);
		gnutls_free(pem.data);
	}
	testpki_must(gnutls_x509_crl_sign2(crl, ca->crt, ca->key, GNUTLS_DIG_SHA256, 0));
	testpki_must(gnutls_x509_crl_export2(crl, GNUTLS_X509_FMT_PEM, &pem));
	testpki_write(name, ".crl", pem.data, pem.size);
	gnutls_free(pem.data);
	gnutls_x509_crl_deinit(crl);
}

#endif
