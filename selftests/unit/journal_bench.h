/* SPDX-License-Identifier: Apache-2.0 */
/* Journals in a folder of their own, on a disk that fails when told to. For
 * test_collector_journal*.c. */
#ifndef PS_JOURNAL_BENCH_H
#define PS_JOURNAL_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "gzip.h"
#include "journal.h"
#include "util.h"

#define HEADER 24u

static char dir[64];

/* Calls of the code under test that fail with this errno; 0: they do what they do. */
static int ftruncate_fails, fdatasync_fails, fsync_fails;
static int fsync_works; /* so often before it fails */

static inline int fail_or(int e, long nr, int fd, off_t length)
{
	if (e) {
		errno = e;
		return -1;
	}
	return (int)syscall(nr, fd, length);
}

int ftruncate(int fd, off_t length)
{
	return fail_or(ftruncate_fails, SYS_ftruncate, fd, length);
}

int fdatasync(int fd)
{
	return fail_or(fdatasync_fails, SYS_fdatasync, fd, 0);
}

int fsync(int fd)
{
	return fail_or(fsync_works-- > 0 ? 0 : fsync_fails, SYS_fsync, fd, 0);
}

static inline const char *in_dir(const char *name)
{
	static char paths[4][128];
	static unsigned int next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
	return path;
}

#define OUTPUT  in_dir("dump.pcap")
#define JOURNAL in_dir("dump.pcap.journal")
#define TMP     in_dir("dump.pcap.journal.tmp")
#define BAD     in_dir("dump.pcap.journal.bad")

static inline int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/ps-journal-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static inline int teardown(void **state)
{
	(void)state;
	ftruncate_fails = fdatasync_fails = fsync_fails = 0;
	unlink(JOURNAL);
	unlink(TMP);
	unlink(BAD);
	return rmdir(dir);
}

/* What a replay said: the bodies, each behind its length. */
struct seen {
	struct buf bodies;
	int n;
	int fail_at; /* the commit that is refused, from 1; 0: none */
	int fail_with;
};

static inline int see(void *ctx, const uint8_t *body, size_t n)
{
	struct seen *seen = ctx;

	if (seen->fail_at && seen->n + 1 == seen->fail_at)
		return seen->fail_with;
	buf_put_le32(&seen->bodies, (uint32_t)n);
	buf_put(&seen->bodies, body, n);
	seen->n++;
	return 0;
}

static inline int ignore(void *ctx, const uint8_t *body, size_t n)
{
	(void)ctx;
	(void)body;
	(void)n;
	return 0;
}

/* Replay into @seen, which may be NULL. */
static inline struct journal *must_open(struct seen *seen, struct err *warning)
{
	struct journal *j = NULL;
	struct err err = {};

	if (seen) {
		buf_reset(&seen->bodies);
		seen->n = 0;
	}
	if (journal_open(OUTPUT, seen ? see : ignore, seen, &j, warning, &err) < 0)
		fail_msg("%s", err.text);
	return j;
}

/* A body of @n bytes that depend on @seed. */
static inline void make_body(struct buf *b, size_t n, unsigned int seed)
{
	buf_reset(b);
	for (size_t i = 0; i < n; i++)
		buf_put_u8(b, (uint8_t)(seed * 31 + i * 7 + i / 256));
}

static inline void must_append(struct journal *j, size_t n, unsigned int seed)
{
	struct buf b = {};
	struct err err = {};

	make_body(&b, n, seed);
	if (journal_append(j, &b, seed % 2, &err) < 0)
		fail_msg("%s", err.text);
	buf_free(&b);
}

static inline struct buf slurp(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct buf b = {};
	ssize_t n;

	assert_true(fd >= 0);
	while ((n = read(fd, buf_reserve(&b, 65536), 65536)) > 0)
		b.len += (size_t)n;
	assert_int_equal(n, 0);
	close(fd);
	return b;
}

static inline void spit(const char *path, const void *data, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, n), n);
	close(fd);
}

static inline off_t file_size(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 ? -1 : st.st_size;
}

/* The sizes of the bodies in the journal that most tests damage. */
static const size_t sizes[] = {70, 0, 1, 33, 24, 90};

/* Make it; @ends gets where each commit ends. */
static inline struct buf make_journal(off_t ends[ARRAY_SIZE(sizes)])
{
	struct journal *j = must_open(NULL, NULL);
	off_t end = 0;

	for (unsigned int i = 0; i < ARRAY_SIZE(sizes); i++) {
		must_append(j, sizes[i], i);
		end += HEADER + (off_t)sizes[i];
		ends[i] = end;
	}
	journal_free(j);
	assert_int_equal(file_size(JOURNAL), end);
	return slurp(JOURNAL);
}

static inline void assert_first_commits(const struct seen *seen, int n)
{
	struct buf body = {};
	size_t at = 0;

	assert_int_equal(seen->n, n);
	for (unsigned int i = 0; i < (unsigned int)n; i++) {
		make_body(&body, sizes[i], i);
		assert_int_equal(get_le32(seen->bodies.data + at), sizes[i]);
		if (sizes[i])
			assert_memory_equal(seen->bodies.data + at + 4, body.data, sizes[i]);
		at += 4 + sizes[i];
	}
	assert_int_equal(seen->bodies.len, at);
	buf_free(&body);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
