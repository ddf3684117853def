/* SPDX-License-Identifier: Apache-2.0 */
/* What a crash, a power cut or a bad disk leaves of a spool. */
#include <signal.h>
#include <sys/wait.h>

#include "spool_bench.h"

struct image {
	char path[256];
	uint8_t *data;
	size_t n;
};

/* The segment number @which; returns its first message. */
static uint64_t take(struct image *i, size_t which)
{
	uint64_t v[64];

	assert_true(segments(EPOCH, v) > which);
	path_segment(i->path, EPOCH, v[which]);
	i->data = load(i->path, &i->n);
	return v[which];
}

static void restore(const struct image *i)
{
	save(i->path, i->data, i->n);
}

/* A spool with the messages 1 to @last of one epoch, closed. */
static void fill(const struct spool_config *c, uint64_t last, size_t body)
{
	struct bench b;

	bench_open(&b, c);
	b.body = body;
	append_all(&b, 1, last);
	spool_close(b.spool);
}

static struct outcome reopen(const struct spool_config *c, size_t body, uint64_t *first)
{
	struct outcome o = {.next = 1};
	struct spool *s = open_spool(c);
	struct spool_epoch *e = spool_oldest(s);

	*first = 0;
	if (e) {
		*first = spool_first_seq(e);
		o = read_all(e, *first, body);
		assert_int_equal(spool_bye(e).last_seq, o.next - 1);
	}
	spool_close(s);
	return o;
}

/* The last number whose message is whole in the first @n bytes; *counted: a TALLY is after it. */
static uint64_t last_whole(const struct image *i, size_t n, uint64_t before, bool *counted)
{
	struct stream_header h;
	size_t at = 0;

	*counted = false;
	while (at + STREAM_HEADER_SIZE <= n) {
		assert_int_equal(stream_header_decode(i->data + at, &h, NULL), 0);
		at += STREAM_HEADER_SIZE + h.payload_len;
		if (at > n)
			break;
		if (h.seq)
			before = h.seq;
		*counted = h.type == STREAM_TALLY;
	}
	return before;
}

static void a_torn_end_costs_no_message_before_it(void **state)
{
	struct spool_config c = bench_config();
	struct image last;
	uint64_t first, from;

	(void)state;
	fill(&c, 35, 300);
	from = take(&last, 1);
	for (size_t n = last.n; n--;) {
		bool counted;
		uint64_t whole = last_whole(&last, n, from - 1, &counted);
		struct outcome o;
		struct stat st;

		save(last.path, last.data, n);
		o = reopen(&c, 300, &first);
		assert_int_equal(first, 1);
		assert_int_equal(o.whole, whole);
		assert_int_equal(o.counted, counted);
		assert_int_equal(o.unknown, 0);
		assert_int_equal(o.next, whole + counted + 1);
		/* Cut off, or gone when it had nothing. */
		assert_true(stat(last.path, &st) < 0 ? whole == from - 1 && !counted
						     : (size_t)st.st_size <= n);
		/* And the same the next time. */
		if (n % 16 == 0) {
			o = reopen(&c, 300, &first);
			assert_int_equal(o.whole, whole);
			assert_int_equal(o.counted, counted);
		}
	}
	free(last.data);
}

/* A file system may have kept the length of a file and not its bytes. */
static void an_end_of_zeros_costs_no_message_before_it(void **state)
{
	struct spool_config c = bench_config();
	struct image last;
	uint64_t first, from;

	(void)state;
	fill(&c, 35, 300);
	from = take(&last, 1);
	for (size_t n = 0; n < last.n; n += 3) {
		bool counted;
		uint64_t whole = last_whole(&last, n, from - 1, &counted);
		uint8_t *data = malloc(last.n);
		struct outcome o;

		memcpy(data, last.data, n);
		memset(data + n, 0, last.n - n);
		save(last.path, data, last.n);
		free(data);
		o = reopen(&c, 300, &first);
		assert_true(o.whole >= whole);
		assert_true(o.whole + o.counted + o.unknown == o.next - 1);
	}
	free(last.data);
}

static void a_flipped_bit_costs_one_message_and_its_count_is_known(void **state)
{
	struct spool_config c = bench_config();
	struct image middle;
	uint64_t first;

	(void)state;
	c.segment_bytes = 4u << 10;
	fill(&c, 30, 150);
	take(&middle, 0);
	for (size_t at = 0; at < middle.n; at++) {
		struct outcome o;

		middle.data[at] ^= (uint8_t)(1u << at % 8);
		restore(&middle);
		middle.data[at] ^= (uint8_t)(1u << at % 8);
		o = reopen(&c, 150, &first);
		assert_int_equal(first, 1);
		assert_int_equal(o.next, 31);
		assert_int_equal(o.whole + o.counted + o.unknown, 30);
		assert_true(o.whole >= 29);
		/* Of META and STATS nobody wrote down that they have no packets. */
		if (o.unknown)
			assert_false(has_packets(o.first_unknown));
	}
	free(middle.data);
}

static void a_flipped_bit_at_the_end_costs_one_message(void **state)
{
	struct spool_config c = bench_config();
	struct image last;
	uint64_t first;

	(void)state;
	fill(&c, 16, 100);
	take(&last, 0);
	for (size_t at = 0; at < last.n; at++) {
		struct outcome o;

		last.data[at] ^= (uint8_t)(1u << at % 8);
		restore(&last);
		last.data[at] ^= (uint8_t)(1u << at % 8);
		o = reopen(&c, 100, &first);
		assert_true(o.whole >= 15 || !first);
		assert_true(o.next >= 16);
	}
	free(last.data);
}

static void damage_of_any_length_is_a_hole(void **state)
{
	struct spool_config c = bench_config();
	struct image middle;
	uint64_t first, x = 1;

	(void)state;
	fill(&c, 60, 300);
	take(&middle, 1);
	for (int round = 0; round < 300; round++) {
		uint8_t *data = malloc(middle.n);
		size_t from, n;
		struct outcome o;

		x = x * 6364136223846793005u + 1442695040888963407u;
		from = (size_t)(x >> 33) % middle.n;
		n = (size_t)(x >> 11) % (middle.n - from) + 1;
		memcpy(data, middle.data, middle.n);
		for (size_t i = from; i < from + n; i++)
			data[i] = round % 3 ? (uint8_t)(x >> (i % 50)) : 0;
		save(middle.path, data, middle.n);
		free(data);
		o = reopen(&c, 300, &first);
		assert_int_equal(first, 1);
		assert_int_equal(o.next, 61);
		assert_int_equal(o.whole + o.counted + o.unknown, 60);
		assert_true(o.whole >= 20);
	}
	free(middle.data);
}

static void damage_that_comes_while_we_run_is_a_hole_from_then_on(void **state)
{
	struct spool_config c = bench_config();
	struct outcome o;
	struct image first;
	struct bench b;

	(void)state;
	bench_open(&b, &c);
	append_all(&b, 1, 60);
	take(&first, 0);
	memset(first.data + first.n / 2, 0xff, 2000);
	restore(&first);
	o = read_all(b.e, 1, b.body);
	assert_int_equal(o.whole + o.counted + o.unknown, 60);
	assert_in_range(o.whole, 50, 58);
	/* Known to be lost are those that have been handed out as a GAP. */
	assert_count(b.lost[1], o.lost[1]);
	assert_count(b.lost[2], o.lost[2]);
	o = read_all(b.e, 1, b.body);
	assert_count(b.lost[1], o.lost[1]);
	spool_ack(b.e, 60);
	assert_count(b.lost[1], o.lost[1]);
	assert_in_range(b.committed[2].packets, o.whole - 20, o.whole);
	spool_close(b.spool);
	free(first.data);
}

static void a_segment_that_is_gone_is_a_hole(void **state)
{
	struct spool_config c = bench_config();
	struct outcome o;
	struct bench b;
	char path[256];
	uint64_t first, v[64];

	(void)state;
	bench_open(&b, &c);
	append_all(&b, 1, 80);
	assert_true(segments(EPOCH, v) > 2);
	path_segment(path, EPOCH, v[1]);
	assert_int_equal(unlink(path), 0);
	o = read_all(b.e, 1, b.body);
	assert_int_equal(o.whole + o.unknown, 80);
	assert_int_equal(o.first_unknown, v[1]);
	assert_int_equal(o.gaps, 1);
	spool_close(b.spool);
	o = reopen(&c, 300, &first);
	assert_int_equal(o.whole + o.unknown, 80);
	assert_int_equal(o.first_unknown, v[1]);
	/* An empty one, as after a crash when it was made, at the end is nothing. */
	path_segment(path, EPOCH, 81);
	save(path, NULL, 0);
	assert_int_equal(reopen(&c, 300, &first).next, 81);
	assert_int_equal(access(path, F_OK), -1);
}

static void the_end_mark_says_what_is_missing_at_the_end(void **state)
{
	struct stream_bye bye = {.reason = STREAM_BYE_STOP, .last_seq = 35};
	struct spool_config c = bench_config();
	struct buf hello = {}, payload = {};
	struct image last, end;
	struct outcome o;
	struct bench b;
	uint64_t first, from;

	(void)state;
	bench_open(&b, &c);
	append_all(&b, 1, 35);
	bench_hello(NULL, 1, &hello);
	stream_bye_encode(&payload, &bye);
	assert_int_equal(spool_end(b.e, &hello, &payload, &why), 0);
	spool_close(b.spool);
	from = take(&last, 1);
	save(last.path, last.data, last.n - 10);
	o = reopen(&c, 300, &first);
	assert_int_equal(o.next, 36);
	assert_int_equal(o.whole, 34);
	save(last.path, last.data, 0);
	o = reopen(&c, 300, &first);
	assert_int_equal(o.next, 36);
	assert_int_equal(o.whole, from - 1);
	assert_int_equal(o.unknown, 36 - from);
	/* A damaged end mark is none, and stops nobody. */
	restore(&last);
	snprintf(end.path, sizeof(end.path), "%s/%016llx/end", folder, EPOCH);
	end.data = load(end.path, &end.n);
	for (size_t n = 0; n < end.n; n++) {
		struct spool *s;

		save(end.path, end.data, n);
		s = open_spool(&c);
		assert_int_equal(spool_bye(spool_oldest(s)).reason, STREAM_BYE_UNCLEAN);
		assert_int_equal(spool_bye(spool_oldest(s)).last_seq, 35);
		spool_close(s);
	}
	free(end.data);
	free(last.data);
	buf_free(&hello);
	buf_free(&payload);
}

/* Messages of interfaces that no HELLO speaks of would end every session. */
static void without_any_hello_packets_become_counted_holes(void **state)
{
	struct spool_config c = bench_config();
	struct stream_hello h;
	struct image first;
	struct outcome o;
	struct bench b;

	(void)state;
	/* META 1 has interface 2, META 8 has interface 1. */
	fill(&c, 7, 100);
	take(&first, 0);
	first.data[40] ^= 1;
	restore(&first);
	free(first.data);
	b.spool = open_spool(&c);
	b.e = spool_oldest(b.spool);
	assert_int_equal(spool_hello(b.e, &h, &why), -ENODATA);
	assert_non_null(spool_begin(b.spool, EPOCH + 1, bench_hello, NULL, NULL));
	assert_int_equal(spool_hello(b.e, &h, &why), 0);
	assert_string_equal(h.agent_name, "node-1");
	assert_int_equal(h.epoch, EPOCH);
	assert_int_equal(h.n_ifaces, 1);
	stream_hello_free(&h);
	o = read_all(b.e, 1, 100);
	assert_int_equal(o.whole, 2);
	assert_int_equal(o.counted, 5);
	spool_close(b.spool);
}

/* Captured packets may look like our messages; a search must not take for ever. */
static void what_looks_like_messages_does_not_stop_the_search(void **state)
{
	struct spool_config c = bench_config();
	struct stream_header h = {.type = STREAM_DATA, .payload_len = STREAM_PAYLOAD_MAX, .seq = 5};
	size_t n = 24u << 20;
	uint8_t *data = malloc(n);
	uint64_t first;
	char path[256];
	nsec_t before;

	(void)state;
	fill(&c, 10, 100);
	path_segment(path, EPOCH, 1);
	memset(data, 0, n);
	for (size_t at = 0; at + STREAM_HEADER_SIZE <= n; at += STREAM_HEADER_SIZE)
		stream_header_encode(data + at, &h);
	save(path, data, n);
	free(data);
	before = clock_monotonic();
	reopen(&c, 100, &first);
	assert_true(clock_monotonic() - before < 20 * NSEC_PER_SEC);
}

/* Appends, and evicts, until it is killed; tells after each message. */
static void append_for_ever(const struct spool_config *c, int told)
{
	struct bench b;

	bench_open(&b, c);
	for (uint64_t seq = 1;; seq++) {
		append_all(&b, seq, seq);
		if (write(told, &seq, sizeof(seq)) < 0)
			_exit(1);
	}
}

static void killed_at_any_instant_nothing_is_lost_that_was_appended(void **state)
{
	struct spool_config c = bench_config();

	(void)state;
	c.max_bytes = 40u << 10;
	for (uint64_t last = 1; last < 1000; last += 37) {
		uint64_t told = 0, seq, first;
		struct outcome o;
		int fds[2];
		pid_t pid;

		assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
		pid = fork();
		if (!pid)
			append_for_ever(&c, fds[1]);
		close(fds[1]);
		while (told < last && read(fds[0], &told, sizeof(told)) == sizeof(told))
			;
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		while (read(fds[0], &seq, sizeof(seq)) == sizeof(seq))
			told = seq;
		close(fds[0]);
		o = reopen(&c, 300, &first);
		assert_int_equal(first, 1);
		assert_true(o.next > told && o.next <= told + 2);
		assert_int_equal(o.unknown, 0);
		wipe(folder);
		mkdir(folder, 0700);
	}
}

#define test(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(a_torn_end_costs_no_message_before_it),
		test(an_end_of_zeros_costs_no_message_before_it),
		test(a_flipped_bit_costs_one_message_and_its_count_is_known),
		test(a_flipped_bit_at_the_end_costs_one_message),
		test(damage_of_any_length_is_a_hole),
		test(damage_that_comes_while_we_run_is_a_hole_from_then_on),
		test(a_segment_that_is_gone_is_a_hole),
		test(the_end_mark_says_what_is_missing_at_the_end),
		test(without_any_hello_packets_become_counted_holes),
		test(what_looks_like_messages_does_not_stop_the_search),
		test(killed_at_any_instant_nothing_is_lost_that_was_appended),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
