/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files are made with O_EXCL and locked with flock(2), so no process writes into the
 * bytes of another. `size` is the end of the last whole run: whatever a failed write
 * left behind it is cut off, at once or, when the cut fails too, before the next write.
 *
 * The descriptor of a stream (stdout, FIFO, device) may be shared with other processes,
 * so it stays in the mode it came in: poll, then write no more than a pipe with any room
 * takes.
 */
#include "sink.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "packet.h"
#include "util.h"

#define MAGIC_MICRO     0xa1b2c3d4u
#define MAGIC_NANO      0xa1b23c4du
#define PATH_NUMBER_MAX 1000000u

void sink_header(uint8_t out[SINK_HEADER], bool micro, uint32_t link_type)
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

int sink_error(const struct sink *s, int e, struct err *err)
{
	err_sys(err, -e, "cannot write to \"%s\"", s->path);
	return write_code(e);
}

/* Cut the file back to the last whole run. */
static int cut(struct sink *s)
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
		r = cut(s);
		if (r < 0)
			return sink_error(s, -r, err);
	}
	while (done < n) {
		ssize_t w = write(s->fd, data + done, n - done);

		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0) {
			r = sink_error(s, w ? errno : ENOSPC, err);
			s->torn = true;
			cut(s);
			return r;
		}
		done += (size_t)w;
	}
	s->size += (off_t)n;
	return 0;
}

static int stream_write(struct sink *s, const uint8_t *data, size_t n, int cancel_fd,
			struct err *err)
{
	while (n) {
		struct pollfd fds[] = {
			{.fd = s->fd, .events = POLLOUT},
			{.fd = cancel_fd, .events = POLLIN},
		};
		ssize_t w;

		if (poll(fds, ARRAY_SIZE(fds), -1) < 0 && errno != EINTR)
			return sink_error(s, errno, err);
		if (fds[1].revents)
			return err_set(err, -ECANCELED, "writing to \"%s\" was given up", s->path);
		if (!fds[0].revents)
			continue;
		w = write(s->fd, data, MIN(n, (size_t)PIPE_BUF));
		if (w < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (w < 0 && errno == EPIPE)
			return err_set(err, -EPIPE, "the reader of %s is gone",
				       strcmp(s->path, "-") ? s->path : "standard output");
		if (w < 0)
			return sink_error(s, errno, err);
		data += w;
		n -= (size_t)w;
	}
	return 0;
}

int sink_write(struct sink *s, const uint8_t *data, size_t n, int cancel_fd, struct err *err)
{
	return s->regular ? file_write(s, data, n, err) : stream_write(s, data, n, cancel_fd, err);
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
static int file_create(const char *name, const uint8_t header[SINK_HEADER], int *ret_fd,
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
	w = write(fd, header, SINK_HEADER);
	if (w != SINK_HEADER) {
		r = w < 0 ? write_code(errno) : -ENOSPC;
		unlink(name);
		return err_sys(err, r, "cannot write to \"%s\"", name);
	}
	*ret_fd = take_fd(&fd);
	return 0;
}

/* Take over the file that an earlier run made and never used; -EEXIST when it is none. */
static int file_reuse(const char *name, const uint8_t header[SINK_HEADER], int *ret_fd)
{
	_cleanup_close_ int fd = -1;
	uint8_t found[SINK_HEADER];
	struct stat st;

	fd = open(name, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size != SINK_HEADER)
		return -EEXIST;
	if (lock_file(fd) < 0 || fstat(fd, &st) < 0 || st.st_size != SINK_HEADER)
		return -EEXIST;
	if (read(fd, found, sizeof(found)) != sizeof(found) ||
	    memcmp(found, header, sizeof(found)) != 0)
		return -EEXIST;
	*ret_fd = take_fd(&fd);
	return 0;
}

int sink_open_file(const char *path, uint32_t link_type, bool micro, struct sink *ret,
		   struct err *err)
{
	uint8_t header[SINK_HEADER];
	int fd = -1, r;

	sink_header(header, micro, link_type);
	for (unsigned int i = 0; i < PATH_NUMBER_MAX; i++) {
		char *name = file_name(path, link_type, i);

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
					     .size = SINK_HEADER};
			return 0;
		}
		free(name);
		if (r != -EEXIST)
			return r;
	}
	return err_set(err, -EEXIST, "there are %u files beside \"%s\" already", PATH_NUMBER_MAX,
		       path);
}

int sink_flush(struct sink *s, struct err *err)
{
	int r = s->torn ? cut(s) : 0;

	if (s->regular && fsync(s->fd) < 0)
		r = -errno;
	return r < 0 ? err_sys(err, r, "cannot finish \"%s\"", s->path) : 0;
}

void sink_close(struct sink *s)
{
	sink_flush(s, NULL);
	if (s->fd >= 0)
		close(s->fd);
	free(s->path);
	*s = (struct sink){.fd = -1};
}
