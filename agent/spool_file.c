/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files of the spool: names, and the steps that make a file durable. All names are relative
 * to the open folder, so neither the length of its path nor a change of the working directory
 * matters, and no symbolic link inside is followed.
 *
 * A file that replaces others is written to the spare, which has its blocks already: where
 * the disk is full, and room can only be made by replacing a large file with a small one,
 * there is room for the small one.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "spool_internal.h"

#define SPARE_NAME  "spare.tmp"
#define SPARE_BYTES (64u << 10)

void spool_epoch_name(const struct spool_epoch *e, char out[SPOOL_NAME_SIZE])
{
	snprintf(out, SPOOL_NAME_SIZE, "%016" PRIx64, e->number);
}

void spool_segment_name(const struct spool_epoch *e, uint64_t first, char out[SPOOL_NAME_SIZE])
{
	snprintf(out, SPOOL_NAME_SIZE, "%016" PRIx64 "/%016" PRIx64 ".seg", e->number, first);
}

void spool_end_name(const struct spool_epoch *e, char out[SPOOL_NAME_SIZE])
{
	snprintf(out, SPOOL_NAME_SIZE, "%016" PRIx64 "/end", e->number);
}

bool spool_parse_name(const char *name, const char *suffix, uint64_t *ret)
{
	uint64_t v = 0;

	for (int i = 0; i < 16; i++) {
		char c = *name++;

		if (c >= '0' && c <= '9')
			v = v << 4 | (uint64_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			v = v << 4 | (uint64_t)(c - 'a' + 10);
		else
			return false;
	}
	*ret = v;
	return v && strcmp(name, suffix) == 0;
}

int spool_open_file(const struct spool *s, const char *name, int flags)
{
	/* Not blocking: a FIFO with the name of a segment must not stop us. */
	_cleanup_close_ int fd =
		openat(s->root, name, flags | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EBADMSG;
	return take_fd(&fd);
}

int spool_sync_folder(const struct spool *s, const char *name)
{
	_cleanup_close_ int fd =
		openat(s->root, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int spool_write_at(int fd, uint64_t offset, const struct buf *a, const uint8_t *b, size_t n)
{
	struct iovec iov[2] = {
		{.iov_base = a->data, .iov_len = a->len},
		{.iov_base = (void *)(uintptr_t)b, .iov_len = n},
	};

	while (iov[0].iov_len || iov[1].iov_len) {
		ssize_t w = pwritev(fd, iov, 2, (off_t)offset);

		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			return w < 0 ? -errno : -EIO;
		offset += (uint64_t)w;
		for (int i = 0; i < 2; i++) {
			size_t part = MIN((size_t)w, iov[i].iov_len);

			if (!part)
				continue;
			iov[i].iov_base = (char *)iov[i].iov_base + part;
			iov[i].iov_len -= part;
			w -= (ssize_t)part;
		}
	}
	return 0;
}

int spool_make_epoch(struct spool_epoch *e)
{
	char name[SPOOL_NAME_SIZE];
	int r;

	if (e->made)
		return 0;
	spool_epoch_name(e, name);
	if (mkdirat(e->spool->root, name, 0700) < 0 && errno != EEXIST)
		return -errno;
	r = spool_sync_folder(e->spool, ".");
	e->made = r == 0;
	return r;
}

int spool_spare(struct spool *s)
{
	int fd;

	if (s->spare >= 0)
		return 0;
	fd = spool_open_file(s, SPARE_NAME, O_RDWR | O_CREAT | O_TRUNC);
	if (fd < 0)
		return fd;
	/* Where a file system cannot reserve room, or has none, we go without. */
	if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, SPARE_BYTES) < 0 && errno == ENOSPC)
		fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, SPARE_BYTES / 8);
	s->spare = fd;
	return 0;
}

void spool_spare_drop(struct spool *s)
{
	if (s->spare < 0)
		return;
	unlinkat(s->root, SPARE_NAME, 0);
	close(take_fd(&s->spare));
}

int spool_spare_sync(struct spool *s, uint64_t size)
{
	/* What is reserved and not needed goes back. */
	if (ftruncate(s->spare, (off_t)size) < 0 || fdatasync(s->spare) < 0)
		return -errno;
	return 0;
}

int spool_spare_rename(struct spool *s, const char *name)
{
	if (renameat(s->root, SPARE_NAME, s->root, name) < 0)
		return -errno;
	close(take_fd(&s->spare));
	return 0;
}

int spool_write_file(struct spool *s, const char *name, const char *folder, const struct buf *data)
{
	int r = buf_failed(data) ? -ENOMEM : spool_spare(s);

	if (r == 0)
		r = spool_write_at(s->spare, 0, data, NULL, 0);
	if (r == 0)
		r = spool_spare_sync(s, data->len);
	if (r == 0)
		r = spool_spare_rename(s, name);
	if (r == 0)
		r = spool_sync_folder(s, folder);
	else
		spool_spare_drop(s);
	/* The next one may be needed when the disk is full. */
	spool_spare(s);
	return r;
}

int spool_read_file(const struct spool *s, const char *name, struct buf *out, size_t max)
{
	_cleanup_close_ int fd = spool_open_file(s, name, O_RDONLY);
	uint8_t *p = buf_reserve(out, max);
	ssize_t n;

	if (fd < 0)
		return fd;
	if (!p)
		return -ENOMEM;
	do {
		n = pread(fd, out->data + out->len, max, (off_t)out->len);
		if (n < 0)
			return -errno;
		out->len += (size_t)n;
		max -= (size_t)n;
	} while (n && max);
	return 0;
}

int spool_error(const struct spool *s, int e, struct err *err)
{
	switch (-e) {
	case EROFS:
		return err_set(err, e,
			       "the spool \"%s\" is on a file system that is mounted read-only: "
			       "spool.path has to be a folder that can be written",
			       s->path);
	case EACCES:
	case EPERM:
		return err_set(err, e, "this user may not write in the spool \"%s\"", s->path);
	case ENOSPC:
		return err_set(err, e, "the disk with the spool \"%s\" is full", s->path);
	case EDQUOT:
		return err_set(err, e, "the spool \"%s\" has reached the disk quota of its user",
			       s->path);
	case ENOTDIR:
		return err_set(err, e, "the spool \"%s\" is no folder", s->path);
	case ENOMEM:
		return err_set(err, e, "out of memory");
	}
	return err_sys(err, e, "the spool \"%s\"", s->path);
}
