/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spool: its folder and its epochs.
 *
 * Life: spool_open() scans what is there; the epochs of earlier runs come out of
 * spool_oldest() one after the other and are removed when they are sent; spool_begin() adds
 * the one of this run. Any thread may call anything, but an epoch is read and acknowledged by
 * one thread at a time, and is not used after spool_remove().
 *
 * Nothing on the disk says what is acknowledged but the absence of a segment: what an agent
 * sends again after a crash, the collector knows by its numbers.
 */
#include "spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "spool_internal.h"

#define ID_NAME   "agent.id"
#define LOCK_NAME "lock"
#define ID_TEXT   37u /* with the newline */

struct spool_epoch *spool_epoch_new(struct spool *s, uint64_t number)
{
	struct spool_epoch *e = calloc(1, sizeof(*e)), **at = &s->epochs;

	if (!e)
		return NULL;
	e->spool = s;
	e->number = number;
	e->fd = e->reader.fd = e->acker.fd = -1;
	e->first = e->next = 1;
	e->sent = SPOOL_SEQ_MAX;
	while (*at)
		at = &(*at)->newer;
	*at = e;
	return e;
}

void spool_epoch_free(struct spool_epoch *e)
{
	struct spool_epoch **at = &e->spool->epochs;

	while (*at != e)
		at = &(*at)->newer;
	*at = e->newer;
	while (e->n_segments)
		spool_drop_segment(e, e->n_segments - 1);
	if (e->fd >= 0)
		close(e->fd);
	spool_walk_done(&e->reader);
	spool_walk_done(&e->acker);
	stream_hello_free(&e->hello);
	free(e->segments);
	free(e->lost);
	free(e);
}

bool spool_add_segment(struct spool_epoch *e, const struct spool_segment *g)
{
	struct spool_segment *copy;

	if (e->n_segments == e->segments_cap) {
		size_t cap = e->segments_cap ? 2 * e->segments_cap : 16;
		struct spool_segment **v = reallocarray(e->segments, cap, sizeof(*v));

		if (!v)
			return false;
		e->segments = v;
		e->segments_cap = cap;
	}
	copy = malloc(sizeof(*copy));
	if (!copy)
		return false;
	*copy = *g;
	e->segments[e->n_segments++] = copy;
	e->spool->bytes += g->bytes;
	return true;
}

void spool_drop_segment(struct spool_epoch *e, size_t i)
{
	struct spool_segment *g = e->segments[i];

	e->spool->bytes -= g->bytes;
	e->n_segments--;
	memmove(e->segments + i, e->segments + i + 1, (e->n_segments - i) * sizeof(*e->segments));
	free(g);
}

void spool_close_growing(struct spool_epoch *e, bool sync)
{
	if (e->fd < 0)
		return;
	if (sync && fdatasync(e->fd) < 0 && e->sync_error == 0)
		e->sync_error = -errno;
	close(take_fd(&e->fd));
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/* A UUID as text; dashes may be anywhere. */
static bool parse_id(const struct buf *text, uint8_t ret[16])
{
	uint8_t id[16] = {};
	size_t digits = 0;

	for (size_t i = 0; i < text->len && digits < 32; i++) {
		int v = hex_digit((char)text->data[i]);

		if (v < 0 && text->data[i] != '-')
			return false;
		if (v < 0)
			continue;
		id[digits / 2] = (uint8_t)(id[digits / 2] << 4 | v);
		digits++;
	}
	if (digits < 32)
		return false;
	memcpy(ret, id, sizeof(id));
	return true;
}

/* What is there, else put @id there. One that is damaged is none. */
static int agent_id(struct spool *s, uint8_t id[16])
{
	struct buf file = {};
	char text[3];
	int r = spool_read_file(s, ID_NAME, &file, ID_TEXT);

	if (r < 0 && r != -ENOENT) {
		buf_free(&file);
		return r;
	}
	if (r < 0 || !parse_id(&file, id)) {
		buf_reset(&file);
		for (size_t i = 0; i < 16; i++) {
			if (i == 4 || i == 6 || i == 8 || i == 10)
				buf_put_u8(&file, '-');
			snprintf(text, sizeof(text), "%02x", id[i]);
			buf_put(&file, text, 2);
		}
		buf_put_u8(&file, '\n');
		r = spool_write_file(s, ID_NAME, ".", &file);
	}
	memcpy(s->agent_id, id, sizeof(s->agent_id));
	buf_free(&file);
	return r;
}

/* The folder, our own as long as we have the lock. */
static int open_folder(struct spool *s, struct err *err)
{
	int r;

	if (mkdir(s->path, 0700) < 0 && errno != EEXIST)
		return spool_error(s, -errno, err);
	s->root = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->root < 0)
		return spool_error(s, -errno, err);
	s->lock_fd = spool_open_file(s, LOCK_NAME, O_RDWR | O_CREAT);
	if (s->lock_fd < 0)
		return spool_error(s, s->lock_fd, err);
	while (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno == EWOULDBLOCK)
			return err_set(err, -EBUSY, "another process uses the spool \"%s\"",
				       s->path);
		if (errno != EINTR)
			return spool_error(s, -errno, err);
	}
	/* Tells now whether files can be made here; a full disk may have room later. */
	r = spool_spare(s);
	if (r < 0 && r != -ENOSPC && r != -EDQUOT)
		return spool_error(s, r, err);
	return 0;
}

int spool_open(const struct spool_config *config, uint8_t id[16], struct spool **ret,
	       struct err *err)
{
	struct spool *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	s->config = *config;
	/* Nothing adds up to more than a uint64_t has. */
	s->config.min_free = MIN(config->min_free, INT64_MAX);
	s->config.max_bytes = MIN(config->max_bytes, INT64_MAX);
	s->root = s->lock_fd = s->spare = -1;
	s->free_age = UINT64_MAX / 2;
	pthread_mutex_init(&s->writer, NULL);
	pthread_mutex_init(&s->lock, NULL);
	s->path = strdup(config->path);
	r = s->path ? open_folder(s, err) : err_set(err, -ENOMEM, "out of memory");
	if (r == 0) {
		r = agent_id(s, id);
		if (r < 0)
			spool_error(s, r, err);
	}
	if (r == 0)
		r = spool_scan(s, err);
	if (r < 0)
		spool_close(s);
	else
		*ret = s;
	return r;
}

/* The epoch's folder and all that is ours in it. */
static void remove_epoch(struct spool_epoch *e)
{
	char name[SPOOL_NAME_SIZE];

	for (size_t i = 0; i < e->n_segments; i++) {
		spool_segment_name(e, e->segments[i]->name, name);
		unlinkat(e->spool->root, name, 0);
	}
	spool_end_name(e, name);
	unlinkat(e->spool->root, name, 0);
	spool_epoch_name(e, name);
	unlinkat(e->spool->root, name, AT_REMOVEDIR);
}

struct spool *spool_close(struct spool *s)
{
	if (!s)
		return NULL;
	spool_remove_acked(s, true);
	while (s->epochs) {
		struct spool_epoch *e = s->epochs;

		spool_close_growing(e, true);
		if (e->live && e->made && !e->n_segments && !e->ended)
			remove_epoch(e);
		spool_epoch_free(e);
	}
	spool_spare_drop(s);
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	if (s->root >= 0)
		close(s->root);
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->writer);
	buf_free(&s->scratch);
	free(s->path);
	free(s);
	return NULL;
}

struct spool_epoch *spool_oldest(struct spool *s)
{
	struct spool_epoch *e;

	pthread_mutex_lock(&s->lock);
	e = s->epochs && !s->epochs->live ? s->epochs : NULL;
	pthread_mutex_unlock(&s->lock);
	return e;
}

uint64_t spool_newest(struct spool *s)
{
	uint64_t newest = 0;

	pthread_mutex_lock(&s->lock);
	for (const struct spool_epoch *e = s->epochs; e; e = e->newer)
		newest = MAX(newest, e->number);
	pthread_mutex_unlock(&s->lock);
	return newest;
}

struct spool_epoch *spool_begin(struct spool *s, uint64_t epoch, spool_hello_fn *hello,
				spool_settle_fn *settle, void *ctx)
{
	struct spool_epoch *e;

	pthread_mutex_lock(&s->writer);
	pthread_mutex_lock(&s->lock);
	e = s->epochs;
	while (e && e->number != epoch)
		e = e->newer;
	e = e ? NULL : spool_epoch_new(s, epoch);
	if (e) {
		e->live = true;
		e->sent = 0;
		e->hello_fn = hello;
		e->settle_fn = settle;
		e->ctx = ctx;
	}
	pthread_mutex_unlock(&s->lock);
	pthread_mutex_unlock(&s->writer);
	return e;
}

void spool_remove(struct spool *s, struct spool_epoch *e)
{
	pthread_mutex_lock(&s->writer);
	pthread_mutex_lock(&s->lock);
	remove_epoch(e);
	spool_epoch_free(e);
	pthread_mutex_unlock(&s->lock);
	pthread_mutex_unlock(&s->writer);
}
