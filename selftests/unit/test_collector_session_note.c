/* SPDX-License-Identifier: Apache-2.0 */
/* What agents say in words, and what of it comes to the log. */
#include "unit/session_bench.h"

static struct stream_note note(const char *text)
{
	struct stream_note m = {.time = 1700000000500000000, .kind = STREAM_NOTE_FILTER};

	snprintf(m.text, sizeof(m.text), "%s", text);
	return m;
}

static void send_note(struct peer *p, uint64_t seq, const struct stream_note *m)
{
	struct buf b = {};

	stream_note_encode(&b, m);
	send_message(p, STREAM_NOTE, seq, &b);
}

#define WHO "{\"agent\":\"web1\",\"agent_id\":\"01020300-0000-0000-0000-000000000000\",\"epoch\":9,"

static void note_is_logged_and_acknowledged(void **state)
{
	struct stream_note m = note("tcp port 443");
	struct peer *p = begin();

	(void)state;
	send_note(p, 2, &m);
	expect_ack(p, 2, 0);
	assert_logged("info note " WHO "\"kind\":\"filter\",\"time\":\"2023-11-14T22:13:20.5Z\","
		      "\"text\":\"tcp port 443\"}\n");
	m.has_iface = true;
	m.iface = ETHERNET;
	m.kind = STREAM_NOTE_CLOCK;
	send_note(p, 3, &m);
	assert_logged("info note " WHO "\"interface\":\"eth1\",\"kind\":\"clock\",");
	/* Between them the stream goes on as ever. */
	send_data(p, 4, &one_packet);
	send_stats(p, 5, 1, 0);
	send_bye(p, 5);
	assert_packets_in("dump.pcap", 1);
	assert_reported("verdict over 1 streams: complete: 1 packets");
}

static void note_of_a_newer_agent_is_logged_too(void **state)
{
	struct stream_note m = note("");
	struct peer *p = begin();

	(void)state;
	m.kind = 99;
	m.has_iface = true;
	m.iface = 12345;
	send_note(p, 2, &m);
	expect_ack(p, 2, 0);
	assert_logged("\"interface\":\"interface 12345\",\"kind\":\"other\",");
	assert_logged("\"text\":\"\"}\n");
}

static void repeated_note_is_logged_once(void **state)
{
	const struct stream_note m = note("once"), other = note("another");
	struct peer *p = begin();

	(void)state;
	send_note(p, 2, &m);
	send_note(p, 2, &m);
	commit_now();
	p = dial(0);
	/* The acknowledgement was lost. */
	send_hello(p, 2, 4);
	expect_welcome(p, 3);
	send_note(p, 2, &m);
	expect_ack(p, 2, 0);
	send_note(p, 3, &other);
	expect_ack(p, 3, 0);
	assert_int_equal(count_logged("\"once\""), 1);
	assert_int_equal(count_logged("\"another\""), 1);
}

/* Each costs its session, and a good one is taken in its place then. */
static void bad_notes_cost_the_session(void **state)
{
	struct stream_note m = note("good");
	struct peer *p = begin();
	struct buf good = {};

	(void)state;
	m.has_iface = true;
	stream_note_encode(&good, &m);
	commit_now();
	for (size_t cut = 1; cut < good.len; cut++) {
		struct buf b = {};

		/* The interface, 8 bytes, may be left out. */
		if (cut == 8)
			continue;
		buf_put(&b, good.data, good.len - cut);
		send_message(p, STREAM_NOTE, 2, &b);
		expect_error(p, STREAM_E_PROTOCOL);
		p = dial(0);
		send_hello(p, 2, 3);
		expect_welcome(p, 2);
	}
	assert_int_equal(count_logged("info note "), 0);
	send_note(p, 2, &m);
	expect_ack(p, 2, 0);
	assert_int_equal(count_logged("info note "), 1);
	buf_free(&good);
}

static void odd_and_long_texts_stay_one_line_of_json(void **state)
{
	struct stream_note m = note("");
	struct peer *p = begin();
	const char *line;

	(void)state;
	/* All that has to be escaped, as long as can be. */
	memset(m.text, '"', STREAM_NOTE_MAX);
	send_note(p, 2, &m);
	line = strstr(read_log(), "\"text\":\"\\\"\\\"");
	assert_non_null(line);
	assert_int_equal(strcspn(line, "\n"), strlen("\"text\":\"") + 2 * STREAM_NOTE_MAX + 2);
	/* No UTF-8 at all. */
	memset(m.text, 0xff, STREAM_NOTE_MAX);
	send_note(p, 3, &m);
	line = strstr(read_log(), "\"text\":\"\\ufffd");
	assert_non_null(line);
	assert_memory_equal(line + strcspn(line, "\n") - 5, "...\"}", 5);
}

static void agent_cannot_fill_the_log(void **state)
{
	const struct stream_note m = note("again and again");
	struct peer *p = begin();

	(void)state;
	for (uint64_t seq = 2; seq < 1002; seq++) {
		send_note(p, seq, &m);
		while (next_message(p) > 0)
			;
	}
	assert_in_range(count_logged("again and again"), 1, FEED_TELL_BURST + 60);
	assert_true(p->session);
	assert_reported("verdict over 1 streams: complete");
}

static void what_captures_an_interface_is_logged(void **state)
{
	struct stream_meta m = {.iface = interface(RAW),
				.hook = "tcx",
				.netns_name = "blue",
				.filter = "host 192.0.2.1"};
	struct peer *p = begin();
	struct buf b = {};

	(void)state;
	stream_meta_encode(&b, &m);
	send_message(p, STREAM_META, 2, &b);
	expect_ack(p, 2, 0);
	assert_logged("info interface " WHO "\"interface\":\"eth2\",\"hook\":\"tcx\","
		      "\"netns\":\"blue\",\"filter\":\"host 192.0.2.1\"}\n");
	/* That it goes is no news of how it is captured. */
	m.iface.gone = true;
	stream_meta_encode(&b, &m);
	send_message(p, STREAM_META, 3, &b);
	expect_ack(p, 3, 0);
	assert_int_equal(count_logged("info interface "), 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(note_is_logged_and_acknowledged),
		TEST(note_of_a_newer_agent_is_logged_too),
		TEST(repeated_note_is_logged_once),
		TEST(bad_notes_cost_the_session),
		TEST(odd_and_long_texts_stay_one_line_of_json),
		TEST(agent_cannot_fill_the_log),
		TEST(what_captures_an_interface_is_logged),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
