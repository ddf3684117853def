/* SPDX-License-Identifier: Apache-2.0 */
/* Journals on a disk that is full or fails, and in a process that is killed. */
#include "journal_bench.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
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
