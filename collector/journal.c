/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One file, and while it is rewritten a second one (`.tmp`) that takes its name when it is
 * durable; one that a crash left is removed by the next journal_open(). The lock is flock(2) on
 * the journal itself. A new file is locked before it gets the name, and who opened the name
 * looks whether it still leads to the file it locked: so there is never a moment when two
 * processes have the journal, and no lock file that somebody might remove.
 *
 * Invariants: the bytes up to `end` are whole commits with the numbers 1 to `number`. Nothing is
 * after them but, while `torn`, what a failed write left and could not take back; and, while
 * `damaged`, what was found there by journal_open(). Once `broken` nobody knows what is on the
 * disk, and nothing is written any more.
 *
 * What is damaged stays as it is until journal_rewrite() takes its place: whoever opens it again
 * has to be warned again.
 *
 * Nothing in the file is believed before its checksum was right, but for the length in a header
 * whose own checksum was right; that one is compared with what the file has.
 */
#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "fs.h"
#include "gzip.h"
#include "util.h"

#define HEADER       24u
#define LONG_BYTES   (4 << 20)
#define LONG_FACTOR  4
#define ROOM         (1 << 20) /* kept ahead for times when the disk is full */
#define ROOM_SHARE   16
#define PIECE        (64u << 10) /* read at once */
#define OPEN_RETRIES 100
#define SUFFIX       ".journal"

static const uint8_t magic[4] = "PSJ1";

struct journal {
	char *path;                       /* of the journal, for people */
	char *name, *tmp_name, *bad_name; /* in the folder */
	int folder_fd, fd;
	uint64_t number; /* of the last commit */
	off_t end;       /* of the last commit */
	off_t room;      /* there is space up to here */
	off_t long_at;   /* journal_is_long() from here on */
	bool torn, damaged, broken;
};

static void encode_header(uint8_t out[HEADER], const struct buf *body, uint64_t number)
{
	memcpy(out, magic, sizeof(magic));
	put_le32(out + 4, (uint32_t)body->len);
	put_le64(out + 8, number);
	put_le32(out + 16, gzip_crc32(0, body->data, body->len));
	put_le32(out + 20, gzip_crc32(0, out, 20));
}

static bool header_is_valid(const uint8_t in[HEADER])
{
	return !memcmp(in, magic, sizeof(magic)) && get_le32(in + 4) <= JOURNAL_BODY_MAX &&
	       get_le32(in + 20) == gzip_crc32(0, in, 20);
}

/* Write a commit at @offset. -errno: a part of it may be there. */
static int write_commit(int fd, off_t offset, uint64_t number, const struct buf *body)
{
	uint8_t header[HEADER];
	int r;

	encode_header(header, body, number);
	r = fs_write(fd, header, sizeof(header), offset);
	return r < 0 ? r : fs_write(fd, body->data, body->len, offset + HEADER);
}

/* Take it that the first commit ends at @end. */
static void set_long(struct journal *j, off_t end)
{
	j->long_at = MAX((off_t)LONG_BYTES, LONG_FACTOR * end);
}

/* Have space for @n bytes and more, but no large part of what a small disk has left. */
static void make_room(struct journal *j, size_t n)
{
	off_t wanted = j->end + (off_t)n, room = ROOM;
	struct statvfs fs;

	if (j->room - wanted >= ROOM / 2 || fstatvfs(j->fd, &fs) < 0)
		return;
	room = MIN(room, (off_t)(fs.f_bavail * fs.f_frsize / ROOM_SHARE));
	if (j->room - wanted < room / 2 &&
	    fallocate(j->fd, FALLOC_FL_KEEP_SIZE, j->end, (off_t)n + room) == 0)
		j->room = wanted + room;
}

/* Cut the file back to the last commit. */
static int cut(struct journal *j)
{
	if (ftruncate(j->fd, j->end) < 0)
		return -errno;
	j->torn = false;
	j->room = j->end;
	return 0;
}

/* The disk's fault, whatever its errno: never to be taken for damage that can be cut off. */
static int read_failed(const struct journal *j, int r, struct err *err)
{
	err_sys(err, r, "cannot read \"%s\"", j->path);
	return -EIO;
}

/*
 * Read the commit after the last one into @body (reset first). 1; 0: the file ends here, or a
 * commit that it has only a part of begins; -EBADMSG: there is something else; -errno.
 */
static int read_commit(struct journal *j, off_t size, struct buf *body, struct err *err)
{
	off_t at = j->end + HEADER;
	uint8_t header[HEADER];
	ssize_t n = fs_read(j->fd, header, MIN((off_t)HEADER, size - j->end), j->end);
	uint32_t left;

	if (n < 0)
		return read_failed(j, (int)n, err);
	if (memcmp(header, magic, MIN((size_t)n, sizeof(magic))) != 0)
		return -EBADMSG;
	if (n < (ssize_t)HEADER)
		return 0;
	if (!header_is_valid(header) || get_le64(header + 8) != j->number + 1)
		return -EBADMSG;
	left = get_le32(header + 4);
	if (left > size - at)
		return 0;
	buf_reset(body);
	while (left) {
		uint8_t *p = buf_reserve(body, MIN(left, PIECE));

		if (!p)
			return err_set(err, -ENOMEM, "out of memory");
		n = fs_read(j->fd, p, MIN(left, PIECE), at);
		if (n < 0)
			return read_failed(j, (int)n, err);
		if (n == 0)
			return 0;
		body->len += (size_t)n;
		at += n;
		left -= (uint32_t)n;
	}
	return gzip_crc32(0, body->data, body->len) == get_le32(header + 16) ? 1 : -EBADMSG;
}

/*
 * Is there a later commit after the damaged one that begins at @from? Then it is not the torn
 * end of a crash. 1, 0, -errno.
 */
static int commit_follows(struct journal *j, off_t from, off_t size, struct err *err)
{
	_cleanup_free_ uint8_t *piece = malloc(PIECE);

	if (!piece)
		return err_set(err, -ENOMEM, "out of memory");
	while (size - from >= (off_t)HEADER) {
		ssize_t n = fs_read(j->fd, piece, PIECE, from);

		if (n < 0)
			return read_failed(j, (int)n, err);
		if (n < (ssize_t)HEADER)
			return 0;
		for (const uint8_t *p = piece; p <= piece + n - HEADER; p++)
			if (header_is_valid(p) && get_le64(p + 8) > j->number + 1)
				return 1;
		/* The last bytes may be the first ones of a header. */
		from += n - (ssize_t)HEADER + 1;
	}
	return 0;
}

/*
 * Hand every commit to @fn. 1; 0: nothing in the file can be used, as @warning says; -errno.
 * `end` is where the commits end.
 */
static int replay(struct journal *j, off_t size, journal_replay_fn *fn, void *ctx,
		  struct err *warning, struct err *err)
{
	_cleanup_(buf_free) struct buf body = {};
	int r;

	while ((r = read_commit(j, size, &body, err)) > 0) {
		r = fn(ctx, body.data, body.len);
		if (r == -ENOMEM)
			return err_set(err, r, "out of memory");
		if (r < 0) {
			err_set(warning, 0, "\"%s\": commit %llu says what this version cannot use",
				j->path, (unsigned long long)j->number + 1);
			j->damaged = j->number > 0;
			return j->damaged;
		}
		j->number++;
		j->end += HEADER + (off_t)body.len;
		if (j->number == 1)
			set_long(j, j->end);
	}
	if (r != -EBADMSG)
		return r < 0 ? r : 1;
	if (!j->number) {
		err_set(warning, 0, "\"%s\" is no journal, or one that is damaged", j->path);
		return 0;
	}
	r = commit_follows(j, j->end + 1, size, err);
	j->damaged = r > 0;
	if (j->damaged)
		err_set(warning, 0, "\"%s\" is damaged at byte %lld: later commits are lost",
			j->path, (long long)j->end);
	return r < 0 ? r : 1;
}

/* Open or make the file and lock it. @ret_size: what it has. */
static int open_locked(struct journal *j, off_t *ret_size, struct err *err)
{
	for (int i = 0; i < OPEN_RETRIES; i++) {
		_cleanup_close_ int fd = -1;
		struct stat st, named;
		int r;

		/* O_NONBLOCK: do not wait for the writer of a FIFO. */
		fd = openat(j->folder_fd, j->name,
			    O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
		if (fd < 0)
			return err_sys(err, -errno, "cannot open the journal \"%s\"", j->path);
		r = fs_lock(fd);
		if (r == -EWOULDBLOCK)
			return err_set(err, -EBUSY, "another process has the journal \"%s\"",
				       j->path);
		if (r < 0)
			return err_sys(err, r, "cannot lock the journal \"%s\"", j->path);
		if (fstat(fd, &st) < 0)
			return err_sys(err, -errno, "cannot read \"%s\"", j->path);
		if (!S_ISREG(st.st_mode))
			return err_set(err, -EINVAL, "the journal \"%s\" is not a regular file",
				       j->path);
		if (fstatat(j->folder_fd, j->name, &named, AT_SYMLINK_NOFOLLOW) < 0 ||
		    named.st_ino != st.st_ino || named.st_dev != st.st_dev)
			continue; /* it was replaced before we had the lock */
		if (j->fd >= 0)
			close(j->fd);
		j->fd = take_fd(&fd);
		*ret_size = st.st_size;
		return 0;
	}
	return err_set(err, -EBUSY, "another process replaces the journal \"%s\"", j->path);
}

/* A file of no use gets another name, and a new one its place. */
static int set_aside(struct journal *j, struct err *warning, struct err *err)
{
	off_t size;
	int r;

	if (renameat(j->folder_fd, j->name, j->folder_fd, j->bad_name) < 0)
		return err_sys(err, -errno, "cannot move \"%s\" out of the way", j->path);
	r = open_locked(j, &size, err);
	if (r < 0)
		return r;
	if (size)
		return err_set(err, -EBUSY, "another process writes to \"%s\"", j->path);
	j->number = 0;
	j->end = 0;
	err_wrap(warning, 0, "moved to \"%s.bad\"", j->path);
	return 0;
}

static int set_up(struct journal *j, const char *path, journal_replay_fn *fn, void *ctx,
		  struct err *warning, struct err *err)
{
	off_t size;
	int r;

	j->folder_fd = fs_open_folder(path, err);
	if (j->folder_fd < 0)
		return j->folder_fd;
	if (faccessat(j->folder_fd, ".", W_OK | X_OK, AT_EACCESS) < 0)
		return err_sys(err, -errno, "cannot create files beside \"%s\"", j->path);
	r = open_locked(j, &size, err);
	if (r < 0)
		return r;
	if (unlinkat(j->folder_fd, j->tmp_name, 0) < 0 && errno != ENOENT)
		return err_sys(err, -errno, "cannot remove \"%s.tmp\"", j->path);
	r = replay(j, size, fn, ctx, warning, err);
	if (r == 0) {
		r = set_aside(j, warning, err);
		size = 0;
	}
	if (r < 0)
		return r;
	/* Nothing of what is cut off may come back behind what is appended. */
	if (size > j->end && !j->damaged && (cut(j) < 0 || fsync(j->fd) < 0))
		return err_sys(err, -errno, "cannot cut off the end of \"%s\"", j->path);
	r = fs_sync_folder(j->folder_fd);
	if (r < 0)
		return err_sys(err, r, "cannot make \"%s\" durable", j->path);
	j->room = j->end;
	make_room(j, 0);
	return 0;
}

int journal_open(const char *path, journal_replay_fn *fn, void *ctx, struct journal **ret,
		 struct err *warning, struct err *err)
{
	struct journal *j = calloc(1, sizeof(*j));
	const char *name = fs_name(path);
	int r;

	if (!j)
		return err_set(err, -ENOMEM, "out of memory");
	j->folder_fd = j->fd = -1;
	set_long(j, 0);
	err_set(warning, 0, "%s", "");
	if (asprintf(&j->path, "%s" SUFFIX, path) < 0)
		j->path = NULL;
	if (asprintf(&j->name, "%s" SUFFIX, name) < 0)
		j->name = NULL;
	if (asprintf(&j->tmp_name, "%s" SUFFIX ".tmp", name) < 0)
		j->tmp_name = NULL;
	if (asprintf(&j->bad_name, "%s" SUFFIX ".bad", name) < 0)
		j->bad_name = NULL;
	if (j->path && j->name && j->tmp_name && j->bad_name)
		r = set_up(j, path, fn, ctx, warning, err);
	else
		r = err_set(err, -ENOMEM, "out of memory");
	if (r < 0)
		journal_free(j);
	else
		*ret = j;
	return r;
}

struct journal *journal_free(struct journal *j)
{
	if (!j)
		return NULL;
	if (j->fd >= 0)
		close(j->fd);
	if (j->folder_fd >= 0)
		close(j->folder_fd);
	free(j->path);
	free(j->name);
	free(j->tmp_name);
	free(j->bad_name);
	free(j);
	return NULL;
}

/* May a commit of @body be written at all? */
static int check_body(const struct journal *j, const struct buf *body, struct err *err)
{
	if (j->broken)
		return err_set(err, -EIO, "what \"%s\" has on the disk is not known", j->path);
	if (buf_failed(body))
		return err_set(err, -ENOMEM, "out of memory");
	if (body->len > JOURNAL_BODY_MAX)
		return err_set(err, -EFBIG, "%zu bytes are too many for a commit", body->len);
	return 0;
}

/* @what was not done. After -EIO nobody knows what the disk has, and the kernel says so once. */
static int give_up(struct journal *j, int r, const char *what, struct err *err)
{
	j->broken |= r == -EIO;
	err_sys(err, r, "cannot %s \"%s\"", what, j->path);
	/* EFBIG: the size limit of the process or of the file system. */
	return r == -EFBIG ? -ENOSPC : r;
}

int journal_append(struct journal *j, const struct buf *body, bool sync, struct err *err)
{
	int r = check_body(j, body, err);

	if (r < 0)
		return r;
	if (j->damaged)
		return err_set(err, -ENOSPC, "\"%s\" is damaged, and cannot be written anew",
			       j->path);
	if (j->torn) {
		r = cut(j);
		if (r < 0)
			return give_up(j, r, "cut off the end of", err);
	}
	make_room(j, HEADER + body->len);
	r = write_commit(j->fd, j->end, j->number + 1, body);
	if (r < 0) {
		j->torn = true;
		cut(j);
		return give_up(j, r, "write to", err);
	}
	j->number++;
	j->end += HEADER + (off_t)body->len;
	if (j->number == 1)
		set_long(j, j->end);
	/* Whatever it is that failed (a quota that is checked late), pages may be gone. */
	if (sync && fdatasync(j->fd) < 0)
		return give_up(j, -EIO, "make durable", err);
	return 0;
}

bool journal_is_long(const struct journal *j)
{
	return j->end > j->long_at;
}

int journal_rewrite(struct journal *j, const struct buf *body, struct err *err)
{
	_cleanup_close_ int fd = -1;
	int r = check_body(j, body, err);

	if (r < 0)
		return r;
	fd = openat(j->folder_fd, j->tmp_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	r = fd < 0 ? -errno : fs_lock(fd);
	if (r == 0)
		r = write_commit(fd, 0, 1, body);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r == 0 && renameat(j->folder_fd, j->tmp_name, j->folder_fd, j->name) < 0)
		r = -errno;
	if (r < 0) {
		if (fd >= 0)
			unlinkat(j->folder_fd, j->tmp_name, 0);
		/* Not again with the very next commit, when this one was appended. */
		j->long_at = j->end + HEADER + (off_t)body->len + ROOM;
		return give_up(j, r, "rewrite", err);
	}
	close(j->fd);
	j->fd = take_fd(&fd);
	j->number = 1;
	j->end = HEADER + (off_t)body->len;
	j->torn = false;
	j->damaged = false;
	j->room = j->end;
	set_long(j, j->end);
	/* Until the new name is durable the old file may come back, without what is appended now.
	 */
	if (fs_sync_folder(j->folder_fd) < 0)
		return give_up(j, -EIO, "make durable", err);
	make_room(j, 0);
	return 0;
}
