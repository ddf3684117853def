/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Classic pcap (draft-ietf-opsawg-pcap), little-endian, in files or on stdout.
 *
 * A run is converted into a buffer of the pool without the lock, so that threads
 * convert at the same time, and leaves with one write under it (sink.c). What is not
 * a file (stdout, FIFO, device) is one sink for all packets.
 *
 * A sync takes long, so it runs without the lock that writers wait for: it notes under it what
 * there is to do. `sync_lock` keeps the files open meanwhile; whoever closes one takes it, too.
 * Opening is in output_open.c.
 */
#include <errno.h>
#include <fcntl.h>

#include "fs.h"
#include "output_internal.h"
#include "packet.h"
#include "util.h"

#define RECORD_HEADER 16u

/* A converted run on its way out. */
struct chunk {
	struct chunk *next;
	size_t cap;
	uint8_t data[];
};

/* The file of @link_type, opened when there is none yet. */
static int find_file(struct output *out, uint32_t link_type, struct sink **ret, struct err *err)
{
	struct err why;
	int r;

	*ret = output_file_of(out, link_type);
	if (*ret)
		return 0;
	if (!link_type_name(link_type) || out->n_sinks == OUTPUT_FILES_MAX)
		return err_set(err, -ENOTSUP, "no file can be written for link type %u", link_type);
	r = output_open_file(out, link_type, &why);
	if (r < 0) {
		err_set(err, r, "%s", why.text);
		/* Whatever is in the way of a new file may go away. */
		return r == -ENOSPC || r == -EDQUOT ? r : -EIO;
	}
	*ret = output_file_of(out, link_type);
	return 0;
}

/* The one sink of stdout, a FIFO or a device, with its header written. */
static int find_stream(struct output *out, uint32_t link_type, struct sink **ret, struct err *err)
{
	struct sink *s = &out->sinks[0];
	uint8_t header[SINK_HEADER];
	int r;

	if (s->link_type && s->link_type != link_type)
		return err_set(err, -ENOTSUP,
			       "\"%s\" carries link type %u since its first packet, not %u too",
			       s->path, s->link_type, link_type);
	if (!link_type_name(link_type))
		return err_set(err, -ENOTSUP, "link type %u is not known", link_type);
	*ret = s;
	if (s->link_type && s->fd >= 0)
		return 0;
	if (s->fd < 0) {
		s->fd = open(s->path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
		if (s->fd < 0 && errno == ENXIO)
			return err_set(err, -EIO, "nobody reads the FIFO \"%s\"", s->path);
		if (s->fd < 0)
			return sink_error(s, errno, err);
	}
	sink_header(header, out->micro, link_type);
	r = sink_write(s, header, sizeof(header), out->cancel_fd, err);
	if (r == 0)
		s->link_type = link_type;
	return r;
}

static int write_run(struct output *out, uint32_t link_type, const uint8_t *data, size_t n,
		     struct err *err)
{
	struct sink *s;
	int r;

	r = out->target == TARGET_FILES ? find_file(out, link_type, &s, err)
					: find_stream(out, link_type, &s, err);
	if (r == 0)
		r = sink_write(s, data, n, out->cancel_fd, err);
	if (r == -EPIPE && out->target == TARGET_FIFO) {
		/* The next reader starts with a header and this very run. */
		close(s->fd);
		s->fd = -1;
		s->link_type = 0;
		r = -EIO;
	}
	return r;
}

/* A buffer of @size bytes at least, from the pool if it has one. */
static struct chunk *chunk_get(struct output *out, size_t size)
{
	struct chunk *c, *bigger;

	pthread_mutex_lock(&out->lock);
	c = out->pool;
	if (c)
		out->pool = c->next;
	pthread_mutex_unlock(&out->lock);
	if (c && c->cap >= size)
		return c;
	bigger = malloc(sizeof(*c) + size);
	if (bigger)
		bigger->cap = size;
	free(c);
	return bigger;
}

/* Blocks to records. Each record is smaller than its block, so @out has @size bytes. */
static ssize_t convert(const uint8_t *run, size_t size, bool micro, uint8_t *out, struct err *err)
{
	uint8_t *at = out;
	struct packet p;
	long n;

	while ((n = packet_next(run, size, &p, err)) > 0) {
		uint32_t fraction = (uint32_t)(p.time % NSEC_PER_SEC);

		put_le32(at, (uint32_t)(p.time / NSEC_PER_SEC));
		put_le32(at + 4, micro ? fraction / (uint32_t)NSEC_PER_USEC : fraction);
		put_le32(at + 8, p.caplen);
		put_le32(at + 12, p.len);
		memcpy(at + RECORD_HEADER, p.data, p.caplen);
		at += RECORD_HEADER + p.caplen;
		run += n;
		size -= (size_t)n;
	}
	return n < 0 ? n : at - out;
}

int output_write(struct output *out, uint32_t link_type, const uint8_t *run, size_t size,
		 struct err *err)
{
	struct chunk *c = chunk_get(out, size);
	ssize_t n;
	int r;

	if (!c)
		return err_set(err, -ENOMEM, "out of memory");
	n = convert(run, size, out->micro, c->data, err);

	pthread_mutex_lock(&out->lock);
	if (n < 0)
		r = (int)n;
	else
		r = n ? write_run(out, link_type, c->data, (size_t)n, err) : 0;
	c->next = out->pool;
	out->pool = c;
	pthread_mutex_unlock(&out->lock);
	return r;
}

int output_open(struct output *out, uint32_t link_type, struct err *err)
{
	struct sink *s;
	int r;

	if (!output_is_files(out))
		return 0;
	pthread_mutex_lock(&out->lock);
	r = find_file(out, link_type, &s, err);
	pthread_mutex_unlock(&out->lock);
	return r;
}

void output_cancel(struct output *out)
{
	event_signal(out->cancel_fd);
}

const char *output_path(struct output *out, uint32_t link_type)
{
	struct sink *s;

	if (out->target != TARGET_FILES)
		return out->sinks[0].path;
	pthread_mutex_lock(&out->lock);
	s = output_file_of(out, link_type);
	pthread_mutex_unlock(&out->lock);
	return s ? s->path : NULL;
}

bool output_is_files(const struct output *out)
{
	return out->target == TARGET_FILES;
}

size_t output_files(struct output *out, struct output_file ret[OUTPUT_FILES_MAX])
{
	size_t n = 0;

	if (!output_is_files(out))
		return 0;
	pthread_mutex_lock(&out->lock);
	for (; n < out->n_sinks; n++) {
		const struct sink *s = &out->sinks[n];

		ret[n] = (struct output_file){.link_type = s->link_type,
					      .micro = out->micro,
					      .device = s->device,
					      .inode = s->inode,
					      .size = (uint64_t)s->size};
		/* No file system has longer names. */
		strncpy(ret[n].name, fs_name(s->path), OUTPUT_NAME_MAX);
	}
	pthread_mutex_unlock(&out->lock);
	return n;
}

/* What output_sync() has to do, as it is when it begins. */
struct sync {
	off_t size[OUTPUT_FILES_MAX]; /* 0: nothing to do */
	bool folder;
};

static struct sync take_sync(struct output *out)
{
	struct sync what = {};

	pthread_mutex_lock(&out->lock);
	for (size_t i = 0; i < out->n_sinks; i++) {
		const struct sink *s = &out->sinks[i];

		if (s->regular && s->size != s->synced)
			what.size[i] = s->size;
	}
	what.folder = out->new_names && output_is_files(out);
	out->new_names = false;
	pthread_mutex_unlock(&out->lock);
	return what;
}

static int sync_all(struct output *out, const struct sync *what, struct err *err)
{
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(what->size); i++) {
		struct sink *s = &out->sinks[i];

		if (!what->size[i])
			continue;
		if (fdatasync(s->fd) < 0)
			return err_sys(err, -errno, "cannot make \"%s\" durable", s->path);
		s->synced = what->size[i];
	}
	if (!what->folder)
		return 0;
	if (out->folder_fd < 0)
		out->folder_fd = fs_open_folder(out->path, err);
	if (out->folder_fd < 0)
		return out->folder_fd;
	r = fs_sync_folder(out->folder_fd);
	return r < 0 ? err_sys(err, r, "cannot make the folder of \"%s\" durable", out->path) : 0;
}

int output_sync(struct output *out, struct err *err)
{
	struct sync what;
	int r;

	pthread_mutex_lock(&out->sync_lock);
	if (out->sync_failed) {
		r = err_set(err, -EIO, "\"%s\" has lost what was written before", out->path);
	} else {
		what = take_sync(out);
		r = sync_all(out, &what, err);
		out->sync_failed = r < 0;
	}
	pthread_mutex_unlock(&out->sync_lock);
	return r;
}

int output_finish(struct output *out, struct err *err)
{
	struct err why;
	int result = 0;

	pthread_mutex_lock(&out->sync_lock);
	for (size_t i = 0; i < out->n_sinks; i++) {
		int r = sink_flush(&out->sinks[i], &why);

		if (r < 0 && result == 0)
			result = err_set(err, r, "%s", why.text);
	}
	out->sync_failed |= result < 0;
	pthread_mutex_unlock(&out->sync_lock);
	return result;
}

struct output *output_free(struct output *out)
{
	if (!out)
		return NULL;
	for (size_t i = 0; i < out->n_sinks; i++)
		sink_close(&out->sinks[i]);
	while (out->pool) {
		struct chunk *c = out->pool;

		out->pool = c->next;
		free(c);
	}
	if (out->cancel_fd >= 0)
		close(out->cancel_fd);
	if (out->folder_fd >= 0)
		close(out->folder_fd);
	pthread_mutex_destroy(&out->sync_lock);
	pthread_mutex_destroy(&out->lock);
	free(out->path);
	free(out);
	return NULL;
}
