/* SPDX-License-Identifier: Apache-2.0 */
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

static int fail_or(int e, long nr, int fd, off_t length)
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

static const char *in_dir(const char *name)
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

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/ps-journal-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
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

static int see(void *ctx, const uint8_t *body, size_t n)
{
	struct seen *seen = ctx;

	if (seen->fail_at && seen->n + 1 == seen->fail_at)
		return seen->fail_with;
	buf_put_le32(&seen->bodies, (uint32_t)n);
	buf_put(&seen->bodies, body, n);
	seen->n++;
	return 0;
}

static int ignore(void *ctx, const uint8_t *body, size_t n)
{
	(void)ctx;
	(void)body;
	(void)n;
	return 0;
}

/* Replay into @seen, which may be NULL. */
static struct journal *must_open(struct seen *seen, struct err *warning)
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
static void make_body(struct buf *b, size_t n, unsigned int seed)
{
	buf_reset(b);
	for (size_t i = 0; i < n; i++)
		buf_put_u8(b, (uint8_t)(seed * 31 + i * 7 + i / 256));
}

static void must_append(struct journal *j, size_t n, unsigned int seed)
{
	struct buf b = {};
	struct err err = {};

	make_body(&b, n, seed);
	if (journal_append(j, &b, seed % 2, &err) < 0)
		fail_msg("%s", err.text);
	buf_free(&b);
}

static struct buf slurp(const char *path)
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

static void spit(const char *path, const void *data, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, n), n);
	close(fd);
}

static off_t file_size(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 ? -1 : st.st_size;
}

/* The sizes of the bodies in the journal that most tests damage. */
static const size_t sizes[] = {70, 0, 1, 33, 24, 90};

/* Make it; @ends gets where each commit ends. */
static struct buf make_journal(off_t ends[ARRAY_SIZE(sizes)])
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

static void assert_first_commits(const struct seen *seen, int n)
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

static void commits_come_back_in_order(void **state)
{
	struct seen seen = {};
	struct err warning;
	off_t ends[ARRAY_SIZE(sizes)];
	struct buf file = make_journal(ends), again;
	struct journal *j;
	struct stat st;

	(void)state;
	assert_int_equal(stat(JOURNAL, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	/* As journal.h has it. */
	assert_memory_equal(file.data, "PSJ1", 4);
	assert_int_equal(get_le32(file.data + 4), sizes[0]);
	assert_int_equal(get_le64(file.data + 8), 1);
	assert_int_equal(get_le32(file.data + 16), gzip_crc32(0, file.data + HEADER, sizes[0]));
	assert_int_equal(get_le32(file.data + 20), gzip_crc32(0, file.data, 20));
	assert_int_equal(get_le64(file.data + ends[4] + 8), 6);

	for (int i = 0; i < 2; i++) {
		j = must_open(&seen, &warning);
		assert_first_commits(&seen, ARRAY_SIZE(sizes));
		assert_string_equal(warning.text, "");
		journal_free(j);
		again = slurp(JOURNAL);
		assert_int_equal(again.len, file.len);
		assert_memory_equal(again.data, file.data, file.len);
		buf_free(&again);
	}
	buf_free(&file);
	buf_free(&seen.bodies);
}

static void fresh_journal_is_empty(void **state)
{
	struct seen seen = {};
	struct err warning;

	(void)state;
	for (int i = 0; i < 2; i++) {
		journal_free(must_open(&seen, &warning));
		assert_int_equal(seen.n, 0);
		assert_string_equal(warning.text, "");
		assert_int_equal(file_size(JOURNAL), 0);
	}
}

/* How many of the commits end at @at or before. */
static int commits_before(const off_t *ends, off_t at)
{
	int n = 0;

	while (n < (int)ARRAY_SIZE(sizes) && ends[n] <= at)
		n++;
	return n;
}

/* What is damaged takes no commit but one that says everything. */
static void assert_stays_damaged(struct journal *j)
{
	struct buf body = {}, before = slurp(JOURNAL), after;
	struct err err = {};

	make_body(&body, 10, 1);
	assert_int_equal(journal_append(j, &body, true, &err), -ENOSPC);
	after = slurp(JOURNAL);
	assert_int_equal(after.len, before.len);
	assert_memory_equal(after.data, before.data, before.len);
	buf_free(&after);
	buf_free(&before);
	buf_free(&body);
}

static void rewrite_and_append(struct journal *j, struct seen *seen)
{
	struct buf body = {};
	struct err err = {}, warning = {};

	make_body(&body, sizes[0], 0);
	if (journal_rewrite(j, &body, &err) < 0)
		fail_msg("%s", err.text);
	must_append(j, sizes[1], 1);
	journal_free(j);
	j = must_open(seen, &warning);
	assert_first_commits(seen, 2);
	assert_string_equal(warning.text, "");
	journal_free(j);
	buf_free(&body);
}

/*
 * Open what is there now: the first @n commits, and one that is appended follows them. With a
 * warning about what is behind them, that needs a rewrite.
 */
static void assert_goes_on_after(int n, const off_t *ends, bool warned)
{
	struct seen seen = {};
	struct err warning;
	struct journal *j = must_open(&seen, &warning);

	assert_first_commits(&seen, n);
	assert_int_equal(warning.text[0] != '\0', warned);
	if (warned && n) {
		assert_stays_damaged(j);
		journal_free(j);
		j = must_open(&seen, &warning);
		assert_first_commits(&seen, n);
		assert_true(warning.text[0]);
		rewrite_and_append(j, &seen);
		buf_free(&seen.bodies);
		return;
	}
	assert_int_equal(file_size(JOURNAL), n ? ends[n - 1] : 0);
	if (n < (int)ARRAY_SIZE(sizes)) {
		must_append(j, sizes[n], (unsigned int)n);
		journal_free(j);
		j = must_open(&seen, &warning);
		assert_first_commits(&seen, n + 1);
		assert_string_equal(warning.text, "");
	}
	journal_free(j);
	buf_free(&seen.bodies);
}

static void torn_end_is_cut_off_at_every_byte(void **state)
{
	off_t ends[ARRAY_SIZE(sizes)];
	struct buf file = make_journal(ends);

	(void)state;
	for (size_t cut = 0; cut <= file.len; cut++) {
		spit(JOURNAL, file.data, cut);
		assert_goes_on_after(commits_before(ends, (off_t)cut), ends, false);
	}
	assert_int_equal(access(BAD, F_OK), -1);
	buf_free(&file);
}

/* The file system had grown the file, but not all pages of the last commit had been written. */
static void zeros_at_the_end_are_cut_off(void **state)
{
	off_t ends[ARRAY_SIZE(sizes)];
	struct buf file = make_journal(ends);

	(void)state;
	for (size_t zeros = (size_t)ends[0] + 1; zeros < file.len; zeros += 3) {
		uint8_t *copy = calloc(1, file.len);

		assert_non_null(copy);
		memcpy(copy, file.data, zeros);
		spit(JOURNAL, copy, file.len);
		assert_goes_on_after(commits_before(ends, (off_t)zeros), ends, false);
		free(copy);
	}
	buf_free(&file);
}

static void flipped_byte_ends_the_replay(void **state)
{
	static const uint8_t flips[] = {0x01, 0x80, 0xff};
	off_t ends[ARRAY_SIZE(sizes)];
	struct buf file = make_journal(ends), bad;

	(void)state;
	for (size_t i = 0; i < file.len; i++) {
		for (size_t f = 0; f < ARRAY_SIZE(flips); f++) {
			int n = commits_before(ends, (off_t)i);

			file.data[i] ^= flips[f];
			spit(JOURNAL, file.data, file.len);
			/* Damage in the last commit looks like a torn end. */
			assert_goes_on_after(n, ends, n + 1 < (int)ARRAY_SIZE(sizes));
			if (!n) {
				bad = slurp(BAD);
				assert_int_equal(bad.len, file.len);
				assert_memory_equal(bad.data, file.data, file.len);
				buf_free(&bad);
				unlink(BAD);
			}
			assert_int_equal(access(BAD, F_OK), -1);
			file.data[i] ^= flips[f];
		}
	}
	buf_free(&file);
}

/* Whole commits, but not the ones that belong there. */
static void commit_out_of_order_is_not_used(void **state)
{
	off_t ends[ARRAY_SIZE(sizes)];
	struct buf file = make_journal(ends), mixed = {};

	(void)state;
	/* One is missing. */
	buf_put(&mixed, file.data, (size_t)ends[1]);
	buf_put(&mixed, file.data + ends[2], file.len - (size_t)ends[2]);
	spit(JOURNAL, mixed.data, mixed.len);
	assert_goes_on_after(2, ends, true);
	/* One comes twice. */
	buf_reset(&mixed);
	buf_put(&mixed, file.data, (size_t)ends[1]);
	buf_put(&mixed, file.data + ends[0], file.len - (size_t)ends[0]);
	spit(JOURNAL, mixed.data, mixed.len);
	assert_goes_on_after(2, ends, true);
	/* The first one is missing. */
	spit(JOURNAL, file.data + ends[0], file.len - (size_t)ends[0]);
	assert_goes_on_after(0, ends, true);
	assert_int_equal(access(BAD, F_OK), 0);
	buf_free(&mixed);
	buf_free(&file);
}

/* A header with a right checksum that promises @n bytes. */
static void spit_promise(uint32_t n)
{
	uint8_t header[HEADER + 8] = "PSJ1";

	put_le32(header + 4, n);
	put_le64(header + 8, 1);
	put_le32(header + 20, gzip_crc32(0, header, 20));
	spit(JOURNAL, header, sizeof(header));
}

static void length_is_not_believed(void **state)
{
	static const uint32_t lengths[] = {9, 1 << 20, JOURNAL_BODY_MAX, JOURNAL_BODY_MAX + 1,
					   UINT32_MAX};
	struct rlimit old, small;
	const off_t ends[] = {0};

	(void)state;
	/* More than the promises need, less than they would take. */
	assert_int_equal(getrlimit(RLIMIT_DATA, &old), 0);
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		spit_promise(lengths[i]);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
		small = (struct rlimit){.rlim_cur = 64 << 20, .rlim_max = old.rlim_max};
		assert_int_equal(setrlimit(RLIMIT_DATA, &small), 0);
#else
		(void)small;
#endif
		assert_goes_on_after(0, ends, lengths[i] > JOURNAL_BODY_MAX);
		assert_int_equal(setrlimit(RLIMIT_DATA, &old), 0);
	}
}

static void garbage_is_moved_out_of_the_way(void **state)
{
	static const char *const garbage[] = {"P", "PSJ2", "\0\0\0\0\0\0",
					      "hello, world. I am a text"};
	static const size_t lengths[] = {1, 4, 6, 25};
	struct err warning;
	struct buf bad;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(garbage); i++) {
		spit(JOURNAL, garbage[i], lengths[i]);
		journal_free(must_open(NULL, &warning));
		assert_int_equal(file_size(JOURNAL), 0);
		if (i == 0) {
			/* The first byte of a journal: a torn one. */
			assert_string_equal(warning.text, "");
			continue;
		}
		assert_non_null(strstr(warning.text, ".journal.bad\""));
		bad = slurp(BAD);
		assert_int_equal(bad.len, lengths[i]);
		assert_memory_equal(bad.data, garbage[i], lengths[i]);
		buf_free(&bad);
	}
}

static void refused_commit_and_what_follows_are_replaced(void **state)
{
	off_t ends[ARRAY_SIZE(sizes)];
	struct buf file = make_journal(ends);

	(void)state;
	for (int at = 1; at <= (int)ARRAY_SIZE(sizes); at++) {
		struct seen seen = {.fail_at = at, .fail_with = -EBADMSG};
		struct err warning;
		struct journal *j;

		spit(JOURNAL, file.data, file.len);
		j = must_open(&seen, &warning);
		assert_true(warning.text[0]);
		assert_int_equal(access(BAD, F_OK), at == 1 ? 0 : -1);
		unlink(BAD);
		assert_first_commits(&seen, at - 1);
		if (at > 1)
			assert_stays_damaged(j);
		seen.fail_at = 0;
		rewrite_and_append(j, &seen);
		buf_free(&seen.bodies);
	}
	buf_free(&file);
}

static void no_memory_is_no_damage(void **state)
{
	struct seen seen = {.fail_at = 3, .fail_with = -ENOMEM};
	off_t ends[ARRAY_SIZE(sizes)];
	struct buf file = make_journal(ends);
	struct err err = {}, warning;
	struct journal *j;

	(void)state;
	assert_int_equal(journal_open(OUTPUT, see, &seen, &j, &warning, &err), -ENOMEM);
	assert_true(err.text[0]);
	assert_goes_on_after(ARRAY_SIZE(sizes), ends, false);
	buf_free(&seen.bodies);
	buf_free(&file);
}

static void rewrite_leaves_one_commit(void **state)
{
	struct seen seen = {};
	off_t ends[ARRAY_SIZE(sizes)];
	struct buf file = make_journal(ends), body = {};
	struct journal *j = must_open(NULL, NULL);
	struct err err = {};

	(void)state;
	make_body(&body, sizes[0], 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(journal_rewrite(j, &body, &err), 0);
		assert_int_equal(file_size(JOURNAL), ends[0]);
		assert_int_equal(access(TMP, F_OK), -1);
	}
	must_append(j, sizes[1], 1);
	must_append(j, sizes[2], 2);
	/* The lock went along. */
	assert_int_equal(journal_open(OUTPUT, see, &seen, &(struct journal *){NULL}, NULL, &err),
			 -EBUSY);
	journal_free(j);
	assert_goes_on_after(3, ends, false);
	buf_free(&body);
	buf_free(&file);
}

/* Killed while the new file was written: the old one counts, whatever the other has. */
static void crash_before_the_rename_changes_nothing(void **state)
{
	off_t ends[ARRAY_SIZE(sizes)];
	struct buf file = make_journal(ends);

	(void)state;
	for (size_t cut = 0; cut <= (size_t)ends[0]; cut++) {
		spit(JOURNAL, file.data, file.len);
		spit(TMP, file.data, cut);
		assert_goes_on_after(ARRAY_SIZE(sizes), ends, false);
		assert_int_equal(access(TMP, F_OK), -1);
	}
	buf_free(&file);
}

/* No descriptor for the new file, for example: the commit is appended, and not every one after it.
 */
static void rewrite_that_failed_is_not_tried_with_every_commit(void **state)
{
	struct rlimit old, few;
	struct buf body = {};
	struct journal *j = must_open(NULL, NULL);
	int fd = dup(STDOUT_FILENO);
	struct err err;

	(void)state;
	must_append(j, 5 << 20, 2);
	must_append(j, 20 << 20, 2);
	assert_true(journal_is_long(j));
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	few = (struct rlimit){.rlim_cur = (rlim_t)fd, .rlim_max = old.rlim_max};
	close(fd);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	make_body(&body, 3 << 20, 1);
	assert_int_equal(journal_rewrite(j, &body, &err), -EMFILE);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(journal_append(j, &body, false, &err), 0);
	assert_false(journal_is_long(j));
	must_append(j, 1 << 20, 2);
	assert_true(journal_is_long(j));
	journal_free(j);
	buf_free(&body);
}

static void journal_gets_long(void **state)
{
	struct journal *j = must_open(NULL, NULL);
	struct buf body = {};

	(void)state;
	/* Much less than 4 MiB all in all, then 4 times the first commit. */
	must_append(j, 1000, 1);
	for (unsigned int i = 0; i < 41; i++) {
		assert_false(journal_is_long(j));
		must_append(j, 100 << 10, 2 * i);
	}
	assert_true(journal_is_long(j));
	journal_free(j);
	j = must_open(NULL, NULL);
	assert_true(journal_is_long(j));
	make_body(&body, 2 << 20, 1);
	assert_int_equal(journal_rewrite(j, &body, NULL), 0);
	for (unsigned int i = 0; i < 3; i++) {
		assert_false(journal_is_long(j));
		assert_int_equal(journal_append(j, &body, false, NULL), 0);
	}
	must_append(j, 1, 2);
	assert_true(journal_is_long(j));
	journal_free(j);
	buf_free(&body);
}

static void second_process_is_kept_out(void **state)
{
	struct journal *j = must_open(NULL, NULL), *other = NULL;
	struct err err = {}, warning = {};

	(void)state;
	must_append(j, 10, 1);
	spit(TMP, "mine", 4);
	assert_int_equal(journal_open(OUTPUT, see, &(struct seen){}, &other, &warning, &err),
			 -EBUSY);
	assert_non_null(strstr(err.text, "another process"));
	assert_int_equal(access(TMP, F_OK), 0);
	journal_free(j);
	journal_free(must_open(NULL, NULL));
}

static void odd_paths_are_errors(void **state)
{
	struct journal *j = NULL;
	struct err err = {};

	(void)state;
	assert_int_equal(journal_open("/nowhere/at/all/x", see, NULL, &j, NULL, &err), -ENOENT);
	assert_true(err.text[0]);
	assert_int_equal(journal_open("/proc/x", see, NULL, &j, NULL, &err) < 0, 1);
	/* A link, even to a journal; a folder; a FIFO that nobody writes to. */
	spit(BAD, "", 0);
	assert_int_equal(symlink("dump.pcap.journal.bad", JOURNAL), 0);
	assert_int_equal(journal_open(OUTPUT, see, NULL, &j, NULL, &err), -ELOOP);
	unlink(JOURNAL);
	assert_int_equal(mkdir(JOURNAL, 0700), 0);
	assert_int_equal(journal_open(OUTPUT, see, NULL, &j, NULL, &err), -EISDIR);
	rmdir(JOURNAL);
	assert_int_equal(mkfifo(JOURNAL, 0600), 0);
	assert_int_equal(journal_open(OUTPUT, see, NULL, &j, NULL, &err), -EINVAL);
}

static void folder_of_others_is_a_clear_error(void **state)
{
	struct journal *j = NULL;
	int status = -1;
	pid_t pid;

	(void)state;
	if (geteuid() != 0)
		skip();
	journal_free(must_open(NULL, NULL));
	assert_int_equal(chmod(dir, 0755), 0);
	assert_int_equal(chmod(JOURNAL, 0666), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		struct err err = {};
		int r = setresuid(65534, 65534, 65534);

		/* One could append to the journal, but never rewrite it. */
		if (r == 0)
			r = journal_open(OUTPUT, see, NULL, &j, NULL, &err);
		_exit(r == -EACCES && strstr(err.text, "cannot create files") ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* A limit that cuts the record somewhere in the middle. */
static void limit_file_size(rlim_t limit)
{
	struct rlimit old;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	old.rlim_cur = limit;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
}

static void failed_append_leaves_no_trace(void **state)
{
	off_t ends[ARRAY_SIZE(sizes)];
	struct buf file = make_journal(ends), body = {};
	struct journal *j = must_open(NULL, NULL);

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	make_body(&body, 100, 9);
	for (rlim_t room = 0; room < HEADER + 100; room += 7) {
		struct err err = {};

		limit_file_size(file.len + room);
		assert_int_equal(journal_append(j, &body, true, &err), -ENOSPC);
		assert_true(err.text[0]);
		assert_int_equal(file_size(JOURNAL), file.len);
		if (room < HEADER)
			assert_int_equal(journal_rewrite(j, &file, &err), -ENOSPC);
		assert_int_equal(access(TMP, F_OK), -1);
		limit_file_size(RLIM_INFINITY);
	}
	make_body(&body, 5, 9);
	assert_int_equal(journal_append(j, &body, true, NULL), 0);
	assert_int_equal(file_size(JOURNAL), file.len + HEADER + 5);
	journal_free(j);
	buf_free(&file);
	buf_free(&body);
}

static void failed_cut_is_tried_again(void **state)
{
	off_t ends[ARRAY_SIZE(sizes)];
	struct buf file = make_journal(ends), body = {};
	struct journal *j = must_open(NULL, NULL);
	struct err err = {};

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	make_body(&body, 100, 9);
	limit_file_size(file.len + 50);
	ftruncate_fails = EINTR;
	assert_int_equal(journal_append(j, &body, true, &err), -ENOSPC);
	limit_file_size(RLIM_INFINITY);
	assert_int_equal(file_size(JOURNAL), file.len + 50);
	/* What is shorter would leave a rest behind itself. */
	make_body(&body, 5, 9);
	assert_int_equal(journal_append(j, &body, true, &err), -EINTR);
	assert_int_equal(file_size(JOURNAL), file.len + 50);
	ftruncate_fails = 0;
	assert_int_equal(journal_append(j, &body, true, &err), 0);
	assert_int_equal(file_size(JOURNAL), file.len + HEADER + 5);
	journal_free(j);
	buf_free(&file);
	buf_free(&body);
}

static void nothing_is_written_after_a_failed_sync(void **state)
{
	struct journal *j = must_open(NULL, NULL);
	struct buf body = {};
	struct err err = {};
	off_t size;

	(void)state;
	make_body(&body, 100, 9);
	assert_int_equal(journal_append(j, &body, true, &err), 0);
	/* A file system that finds out late about its quota. */
	fdatasync_fails = EDQUOT;
	assert_int_equal(journal_append(j, &body, false, &err), 0);
	assert_int_equal(journal_append(j, &body, true, &err), -EIO);
	assert_true(err.text[0]);
	fdatasync_fails = 0;
	size = file_size(JOURNAL);
	assert_int_equal(journal_append(j, &body, true, &err), -EIO);
	assert_int_equal(journal_rewrite(j, &body, &err), -EIO);
	assert_int_equal(file_size(JOURNAL), size);
	journal_free(j);
	buf_free(&body);
}

static void rewrite_that_is_not_durable_is_given_up(void **state)
{
	struct journal *j = must_open(NULL, NULL);
	struct seen seen = {};
	struct buf body = {};
	struct err err = {};

	(void)state;
	make_body(&body, 100, 9);
	assert_int_equal(journal_append(j, &body, true, &err), 0);
	/* The new file: everything is as before. */
	fsync_works = 0;
	fsync_fails = EDQUOT;
	assert_int_equal(journal_rewrite(j, &body, &err), -EDQUOT);
	assert_int_equal(access(TMP, F_OK), -1);
	assert_int_equal(journal_append(j, &body, true, &err), 0);
	/* The new name: the old file may come back, so nothing may follow. */
	fsync_works = 1;
	assert_int_equal(journal_rewrite(j, &body, &err), -EIO);
	assert_int_equal(journal_append(j, &body, true, &err), -EIO);
	fsync_fails = 0;
	journal_free(j);
	journal_free(must_open(&seen, NULL));
	assert_int_equal(seen.n, 1);
	buf_free(&seen.bodies);
	buf_free(&body);
}

static int get_value(void *ctx, const uint8_t *body, size_t n)
{
	uint64_t *value = ctx, now = n >= 8 ? get_le64(body) : 0;

	if (now <= *value)
		return -EBADMSG;
	*value = now;
	return 0;
}

/* Commits higher and higher values, and says so in @fd when they are durable. */
static void commit_until_killed(int fd)
{
	struct buf body = {};
	struct journal *j;
	uint64_t value = 0;

	if (journal_open(OUTPUT, get_value, &value, &j, NULL, NULL) < 0)
		_exit(1);
	for (;;) {
		int r;

		make_body(&body, 8 + (value * 7919) % 9000, (unsigned int)value);
		put_le64(body.data, ++value);
		if (value % 16)
			r = journal_append(j, &body, true, NULL);
		else
			r = journal_rewrite(j, &body, NULL);
		if (r < 0 || write(fd, &value, sizeof(value)) != sizeof(value))
			_exit(1);
	}
}

static void kill_at_any_moment_loses_no_commit(void **state)
{
	uint64_t told = 0, value;

	(void)state;
	for (int i = 0; i < 25; i++) {
		struct err warning = {}, err = {};
		struct journal *j = NULL;
		int fds[2], status;
		pid_t pid;

		assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
		pid = fork();
		assert_true(pid >= 0);
		if (!pid)
			commit_until_killed(fds[1]);
		close(fds[1]);
		for (int n = 0; n <= i; n++)
			assert_int_equal(read(fds[0], &told, sizeof(told)), sizeof(told));
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		while (read(fds[0], &told, sizeof(told)) == sizeof(told))
			;
		close(fds[0]);

		value = 0;
		if (journal_open(OUTPUT, get_value, &value, &j, &warning, &err) < 0)
			fail_msg("%s", err.text);
		journal_free(j);
		assert_string_equal(warning.text, "");
		/* One may be durable that nobody was told of any more. */
		assert_in_range(value, told, told + 1);
	}
}

static void body_that_failed_is_not_written(void **state)
{
	struct buf failed = {.failed = true}, huge = {.len = (size_t)JOURNAL_BODY_MAX + 1};
	struct journal *j = must_open(NULL, NULL);
	struct err err = {};

	(void)state;
	assert_int_equal(journal_append(j, &failed, true, &err), -ENOMEM);
	assert_int_equal(journal_rewrite(j, &failed, &err), -ENOMEM);
	assert_int_equal(journal_append(j, &huge, true, &err), -EFBIG);
	assert_int_equal(file_size(JOURNAL), 0);
	journal_free(j);
}

/* On a file system of 2 MiB that is filled up: in a process with mounts of its own. */
static int on_a_full_disk(void)
{
	static uint8_t block[4096];
	off_t before;
	struct buf small = {}, large = {};
	struct seen seen = {};
	struct journal *j;
	int fd, n = 0;

	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("ps-journal", dir, "tmpfs", 0, "size=2m") < 0)
		return 77;
	make_body(&small, 500, 1);
	make_body(&large, 3 << 20, 2);
	j = must_open(NULL, NULL);
	must_append(j, 500, 1);
	fd = open(in_dir("filler"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	while (write(fd, block, sizeof(block)) == sizeof(block))
		n++;
	if (errno != ENOSPC || n < 100)
		return 1;
	/* There is room for small commits still. */
	for (int i = 0; i < 100; i++)
		if (journal_append(j, &small, true, NULL) < 0)
			return 2;
	before = file_size(JOURNAL);
	if (journal_append(j, &large, true, NULL) != -ENOSPC || file_size(JOURNAL) != before)
		return 3;
	if (journal_rewrite(j, &large, NULL) != -ENOSPC || access(TMP, F_OK) == 0)
		return 4;
	if (ftruncate(fd, 0) < 0 || journal_append(j, &small, true, NULL) < 0)
		return 5;
	journal_free(j);
	journal_free(must_open(&seen, NULL));
	return seen.n == 102 ? 0 : 6;
}

static void full_disk_is_survived(void **state)
{
	int status = -1;
	pid_t pid;

	(void)state;
	if (geteuid() != 0)
		skip();
	pid = fork();
	assert_true(pid >= 0);
	if (!pid)
		_exit(on_a_full_disk());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(commits_come_back_in_order),
		TEST(fresh_journal_is_empty),
		TEST(torn_end_is_cut_off_at_every_byte),
		TEST(zeros_at_the_end_are_cut_off),
		TEST(flipped_byte_ends_the_replay),
		TEST(commit_out_of_order_is_not_used),
		TEST(length_is_not_believed),
		TEST(garbage_is_moved_out_of_the_way),
		TEST(refused_commit_and_what_follows_are_replaced),
		TEST(no_memory_is_no_damage),
		TEST(rewrite_leaves_one_commit),
		TEST(crash_before_the_rename_changes_nothing),
		TEST(journal_gets_long),
		TEST(rewrite_that_failed_is_not_tried_with_every_commit),
		TEST(second_process_is_kept_out),
		TEST(odd_paths_are_errors),
		TEST(folder_of_others_is_a_clear_error),
		TEST(failed_append_leaves_no_trace),
		TEST(failed_cut_is_tried_again),
		TEST(nothing_is_written_after_a_failed_sync),
		TEST(rewrite_that_is_not_durable_is_given_up),
		TEST(kill_at_any_moment_loses_no_commit),
		TEST(body_that_failed_is_not_written),
		TEST(full_disk_is_survived),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
