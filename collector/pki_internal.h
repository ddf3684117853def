/* SPDX-License-Identifier: Apache-2.0 */
/* What pki.c (certificates) and pki_files.c (their files) share. */
#ifndef PS_COLLECTOR_PKI_INTERNAL_H
#define PS_COLLECTOR_PKI_INTERNAL_H

#include <gnutls/x509.h>
#include <stddef.h>

#include "err.h"

#define PKI_NAME_MAX 271 /* "agent-", a host name, ".crt", and some */

struct pki_pair {
	char name[PKI_NAME_MAX + 1]; /* of the files, before .crt and .key */
	gnutls_x509_crt_t crt;
	gnutls_x509_privkey_t key;
	gnutls_datum_t crt_pem, key_pem;
};

void pki_pair_done(struct pki_pair *p);

/*
 * Write the files of all pairs to the directory @dir, open as @dir_fd: all, or none. None
 * may be there yet (-EEXIST).
 */
int pki_write(const char *dir, int dir_fd, const struct pki_pair *pairs, size_t n, struct err *err);

/* Read NAME.crt and NAME.key, of an authority that is good to sign with. */
int pki_load(const char *dir, int dir_fd, const char *name, struct pki_pair *ret, struct err *err);

#endif
