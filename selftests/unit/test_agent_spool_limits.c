/* SPDX-License-Identifier: Apache-2.0 */
/* Eviction: by size, age and free space, what it books, and crashes in the middle of it. */
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "spool_bench.h"

static struct spool_config small(void)
{
	struct spool_config c = bench_config();

	c.max_bytes = 40u << 10;
	return c;
}

static uint64_t disk_bytes(uint64_t epoch)
{
	uint64_t v[64], bytes = 0;
	size_t n = segments(epoch, v);

	for (size_t i = 0; i < n; i++)
		bytes += file_size(epoch, v[i]);
	return bytes;
}

/* Everything that was captured is somewhere, once. */
static void assert_books(const struct bench *b, uint64_t last)
{
	for (uint32_t i = 1; i <= 2; i++) {
		struct ledger_count all = sum_of(1, last, i);

		assert_int_equal(b->lost[i].packets + b->committed[i].packets, all.packets);
		assert_int_equal(b->lost[i].bytes + b->committed[i].bytes, all.bytes);
	}
}

static void the_oldest_go_when_it_is_full_and_are_counted_exactly(void **state)
{
	struct spool_config c = small();
	struct outcome o;
	struct bench b;

	(void)state;
	bench_open(&b, &c);
	for (uint64_t seq = 1; seq <= 500; seq++) {
		assert_int_equal(append(&b, seq), 0);
		assert_true(disk_bytes(EPOCH) <= c.max_bytes);
	}
	assert_int_equal(spool_first_seq(b.e), 1);
	o = read_all(b.e, 1, b.body);
	assert_in_range(o.whole, 60, 120);
	assert_int_equal(o.whole + o.counted, 500);
	assert_int_equal(o.gaps, 1);
	for (uint32_t i = 1; i <= 2; i++) {
		assert_count(o.lost[i], sum_of(1, o.counted, i));
		assert_count(b.lost[i], o.lost[i]);
	}
	spool_ack(b.e, 500);
	assert_books(&b, 500);
	assert_count(b.committed[1], sum_of(o.counted + 1, 500, 1));
	spool_close(b.spool);
}

static void a_long_outage_leaves_one_small_file_of_holes(void **state)
{
	struct spool_config c = small();
	struct outcome o;
	uint64_t v[64];
	struct bench b;

	(void)state;
	bench_open(&b, &c);
	append_all(&b, 1, 2000);
	assert_in_range(segments(EPOCH, v), 3, 7);
	assert_int_equal(v[0], 1);
	assert_true(file_size(EPOCH, 1) < 1000);
	spool_close(b.spool);

	b.spool = open_spool(&c);
	b.e = spool_oldest(b.spool);
	o = read_all(b.e, 1, b.body);
	assert_int_equal(o.gaps, 1);
	assert_int_equal(o.whole + o.counted, 2000);
	spool_close(b.spool);
}

/* What may have been sent can be taken in part, so each keeps its own count. */
static void a_collector_may_have_any_first_part_of_what_was_sent(void **state)
{
	struct spool_config c = small();
	struct outcome o;
	struct bench b;

	(void)state;
	for (uint64_t sent = 0; sent <= 60; sent += 7) {
		for (uint64_t taken = 0; taken <= sent; taken += 3) {
			struct buf wire = {};
			struct backlog_message m;

			bench_open(&b, &c);
			append_all(&b, 1, 70);
			for (uint64_t seq = 1; seq <= sent; seq++)
				assert_int_equal(spool_read(b.e, seq, &wire, &m, &why), 1);
			append_all(&b, 71, 300);
			spool_ack(b.e, taken);
			assert_count(b.committed[1], sum_of(1, taken, 1));
			o = read_all(b.e, taken + 1, b.body);
			assert_int_equal(o.unknown, 0);
			assert_int_equal(o.whole + o.counted, 300 - taken);
			assert_count(b.lost[1], o.lost[1]);
			assert_count(b.lost[2], o.lost[2]);
			append_all(&b, 301, 400);
			spool_ack(b.e, 300);
			read_all(b.e, 301, b.body);
			spool_ack(b.e, 400);
			assert_books(&b, 400);
			buf_free(&wire);
			spool_close(b.spool);
		}
	}
}

/* It would take a GAP that begins with what it has for one that it has, and miss the rest. */
static void a_gap_never_begins_with_what_a_collector_may_have(void **state)
{
	struct spool_config c = small();
	struct buf wire = {};
	struct backlog_message m;
	struct bench b;

	(void)state;
	bench_open(&b, &c);
	append_all(&b, 1, 40);
	for (uint64_t seq = 1; seq <= 30; seq++)
		assert_int_equal(spool_read(b.e, seq, &wire, &m, &why), 1);
	append_all(&b, 41, 400);
	/* Another session, and one more. */
	for (int i = 0; i < 2; i++) {
		for (uint64_t seq = 1; seq <= 30; seq++) {
			assert_int_equal(spool_read(b.e, seq, &wire, &m, &why), 1);
			assert_int_equal(m.type, STREAM_GAP);
			assert_int_equal(m.seq, seq);
			assert_int_equal(m.last_seq, seq);
		}
		assert_int_equal(spool_read(b.e, 31, &wire, &m, &why), 1);
		assert_int_equal(m.type, STREAM_GAP);
		assert_true(m.last_seq > 100);
	}
	buf_free(&wire);
	spool_close(b.spool);
}

/* The acknowledgement of what was sent comes after its eviction. */
static void what_arrived_before_it_was_evicted_is_not_lost(void **state)
{
	struct spool_config c = small();
	struct buf wire = {};
	struct backlog_message m;
	struct bench b;

	(void)state;
	bench_open(&b, &c);
	append_all(&b, 1, 40);
	for (uint64_t seq = 1; seq <= 30; seq++)
		assert_int_equal(spool_read(b.e, seq, &wire, &m, &why), 1);
	append_all(&b, 41, 400);
	/* The session goes on: 31 is in a hole now. */
	assert_int_equal(spool_read(b.e, 31, &wire, &m, &why), 1);
	assert_int_equal(m.type, STREAM_GAP);
	assert_int_equal(m.seq, 31);
	spool_ack(b.e, 11);
	spool_ack(b.e, 30);
	for (uint32_t i = 1; i <= 2; i++) {
		assert_count(b.committed[i], sum_of(1, 30, i));
		assert_count(b.lost[i], sum_of(31, m.last_seq, i));
	}
	spool_ack(b.e, m.last_seq);
	read_all(b.e, m.last_seq + 1, b.body);
	spool_ack(b.e, 400);
	assert_books(&b, 400);
	buf_free(&wire);
	spool_close(b.spool);
}

static void what_was_sent_from_memory_counts_as_sent(void **state)
{
	struct spool_config c = small();
	struct outcome o;
	struct bench b;

	(void)state;
	bench_open(&b, &c);
	append_all(&b, 1, 20);
	spool_sent(b.e, 15);
	append_all(&b, 21, 300);
	o = read_all(b.e, 9, b.body);
	assert_int_equal(o.unknown, 0);
	assert_count(o.lost[1], sum_of(9, 8 + o.counted, 1));
	spool_ack(b.e, 8);
	assert_count(b.committed[1], sum_of(1, 8, 1));
	spool_ack(b.e, 300);
	assert_books(&b, 300);
	spool_close(b.spool);
}

static void the_oldest_epoch_goes_first(void **state)
{
	struct spool_config c = small();
	struct outcome o;
	struct bench b;

	(void)state;
	bench_open(&b, &c);
	append_all(&b, 1, 80);
	spool_close(b.spool);
	b = (struct bench){.spool = open_spool(&c), .body = 300};
	b.e = spool_begin(b.spool, EPOCH + 1, bench_hello, bench_settle, &b);
	append_all(&b, 1, 50);
	assert_true(disk_bytes(EPOCH) + disk_bytes(EPOCH + 1) <= c.max_bytes);
	assert_int_equal(read_all(b.e, 1, b.body).whole, 50);
	o = read_all(spool_oldest(b.spool), 1, b.body);
	assert_in_range(o.whole, 1, 60);
	assert_int_equal(o.whole + o.counted, 80);
	/* Any part of it may have been sent by the earlier run. */
	for (uint64_t seq = 1; seq <= 80; seq += 5) {
		o = read_all(spool_oldest(b.spool), seq, b.body);
		assert_int_equal(o.unknown, 0);
		assert_int_equal(o.whole + o.counted, 81 - seq);
	}
	append_all(&b, 51, 400);
	o = read_all(spool_oldest(b.spool), 1, b.body);
	assert_int_equal(o.counted, 80);
	o = read_all(b.e, 1, b.body);
	assert_int_equal(o.whole + o.counted, 400);
	assert_int_equal(b.lost[1].packets, o.lost[1].packets);
	spool_close(b.spool);
}

static void the_old_go_by_age(void **state)
{
	struct spool_config c = bench_config();
	struct timeval old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
	struct outcome o;
	uint64_t v[64];
	char path[256];
	struct bench b;

	(void)state;
	c.max_age = 3600 * NSEC_PER_SEC;
	bench_open(&b, &c);
	append_all(&b, 1, 90);
	assert_true(segments(EPOCH, v) > 3);
	for (size_t i = 0; i < 2; i++) {
		path_segment(path, EPOCH, v[i]);
		assert_int_equal(utimes(path, old), 0);
	}
	spool_tend(b.spool);
	assert_int_equal(read_all(b.e, 1, b.body).whole, 90);
	spool_close(b.spool);
	b.spool = open_spool(&c);
	spool_tend(b.spool);
	o = read_all(spool_oldest(b.spool), 1, b.body);
	assert_int_equal(o.counted, v[2] - 1);
	assert_int_equal(o.whole, 90 - o.counted);
	spool_close(b.spool);
	/* A second of age is over soon, also for the one that still grows. */
	c.max_age = 1;
	b = (struct bench){.spool = open_spool(&c), .body = 300};
	b.e = spool_begin(b.spool, EPOCH + 1, bench_hello, bench_settle, &b);
	append_all(&b, 1, 90);
	spool_tend(b.spool);
	o = read_all(b.e, 1, b.body);
	assert_int_equal(o.counted, 90);
	append_all(&b, 91, 92);
	assert_int_equal(read_all(b.e, 91, b.body).whole, 2);
	spool_close(b.spool);
}

static void nothing_is_kept_where_too_little_space_is_free(void **state)
{
	struct spool_config c = bench_config();
	struct outcome o;
	struct bench b;

	(void)state;
	bench_open(&b, &c);
	append_all(&b, 1, 50);
	spool_close(b.spool);
	c.min_free = UINT64_MAX / 4;
	b = (struct bench){.spool = open_spool(&c), .body = 300};
	b.e = spool_begin(b.spool, EPOCH + 1, bench_hello, bench_settle, &b);
	assert_int_equal(append(&b, 1), -ENOSPC);
	assert_non_null(strstr(why.text, "full"));
	o = read_all(spool_oldest(b.spool), 1, b.body);
	assert_int_equal(o.counted, 50);
	assert_int_equal(spool_first_seq(b.e), 1);
	assert_int_equal(spool_next_seq(b.e), 1);
	spool_close(b.spool);
}

/* Somebody else fills the disk: nothing has to be appended for that to be noticed. */
static void too_little_free_space_is_noticed_in_time(void **state)
{
	struct spool_config c = bench_config();
	struct bench b;

	(void)state;
	bench_open(&b, &c);
	append_all(&b, 1, 50);
	spool_close(b.spool);
	c.min_free = UINT64_MAX / 4;
	b.spool = open_spool(&c);
	spool_tend(b.spool);
	assert_int_equal(read_all(spool_oldest(b.spool), 1, b.body).counted, 50);
	spool_close(b.spool);
}

static void a_message_larger_than_the_spool_evicts_nothing(void **state)
{
	struct spool_config c = small();
	struct bench b;

	(void)state;
	bench_open(&b, &c);
	append_all(&b, 1, 20);
	b.body = 60u << 10;
	assert_int_equal(append(&b, 21), -ENOSPC);
	b.body = 300;
	assert_int_equal(read_all(b.e, 1, b.body).whole, 20);
	append_all(&b, 21, 22);
	spool_close(b.spool);
}

/*
 * A file system of 256 KiB of our own, in a namespace of our own, filled to the last byte;
 * in a child, because a test program that enters one never gets out.
 */
static int full_disk(void)
{
	struct spool_config c = bench_config();
	static uint8_t block[4096];
	struct outcome o, again;
	struct bench b;
	uint64_t first, n;
	char path[256];
	int fd;

	if (unshare(CLONE_NEWNS) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
		return 77;
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", folder, "tmpfs", 0, "size=512k") < 0)
		return 77;
	bench_open(&b, &c);
	append_all(&b, 1, 300);
	path_in(path, "filler");
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	while (write(fd, block, sizeof(block)) > 0)
		;
	/* The oldest make room. */
	append_all(&b, 301, 700);
	o = read_all(b.e, 1, b.body);
	assert_int_equal(o.whole + o.counted, 700);
	assert_true(o.whole > 200);
	assert_int_equal(o.unknown, 0);
	assert_count(b.lost[1], o.lost[1]);
	spool_close(b.spool);
	b.spool = open_spool(&c);
	again = read_all(spool_oldest(b.spool), 1, b.body);
	assert_int_equal(again.whole, o.whole);
	assert_int_equal(again.counted, o.counted);
	spool_remove(b.spool, spool_oldest(b.spool));
	/* All that we could evict is gone, and it is still full: nothing half is left. */
	while (write(fd, block, sizeof(block)) > 0)
		;
	b = (struct bench){.spool = b.spool, .body = 300};
	b.e = spool_begin(b.spool, EPOCH + 1, bench_hello, bench_settle, &b);
	for (n = 1; n < 400 && append(&b, n) == 0; n++)
		;
	assert_int_equal(append(&b, n), -ENOSPC);
	assert_int_equal(spool_next_seq(b.e), n);
	assert_int_equal(ftruncate(fd, 0), 0);
	append_all(&b, n, n + 100);
	first = spool_first_seq(b.e);
	o = read_all(b.e, first, b.body);
	assert_int_equal(o.unknown, 0);
	assert_int_equal(o.next, n + 101);
	close(fd);
	spool_close(b.spool);
	if (mount(NULL, folder, NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0) {
		uint8_t id[16] = {};
		struct spool *s;

		assert_int_equal(spool_open(&c, id, &s, &why), -EROFS);
		assert_non_null(strstr(why.text, "read-only"));
	}
	return 0;
}

static void a_full_disk_costs_the_oldest_and_half_messages_are_cut_off(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	if (!pid)
		_exit(full_disk());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(status, 0);
}

struct file {
	char path[256];
	uint8_t *data;
	size_t n;
};

static size_t snapshot(struct file f[64])
{
	uint64_t v[64];
	size_t n = segments(EPOCH, v);

	for (size_t i = 0; i < n; i++) {
		path_segment(f[i].path, EPOCH, v[i]);
		f[i].data = load(f[i].path, &f[i].n);
	}
	return n;
}

static void put_back(const struct file *f, size_t n)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%016llx", folder, EPOCH);
	wipe(path);
	assert_int_equal(mkdir(path, 0700), 0);
	for (size_t i = 0; i < n; i++)
		save(f[i].path, f[i].data, f[i].n);
}

static void drop(struct file *f, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(f[i].data);
}

static struct outcome reopen(const struct spool_config *c, uint64_t from)
{
	struct spool *s = open_spool(c);
	struct spool_epoch *e = spool_oldest(s);
	struct outcome o = read_all(e, from, 300);

	spool_close(s);
	return o;
}

/*
 * Before and after an eviction are known; between them are a spare that is written in part,
 * the new file beside the old ones, and the new one beside those that it replaces.
 */
static void a_crash_at_any_step_of_an_eviction_is_recovered(void **state)
{
	struct spool_config c = small();
	struct file before[64], after[64], both[64];
	size_t n_before = 0, n_after = 0, n;
	char spare[256];

	(void)state;
	for (int round = 0; round < 4; round++) {
		struct outcome o;
		struct bench b;
		uint64_t seq = 1, from = round & 1 ? 6 : 1;

		bench_open(&b, &c);
		append_all(&b, 1, 60);
		if (round & 1)
			spool_ack(b.e, 5);
		seq = 60;
		/* Up to the first eviction, or to one that goes behind older holes. */
		for (int evictions = 0; evictions <= round / 2 * 2;) {
			n_before = snapshot(before);
			seq++;
			append_all(&b, seq, seq);
			n_after = snapshot(after);
			if (before[0].n != after[0].n || n_after < n_before)
				evictions++;
			if (evictions <= round / 2 * 2) {
				drop(before, n_before);
				drop(after, n_after);
			}
		}
		spool_close(b.spool);

		path_in(spare, "spare.tmp");
		for (size_t cut = 0; cut <= after[0].n; cut += 50) {
			put_back(before, n_before);
			save(spare, after[0].data, cut);
			o = reopen(&c, from);
			assert_int_equal(o.unknown, 0);
			assert_int_equal(o.whole + o.counted, o.next - from);
			assert_true(access(spare, F_OK) < 0);
		}
		/* Renamed, and what it replaces is still there. */
		memcpy(both, before, n_before * sizeof(*both));
		both[0] = after[0];
		put_back(both, n_before);
		o = reopen(&c, from);
		assert_int_equal(o.unknown, 0);
		assert_int_equal(o.whole + o.counted, o.next - from);
		put_back(after, n_after);
		n = reopen(&c, from).counted;
		assert_int_equal(o.counted, n);
		put_back(both, n_before);
		reopen(&c, from);
		{
			uint64_t v[64];

			assert_true(segments(EPOCH, v) <= n_after);
		}
		drop(before, n_before);
		drop(after, n_after);
		wipe(folder);
		mkdir(folder, 0700);
	}
}

struct race {
	struct bench *b;
	uint64_t last;
	struct outcome o;
	struct ledger_count whole[3];
};

/* Reads, and now and then goes back to what is not acknowledged, as after a lost connection. */
static void *reader(void *arg)
{
	struct race *race = arg;
	struct spool_epoch *e = race->b->e;
	uint64_t seq = 1, acked = 0, x = 1;
	struct buf wire = {};
	struct backlog_message m;

	while (acked < race->last) {
		if (spool_read(e, seq, &wire, &m, &why) <= 0) {
			sched_yield();
		} else {
			assert_int_equal(m.seq, seq);
			if (m.type == STREAM_GAP)
				check_gap(&wire, &m, &race->o);
			seq = m.last_seq + 1;
		}
		x = x * 6364136223846793005u + 1442695040888963407u;
		if (x >> 60 == 0) {
			acked = MAX(acked, seq - 1);
			spool_ack(e, acked);
		}
		if (x >> 60 == 1 || acked + 1 == seq)
			seq = acked + 1;
		if (seq > race->last) {
			acked = seq - 1;
			spool_ack(e, acked);
		}
	}
	buf_free(&wire);
	return NULL;
}

static void readers_and_writers_do_not_confuse_the_books(void **state)
{
	struct spool_config c = small();
	struct race race = {.last = 3000};
	struct bench b;
	pthread_t thread;

	(void)state;
	bench_open(&b, &c);
	race.b = &b;
	assert_int_equal(pthread_create(&thread, NULL, reader, &race), 0);
	for (uint64_t seq = 1; seq <= race.last; seq++) {
		assert_int_equal(append(&b, seq), 0);
		if (seq % 100 == 0) {
			spool_tend(b.spool);
			assert_int_equal(spool_sync(b.e, &why), 0);
		}
	}
	pthread_join(thread, NULL);
	assert_int_equal(race.o.unknown, 0);
	assert_books(&b, race.last);
	spool_close(b.spool);
}

#define test(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(the_oldest_go_when_it_is_full_and_are_counted_exactly),
		test(a_long_outage_leaves_one_small_file_of_holes),
		test(a_collector_may_have_any_first_part_of_what_was_sent),
		test(a_gap_never_begins_with_what_a_collector_may_have),
		test(what_arrived_before_it_was_evicted_is_not_lost),
		test(what_was_sent_from_memory_counts_as_sent),
		test(the_oldest_epoch_goes_first),
		test(the_old_go_by_age),
		test(nothing_is_kept_where_too_little_space_is_free),
		test(too_little_free_space_is_noticed_in_time),
		test(a_message_larger_than_the_spool_evicts_nothing),
		test(a_full_disk_costs_the_oldest_and_half_messages_are_cut_off),
		test(a_crash_at_any_step_of_an_eviction_is_recovered),
		test(readers_and_writers_do_not_confuse_the_books),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
