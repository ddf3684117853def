/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The credentials that new sessions are to use, replaced when their files change. A
 * Kubernetes Secret changes by a rename of a link above them, so the files are looked at by
 * name every time. Thread-safe.
 */
#ifndef PS_TLS_STORE_H
#define PS_TLS_STORE_H

#include "clock.h"
#include "tls.h"

struct tls_store;

/* Loads them; @config is copied. Errors as tls_context_new(). */
int tls_store_new(enum tls_side side, const struct tls_config *config, struct tls_store **ret,
		  struct err *err);
struct tls_store *tls_store_free(struct tls_store *s);

/* The current ones, with a reference for the caller: tls_context_free() it. */
struct tls_context *tls_store_get(struct tls_store *s);

/*
 * Look at the files, and load them again if one of them is another than before (device,
 * inode, size, time of change); with @force in any case. Call it every few seconds.
 * 1: new sessions use what is there now; 0: the content is the same, or there are no files
 * (a shared key, plain text); -errno: what is there cannot be used, the former stays in
 * use. It is tried again with every call, and said again only when the files change again.
 */
int tls_store_refresh(struct tls_store *s, bool force, struct err *err);
/* Rises with every refresh that returned 1, from 1 on. Cheap. */
uint64_t tls_store_generation(const struct tls_store *s);

#endif
