/* SPDX-License-Identifier: Apache-2.0 */
#include <sys/wait.h>

#include "spool_bench.h"

static size_t files(uint64_t epoch, uint64_t *bytes)
{
	uint64_t v[64];
	size_t n = segments(epoch, v);

	*bytes = 0;
	for (size_t i = 0; i < n; i++)
		*bytes += file_size(epoch, v[i]);
	return n;
}

static void what_is_appended_is_read_back_in_this_run_and_in_the_next(void **state)
{
	struct spool_config c = bench_config();
	struct outcome o;
	struct bench b;
	uint64_t bytes;

	(void)state;
	bench_open(&b, &c);
	assert_int_equal(spool_next_seq(b.e), 1);
	append_all(&b, 1, 200);
	o = read_all(b.e, 1, b.body);
	assert_int_equal(o.whole, 200);
	assert_int_equal(read_all(b.e, 77, b.body).whole, 124);
	assert_true(files(EPOCH, &bytes) > 5);
	assert_int_equal(spool_bytes(b.e), bytes);
	spool_close(b.spool);

	b.spool = open_spool(&c);
	b.e = spool_oldest(b.spool);
	assert_non_null(b.e);
	assert_int_equal(spool_first_seq(b.e), 1);
	assert_int_equal(spool_next_seq(b.e), 201);
	assert_int_equal(read_all(b.e, 1, b.body).whole, 200);
	spool_remove(b.spool, b.e);
	assert_null(spool_oldest(b.spool));
	spool_close(b.spool);
	assert_int_equal(files(EPOCH, &bytes), 0);
}

static void acknowledged_segments_go_and_their_packets_are_committed(void **state)
{
	struct spool_config c = bench_config();
	struct bench b;
	uint64_t bytes, before;

	(void)state;
	bench_open(&b, &c);
	append_all(&b, 1, 100);
	before = files(EPOCH, &bytes);
	read_all(b.e, 1, b.body);
	spool_ack(b.e, 10);
	spool_ack(b.e, 70);
	spool_ack(b.e, 50);
	assert_int_equal(spool_first_seq(b.e), 71);
	for (uint32_t i = 1; i <= 2; i++) {
		assert_count(b.committed[i], sum_of(1, 70, i));
		assert_int_equal(b.lost[i].packets, 0);
	}
	spool_tend(b.spool);
	assert_true(files(EPOCH, &bytes) < before);
	assert_int_equal(read_all(b.e, 71, b.body).whole, 30);
	spool_ack(b.e, 100);
	spool_tend(b.spool);
	/* The one that grows stays. */
	assert_int_equal(files(EPOCH, &bytes), 1);
	assert_int_equal(spool_first_seq(b.e), 101);
	/* Some went another way; the spool goes on behind them. */
	spool_ack(b.e, 150);
	assert_int_equal(spool_next_seq(b.e), 151);
	assert_int_equal(append(&b, 120), 0);
	assert_int_equal(append(&b, 151), 0);
	assert_int_equal(append(&b, 153), -EINVAL);
	append_all(&b, 152, 160);
	assert_int_equal(read_all(b.e, 151, b.body).whole, 10);
	spool_ack(b.e, 160);
	for (uint32_t i = 1; i <= 2; i++)
		assert_int_equal(b.committed[i].packets,
				 sum_of(1, 100, i).packets + sum_of(151, 160, i).packets);
	spool_close(b.spool);
	/* Nothing is left of an epoch that has nothing to tell. */
	b.spool = open_spool(&c);
	assert_null(spool_oldest(b.spool));
	spool_close(b.spool);
}

/* A collector that is quick acknowledges each before the next: one file has them all. */
static void a_quick_collector_costs_no_file_for_each_message(void **state)
{
	struct spool_config c = bench_config();
	uint64_t bytes, before = 0;
	struct bench b;

	(void)state;
	c.segment_bytes = 1 << 20;
	bench_open(&b, &c);
	for (uint64_t seq = 1; seq <= 20; seq++) {
		append_all(&b, seq, seq);
		spool_ack(b.e, seq);
		spool_tend(b.spool);
		assert_int_equal(files(EPOCH, &bytes), 1);
		assert_true(bytes > before);
		before = bytes;
	}
	spool_close(b.spool);
	assert_int_equal(files(EPOCH, &bytes), 0);
}

static void an_epoch_tells_how_it_ended_and_what_its_interfaces_are(void **state)
{
	struct spool_config c = bench_config();
	struct stream_bye bye = {.reason = STREAM_BYE_STOP, .last_seq = 20};
	struct buf hello = {}, payload = {};
	struct stream_hello h;
	struct bench b;

	(void)state;
	bench_open(&b, &c);
	append_all(&b, 1, 20);
	spool_close(b.spool);
	b.spool = open_spool(&c);
	b.e = spool_oldest(b.spool);
	bye = spool_bye(b.e);
	assert_int_equal(bye.reason, STREAM_BYE_UNCLEAN);
	assert_int_equal(bye.last_seq, 20);
	assert_int_equal(bye.unknown_after, 1000000 + 18);
	assert_int_equal(spool_hello(b.e, &h, &why), 0);
	assert_true(h.recovered);
	assert_int_equal(h.epoch, EPOCH);
	assert_int_equal(h.first_unacked, 1);
	assert_int_equal(h.next_seq, 21);
	assert_int_equal(h.n_ifaces, 2);
	assert_int_equal(h.agent_id[15], 16);
	assert_string_equal(h.agent_name, "node-1");
	stream_hello_free(&h);
	spool_remove(b.spool, b.e);

	b.e = spool_begin(b.spool, EPOCH + 1, bench_hello, bench_settle, &b);
	b.body = 300;
	append_all(&b, 1, 20);
	bench_hello(NULL, 5, &hello);
	bye = (struct stream_bye){.reason = STREAM_BYE_STOP, .last_seq = 20};
	stream_bye_encode(&payload, &bye);
	assert_int_equal(spool_end(b.e, &hello, &payload, &why), 0);
	spool_close(b.spool);
	b.spool = open_spool(&c);
	b.e = spool_oldest(b.spool);
	bye = spool_bye(b.e);
	assert_int_equal(bye.reason, STREAM_BYE_STOP);
	assert_int_equal(bye.last_seq, 20);
	/* Everything acknowledged, and killed before it was removed: the end is still told. */
	spool_ack(b.e, 20);
	spool_close(b.spool);
	b.spool = open_spool(&c);
	b.e = spool_oldest(b.spool);
	assert_non_null(b.e);
	assert_int_equal(spool_first_seq(b.e), 21);
	assert_int_equal(spool_next_seq(b.e), 21);
	assert_int_equal(spool_bye(b.e).reason, STREAM_BYE_STOP);
	spool_close(b.spool);
	buf_free(&hello);
	buf_free(&payload);
}

static void the_agent_id_is_kept(void **state)
{
	uint8_t id[16] = {0xab, 1}, again[16] = {0xcd, 2};
	struct spool_config c = bench_config();
	char path[256];
	struct spool *s;
	uint8_t *text;
	size_t n;

	(void)state;
	assert_int_equal(spool_open(&c, id, &s, &why), 0);
	spool_close(s);
	assert_int_equal(spool_open(&c, again, &s, &why), 0);
	spool_close(s);
	assert_memory_equal(id, again, 16);
	path_in(path, "agent.id");
	text = load(path, &n);
	assert_int_equal(n, 37);
	assert_memory_equal(text, "ab010000-0000-0000-0000-000000000000\n", n);
	free(text);
	/* One that is damaged is made again. */
	save(path, (const uint8_t *)"ab01", 4);
	memset(again, 7, 16);
	assert_int_equal(spool_open(&c, again, &s, &why), 0);
	spool_close(s);
	assert_int_equal(again[0], 7);
	text = load(path, &n);
	assert_memory_equal(text, "07070707-0707-0707-0707-070707070707\n", n);
	free(text);
}

static void a_second_process_is_told_that_the_spool_is_in_use(void **state)
{
	struct spool_config c = bench_config();
	struct spool *s = open_spool(&c), *other;
	uint8_t id[16] = {};
	int status;
	pid_t pid = fork();

	(void)state;
	if (!pid)
		_exit(spool_open(&c, id, &other, &why) == -EBUSY && strstr(why.text, "another")
			      ? 0
			      : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	spool_close(s);
	pid = fork();
	if (!pid) {
		/* Killed, it has no lock any more. */
		if (spool_open(&c, id, &other, &why) < 0)
			_exit(1);
		kill(getpid(), SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	spool_close(open_spool(&c));
}

static void a_folder_that_cannot_be_written_is_named(void **state)
{
	struct spool_config c = bench_config();
	char path[256];
	uint8_t id[16] = {};
	struct spool *s;
	int status;
	pid_t pid;

	(void)state;
	path_in(path, "no/such");
	c.path = path;
	assert_int_equal(spool_open(&c, id, &s, &why), -ENOENT);
	assert_non_null(strstr(why.text, path));
	path_in(path, "file");
	save(path, id, 1);
	assert_int_equal(spool_open(&c, id, &s, &why), -ENOTDIR);
	path_in(path, "new");
	assert_int_equal(spool_open(&c, id, &s, &why), 0);
	spool_close(s);
	/* Even one that was used before. */
	assert_int_equal(chmod(path, 0500), 0);
	assert_int_equal(chmod(folder, 0755), 0);
	pid = fork();
	if (!pid) {
		int r;

		if (getuid() == 0 && setresuid(65534, 65534, 65534) < 0)
			_exit(2);
		r = spool_open(&c, id, &s, &why);
		_exit(r == -EACCES && strstr(why.text, "may not write") ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	chmod(path, 0700);
}

static void several_epochs_come_oldest_first(void **state)
{
	struct spool_config c = bench_config();
	struct bench b;

	(void)state;
	bench_open(&b, &c);
	append_all(&b, 1, 30);
	spool_close(b.spool);
	b.spool = open_spool(&c);
	assert_int_equal(spool_newest(b.spool), EPOCH);
	assert_null(spool_begin(b.spool, EPOCH, bench_hello, NULL, NULL));
	b.e = spool_begin(b.spool, EPOCH + 5, bench_hello, bench_settle, &b);
	append_all(&b, 1, 10);
	spool_close(b.spool);
	b.spool = open_spool(&c);
	b.e = spool_begin(b.spool, EPOCH + 7, bench_hello, bench_settle, &b);
	append_all(&b, 1, 10);
	assert_int_equal(spool_next_seq(spool_oldest(b.spool)), 31);
	assert_int_equal(read_all(spool_oldest(b.spool), 1, b.body).whole, 30);
	spool_remove(b.spool, spool_oldest(b.spool));
	assert_int_equal(read_all(spool_oldest(b.spool), 1, b.body).whole, 10);
	spool_remove(b.spool, spool_oldest(b.spool));
	assert_null(spool_oldest(b.spool));
	assert_int_equal(spool_newest(b.spool), EPOCH + 7);
	assert_int_equal(read_all(b.e, 1, b.body).whole, 10);
	spool_close(b.spool);
}

static void what_is_not_ours_is_left_alone(void **state)
{
	struct spool_config c = bench_config();
	char path[256], target[256];
	struct bench b;

	(void)state;
	bench_open(&b, &c);
	append_all(&b, 1, 30);
	spool_close(b.spool);
	path_in(path, "lost+found");
	assert_int_equal(mkdir(path, 0700), 0);
	path_in(path, "00000001700000FF");
	assert_int_equal(mkdir(path, 0700), 0);
	path_in(path, "0000000000000001");
	save(path, (const uint8_t *)"x", 1);
	path_segment(path, EPOCH, 31);
	path_in(target, "target");
	save(target, (const uint8_t *)"precious", 8);
	assert_int_equal(symlink(target, path), 0);
	path_segment(path, EPOCH, 40);
	assert_int_equal(mkfifo(path, 0600), 0);
	b.spool = open_spool(&c);
	b.e = spool_oldest(b.spool);
	assert_int_equal(read_all(b.e, 1, b.body).whole, 30);
	spool_remove(b.spool, b.e);
	spool_close(b.spool);
	assert_int_equal(access(target, F_OK), 0);
	path_in(path, "0000000000000001");
	assert_int_equal(access(path, F_OK), 0);
	path_in(path, "lost+found");
	assert_int_equal(access(path, F_OK), 0);
}

static void a_gap_that_was_appended_is_a_message_like_others(void **state)
{
	struct stream_gap_part part = {
		.iface = 1, .direction = 1, .first = 1500, .last = 2500, .lost = {3, 300}};
	struct stream_gap gap = {.first_seq = 1,
				 .last_seq = 9,
				 .reason = STREAM_GAP_EVICTED,
				 .parts = &part,
				 .n_parts = 1};
	struct backlog_message m = {.seq = 1, .last_seq = 9, .type = STREAM_GAP}, got;
	struct spool_config c = bench_config();
	struct buf payload = {}, wire = {}, back = {};
	struct bench b;

	(void)state;
	bench_open(&b, &c);
	stream_gap_encode(&payload, &gap);
	stream_message(&wire, STREAM_GAP, 1, payload.data, payload.len);
	m.size = (uint32_t)wire.len;
	assert_int_equal(spool_append(b.e, &m, wire.data, NULL, &why), 0);
	append_all(&b, 10, 40);
	for (int run = 0; run < 2; run++) {
		assert_int_equal(spool_read(b.e, 1, &back, &got, &why), 1);
		assert_int_equal(got.last_seq, 9);
		assert_int_equal(back.len, wire.len);
		assert_memory_equal(back.data, wire.data, wire.len);
		assert_int_equal(read_all(b.e, 10, b.body).whole, 31);
		if (run)
			break;
		spool_close(b.spool);
		b.spool = open_spool(&c);
		b.e = spool_oldest(b.spool);
	}
	spool_close(b.spool);
	buf_free(&payload);
	buf_free(&wire);
	buf_free(&back);
}

#define test(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(what_is_appended_is_read_back_in_this_run_and_in_the_next),
		test(acknowledged_segments_go_and_their_packets_are_committed),
		test(a_quick_collector_costs_no_file_for_each_message),
		test(an_epoch_tells_how_it_ended_and_what_its_interfaces_are),
		test(the_agent_id_is_kept),
		test(a_second_process_is_told_that_the_spool_is_in_use),
		test(a_folder_that_cannot_be_written_is_named),
		test(several_epochs_come_oldest_first),
		test(what_is_not_ours_is_left_alone),
		test(a_gap_that_was_appended_is_a_message_like_others),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
