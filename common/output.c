/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Classic pcap (draft-ietf-opsawg-pcap), little-endian, in files or on stdout.
 *
 * A run is converted into a buffer of the pool without the lock, so that threads
 * convert at the same time, and leaves with one write under it (sink.c). What is not
 * a file (stdout, FIFO, device) is one sink for all packets.
 */
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include "packet.h"
#include "sink.h"
#include "util.h"

#define RECORD_HEADER 16u
#define FILES_MAX     4u /* link types with a file */

/* A converted run on its way out. */
struct chunk {
	struct chunk *next;
	size_t cap;
	uint8_t data[];
};

enum target { TARGET_FILES, TARGET_FIFO, TARGET_STREAM };

struct output {
	enum target target;
	bool micro;
	char *path;
	int cancel_fd; /* readable once output_cancel() was called */

	pthread_mutex_t lock; /* guards what follows, and the writing */
	struct sink sinks[FILES_MAX];
	size_t n_sinks;
	struct chunk *pool;
};

static bool path_is_stdout(const char *path)
{
	return !strcmp(path, "stdout") || !strcmp(path, "-");
}

/* The file of @link_type, opened when there is none yet. */
static int find_file(struct output *out, uint32_t link_type, struct sink **ret, struct err *err)
{
	struct err why;
	int r;

	for (size_t i = 0; i < out->n_sinks; i++) {
		if (out->sinks[i].link_type == link_type) {
			*ret = &out->sinks[i];
			return 0;
		}
	}
	if (!link_type_name(link_type) || out->n_sinks == FILES_MAX)
		return err_set(err, -ENOTSUP, "no file can be written for link type %u", link_type);
	r = sink_open_file(out->path, link_type, out->micro, &out->sinks[out->n_sinks], &why);
	if (r < 0) {
		err_set(err, r, "%s", why.text);
		/* Whatever is in the way of a new file may go away. */
		return r == -ENOSPC || r == -EDQUOT ? r : -EIO;
	}
	*ret = &out->sinks[out->n_sinks++];
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

void output_cancel(struct output *out)
{
	event_signal(out->cancel_fd);
}

const char *output_path(struct output *out, uint32_t link_type)
{
	const char *path = NULL;

	if (out->target != TARGET_FILES)
		return out->sinks[0].path;
	pthread_mutex_lock(&out->lock);
	for (size_t i = 0; i < out->n_sinks; i++)
		if (out->sinks[i].link_type == link_type)
			path = out->sinks[i].path;
	pthread_mutex_unlock(&out->lock);
	return path;
}

static int check_stdout(struct err *err)
{
	if (isatty(STDOUT_FILENO))
		return err_set(err, -ENOTTY,
			       "standard output is a terminal; pcap goes to a pipe or a file");
	if (fcntl(STDOUT_FILENO, F_GETFD) < 0)
		return err_sys(err, -errno, "cannot write to standard output");
	return 0;
}

/* What @path is; a directory is an error. */
static int find_target(const char *path, enum target *ret, struct err *err)
{
	struct stat st;

	*ret = TARGET_FILES;
	if (stat(path, &st) < 0 || S_ISREG(st.st_mode))
		return 0;
	if (S_ISDIR(st.st_mode))
		return err_set(err, -EISDIR, "cannot write to \"%s\": it is a directory", path);
	*ret = S_ISFIFO(st.st_mode) ? TARGET_FIFO : TARGET_STREAM;
	return 0;
}

int output_check(const struct output_config *config, struct err *err)
{
	const char *slash = strrchr(config->path, '/');
	_cleanup_free_ char *folder = NULL;
	enum target target;
	int r;

	if (path_is_stdout(config->path))
		return check_stdout(err);
	r = find_target(config->path, &target, err);
	if (r < 0)
		return r;
	if (target != TARGET_FILES)
		return faccessat(AT_FDCWD, config->path, W_OK, AT_EACCESS) < 0
			       ? err_sys(err, -errno, "cannot write to \"%s\"", config->path)
			       : 0;
	folder = slash ? strndup(config->path, MAX((size_t)(slash - config->path), 1u))
		       : strdup(".");
	if (!folder)
		return err_set(err, -ENOMEM, "out of memory");
	if (faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS) < 0)
		return err_sys(err, -errno, "cannot create files in \"%s\"", folder);
	return 0;
}

/* Open what can be opened without waiting; a FIFO has its turn at the first write. */
static int open_target(struct output *out, struct err *err)
{
	struct sink *s = &out->sinks[0];
	bool is_stdout = path_is_stdout(out->path);
	struct stat st;
	int r;

	if (out->target == TARGET_FILES) {
		r = sink_open_file(out->path, LINK_ETHERNET, out->micro, s, err);
		out->n_sinks = r == 0;
		return r;
	}
	*s = (struct sink){.fd = -1, .path = strdup(is_stdout ? "-" : out->path)};
	if (!s->path)
		return err_set(err, -ENOMEM, "out of memory");
	out->n_sinks = 1;
	if (out->target == TARGET_FIFO)
		return 0;
	s->fd = is_stdout ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3)
			  : open(out->path, O_WRONLY | O_CLOEXEC);
	if (s->fd < 0 || fstat(s->fd, &st) < 0)
		return err_sys(err, -errno, "cannot open \"%s\" for writing", out->path);
	if (S_ISREG(st.st_mode)) {
		/* A shell's redirection; what it appends to is not ours to cut. */
		s->regular = true;
		s->size = lseek(s->fd, 0, fcntl(s->fd, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR);
	}
	return 0;
}

int output_new(const struct output_config *config, struct output **ret, struct err *err)
{
	struct output *out = calloc(1, sizeof(*out));
	int r;

	if (!out)
		return err_set(err, -ENOMEM, "out of memory");
	pthread_mutex_init(&out->lock, NULL);
	out->micro = config->micro;
	out->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	out->path = strdup(config->path);
	if (out->cancel_fd < 0 || !out->path) {
		r = err_sys(err, out->path ? -errno : -ENOMEM, "cannot set up the output");
		goto out;
	}
	if (path_is_stdout(out->path)) {
		out->target = TARGET_STREAM;
		r = check_stdout(err);
	} else {
		r = find_target(out->path, &out->target, err);
	}
	if (r == 0)
		r = open_target(out, err);
out:
	if (r < 0)
		output_free(out);
	else
		*ret = out;
	return r;
}

int output_finish(struct output *out, struct err *err)
{
	struct err why;
	int result = 0;

	for (size_t i = 0; i < out->n_sinks; i++) {
		int r = sink_flush(&out->sinks[i], &why);

		if (r < 0 && result == 0)
			result = err_set(err, r, "%s", why.text);
	}
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
	pthread_mutex_destroy(&out->lock);
	free(out->path);
	free(out);
	return NULL;
}
