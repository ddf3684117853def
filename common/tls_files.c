/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PEM files of credentials, parsed. They are read here rather than by GnuTLS, whose
 * errors do not tell a missing file from an unreadable one, or the certificate from the
 * key. Functions without state: each call opens its file by name, reads it once and
 * closes it, so a file may be replaced at any time.
 */
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <sys/stat.h>

#include "tls_internal.h"
#include "util.h"

#define FILE_SIZE_MAX (1u << 20)

void tls_certs_done(struct tls_certs *certs)
{
	for (unsigned int i = 0; i < certs->count; i++)
		gnutls_x509_crt_deinit(certs->list[i]);
	gnutls_free(certs->list);
}

void tls_crls_done(struct tls_crls *crls)
{
	for (unsigned int i = 0; i < crls->count; i++)
		gnutls_x509_crl_deinit(crls->list[i]);
	gnutls_free(crls->list);
}

void tls_key_done(gnutls_x509_privkey_t *key)
{
	if (*key)
		gnutls_x509_privkey_deinit(*key);
}

/* Keys pass through here: nothing of a file stays in freed memory. */
static void file_done(gnutls_datum_t *file)
{
	if (file->data)
		gnutls_memset(file->data, 0, file->size);
	free(file->data);
}

int tls_out_of_memory(struct err *err)
{
	return err_sys(err, -ENOMEM, "cannot set up TLS");
}

/* Hash the old value of @digest and what is new. */
static int digest_more(unsigned char digest[TLS_DIGEST_SIZE], const gnutls_datum_t *file)
{
	unsigned char both[2 * TLS_DIGEST_SIZE];
	int r;

	memcpy(both, digest, TLS_DIGEST_SIZE);
	r = gnutls_hash_fast(GNUTLS_DIG_SHA256, file->data, file->size, both + TLS_DIGEST_SIZE);
	if (r >= 0)
		r = gnutls_hash_fast(GNUTLS_DIG_SHA256, both, sizeof(both), digest);
	return r;
}

/* The whole of @path, which configuration key @key names. */
static int load_file(const char *key, const char *path, unsigned char digest[TLS_DIGEST_SIZE],
		     gnutls_datum_t *ret, struct err *err)
{
	_cleanup_close_ int fd = -1;
	struct stat st;
	ssize_t n;

	if (!path || !*path)
		return err_set(err, -EINVAL, "%s: not set, and TLS needs it", key);
	/* Non-blocking: a FIFO of this name must not hold up a daemon that looks again. */
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_sys(err, -errno, "%s: cannot read \"%s\"", key, path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "%s: \"%s\" is not a file", key, path);
	if (st.st_size > FILE_SIZE_MAX)
		return err_set(err, -EFBIG, "%s: \"%s\" is above 1 MiB, too large for this", key,
			       path);

	ret->data = malloc((size_t)st.st_size + 1);
	if (!ret->data)
		return tls_out_of_memory(err);
	while (ret->size < (size_t)st.st_size) {
		n = read(fd, ret->data + ret->size, (size_t)st.st_size - ret->size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, -errno, "%s: cannot read \"%s\"", key, path);
		if (n == 0)
			break;
		ret->size += (unsigned int)n;
	}
	ret->data[ret->size] = '\0';
	return digest_more(digest, ret) < 0 ? tls_out_of_memory(err) : 0;
}

int tls_load_certs(const char *key, const char *path, unsigned char digest[TLS_DIGEST_SIZE],
		   struct tls_certs *ret, struct err *err)
{
	_cleanup_(file_done) gnutls_datum_t file = {0};
	int r;

	r = load_file(key, path, digest, &file, err);
	if (r)
		return r;
	r = gnutls_x509_crt_list_import2(&ret->list, &ret->count, &file, GNUTLS_X509_FMT_PEM, 0);
	if (r == GNUTLS_E_MEMORY_ERROR)
		return tls_out_of_memory(err);
	if (r == GNUTLS_E_NO_CERTIFICATE_FOUND || r == GNUTLS_E_BASE64_UNEXPECTED_HEADER_ERROR ||
	    (r >= 0 && !ret->count))
		return err_set(err, -EINVAL, "%s: there is no PEM certificate in \"%s\"", key,
			       path);
	if (r < 0)
		return err_set(err, -EINVAL, "%s: \"%s\" does not hold good PEM certificates: %s",
			       key, path, gnutls_strerror(r));
	return 0;
}

int tls_load_crls(const char *path, unsigned char digest[TLS_DIGEST_SIZE], struct tls_crls *ret,
		  struct err *err)
{
	_cleanup_(file_done) gnutls_datum_t file = {0};
	int r;

	r = load_file("tls.crlfile", path, digest, &file, err);
	if (r)
		return r;
	r = gnutls_x509_crl_list_import2(&ret->list, &ret->count, &file, GNUTLS_X509_FMT_PEM, 0);
	if (r == GNUTLS_E_MEMORY_ERROR)
		return tls_out_of_memory(err);
	if (r < 0 || !ret->count)
		return err_set(err, -EINVAL,
			       "tls.crlfile: there is no good PEM list of revoked certificates "
			       "(\"X509 CRL\") in \"%s\"",
			       path);
	return 0;
}

int tls_load_key(const char *path, unsigned char digest[TLS_DIGEST_SIZE],
		 gnutls_x509_privkey_t *ret, struct err *err)
{
	_cleanup_(file_done) gnutls_datum_t file = {0};
	int r;

	r = load_file("tls.keyfile", path, digest, &file, err);
	if (r)
		return r;
	if (gnutls_x509_privkey_init(ret) < 0)
		return tls_out_of_memory(err);
	r = gnutls_x509_privkey_import2(*ret, &file, GNUTLS_X509_FMT_PEM, NULL, 0);
	if (r == GNUTLS_E_DECRYPTION_FAILED)
		return err_set(err, -EINVAL,
			       "tls.keyfile: the key in \"%s\" is protected by a password", path);
	if (r < 0)
		return err_set(err, -EINVAL, "tls.keyfile: there is no PEM private key in \"%s\"",
			       path);
	return 0;
}
