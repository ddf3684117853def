/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Appending. A message is written with one call, its TALLY before it; what a full disk leaves
 * of one is cut off at once, what a crash leaves by the next scan. A segment grows until it
 * has the configured size; then it is synced and never written again.
 */
#include <errno.h>
#include <fcntl.h>

#include "spool_internal.h"

static struct spool_segment *tail(const struct spool_epoch *e)
{
	return e->segments[e->n_segments - 1];
}

static void finish_segment(struct spool_epoch *e)
{
	struct spool *s = e->spool;

	pthread_mutex_unlock(&s->lock);
	if (fdatasync(e->fd) < 0 && e->sync_error == 0)
		e->sync_error = -errno;
	pthread_mutex_lock(&s->lock);
	spool_close_growing(e, false);
}

/* A file with a HELLO, whose first message is to be @seq. Its name is durable on return. */
static int make_file(struct spool_epoch *e, uint64_t seq, const struct buf *hello, int *ret)
{
	struct spool *s = e->spool;
	char name[SPOOL_NAME_SIZE], folder[SPOOL_NAME_SIZE];
	int fd, r = buf_failed(hello) ? -ENOMEM : spool_make_epoch(e);

	if (r < 0)
		return r;
	spool_epoch_name(e, folder);
	spool_segment_name(e, seq, name);
	fd = spool_open_file(s, name, O_RDWR | O_CREAT | O_TRUNC);
	if (fd < 0)
		return fd;
	r = spool_write_at(fd, 0, hello, NULL, 0);
	if (r == 0)
		r = spool_sync_folder(s, folder);
	if (r < 0) {
		unlinkat(s->root, name, 0);
		close(fd);
		return r;
	}
	*ret = fd;
	return 0;
}

static int begin_segment(struct spool_epoch *e, uint64_t seq, const struct buf *hello)
{
	struct spool_segment g = {.name = seq,
				  .first = seq,
				  .next = seq,
				  .bytes = hello->len,
				  .written = clock_realtime()};
	int fd = -1, r;

	pthread_mutex_unlock(&e->spool->lock);
	r = make_file(e, seq, hello, &fd);
	pthread_mutex_lock(&e->spool->lock);
	if (r < 0)
		return r;
	if (!spool_add_segment(e, &g)) {
		close(fd);
		return -ENOMEM;
	}
	e->fd = fd;
	return 0;
}

/* Back to the last whole message. A file that cannot be cut is not written any more. */
static void cut(struct spool_epoch *e)
{
	struct spool_segment *g = tail(e);
	char name[SPOOL_NAME_SIZE];

	if (g->next == g->first) {
		spool_close_growing(e, false);
		spool_segment_name(e, g->name, name);
		unlinkat(e->spool->root, name, 0);
		spool_drop_segment(e, e->n_segments - 1);
	} else if (ftruncate(e->fd, (off_t)g->bytes) < 0) {
		spool_close_growing(e, true);
	}
}

/* One try to write the TALLY in s->scratch and the message; *full: for want of space. */
static int try_append(struct spool_epoch *e, const struct backlog_message *m, const uint8_t *wire,
		      struct buf *hello, bool *full)
{
	struct spool *s = e->spool;
	struct spool_segment *g;
	int r;

	if (e->fd < 0 && !hello->len)
		spool_put_hello(e, m->seq, hello);
	r = spool_make_room(s, s->scratch.len + m->size + (e->fd < 0 ? hello->len : 0), !s->hold);
	if (r < 0)
		return r;
	/* Making room may have taken the segment that was growing. */
	if (e->fd < 0) {
		if (!hello->len)
			spool_put_hello(e, m->seq, hello);
		r = begin_segment(e, m->seq, hello);
	}
	if (r == 0) {
		g = tail(e);
		r = spool_write_at(e->fd, g->bytes, &s->scratch, wire, m->size);
		if (r < 0)
			cut(e);
	}
	*full = r == -ENOSPC || r == -EDQUOT;
	return r;
}

static int append(struct spool_epoch *e, const struct backlog_message *m, const uint8_t *wire)
{
	struct spool *s = e->spool;
	uint64_t size = s->scratch.len + m->size;
	struct buf hello = {};
	struct spool_segment *g;
	bool full = false;
	int r;

	/* It has its size, or numbers that never came here were acknowledged. */
	if (e->fd >= 0 && (tail(e)->bytes >= s->config.segment_bytes || tail(e)->next != m->seq))
		finish_segment(e);
	do {
		full = false;
		r = try_append(e, m, wire, &hello, &full);
	} while (full && !s->hold && spool_evict(s) > 0);
	buf_free(&hello);
	if (r < 0)
		return r;
	g = tail(e);
	g->bytes += size;
	g->next = m->last_seq + 1;
	g->written = clock_realtime();
	s->bytes += size;
	s->free_age += size;
	if (m->seq >= e->next) {
		if (e->first == e->next)
			e->first = m->seq;
		e->next = m->last_seq + 1;
	}
	return 0;
}

/* Is it a message, and the one after the last? */
static bool fits(const struct spool_epoch *e, const struct backlog_message *m)
{
	return e->live && !e->ended && m->size >= STREAM_HEADER_SIZE && m->seq &&
	       m->last_seq >= m->seq && m->last_seq < SPOOL_SEQ_MAX &&
	       (m->seq == e->next || (m->seq > e->next && e->first == e->next));
}

int spool_append(struct spool_epoch *e, const struct backlog_message *m, const uint8_t *wire,
		 const struct tally *tally, struct err *err)
{
	struct spool *s = e->spool;
	int r = 0;

	pthread_mutex_lock(&s->writer);
	pthread_mutex_lock(&s->lock);
	buf_reset(&s->scratch);
	if (m->type == STREAM_DATA)
		spool_put_tally(&s->scratch, m, wire, tally);
	if (m->last_seq >= e->first) {
		if (buf_failed(&s->scratch))
			r = -ENOMEM;
		else
			r = fits(e, m) ? append(e, m, wire) : -EINVAL;
	}
	pthread_mutex_unlock(&s->lock);
	pthread_mutex_unlock(&s->writer);
	return r < 0 ? spool_error(s, r, err) : 0;
}

void spool_hold(struct spool *s, bool hold)
{
	pthread_mutex_lock(&s->lock);
	s->hold = hold;
	pthread_mutex_unlock(&s->lock);
}

/* With `writer` held. */
static int sync_epoch(struct spool_epoch *e)
{
	int r = e->sync_error;

	e->sync_error = 0;
	if (e->fd >= 0 && fdatasync(e->fd) < 0 && r == 0)
		r = -errno;
	return r;
}

int spool_sync(struct spool_epoch *e, struct err *err)
{
	int r;

	pthread_mutex_lock(&e->spool->writer);
	r = sync_epoch(e);
	pthread_mutex_unlock(&e->spool->writer);
	return r < 0 ? spool_error(e->spool, r, err) : 0;
}

int spool_end(struct spool_epoch *e, const struct buf *hello, const struct buf *bye,
	      struct err *err)
{
	struct spool *s = e->spool;
	char name[SPOOL_NAME_SIZE], folder[SPOOL_NAME_SIZE];
	struct buf file = {};
	int r;

	spool_end_name(e, name);
	spool_epoch_name(e, folder);
	stream_message(&file, STREAM_HELLO, 0, hello->data, hello->len);
	stream_message(&file, STREAM_BYE, 0, bye->data, bye->len);
	pthread_mutex_lock(&s->writer);
	r = sync_epoch(e);
	if (r == 0)
		r = spool_make_epoch(e);
	if (r == 0)
		r = spool_write_file(s, name, folder, &file);
	if (r == 0)
		e->ended = true;
	pthread_mutex_unlock(&s->writer);
	buf_free(&file);
	return r < 0 ? spool_error(s, r, err) : 0;
}
