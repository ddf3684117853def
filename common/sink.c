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
#include <sys/stat.h>

#include "fs.h"
#include "output.h"
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

int sink_error(const struct sink *s, int e, struct err *err)
{
	err_sys(err, -e, "cannot write to \"%s\"", s->path);
	return fs_write_error(e);
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
	const char *base = fs_name(path), *dot = strrchr(path, '.');
	const char *kind = link_type == LINK_ETHERNET ? "" : link_type_name(link_type);
	char middle[48] = "", digits[16] = "";
	char *name;

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
	fs_lock(fd);
	w = write(fd, header, SINK_HEADER);
	if (w != SINK_HEADER) {
		r = w < 0 ? fs_write_error(errno) : -ENOSPC;
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

	fd = open(name, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size != SINK_HEADER)
		return -EEXIST;
	if (fs_lock(fd) < 0 || fstat(fd, &st) < 0 || st.st_size != SINK_HEADER)
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
	struct stat st;

	sink_header(header, micro, link_type);
	for (unsigned int i = 0; i < PATH_NUMBER_MAX; i++) {
		char *name = file_name(path, link_type, i);

		if (!name)
			return err_set(err, -ENOMEM, "out of memory");
		r = file_create(name, header, &fd, err);
		if (r == -EEXIST)
			r = file_reuse(name, header, &fd);
		if (r == 0 && fstat(fd, &st) < 0) {
			r = err_sys(err, -errno, "cannot read \"%s\"", name);
			close(fd);
		}
		if (r == 0) {
			*ret = (struct sink){.link_type = link_type,
					     .fd = fd,
					     .path = name,
					     .device = st.st_dev,
					     .inode = st.st_ino,
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

/*
 * Is what is open at @fd the very file that @file speaks of? 0 and it is locked; -errno: no, as
 * @err says. The number of the device is not compared: a volume has another one when it is
 * mounted again, and leaving the file alone then would leave in it what will be sent again.
 */
static int check_continued(int fd, const struct output_file *file, dev_t *ret_device,
			   struct err *err)
{
	uint8_t wanted[SINK_HEADER], found[SINK_HEADER];
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return err_sys(err, -errno, "cannot read it");
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "it is not a regular file");
	if (st.st_ino != file->inode)
		return err_set(err, -ESTALE, "another file has its name");
	r = fs_lock(fd);
	if (r == -EWOULDBLOCK)
		return err_set(err, r, "another process writes to it");
	if (r < 0)
		return err_sys(err, r, "cannot lock it");
	/* Only now does it stay as it is. */
	if (fstat(fd, &st) < 0)
		return err_sys(err, -errno, "cannot read it");
	if (file->size < SINK_HEADER || (uint64_t)st.st_size < file->size)
		return err_set(err, -ENODATA, "it has %llu bytes, and had %llu",
			       (unsigned long long)st.st_size, (unsigned long long)file->size);
	sink_header(wanted, file->micro, file->link_type);
	if (fs_read(fd, found, sizeof(found), 0) != sizeof(found) ||
	    memcmp(found, wanted, sizeof(found)) != 0)
		return err_set(err, -EINVAL, "it has another header");
	*ret_device = st.st_dev;
	return 0;
}

int sink_continue_file(const char *path, int folder_fd, const struct output_file *file, bool micro,
		       struct sink *ret, struct err *err)
{
	_cleanup_close_ int fd = -1;
	struct sink s;
	dev_t device = 0;
	int r;

	if (!memchr(file->name, '\0', sizeof(file->name)) || !*file->name ||
	    strchr(file->name, '/'))
		return err_set(err, -EINVAL, "that is no name of a file");
	if (!link_type_name(file->link_type))
		return err_set(err, -EINVAL, "link type %u is not known", file->link_type);
	if (file->micro != micro)
		return err_set(err, -EINVAL, "its time stamps have another precision");
	/* O_NONBLOCK: do not wait at a FIFO that has the name now. */
	fd = openat(folder_fd, file->name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return err_sys(err, -errno, "cannot open it");
	r = check_continued(fd, file, &device, err);
	if (r < 0)
		return r;
	s = (struct sink){.link_type = file->link_type,
			  .fd = fd,
			  .device = device,
			  .inode = file->inode,
			  .regular = true,
			  .size = (off_t)file->size,
			  .synced = (off_t)file->size};
	r = cut(&s);
	/* Nothing of what is cut off may come back behind what is appended. */
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r < 0)
		return err_sys(err, r, "cannot cut it back");
	if (asprintf(&s.path, "%.*s%s", (int)(fs_name(path) - path), path, file->name) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	take_fd(&fd);
	*ret = s;
	return 0;
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
