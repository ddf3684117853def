// SPDX-License-Identifier: Apache-2.0
/*
 * The uplink against collectors that the test plays, in plain text over loopback: what it
 * says, what it forgets and when, where it goes next, how it ends.
 */
#include <sys/ioctl.h>

#include "uplink_bench.h"

static void what_is_durable_is_forgotten(void **state)
{
	struct bench b = {};
	struct stream_hello hello;
	struct stream_welcome w = usual(1);
	int fd;

	(void)state;
	bench_init(&b, 1);
	bench_start(&b);
	push(&b, 3);
	fd = meet(&b, 0);
	hello = expect_hello(fd);
	assert_int_equal(hello.epoch, 9);
	assert_int_equal(hello.first_unacked, 1);
	assert_false(hello.recovered);
	assert_true(hello.realtime_ns && hello.boottime_ns);
	/* Before WELCOME not a word more. */
	expect_silence(fd);
	welcome(fd, &w);
	expect_stats(fd, 1, 3);
	ack(fd, 3, 0, 3 * STATS_SIZE);
	ack(fd, 3, 1, 0);
	wait_for_first(&b, 2);
	ack(fd, 3, 3, 0);
	wait_for_first(&b, 4);
	push(&b, 1);
	expect_stats(fd, 4, 4);
	ack(fd, 4, 4, STATS_SIZE);
	finish(&b, fd, 4);
	bench_done(&b);
}

static void what_is_written_is_forgotten_where_that_is_the_mode(void **state)
{
	struct bench b = {};
	struct stream_welcome w = usual(1);
	int fd;

	(void)state;
	bench_init(&b, 1);
	bench_start(&b);
	push(&b, 2);
	fd = meet(&b, 0);
	expect_hello(fd);
	w.ack_mode = STREAM_ACK_WRITTEN;
	welcome(fd, &w);
	expect_stats(fd, 1, 2);
	ack(fd, 2, 0, 0);
	wait_for_first(&b, 3);
	finish(&b, fd, 2);
	bench_done(&b);
}

static void sending_goes_on_where_the_collector_says(void **state)
{
	struct bench b = {};
	int fd;

	(void)state;
	bench_init(&b, 1);
	push(&b, 5);
	bench_start(&b);
	fd = begin_session(&b, 0, 1);
	expect_stats(fd, 1, 5);
	close(fd);
	fd = begin_session(&b, 0, 4);
	wait_for_first(&b, 4);
	expect_stats(fd, 4, 5);
	ack(fd, 5, 5, 2 * STATS_SIZE);
	finish(&b, fd, 5);
	bench_done(&b);
}

static void numbers_that_are_not_here_end_the_session(void **state)
{
	struct bench b = {};
	int fd;

	(void)state;
	bench_init(&b, 1);
	push(&b, 5);
	bench_start(&b);
	fd = begin_session(&b, 0, 3);
	wait_for_first(&b, 3);
	close(fd);
	/* Below the oldest, above the next. */
	expect_end(begin_session(&b, 0, 2));
	expect_end(begin_session(&b, 0, 7));
	fd = begin_session(&b, 0, 6);
	wait_for_first(&b, 6);
	/* Acknowledged, but never sent. */
	ack(fd, 5, 6, 0);
	expect_end(fd);
	fd = begin_session(&b, 0, 6);
	finish(&b, fd, 5);
	bench_done(&b);
}

static void credit_bounds_what_is_under_way(void **state)
{
	struct bench b = {};
	struct stream_welcome w = usual(1);
	int fd;

	(void)state;
	bench_init(&b, 1);
	push(&b, 6);
	bench_start(&b);
	fd = meet(&b, 0);
	expect_hello(fd);
	w.credit = 2 * STATS_SIZE + 1;
	welcome(fd, &w);
	expect_stats(fd, 1, 2);
	expect_silence(fd);
	ack(fd, 1, 0, STATS_SIZE);
	expect_stats(fd, 3, 3);
	expect_silence(fd);
	/* All is granted back, but it is not enough: one passes alone. */
	ack(fd, 3, 0, 2 * STATS_SIZE);
	expect_stats(fd, 4, 5);
	expect_silence(fd);
	/* More than can be counted. */
	ack(fd, 5, 0, UINT64_MAX);
	ack(fd, 5, 0, UINT64_MAX);
	expect_stats(fd, 6, 6);
	ack(fd, 6, 6, 0);
	finish(&b, fd, 6);
	bench_done(&b);
}

static void a_message_that_the_collector_does_not_take_ends_the_session(void **state)
{
	struct bench b = {};
	struct stream_welcome w = usual(1);
	int fd;

	(void)state;
	bench_init(&b, 2);
	push(&b, 1);
	bench_start(&b);
	fd = meet(&b, 0);
	expect_hello(fd);
	w.max_payload = STATS_SIZE - STREAM_HEADER_SIZE - 1;
	welcome(fd, &w);
	expect_end(fd);
	/* The next one may be a better choice. */
	fd = begin_session(&b, 1, 1);
	expect_stats(fd, 1, 1);
	ack(fd, 1, 1, 0);
	finish(&b, fd, 1);
	bench_done(&b);
}

static void a_silent_collector_is_left(void **state)
{
	struct bench b = {};
	struct stream_welcome w = usual(1);
	nsec_t began;
	int fd;

	(void)state;
	bench_init(&b, 1);
	bench_start(&b);
	fd = meet(&b, 0);
	expect_hello(fd);
	w.heartbeat_ms = 200;
	began = clock_monotonic();
	welcome(fd, &w);
	expect_end(fd);
	assert_true(clock_monotonic() - began >= 600 * NSEC_PER_MSEC);
	assert_true(clock_monotonic() - began < 5 * NSEC_PER_SEC);
	finish(&b, begin_session(&b, 0, 1), 0);
	bench_done(&b);
}

static void a_server_that_refuses_leads_to_the_next_at_once(void **state)
{
	struct bench b = {};
	nsec_t began;
	int fd;

	(void)state;
	bench_init(&b, 3);
	/* Nobody listens at the first. */
	close(take_fd(&b.listeners[0]));
	bench_start(&b);
	fd = meet(&b, 1);
	expect_hello(fd);
	began = clock_monotonic();
	say_error(fd, STREAM_E_BUSY, 5000);
	expect_end(fd);
	fd = begin_session(&b, 2, 1);
	assert_true(clock_monotonic() - began < NSEC_PER_SEC);
	/* The last one fails too: the first has its turn, but not the one that is busy. */
	listen_again(&b, 0);
	say_error(fd, STREAM_E_STORAGE, 5000);
	expect_end(fd);
	fd = begin_session(&b, 0, 1);
	assert_true(nobody_comes(&b, 1, 0));
	finish(&b, fd, 0);
	bench_done(&b);
}

static void a_busy_server_is_asked_again_when_it_said(void **state)
{
	struct bench b = {};
	nsec_t began;
	int fd;

	(void)state;
	bench_init(&b, 1);
	bench_start(&b);
	fd = meet(&b, 0);
	expect_hello(fd);
	began = clock_monotonic();
	say_error(fd, STREAM_E_BUSY, 700);
	expect_end(fd);
	fd = begin_session(&b, 0, 1);
	assert_true(clock_monotonic() - began >= 700 * NSEC_PER_MSEC);
	assert_true(clock_monotonic() - began < 5 * NSEC_PER_SEC);
	finish(&b, fd, 0);
	bench_done(&b);
}

static void a_collector_that_stops_is_left_and_come_back_to(void **state)
{
	struct bench b = {};
	int fd;

	(void)state;
	bench_init(&b, 1);
	push(&b, 2);
	bench_start(&b);
	fd = begin_session(&b, 0, 1);
	expect_stats(fd, 1, 2);
	ack(fd, 1, 1, 0);
	say_bye(fd, STREAM_BYE_DRAIN);
	expect_end(fd);
	fd = begin_session(&b, 0, 2);
	expect_stats(fd, 2, 2);
	ack(fd, 2, 2, 0);
	finish(&b, fd, 2);
	bench_done(&b);
}

static void the_preferred_server_gets_its_agent_back(void **state)
{
	struct bench b = {};
	struct stream_bye bye;
	int fd;

	(void)state;
	bench_init(&b, 2);
	close(take_fd(&b.listeners[0]));
	bench_make(&b);
	b.uplink->probe_interval = 100 * NSEC_PER_MSEC;
	bench_start(&b);
	push(&b, 3);
	fd = begin_session(&b, 1, 1);
	expect_stats(fd, 1, 3);
	listen_again(&b, 0);
	close(meet(&b, 0));
	/* First what is under way; after the goodbye nothing new. */
	ack(fd, 2, 2, 0);
	expect_silence(fd);
	ack(fd, 3, 3, 0);
	bye = expect_bye(fd);
	assert_int_equal(bye.reason, STREAM_BYE_DRAIN);
	assert_int_equal(bye.last_seq, 3);
	push(&b, 2);
	expect_silence(fd);
	say_bye(fd, STREAM_BYE_STOP);
	expect_end(fd);
	fd = begin_session(&b, 0, 4);
	expect_stats(fd, 4, 5);
	ack(fd, 5, 5, 0);
	finish(&b, fd, 5);
	bench_done(&b);
}

static void a_session_that_lasted_is_made_again_with_its_server(void **state)
{
	struct bench b = {};
	int fd;

	(void)state;
	bench_init(&b, 2);
	bench_make(&b);
	bench_start(&b);
	fd = begin_session(&b, 0, 1);
	push(&b, 1);
	expect_stats(fd, 1, 1);
	/* It began ten seconds ago; the agent's thread has no business with that now. */
	b.uplink->session.since -= 10 * NSEC_PER_SEC;
	close(fd);
	fd = begin_session(&b, 0, 1);
	assert_true(nobody_comes(&b, 1, 0));
	expect_stats(fd, 1, 1);
	ack(fd, 1, 1, 0);
	finish(&b, fd, 1);
	bench_done(&b);
}

/* The inodes of the sockets that capture was told of. */
static _Atomic uint64_t told[64];
static _Atomic size_t n_told;

static int note_socket(struct capture *c, int fd, const struct sockaddr *to, struct err *err)
{
	struct stat st;
	size_t at = atomic_load(&n_told);

	(void)c, (void)to, (void)err;
	assert_int_equal(fstat(fd, &st), 0);
	/* Before it connects, and when that is under way. */
	if (at && atomic_load(&told[at - 1]) == st.st_ino)
		return 0;
	if (at < ARRAY_SIZE(told)) {
		atomic_store(&told[at], st.st_ino);
		atomic_store(&n_told, at + 1);
	}
	return 0;
}

static void after_each_probe_the_session_is_the_agents_own_again(void **state)
{
	static const struct capture_ops ops = {.own_socket = note_socket};
	nsec_t end = clock_monotonic() + PATIENCE;
	struct bench b = {};
	uint64_t session;
	int fd;

	(void)state;
	bench_init(&b, 2);
	close(take_fd(&b.listeners[0]));
	bench_make(&b);
	b.uplink->config.ops = &ops;
	b.uplink->probe_interval = 100 * NSEC_PER_MSEC;
	bench_start(&b);
	fd = begin_session(&b, 1, 1);
	/* The preferred one's that was refused, the session's, then probes. */
	while (atomic_load(&n_told) < 8 && clock_monotonic() < end) {
		/* It looks at the time when something happens. */
		uplink_credentials_changed(b.uplink);
		poll(NULL, 0, 10);
	}
	session = atomic_load(&told[1]);
	assert_true(atomic_load(&n_told) >= 8);
	for (size_t i = 2; i < 8; i += 2) {
		assert_int_not_equal(atomic_load(&told[i]), session);
		assert_int_equal(atomic_load(&told[i + 1]), session);
	}
	finish(&b, fd, 0);
	bench_done(&b);
}

static void new_credentials_end_the_wait(void **state)
{
	struct bench b = {};
	int fd;

	(void)state;
	bench_init(&b, 1);
	bench_make(&b);
	b.uplink->backoff_ms = UPLINK_BACKOFF_MAX_MS;
	bench_start(&b);
	/* One that lasts hardly any time, then a long pause, which the news ends. */
	fd = meet(&b, 0);
	expect_hello(fd);
	say_error(fd, STREAM_E_AUTH, 0);
	expect_end(fd);
	uplink_credentials_changed(b.uplink);
	fd = meet(&b, 0);
	expect_hello(fd);
	welcome(fd, &(struct stream_welcome){.session_id = 1,
					     .resume_seq = 1,
					     .credit = CREDIT,
					     .max_payload = STREAM_PAYLOAD_MAX,
					     .max_raw = STREAM_RAW_MAX,
					     .heartbeat_ms = 10000,
					     .ack_mode = STREAM_ACK_DURABLE});
	/* An open session that would still be let in goes on. */
	uplink_credentials_changed(b.uplink);
	push(&b, 1);
	expect_stats(fd, 1, 1);
	ack(fd, 1, 1, 0);
	finish(&b, fd, 1);
	bench_done(&b);
}

static void an_earlier_epoch_comes_first(void **state)
{
	struct bench b = {};
	struct stream_hello hello;
	struct stream_welcome w = usual(1);
	struct stream_bye bye;
	int fd;

	(void)state;
	make_old_epoch(&b, 4, true);
	bench_init(&b, 1);
	push(&b, 1);
	bench_start(&b);
	fd = meet(&b, 0);
	hello = expect_hello(fd);
	assert_true(hello.recovered);
	assert_int_equal(hello.epoch, 7);
	assert_int_equal(hello.first_unacked, 1);
	assert_int_equal(hello.next_seq, 5);
	welcome(fd, &w);
	expect_stats(fd, 1, 4);
	expect_silence(fd);
	ack(fd, 4, 3, 0);
	expect_silence(fd);
	ack(fd, 4, 4, 0);
	bye = expect_bye(fd);
	assert_int_equal(bye.reason, STREAM_BYE_STOP);
	assert_int_equal(bye.last_seq, 4);
	say_bye(fd, STREAM_BYE_STOP);
	expect_end(fd);
	fd = meet(&b, 0);
	hello = expect_hello(fd);
	assert_false(hello.recovered);
	assert_int_equal(hello.epoch, 9);
	assert_null(spool_oldest(b.spool));
	welcome(fd, &w);
	expect_stats(fd, 1, 1);
	ack(fd, 1, 1, 0);
	finish(&b, fd, 1);
	bench_done(&b);
}

static void an_epoch_is_kept_until_its_goodbye_is_answered(void **state)
{
	struct bench b = {};
	struct stream_hello hello;
	struct stream_welcome w = usual(4);
	int fd;

	(void)state;
	make_old_epoch(&b, 3, true);
	bench_init(&b, 1);
	bench_start(&b);
	fd = begin_session(&b, 0, 1);
	expect_stats(fd, 1, 3);
	ack(fd, 3, 3, 0);
	expect_bye(fd);
	close(fd);
	/* A goodbye of the collector's own is no answer. */
	fd = meet(&b, 0);
	hello = expect_hello(fd);
	assert_int_equal(hello.epoch, 7);
	assert_int_equal(hello.first_unacked, 4);
	assert_int_equal(hello.next_seq, 4);
	welcome(fd, &w);
	expect_bye(fd);
	say_bye(fd, STREAM_BYE_DRAIN);
	expect_end(fd);
	fd = begin_session(&b, 0, 4);
	expect_bye(fd);
	say_bye(fd, STREAM_BYE_STOP);
	expect_end(fd);
	fd = meet(&b, 0);
	hello = expect_hello(fd);
	assert_int_equal(hello.epoch, 9);
	w = usual(1);
	welcome(fd, &w);
	finish(&b, fd, 0);
	bench_done(&b);
}

static void a_collector_may_have_more_of_an_unclean_epoch(void **state)
{
	struct bench b = {};
	struct stream_bye bye;
	int fd;

	(void)state;
	make_old_epoch(&b, 3, false);
	bench_init(&b, 1);
	bench_start(&b);
	fd = begin_session(&b, 0, 21);
	bye = expect_bye(fd);
	assert_int_equal(bye.reason, STREAM_BYE_UNCLEAN);
	assert_int_equal(bye.last_seq, 20);
	/* Also what it says of them now. */
	ack(fd, 20, 20, 0);
	say_bye(fd, STREAM_BYE_STOP);
	expect_end(fd);
	finish(&b, begin_session(&b, 0, 1), 0);
	bench_done(&b);
}

static void an_epoch_that_is_refused_lets_the_live_one_pass(void **state)
{
	struct bench b = {};
	struct stream_hello hello;
	struct stream_welcome w = usual(1);
	int fd;

	(void)state;
	make_old_epoch(&b, 3, true);
	bench_init(&b, 1);
	bench_start(&b);
	for (int i = 0; i < 3; i++) {
		fd = meet(&b, 0);
		hello = expect_hello(fd);
		assert_int_equal(hello.epoch, 7);
		say_error(fd, STREAM_E_PROTOCOL, 0);
		expect_end(fd);
	}
	fd = meet(&b, 0);
	hello = expect_hello(fd);
	assert_int_equal(hello.epoch, 9);
	welcome(fd, &w);
	say_bye(fd, STREAM_BYE_DRAIN);
	expect_end(fd);
	/* And has another try when that one has ended. */
	fd = meet(&b, 0);
	hello = expect_hello(fd);
	assert_int_equal(hello.epoch, 7);
	close(fd);
	begin_stop(&b, PATIENCE);
	assert_false(end_stop(&b));
	assert_non_null(spool_oldest(b.spool));
	bench_done(&b);
}

static void a_stop_does_not_wait_for_an_earlier_epoch(void **state)
{
	struct bench b = {};
	struct stream_bye bye;
	nsec_t began;
	int fd;

	(void)state;
	make_old_epoch(&b, 3, true);
	bench_init(&b, 1);
	push(&b, 1);
	bench_start(&b);
	fd = begin_session(&b, 0, 1);
	expect_stats(fd, 1, 3);
	began = clock_monotonic();
	begin_stop(&b, 60 * NSEC_PER_SEC);
	bye = expect_bye(fd);
	assert_int_equal(bye.reason, STREAM_BYE_DRAIN);
	say_bye(fd, STREAM_BYE_DRAIN);
	assert_false(end_stop(&b));
	assert_true(clock_monotonic() - began < 5 * NSEC_PER_SEC);
	expect_end(fd);
	assert_non_null(spool_oldest(b.spool));
	assert_int_equal(backlog_first_seq(b.live), 1);
	bench_done(&b);
}

/* With a message half way into a connection that takes no more. */
static void a_stop_leaves_a_collector_that_stands_still(void **state)
{
	struct bench b = {.padding = 15};
	struct stream_welcome w = usual(1);
	int fd, waiting = 0, before;
	nsec_t began;

	(void)state;
	make_old_epoch(&b, 14, true);
	bench_init(&b, 1);
	assert_int_equal(
		setsockopt(b.listeners[0], SOL_SOCKET, SO_RCVBUF, &(int){65536}, sizeof(int)), 0);
	bench_start(&b);
	fd = meet(&b, 0);
	expect_hello(fd);
	w.credit = 1u << 30;
	welcome(fd, &w);
	/* Until nothing more comes. */
	do {
		before = waiting;
		poll(NULL, 0, 50);
		assert_int_equal(ioctl(fd, FIONREAD, &waiting), 0);
	} while (!waiting || waiting != before);
	began = clock_monotonic();
	begin_stop(&b, 60 * NSEC_PER_SEC);
	assert_false(end_stop(&b));
	assert_true(clock_monotonic() - began < 6 * NSEC_PER_SEC);
	close(fd);
	bench_done(&b);
}

static void a_stop_without_a_collector_ends_in_time(void **state)
{
	struct bench b = {};
	nsec_t began;

	(void)state;
	bench_init(&b, 2);
	for (size_t i = 0; i < 2; i++)
		close(take_fd(&b.listeners[i]));
	push(&b, 1);
	bench_start(&b);
	began = clock_monotonic();
	begin_stop(&b, 400 * NSEC_PER_MSEC);
	assert_false(end_stop(&b));
	assert_true(clock_monotonic() - began < 3 * NSEC_PER_SEC);
	bench_done(&b);
}

static void a_stop_gives_up_what_is_not_acknowledged(void **state)
{
	struct bench b = {};
	nsec_t began;
	int fd;

	(void)state;
	bench_init(&b, 1);
	push(&b, 2);
	bench_start(&b);
	fd = begin_session(&b, 0, 1);
	expect_stats(fd, 1, 2);
	ack(fd, 2, 1, 0);
	began = clock_monotonic();
	begin_stop(&b, 400 * NSEC_PER_MSEC);
	assert_false(end_stop(&b));
	assert_true(clock_monotonic() - began < 3 * NSEC_PER_SEC);
	expect_end(fd);
	bench_done(&b);
}

static void a_goodbye_without_an_answer_loses_nothing(void **state)
{
	struct bench b = {};
	int fd;

	(void)state;
	bench_init(&b, 1);
	push(&b, 2);
	bench_start(&b);
	fd = begin_session(&b, 0, 1);
	expect_stats(fd, 1, 2);
	ack(fd, 2, 2, 0);
	wait_for_first(&b, 3);
	begin_stop(&b, PATIENCE);
	expect_bye(fd);
	close(fd);
	assert_true(end_stop(&b));
	bench_done(&b);
}

static void with_a_spool_the_next_run_says_an_unanswered_goodbye(void **state)
{
	struct bench b = {};
	int fd;

	(void)state;
	make_old_epoch(&b, 1, true);
	bench_init(&b, 1);
	push(&b, 1);
	bench_start(&b);
	fd = begin_session(&b, 0, 2);
	expect_bye(fd);
	say_bye(fd, STREAM_BYE_STOP);
	expect_end(fd);
	fd = begin_session(&b, 0, 1);
	expect_stats(fd, 1, 1);
	ack(fd, 1, 1, 0);
	wait_for_first(&b, 2);
	begin_stop(&b, PATIENCE);
	expect_bye(fd);
	close(fd);
	assert_false(end_stop(&b));
	bench_done(&b);
}

static void a_flood_of_questions_does_not_keep_it_from_stopping(void **state)
{
	struct bench b = {};
	struct buf ping = {}, wire = {};
	int fd;

	(void)state;
	bench_init(&b, 1);
	bench_start(&b);
	fd = begin_session(&b, 0, 1);
	stream_ping_encode(&ping, &(struct stream_ping){.sent_ns = 1});
	while (wire.len < 64 << 10)
		stream_message(&wire, STREAM_PING, 0, ping.data, ping.len);
	/* It ends the session, since nobody takes its answers. */
	while (send(fd, wire.data, wire.len, MSG_NOSIGNAL) > 0)
		;
	close(fd);
	buf_free(&ping);
	buf_free(&wire);
	finish(&b, begin_session(&b, 0, 1), 0);
	bench_done(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_durable_is_forgotten),
		cmocka_unit_test(what_is_written_is_forgotten_where_that_is_the_mode),
		cmocka_unit_test(sending_goes_on_where_the_collector_says),
		cmocka_unit_test(numbers_that_are_not_here_end_the_session),
		cmocka_unit_test(credit_bounds_what_is_under_way),
		cmocka_unit_test(a_message_that_the_collector_does_not_take_ends_the_session),
		cmocka_unit_test(a_silent_collector_is_left),
		cmocka_unit_test(a_server_that_refuses_leads_to_the_next_at_once),
		cmocka_unit_test(a_busy_server_is_asked_again_when_it_said),
		cmocka_unit_test(a_collector_that_stops_is_left_and_come_back_to),
		cmocka_unit_test(the_preferred_server_gets_its_agent_back),
		cmocka_unit_test(a_session_that_lasted_is_made_again_with_its_server),
		cmocka_unit_test(after_each_probe_the_session_is_the_agents_own_again),
		cmocka_unit_test(new_credentials_end_the_wait),
		cmocka_unit_test(an_earlier_epoch_comes_first),
		cmocka_unit_test(an_epoch_is_kept_until_its_goodbye_is_answered),
		cmocka_unit_test(a_collector_may_have_more_of_an_unclean_epoch),
		cmocka_unit_test(an_epoch_that_is_refused_lets_the_live_one_pass),
		cmocka_unit_test(a_stop_does_not_wait_for_an_earlier_epoch),
		cmocka_unit_test(a_stop_leaves_a_collector_that_stands_still),
		cmocka_unit_test(a_stop_without_a_collector_ends_in_time),
		cmocka_unit_test(a_stop_gives_up_what_is_not_acknowledged),
		cmocka_unit_test(a_goodbye_without_an_answer_loses_nothing),
		cmocka_unit_test(with_a_spool_the_next_run_says_an_unanswered_goodbye),
		cmocka_unit_test(a_flood_of_questions_does_not_keep_it_from_stopping),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	/* What it logs is not judged here. */
	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
