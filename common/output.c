/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Classic pcap (draft-ietf-opsawg-pcap), little-endian, in files or on stdout.
 *
 * A run is converted into a buffer of the pool without the lock, so that threads
 * convert at the same time, and leaves with one write under it. Files are made
 * with O_EXCL and locked with flock(2), so no process writes into the bytes of
 * another. `sink.size` is the end of the last whole run: whatever a failed write
 * left behind it is cut off, at once or, when the cut fails too, before the next
 * write.
 *
 * A target that is not a file (stdout, FIFO, device) is one sink for all packets.
 * Its descriptor may be shared with others, so it stays in the mode it came in:
 * poll, then write no more than a pipe with any room takes.
 */
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "packet.h"
#include "util.h"

#define MAGIC_MICRO     0xa1b2c3d4u
#define MAGIC_NANO      0xa1b23c4du
#define FILE_HEADER     24u
#define RECORD_HEADER   16u
#define PATH_NUMBER_MAX 1000000u
#define FILES_MAX       4u /* link types with a file */

struct sink {
	uint32_t link_type; /* 0: not chosen yet (a single sink) */
	int fd;
	char *path;
	bool regular; /* a file: it can be cut */
	off_t size;   /* of a file, up to the end of the last whole run */
	bool torn;    /* bytes after `size` are still to be cut off */
};

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

static void file_header(uint8_t out[FILE_HEADER], bool micro, uint32_t link_type)
{
	put_le32(out, micro ? MAGIC_MICRO : MAGIC_NANO);
	put_le16(out + 4, 2);
	put_le16(out + 6, 4);
	put_le64(out + 8, 0); /* time zone and accuracy, always 0 */
	put_le32(out + 16, PACKET_CAPLEN_MAX);
	put_le32(out + 20, link_type);
}

/* -ENOSPC and its kin, or -EIO: what output_write() may return for a failed write. */
static int write_code(int e)
{
	switch (e) {
	case ENOSPC:
	case EDQUOT:
		return -e;
	case EFBIG: /* the size limit of the process or of the file system */
		return -ENOSPC;
	default:
		return -EIO;
	}
}

static int write_error(const struct sink *s, int e, struct err *err)
{
	err_sys(err, -e, "cannot write to \"%s\"", s->path);
	return write_code(e);
}

/* Cut the file back to the last whole run. */
static int sink_cut(struct sink *s)
{
	if (ftruncate(s->fd, s->size) < 0 || lseek(s->fd, s->size, SEEK_SET) < 0)
		return -errno;
	s->torn = false;
	return 0;
}

static int file_write(struct sink *s, const uint8_t *data, size_t n, struct err *err)
{
	size_t done = 0;
	int r;

	if (s->torn) {
		r = sink_cut(s);
		if (r < 0)
			return write_error(s, -r, err);
	}
	while (done < n) {
		ssize_t w = write(s->fd, data + done, n - done);

		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0) {
			r = write_error(s, w ? errno : ENOSPC, err);
			s->torn = true;
			sink_cut(s);
			return r;
		}
		done += (size_t)w;
	}
	s->size += (off_t)n;
	return 0;
}

static int stream_write(struct output *out, struct sink *s, const uint8_t *data, size_t n,
			struct err *err)
{
	while (n) {
		struct pollfd fds[] = {
			{.fd = s->fd, .events = POLLOUT},
			{.fd = out->cancel_fd, .events = POLLIN},
		};
		ssize_t w;

		if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
			return write_error(s, errno, err);
		if (fds[1].revents)
			return err_set(err, -ECANCELED, "writing to \"%s\" was given up", s->path);
		if (!fds[0].revents)
			continue;
		w = write(s->fd, data, MIN(n, (size_t)PIPE_BUF));
		if (w < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (w < 0 && errno == EPIPE)
			return err_set(err, -EPIPE, "the reader of \"%s\" is gone", s->path);
		if (w < 0)
			return write_error(s, errno, err);
		data += w;
		n -= (size_t)w;
	}
	return 0;
}

static int sink_write(struct output *out, struct sink *s, const uint8_t *data, size_t n,
		      struct err *err)
{
	return s->regular ? file_write(s, data, n, err) : stream_write(out, s, data, n, err);
}

/* "dump.pcap" to "dump.pcap", "dump.1.pcap", "dump.raw.pcap", "dump.raw.1.pcap" ... */
static char *file_name(const char *path, uint32_t link_type, unsigned int number)
{
	const char *base = strrchr(path, '/');
	const char *dot = strrchr(path, '.');
	const char *kind = link_type == LINK_ETHERNET ? "" : link_type_name(link_type);
	char middle[48] = "", digits[16] = "";
	char *name;

	base = base ? base + 1 : path;
	/* A leading dot hides a file, it begins no suffix. */
	if (!dot || dot <= base)
		dot = path + strlen(path);
	if (number)
		snprintf(digits, sizeof(digits), ".%u", number);
	snprintf(middle, sizeof(middle), "%s%s%s", *kind ? "." : "", kind, digits);
	if (asprintf(&name, "%.*s%s%s", (int)(dot - path), path, middle, dot) < 0)
		return NULL;
	return name;
}

static int lock_file(int fd)
{
	return flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
}

/* Create @name with its header; -EEXIST when there is something already. */
static int file_create(const char *name, const uint8_t header[FILE_HEADER], int *ret_fd,
		       struct err *err)
{
	_cleanup_close_ int fd = -1;
	ssize_t w;
	int r;

	fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
	if (fd < 0)
		return err_sys(err, -errno, "cannot create \"%s\"", name);
	/* Before there is a header nobody else takes the file for an unused one. */
	lock_file(fd);
	w = write(fd, header, FILE_HEADER);
	if (w != FILE_HEADER) {
		r = w < 0 ? write_code(errno) : -ENOSPC;
		unlink(name);
		return err_sys(err, r, "cannot write to \"%s\"", name);
	}
	*ret_fd = take_fd(&fd);
	return 0;
}

/* Take over the file that an earlier run made and never used; -EEXIST when it is none. */
static int file_reuse(const char *name, const uint8_t header[FILE_HEADER], int *ret_fd)
{
	_cleanup_close_ int fd = -1;
	uint8_t found[FILE_HEADER];
	struct stat st;

	fd = open(name, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size != FILE_HEADER)
		return -EEXIST;
	if (lock_file(fd) < 0 || fstat(fd, &st) < 0 || st.st_size != FILE_HEADER)
		return -EEXIST;
	if (read(fd, found, sizeof(found)) != sizeof(found) ||
	    memcmp(found, header, sizeof(found)) != 0)
		return -EEXIST;
	*ret_fd = take_fd(&fd);
	return 0;
}

static int sink_open_file(const struct output *out, uint32_t link_type, struct sink *ret,
			  struct err *err)
{
	uint8_t header[FILE_HEADER];
	int fd = -1, r;

	file_header(header, out->micro, link_type);
	for (unsigned int i = 0; i < PATH_NUMBER_MAX; i++) {
		char *name = file_name(out->path, link_type, i);

		if (!name)
			return err_set(err, -ENOMEM, "out of memory");
		r = file_create(name, header, &fd, err);
		if (r == -EEXIST)
			r = file_reuse(name, header, &fd);
		if (r == 0) {
			*ret = (struct sink){.link_type = link_type,
					     .fd = fd,
					     .path = name,
					     .regular = true,
					     .size = FILE_HEADER};
			return 0;
		}
		free(name);
		if (r != -EEXIST)
			return r;
	}
	return err_set(err, -EEXIST, "there are %u files beside \"%s\" already", PATH_NUMBER_MAX,
		       out->path);
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
	r = sink_open_file(out, link_type, &out->sinks[out->n_sinks], &why);
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
	uint8_t header[FILE_HEADER];
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
			return write_error(s, errno, err);
	}
	file_header(header, out->micro, link_type);
	r = sink_write(out, s, header, sizeof(header), err);
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
		r = sink_write(out, s, data, n, err);
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
		r = sink_open_file(out, LINK_ETHERNET, s, err);
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

struct output *output_free(struct output *out)
{
	if (!out)
		return NULL;
	for (size_t i = 0; i < out->n_sinks; i++) {
		struct sink *s = &out->sinks[i];

		if (s->torn)
			sink_cut(s);
		if (s->regular)
			fsync(s->fd);
		if (s->fd >= 0)
			close(s->fd);
		free(s->path);
	}
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
