/* SPDX-License-Identifier: Apache-2.0 */
/* When sessions acknowledge, what they give back, and how many there may be. */
#include "session_bench.h"

static int setup_written(void **state)
{
	(void)state;
	return setup_mode(false);
}

static void durable_follows_the_commit(void **state)
{
	struct peer *p = begin();

	(void)state;
	send_data(p, 2, &one_packet);
	expect_committed(p, 2, 0);
	assert_false(session_has_news(p->session));
	commit_now();
	assert_true(session_has_news(p->session));
	run(p);
	expect_committed(p, 2, 2);
	run(p);
	assert_int_equal(next_message(p), 0);
	/* Nothing is said twice. */
	commit_now();
	assert_false(session_has_news(p->session));
}

static void written_waits_for_the_journal_too(void **state)
{
	struct peer *p = dial(0);
	size_t n;

	(void)state;
	send_hello(p, 1, 1);
	expect_welcome(p, 1);
	send_meta(p, 1, ETHERNET);
	expect_ack(p, 0, 0);
	n = send_data(p, 2, &one_packet);
	/* The credit comes at once. */
	expect_ack(p, 0, n);
	commit_now();
	run(p);
	expect_committed(p, 2, 0);
}

static void session_resumes_at_what_is_committed(void **state)
{
	struct peer *p = begin();
	size_t n;

	(void)state;
	send_data(p, 2, &one_packet);
	commit_now();
	send_data(p, 3, &one_packet);
	p = dial_late(0);
	send_hello(p, 2, 5);
	expect_welcome(p, 3);
	/* It has 3, and says no more than the agent knows of. */
	n = send_data(p, 3, &one_packet);
	expect_ack(p, 3, n);
	assert_packets_in("dump.pcap", 2);
	send_data(p, 4, &one_packet);
	expect_committed(p, 4, 2);
	commit_now();
	run(p);
	expect_committed(p, 4, 4);
	assert_packets_in("dump.pcap", 3);
}

/* Else an agent that has lost message 2 meanwhile would count it as lost, and it is here. */
static void welcome_waits_for_the_commit(void **state)
{
	struct peer *p = begin();

	(void)state;
	send_data(p, 2, &one_packet);
	p = dial(0);
	send_hello(p, 1, 3);
	assert_int_equal(next_message(p), 0);
	assert_true(session_deadline(p->session) <= bench.now + SECOND);
	await_news(p);
	expect_welcome(p, 3);
	send_data(p, 3, &one_packet);
	expect_committed(p, 3, 2);
	assert_packets_in("dump.pcap", 2);
}

/* To a newer one; and that does not wait for ever. */
static void session_that_waits_for_its_welcome_gives_way(void **state)
{
	struct peer *p = begin(), *q;
	struct rlimit limit, full;

	(void)state;
	send_data(p, 2, &one_packet);
	/* No commit can be made. */
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	full = (struct rlimit){1, limit.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &full), 0);
	p = dial(0);
	send_hello(p, 1, 3);
	q = dial(1);
	send_hello(q, 1, 3);
	run(p);
	expect_error(p, STREAM_E_SUPERSEDED);
	assert_int_equal(next_message(q), 0);
	bench.now += bench.env.hello_timeout / 2;
	run(q);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	expect_welcome(q, 1);
}

static void acknowledgement_stays_below_what_came_again(void **state)
{
	struct peer *p = begin();

	(void)state;
	for (uint64_t seq = 2; seq < 6; seq++)
		send_data(p, seq, &one_packet);
	p = dial_late(0);
	send_hello(p, 1, 6);
	expect_welcome(p, 1);
	commit_now();
	send_data(p, 2, &one_packet);
	expect_committed(p, 2, 2);
}

static void repeated_gap_is_acknowledged_to_its_end(void **state)
{
	struct stream_gap m = {.first_seq = 2, .last_seq = 9, .reason = STREAM_GAP_EVICTED};
	struct peer *p = begin();
	struct buf b = {}, again = {};

	(void)state;
	stream_gap_encode(&b, &m);
	stream_gap_encode(&again, &m);
	send_message(p, STREAM_GAP, 2, &b);
	p = dial_late(0);
	send_hello(p, 2, 10);
	expect_welcome(p, 2);
	send_message(p, STREAM_GAP, 2, &again);
	expect_committed(p, 9, 0);
}

static void goodbye_is_answered_when_all_is_committed(void **state)
{
	struct peer *p = begin();

	(void)state;
	send_data(p, 2, &one_packet);
	expect_committed(p, 2, 0);
	/* A write lock that is not to be had: no commit. */
	commit_enter(bench.commit);
	send_stats(p, 3, 1, 0);
	expect_committed(p, 3, 0);
	commit_leave(bench.commit, NULL, 0);
	send_goodbye(p, &(struct stream_bye){.reason = STREAM_BYE_STOP, .last_seq = 3});
	await_news(p);
	expect_committed(p, 3, 3);
	expect_bye(p, STREAM_BYE_STOP, 3);
	assert_reported("verdict over 1 streams: complete");
}

static void drain_is_answered_with_drain(void **state)
{
	struct peer *p = begin();

	(void)state;
	send_goodbye(p, &(struct stream_bye){.reason = STREAM_BYE_DRAIN, .last_seq = 1});
	await_news(p);
	expect_committed(p, 1, 1);
	expect_bye(p, STREAM_BYE_DRAIN, 1);
	assert_reported("verdict over 1 streams: unknown");
}

static void unclean_epoch_is_unknown_after(void **state)
{
	struct peer *p = begin();

	(void)state;
	send_data(p, 2, &one_packet);
	expect_committed(p, 2, 0);
	send_goodbye(p, &(struct stream_bye){.reason = STREAM_BYE_UNCLEAN,
					     .last_seq = 2,
					     .unknown_after = 1000000000 * SECOND});
	await_news(p);
	expect_committed(p, 2, 2);
	expect_bye(p, STREAM_BYE_STOP, 2);
	assert_reported("unknown after 2001-09-09T01:46:40Z");
}

static void stop_does_not_wait_for_ever(void **state)
{
	struct peer *p = begin();

	(void)state;
	send_data(p, 2, &one_packet);
	expect_committed(p, 2, 0);
	commit_enter(bench.commit);
	session_stop(p->session, bench.now);
	run(p);
	assert_int_equal(next_message(p), 0);
	commit_leave(bench.commit, NULL, 0);
	/* Late is late, also when it is done by now. */
	bench.now += 2 * SECOND;
	run(p);
	while (next_message(p) == STREAM_ACK)
		;
	assert_int_equal(p->header.type, STREAM_BYE);
}

static void stop_needs_no_commit_when_there_is_nothing(void **state)
{
	struct peer *p = begin();

	(void)state;
	commit_now();
	run(p);
	expect_committed(p, 1, 1);
	session_stop(p->session, bench.now);
	run(p);
	expect_bye(p, STREAM_BYE_DRAIN, 1);
}

static void collector_asks_for_a_sign_of_life(void **state)
{
	struct stream_ping ping = {};
	struct peer *p = begin();
	struct buf b = {};

	(void)state;
	assert_int_equal(session_deadline(p->session), bench.now + 10 * SECOND);
	bench.now += 10 * SECOND;
	run(p);
	assert_int_equal(next_message(p), STREAM_PING);
	assert_int_equal(stream_ping_decode(p->payload, p->header.payload_len, &ping, NULL), 0);
	ping.received_ns = clock_realtime() + 5 * SECOND;
	stream_ping_encode(&b, &ping);
	send_message(p, STREAM_PONG, 0, &b);
	registry_report(bench.env.registry);
	assert_non_null(strstr(bench.lines, "clock "));
}

static void windows_share_the_budget(void **state)
{
	struct peer *p = begin(), *other;
	struct stream_ack ack;
	uint8_t message[400];
	size_t n;

	(void)state;
	/* Room for two windows of 640 KiB. */
	bench.env.memory = 1280 << 10;
	other = dial(1);
	bench.env.sessions++;
	n = make_data(&one_packet, 2, message);
	send_all(p, message, n);
	/* 384 KiB less than it has: nothing comes back. */
	assert_int_equal(next_message(p), STREAM_ACK);
	assert_int_equal(stream_ack_decode(p->payload, p->header.payload_len, &ack, NULL), 0);
	assert_int_equal(ack.credit, 0);
	assert_int_equal(next_message(p), 0);
	/* An agent whose next message is larger than what is left gets it back. */
	bench.now += SECOND / 4;
	assert_true(session_deadline(p->session) <= bench.now);
	run(p);
	ack = next_ack(p);
	assert_int_equal(ack.credit, n);
	/* The other is gone: the window grows. */
	bench.env.sessions--;
	bench.env.memory = 1 << 30;
	bench.env.credit = 2 << 20;
	n = send_data(p, 3, &one_packet);
	expect_ack(p, 3, n + (1 << 20));
	(void)other;
}

static void budget_bounds_the_sessions(void **state)
{
	struct peer *first = begin(), *second = dial(1);
	struct stream_error m = {};

	(void)state;
	bench.env.memory = 2 * (SESSION_WINDOW_MIN + SESSION_COST) - 1;
	send_hello(second, 1, 1);
	assert_int_equal(next_message(second), STREAM_ERROR);
	assert_int_equal(stream_error_decode(second->payload, second->header.payload_len, &m, NULL),
			 0);
	assert_int_equal(m.code, STREAM_E_BUSY);
	assert_in_range(m.retry_after_ms, 1000, 5000);
	assert_logged("there are 1 sessions already (memoryBudget)");
	bench.env.memory++;
	second = dial_late(1);
	send_hello(second, 1, 2);
	assert_int_equal(next_message(second), STREAM_WELCOME);
	assert_int_equal(bench.env.sessions, 2);
	(void)first;
}

static void sessions_are_counted_from_hello_on(void **state)
{
	struct peer *first = begin(), *second;

	(void)state;
	bench.env.max_sessions = 1;
	second = dial(1);
	assert_false(session_is_introduced(second->session));
	send_hello(second, 1, 1);
	expect_error(second, STREAM_E_BUSY);
	assert_logged("maxSessions");
	assert_true(session_is_introduced(first->session));
	shutdown(first->fd, SHUT_WR);
	run(first);
	begin_other(1);
	assert_int_equal(bench.env.sessions, 1);
}

static void plain_text_is_subject_to_the_list_of_identities(void **state)
{
	static char uri[] = "spiffe://corp/*", key[] = "psk", *patterns[] = {uri, key};
	static const struct yaml_strings allow = {.v = patterns, .n = 2};
	struct peer *p;

	(void)state;
	bench.env.allow = &allow;
	p = dial(0);
	send_hello(p, 1, 1);
	expect_error(p, STREAM_E_AUTH);
	assert_logged("none of agents.allow");
}

static void flood_of_small_messages_lets_others_have_their_turn(void **state)
{
	const struct stream_header h = {.type = 99, .flags = STREAM_FLAG_OPTIONAL};
	uint8_t head[STREAM_HEADER_SIZE];
	struct stream_header optional = h;
	struct peer *p = begin();
	struct buf b = {};

	(void)state;
	optional.payload_crc = gzip_crc32(0, "", 0);
	stream_header_encode(head, &optional);
	for (int i = 0; i < 1000; i++)
		buf_put(&b, head, sizeof(head));
	assert_int_equal(send(p->fd, b.data, b.len, MSG_DONTWAIT), b.len);
	assert_int_equal(session_run(p->session, bench.now, false), SESSION_AGAIN);
	assert_int_equal(session_run(p->session, bench.now, false), SESSION_WAIT);
	buf_free(&b);
}

#define TEST(f)         cmocka_unit_test_setup_teardown(f, setup, teardown)
#define TEST_WRITTEN(f) cmocka_unit_test_setup_teardown(f, setup_written, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(durable_follows_the_commit),
		TEST_WRITTEN(written_waits_for_the_journal_too),
		TEST(session_resumes_at_what_is_committed),
		TEST(welcome_waits_for_the_commit),
		TEST(session_that_waits_for_its_welcome_gives_way),
		TEST(acknowledgement_stays_below_what_came_again),
		TEST(repeated_gap_is_acknowledged_to_its_end),
		TEST(goodbye_is_answered_when_all_is_committed),
		TEST(drain_is_answered_with_drain),
		TEST(unclean_epoch_is_unknown_after),
		TEST(stop_does_not_wait_for_ever),
		TEST(stop_needs_no_commit_when_there_is_nothing),
		TEST(collector_asks_for_a_sign_of_life),
		TEST(windows_share_the_budget),
		TEST(budget_bounds_the_sessions),
		TEST(sessions_are_counted_from_hello_on),
		TEST(plain_text_is_subject_to_the_list_of_identities),
		TEST(flood_of_small_messages_lets_others_have_their_turn),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
