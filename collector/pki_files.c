/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificates and keys on disk. Each file is made with O_EXCL, so nothing that exists is
 * ever touched; when a file fails, those written before it are removed. Keys are for the
 * owner alone, from the first moment on.
 */
#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "pki_internal.h"
#include "util.h"

#define FILE_SIZE_MAX (1u << 20)

static void secret_done(gnutls_datum_t *data)
{
	if (data->data)
		gnutls_memset(data->data, 0, data->size);
	gnutls_free(data->data);
}

void pki_pair_done(struct pki_pair *p)
{
	if (p->crt)
		gnutls_x509_crt_deinit(p->crt);
	if (p->key)
		gnutls_x509_privkey_deinit(p->key);
	secret_done(&p->key_pem);
	gnutls_free(p->crt_pem.data);
}

static int write_file(int dir_fd, const char *name, mode_t mode, const gnutls_datum_t *data)
{
	_cleanup_close_ int fd = -1;
	size_t done = 0;
	int r = 0;

	fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	if (fd < 0)
		return -errno;
	while (!r && done < data->size) {
		ssize_t n = write(fd, data->data + done, data->size - done);

		if (n < 0 && errno != EINTR)
			r = -errno;
		done += n > 0 ? (size_t)n : 0;
	}
	if (!r && fsync(fd) < 0)
		r = -errno;
	if (r)
		unlinkat(dir_fd, name, 0);
	return r;
}

/* File number @i of the pairs: certificate, key, certificate, ... */
static void file_name(const struct pki_pair *pairs, size_t i, char out[PKI_NAME_MAX + 1])
{
	snprintf(out, PKI_NAME_MAX + 1, "%.*s.%s", PKI_NAME_MAX - 4, pairs[i / 2].name,
		 i % 2 ? "key" : "crt");
}

int pki_write(const char *dir, int dir_fd, const struct pki_pair *pairs, size_t n, struct err *err)
{
	char name[PKI_NAME_MAX + 1];
	struct stat st;
	size_t i;
	int r = 0;

	/* Look before the first one is written; O_EXCL settles what changes meanwhile. */
	for (i = 0; i < 2 * n; i++) {
		file_name(pairs, i, name);
		if (!fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW))
			return err_set(err, -EEXIST,
				       "\"%s/%s\" exists already; nothing has been written", dir,
				       name);
	}
	for (i = 0; i < 2 * n; i++) {
		const struct pki_pair *p = &pairs[i / 2];

		file_name(pairs, i, name);
		r = i % 2 ? write_file(dir_fd, name, 0600, &p->key_pem)
			  : write_file(dir_fd, name, 0644, &p->crt_pem);
		if (r)
			break;
	}
	if (!r && fsync(dir_fd) < 0)
		r = -errno;
	if (!r)
		return 0;

	err_sys(err, r, "cannot write \"%s/%s\"", dir, name);
	while (i-- > 0) {
		file_name(pairs, i, name);
		unlinkat(dir_fd, name, 0);
	}
	return r;
}

/* For the caller to free, also on failure. */
static int read_file(const char *dir, int dir_fd, const char *name, const char *suffix,
		     gnutls_datum_t *ret, struct err *err)
{
	_cleanup_close_ int fd = -1;
	char file[PKI_NAME_MAX + 1];
	struct stat st;
	ssize_t n;

	snprintf(file, sizeof(file), "%s.%s", name, suffix);
	fd = openat(dir_fd, file, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_sys(err, -errno, "cannot read \"%s/%s\"", dir, file);
	if (!S_ISREG(st.st_mode) || st.st_size > FILE_SIZE_MAX)
		return err_set(err, -EINVAL, "\"%s/%s\" is no PEM file", dir, file);
	ret->data = gnutls_malloc((size_t)st.st_size + 1);
	if (!ret->data)
		return err_sys(err, -ENOMEM, "cannot read \"%s/%s\"", dir, file);
	/* A file of this size comes in one piece; one that shrinks meanwhile will not parse. */
	n = read(fd, ret->data, (size_t)st.st_size);
	if (n < 0)
		return err_sys(err, -errno, "cannot read \"%s/%s\"", dir, file);
	ret->size = (unsigned int)n;
	ret->data[n] = '\0';
	return 0;
}

static bool belong_together(const struct pki_pair *p)
{
	unsigned char of_crt[64], of_key[64];
	size_t crt_size = sizeof(of_crt), key_size = sizeof(of_key);

	return gnutls_x509_crt_get_key_id(p->crt, GNUTLS_KEYID_USE_SHA256, of_crt, &crt_size) >=
		       0 &&
	       gnutls_x509_privkey_get_key_id(p->key, GNUTLS_KEYID_USE_SHA256, of_key, &key_size) >=
		       0 &&
	       crt_size == key_size && !memcmp(of_crt, of_key, crt_size);
}

int pki_load(const char *dir, int dir_fd, const char *name, struct pki_pair *ret, struct err *err)
{
	unsigned int critical;
	int r;

	r = read_file(dir, dir_fd, name, "crt", &ret->crt_pem, err);
	r = r ? r : read_file(dir, dir_fd, name, "key", &ret->key_pem, err);
	if (r)
		return r;
	if (gnutls_x509_crt_init(&ret->crt) < 0 || gnutls_x509_privkey_init(&ret->key) < 0)
		return err_sys(err, -ENOMEM, "cannot read \"%s\"", dir);
	if (gnutls_x509_crt_import(ret->crt, &ret->crt_pem, GNUTLS_X509_FMT_PEM) < 0)
		return err_set(err, -EINVAL, "there is no PEM certificate in \"%s/%s.crt\"", dir,
			       name);
	if (gnutls_x509_privkey_import2(ret->key, &ret->key_pem, GNUTLS_X509_FMT_PEM, NULL, 0) < 0)
		return err_set(err, -EINVAL, "there is no PEM private key in \"%s/%s.key\"", dir,
			       name);
	if (!belong_together(ret))
		return err_set(err, -EINVAL,
			       "the key in \"%s/%s.key\" does not belong to \"%s.crt\"", dir, name,
			       name);
	if (gnutls_x509_crt_get_ca_status(ret->crt, &critical) <= 0)
		return err_set(err, -EINVAL, "the certificate in \"%s/%s.crt\" may not sign others",
			       dir, name);
	if (gnutls_x509_crt_get_expiration_time(ret->crt) < time(NULL))
		return err_set(err, -EKEYEXPIRED, "the certificate in \"%s/%s.crt\" has expired",
			       dir, name);
	return 0;
}
