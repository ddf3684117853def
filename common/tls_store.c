/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credentials that follow their files. tls_store_new() loads a first context, so there is
 * always one; tls_store_refresh() loads another and puts it in the place of the former,
 * which goes with its last session. A refresh that fails changes nothing.
 *
 * What counts as a change is the content (the context has a digest of it); the stat(2) of
 * the files only says when to look. It does not always say: who writes a file twice within
 * one tick of the clock leaves no trace of the second time. So as long as a file is
 * younger than that, it is loaded again the next time; and so is what could not be loaded,
 * because half of it may have been from before the change.
 *
 * Any thread may call: `lock` is for the context alone and held for a moment; one thread
 * at a time refreshes, under `refreshing`.
 */
#include "tls_store.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "tls_internal.h"
#include "util.h"

#define RETRIES 3
/* How coarse the time stamps of a file system may be. */
#define TICK (2 * NSEC_PER_SEC)

enum { CERT, KEY, CA, CRL, FILES, PSK = FILES, STRINGS };

struct stamp {
	uint64_t error; /* of stat(2); then the rest is 0 */
	uint64_t device, inode, size;
	nsec_t modified, changed;
};

struct tls_store {
	enum tls_side side;
	char *strings[STRINGS];   /* of the configuration; NULL: not set */
	struct tls_config config; /* made of them */

	pthread_mutex_t lock;
	struct tls_context *current;
	atomic_uint_fast64_t generation;

	pthread_mutex_t refreshing;
	struct stamp seen[FILES]; /* before the last load */
	bool settled;             /* it succeeded, and what it read was not young */
};

static nsec_t nsec_of(struct timespec ts)
{
	return (nsec_t)ts.tv_sec * NSEC_PER_SEC + (nsec_t)ts.tv_nsec;
}

static bool has_files(const struct tls_config *config)
{
	return config->enable && !config->psk;
}

static void take_stamps(const struct tls_store *s, struct stamp stamps[FILES])
{
	struct stat st;

	memset(stamps, 0, FILES * sizeof(stamps[0]));
	for (size_t i = 0; has_files(&s->config) && i < FILES; i++) {
		if (!s->strings[i])
			continue;
		if (stat(s->strings[i], &st) < 0) {
			stamps[i].error = (uint64_t)errno;
			continue;
		}
		stamps[i].device = st.st_dev;
		stamps[i].inode = st.st_ino;
		stamps[i].size = (uint64_t)st.st_size;
		stamps[i].modified = nsec_of(st.st_mtim);
		stamps[i].changed = nsec_of(st.st_ctim);
	}
}

static bool same_stamps(const struct stamp a[FILES], const struct stamp b[FILES])
{
	return !memcmp(a, b, FILES * sizeof(a[0]));
}

static bool is_young(const struct stamp stamps[FILES])
{
	nsec_t now = clock_realtime();

	for (size_t i = 0; i < FILES; i++) {
		nsec_t changed = stamps[i].changed;

		if (changed && (changed > now ? changed - now : now - changed) < TICK)
			return true;
	}
	return false;
}

/* A context of files that did not change while they were read, unless they always do. */
static int load(struct tls_store *s, struct tls_context **ret, struct err *err)
{
	struct tls_context *ctx;
	struct stamp after[FILES];
	int r;

	for (int i = 0;; i++) {
		ctx = NULL;
		take_stamps(s, s->seen);
		r = tls_context_new(s->side, &s->config, &ctx, err);
		take_stamps(s, after);
		if (same_stamps(s->seen, after) || i == RETRIES)
			break;
		tls_context_free(ctx);
	}
	s->settled = !r && !is_young(s->seen);
	if (!r)
		*ret = ctx;
	return r;
}

static int copy_config(struct tls_store *s, const struct tls_config *from)
{
	const char *const strings[STRINGS] = {
		[CERT] = from->certfile, [KEY] = from->keyfile, [CA] = from->cafile,
		[CRL] = from->crlfile,   [PSK] = from->psk,
	};

	for (size_t i = 0; i < STRINGS; i++) {
		s->strings[i] = strings[i] ? strdup(strings[i]) : NULL;
		if (strings[i] && !s->strings[i])
			return -ENOMEM;
	}
	s->config = (struct tls_config){
		.enable = from->enable,
		.certfile = s->strings[CERT],
		.keyfile = s->strings[KEY],
		.cafile = s->strings[CA],
		.crlfile = s->strings[CRL],
		.psk = s->strings[PSK],
	};
	return 0;
}

int tls_store_new(enum tls_side side, const struct tls_config *config, struct tls_store **ret,
		  struct err *err)
{
	struct tls_store *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return tls_out_of_memory(err);
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->refreshing, NULL);
	s->side = side;
	s->generation = 1;
	r = copy_config(s, config) ? tls_out_of_memory(err) : load(s, &s->current, err);
	if (r) {
		tls_store_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct tls_store *tls_store_free(struct tls_store *s)
{
	if (!s)
		return NULL;
	tls_context_free(s->current);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->refreshing);
	if (s->strings[PSK])
		explicit_bzero(s->strings[PSK], strlen(s->strings[PSK]));
	for (size_t i = 0; i < STRINGS; i++)
		free(s->strings[i]);
	free(s);
	return NULL;
}

struct tls_context *tls_store_get(struct tls_store *s)
{
	struct tls_context *ctx;

	pthread_mutex_lock(&s->lock);
	ctx = tls_context_ref(s->current);
	pthread_mutex_unlock(&s->lock);
	return ctx;
}

/* @ctx becomes the store's. */
static void replace(struct tls_store *s, struct tls_context *ctx)
{
	struct tls_context *former;

	pthread_mutex_lock(&s->lock);
	former = s->current;
	s->current = ctx;
	atomic_fetch_add(&s->generation, 1);
	pthread_mutex_unlock(&s->lock);
	tls_context_free(former);
}

static int refresh(struct tls_store *s, bool force, struct err *err)
{
	struct tls_context *ctx = NULL;
	struct stamp now[FILES];
	struct err said;
	bool changed;
	int r;

	take_stamps(s, now);
	changed = force || !same_stamps(now, s->seen);
	if (!changed && s->settled)
		return 0;
	r = load(s, &ctx, &said);
	if (r)
		return changed ? err_set(err, r, "%s", said.text) : 0;
	/* Only refreshes replace it, so it may be read without the lock. */
	if (!force && !memcmp(ctx->digest, s->current->digest, sizeof(ctx->digest))) {
		tls_context_free(ctx);
		return 0;
	}
	replace(s, ctx);
	return 1;
}

int tls_store_refresh(struct tls_store *s, bool force, struct err *err)
{
	int r;

	if (!has_files(&s->config))
		return 0;
	pthread_mutex_lock(&s->refreshing);
	r = refresh(s, force, err);
	pthread_mutex_unlock(&s->refreshing);
	return r;
}

uint64_t tls_store_generation(const struct tls_store *s)
{
	return atomic_load(&s->generation);
}
