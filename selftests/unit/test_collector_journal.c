/* SPDX-License-Identifier: Apache-2.0 */
/* What a journal says when it is opened again, whole, torn or damaged. */
#include "journal_bench.h"

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
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
