/* SPDX-License-Identifier: Apache-2.0 */
/* What an agent gets for what it sends; session_bench.h is the other end. */
#include "session_bench.h"

static void good_stream_is_written_and_complete(void **state)
{
	struct peer *p = begin();
	size_t n;

	(void)state;
	n = send_data(p, 2, &one_packet);
	expect_ack(p, 2, n);
	send_stats(p, 3, 1, 0);
	expect_ack(p, 3, 0);
	assert_packets_in("dump.pcap", 1);
	send_bye(p, 3);
	expect_committed(p, 3, 3);
	expect_bye(p, STREAM_BYE_STOP, 3);
	assert_non_null(strstr(bench.lines, "\"committed\":1,\"committed_bytes\":2000"));
	assert_non_null(strstr(bench.lines, "\"verdict\":\"complete\""));
	assert_null(strstr(bench.lines, "does not add up"));
	assert_reported("verdict over 1 streams: complete: 1 packets");
	/* It waits until the peer has read and closed. */
	assert_non_null(p->session);
	shutdown(p->fd, SHUT_WR);
	run(p);
	assert_null(p->session);
}

static void burst_is_acknowledged_once(void **state)
{
	struct peer *p = begin();
	uint8_t messages[3 * 400];
	size_t n = 0;

	(void)state;
	for (uint64_t seq = 2; seq <= 4; seq++)
		n += make_data(&one_packet, seq, messages + n);
	send_all(p, messages, n);
	expect_ack(p, 4, n);
	assert_int_equal(next_message(p), 0);
	assert_packets_in("dump.pcap", 3);
}

static void bytes_may_come_one_by_one(void **state)
{
	struct peer *p = begin();
	uint8_t message[400];
	size_t n = make_data(&one_packet, 2, message);

	(void)state;
	for (size_t i = 0; i < n; i++) {
		assert_int_equal(next_message(p), 0);
		send_all(p, message + i, 1);
	}
	expect_ack(p, 2, n);
	assert_packets_in("dump.pcap", 1);
}

static void repeated_message_is_acknowledged_and_not_written(void **state)
{
	struct peer *p = begin();
	size_t n;

	(void)state;
	send_data(p, 2, &one_packet);
	expect_ack(p, 2, 0);
	n = send_data(p, 2, &one_packet);
	expect_ack(p, 2, n);
	assert_packets_in("dump.pcap", 1);
}

static void hole_is_refused(void **state)
{
	struct peer *p = begin();

	(void)state;
	send_data(p, 3, &one_packet);
	expect_error(p, STREAM_E_PROTOCOL);
	assert_packets_in("dump.pcap", 0);
	assert_logged("message 3 where 2 should come");
}

static const struct {
	const char *what;
	struct data data;
} bad_data[] = {
	{"a wrong checksum", {.interfaces = {ETHERNET}, .damaged = true}},
	{"a body longer than declared", {.interfaces = {ETHERNET}, .raw_len = -4}},
	{"a body shorter than declared", {.interfaces = {ETHERNET}, .raw_len = 4}},
	{"an unknown interface", {.interfaces = {ETHERNET, 99}}},
	{"more packets than declared", {.interfaces = {ETHERNET, ETHERNET}, .packets = 1}},
	{"fewer packets than declared", {.interfaces = {ETHERNET}, .packets = 2}},
	{"a packet above the snap length", {.interfaces = {ETHERNET}, .caplen = 1001}},
};

static void bad_data_costs_the_session_and_nothing_else(void **state)
{
	struct peer *p;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad_data); i++) {
		p = dial(0);
		send_hello(p, 2, 2);
		assert_int_equal(next_message(p), STREAM_WELCOME);
		send_data(p, 2, &bad_data[i].data);
		expect_error(p, STREAM_E_PROTOCOL);
		assert_packets_in("dump.pcap", 0);
	}
	/* The stream goes on where it was. */
	p = dial(0);
	send_hello(p, 2, 2);
	expect_welcome(p, 2);
	send_data(p, 2, &one_packet);
	expect_ack(p, 2, 0);
	assert_packets_in("dump.pcap", 1);
	assert_reported("complete: 1 packets (2000 bytes) written");
}

static void bomb_stays_within_its_declared_size(void **state)
{
	struct peer *p = begin();
	size_t size = STREAM_RAW_MAX, n;
	uint8_t *zeros = calloc(1, size), *message = malloc(gzip_bound(size) + 100);
	const struct stream_data head = {.packets = 1};
	struct stream_header h = {.type = STREAM_DATA, .seq = 2, .raw_len = 64};

	(void)state;
	assert_non_null(zeros);
	assert_non_null(message);
	stream_data_encode(message + STREAM_HEADER_SIZE, &head);
	n = gzip_compress(bench.gzip, zeros, size, message + STREAM_HEADER_SIZE + STREAM_DATA_HEAD);
	h.payload_len = (uint32_t)(STREAM_DATA_HEAD + n);
	h.payload_crc = gzip_crc32(0, message + STREAM_HEADER_SIZE, h.payload_len);
	stream_header_encode(message, &h);
	send_all(p, message, STREAM_HEADER_SIZE + h.payload_len);
	expect_error(p, STREAM_E_PROTOCOL);
	free(zeros);
	free(message);
}

static void oversized_message_is_refused_by_its_header(void **state)
{
	const struct stream_header h = {
		.type = STREAM_DATA, .seq = 2, .payload_len = STREAM_PAYLOAD_MAX + 1, .raw_len = 1};
	uint8_t head[STREAM_HEADER_SIZE];
	struct peer *p = begin();

	(void)state;
	stream_header_encode(head, &h);
	send_all(p, head, sizeof(head));
	expect_error(p, STREAM_E_TOO_BIG);
}

static void large_messages_share_a_budget(void **state)
{
	const struct stream_header large = {
		.type = STREAM_DATA, .seq = 2, .payload_len = 2 << 20, .raw_len = 1};
	uint8_t head[STREAM_HEADER_SIZE];
	struct peer *first = begin(), *second = begin_other(1);
	struct stream_error m;

	(void)state;
	stream_header_encode(head, &large);
	send_all(first, head, sizeof(head));
	assert_int_equal(bench.env.payload_used, large.payload_len);
	send_all(second, head, sizeof(head));
	assert_int_equal(next_message(second), STREAM_ERROR);
	assert_int_equal(stream_error_decode(second->payload, second->header.payload_len, &m, NULL),
			 0);
	assert_int_equal(m.code, STREAM_E_BUSY);
	assert_int_not_equal(m.retry_after_ms, 0);

	/* Who has small ones is not concerned, and what ended has given all back. */
	second = begin_other(2);
	send_data(second, 2, &one_packet);
	expect_ack(second, 2, 0);
	shutdown(first->fd, SHUT_WR);
	run(first);
	assert_int_equal(bench.env.payload_used, 0);
}

static void buffer_of_a_large_message_is_given_back(void **state)
{
	const size_t n = 2 << 20;
	struct stream_header h = {.type = STREAM_DATA, .seq = 2, .payload_len = (uint32_t)n};
	uint8_t *message = calloc(1, STREAM_HEADER_SIZE + n);
	struct peer *p = begin();

	(void)state;
	assert_non_null(message);
	/* One that is here already is not looked at. */
	h.seq = 1;
	h.payload_crc = gzip_crc32(0, message, n);
	stream_header_encode(message, &h);
	send_all(p, message, STREAM_HEADER_SIZE + n - 1);
	assert_int_equal(bench.env.payload_used, n);
	send_all(p, message + STREAM_HEADER_SIZE, 1);
	assert_int_equal(bench.env.payload_used, 0);
	expect_ack(p, 1, STREAM_HEADER_SIZE + n);
	free(message);
}

static void torn_stream_is_unknown(void **state)
{
	struct peer *p = begin();
	uint8_t message[400];
	size_t n = make_data(&one_packet, 3, message);

	(void)state;
	send_data(p, 2, &one_packet);
	expect_ack(p, 2, 0);
	send_all(p, message, n - 1);
	shutdown(p->fd, SHUT_WR);
	run(p);
	assert_null(p->session);
	assert_packets_in("dump.pcap", 1);
	assert_logged("in the middle of a message");
	assert_reported("unknown after ");
	assert_reported("verdict over 1 streams: unknown");
}

static void only_hello_may_come_first(void **state)
{
	struct peer *p = dial(0);
	struct buf empty = {};

	(void)state;
	send_message(p, STREAM_PING, 0, &empty);
	expect_error(p, STREAM_E_PROTOCOL);

	p = dial(0);
	send_data(p, 1, &one_packet);
	expect_error(p, STREAM_E_PROTOCOL);
	assert_logged("DATA message where HELLO should come");
}

static void hello_comes_once(void **state)
{
	struct peer *p = begin();

	(void)state;
	send_hello(p, 1, 1);
	expect_error(p, STREAM_E_PROTOCOL);
}

static void tls_peer_is_told_apart(void **state)
{
	static const uint8_t client_hello[64] = {0x16, 3, 1, 2, 0, 1};
	struct peer *p = dial(0);

	(void)state;
	send_all(p, client_hello, sizeof(client_hello));
	assert_logged("the peer speaks TLS, tls.enable is false here");
}

static void health_check_is_no_news(void **state)
{
	struct peer *p = dial(0);
	struct stat st;

	(void)state;
	shutdown(p->fd, SHUT_WR);
	run(p);
	assert_null(p->session);
	assert_int_equal(stat(bench.log, &st), 0);
	assert_int_equal(st.st_size, 0);
}

static void stranger_has_ten_seconds(void **state)
{
	struct peer *p = dial(0);

	(void)state;
	bench.now += 10 * SECOND - 1;
	send_all(p, "P", 1);
	assert_int_equal(next_message(p), 0);
	bench.now += 1;
	run(p);
	expect_error(p, STREAM_E_PROTOCOL);
	assert_logged("no HELLO within 10 s");
	bench.now += 2 * SECOND;
	run(p);
	assert_null(p->session);
}

static void silent_agent_is_gone_after_three_heartbeats(void **state)
{
	const struct stream_ping ping = {.sent_ns = 77};
	struct stream_ping pong = {};
	struct peer *p = begin();
	struct buf b = {};

	(void)state;
	bench.now += 29 * SECOND;
	stream_ping_encode(&b, &ping);
	send_message(p, STREAM_PING, 0, &b);
	assert_int_equal(next_message(p), STREAM_PONG);
	assert_int_equal(stream_ping_decode(p->payload, p->header.payload_len, &pong, NULL), 0);
	assert_int_equal(pong.sent_ns, 77);
	assert_true(pong.received_ns > 77);
	assert_int_equal(next_message(p), STREAM_PING);
	/* Only what comes is a sign of life, not what is sent. */
	bench.now += 29 * SECOND;
	run(p);
	assert_int_equal(next_message(p), STREAM_PING);
	assert_int_equal(next_message(p), 0);
	bench.now += 1 * SECOND;
	run(p);
	expect_error(p, STREAM_E_PROTOCOL);
	assert_reported("verdict over 1 streams: unknown");
}

static void stream_resumes_after_a_reconnect(void **state)
{
	struct peer *p = begin();

	(void)state;
	send_data(p, 2, &one_packet);
	expect_ack(p, 2, 0);
	commit_now();
	p = dial(0);
	/* The acknowledgement was lost: it has 2 still. */
	send_hello(p, 2, 4);
	expect_welcome(p, 3);
	send_data(p, 2, &one_packet);
	expect_ack(p, 2, 0);
	send_data(p, 3, &one_packet);
	expect_ack(p, 3, 0);
	assert_packets_in("dump.pcap", 2);
	assert_reported("verdict over 1 streams: complete: 2 packets");
}

static void agent_whose_numbers_went_back_is_refused(void **state)
{
	struct peer *p = begin();

	(void)state;
	send_data(p, 2, &one_packet);
	p = dial(0);
	send_hello(p, 1, 2);
	expect_error(p, STREAM_E_PROTOCOL);
}

static void second_connection_supersedes_the_first(void **state)
{
	struct peer *first = begin(), *second = dial(1);
	uint64_t count;

	(void)state;
	commit_now();
	send_hello(second, 2, 3);
	expect_welcome(second, 2);
	assert_int_equal(read(bench.scratch.wake_fd, &count, sizeof(count)), sizeof(count));
	assert_true(session_has_news(first->session));
	/* A message that comes before the first has noticed is not written. */
	send_data(first, 2, &one_packet);
	expect_error(first, STREAM_E_SUPERSEDED);
	assert_packets_in("dump.pcap", 0);
	send_data(second, 2, &one_packet);
	expect_ack(second, 2, 0);
	assert_packets_in("dump.pcap", 1);
	assert_reported("verdict over 1 streams: complete");
}

static void gap_is_recorded_and_jumped(void **state)
{
	struct stream_gap_part part = {.iface = ETHERNET, .direction = 1, .lost = {5, 500}};
	struct stream_gap m = {.first_seq = 2,
			       .last_seq = 9,
			       .reason = STREAM_GAP_EVICTED,
			       .parts = &part,
			       .n_parts = 1};
	struct peer *p = begin();
	struct buf b = {};

	(void)state;
	stream_gap_encode(&b, &m);
	send_message(p, STREAM_GAP, 2, &b);
	expect_ack(p, 9, 0);
	send_data(p, 10, &one_packet);
	expect_ack(p, 10, 0);
	assert_logged("messages 2 to 9 with 5 packets are lost");
	assert_reported("incomplete: 5 of 6 packets lost at lost_spool");
}

static void losses_at_the_agent_make_it_incomplete(void **state)
{
	struct peer *p = begin();

	(void)state;
	send_data(p, 2, &one_packet);
	send_stats(p, 3, 1, 4);
	send_bye(p, 3);
	assert_non_null(strstr(bench.lines, "\"verdict\":\"incomplete\""));
	assert_reported("incomplete: 4 of 5 packets lost at lost_ring");
}

static void goodbye_before_the_last_message_is_unknown(void **state)
{
	struct peer *p = begin();

	(void)state;
	send_data(p, 2, &one_packet);
	send_stats(p, 3, 1, 0);
	send_bye(p, 5);
	assert_logged("speaks of message 5, the last here is 3");
	assert_reported("verdict over 1 streams: unknown");
	assert_reported("1 packets (2000 bytes) written, 0 lost");
}

static void packets_that_never_came_make_it_incomplete(void **state)
{
	struct peer *p = begin();

	(void)state;
	send_data(p, 2, &one_packet);
	send_stats(p, 3, 3, 0);
	send_bye(p, 3);
	assert_reported("2 did not arrive; 1 packets (2000 bytes) written");
}

static void each_link_type_goes_to_its_file(void **state)
{
	const struct data mixed = {.interfaces = {ETHERNET, RAW, RAW, ETHERNET}};
	struct peer *p = begin();

	(void)state;
	send_meta(p, 2, RAW);
	expect_ack(p, 2, 0);
	send_data(p, 3, &mixed);
	/* No packet goes into a file that the journal does not name. */
	assert_int_equal(next_message(p), 0);
	assert_packets_in("dump.raw.pcap", 0);
	await_news(p);
	expect_ack(p, 3, 0);
	assert_packets_in("dump.pcap", 2);
	assert_packets_in("dump.raw.pcap", 2);
	assert_reported("complete: 4 packets (8000 bytes) written");
}

static void link_type_that_cannot_be_written_is_counted(void **state)
{
	const struct data mixed = {.interfaces = {ETHERNET, EXOTIC, EXOTIC, ETHERNET}};
	struct peer *p = begin();

	(void)state;
	send_meta(p, 2, EXOTIC);
	expect_ack(p, 2, 0);
	send_data(p, 3, &mixed);
	expect_ack(p, 3, 0);
	assert_packets_in("dump.pcap", 2);
	assert_logged("packets of \"eth3\" are lost");
	assert_reported("incomplete: 2 of 4 packets lost at lost_output");
}

static struct rlimit file_limit;

static void fill_disk(rlim_t at)
{
	struct rlimit small;

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &file_limit), 0);
	small = (struct rlimit){at, file_limit.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
}

static void full_disk_is_waited_for(void **state)
{
	struct data big = {.interfaces = {ETHERNET, ETHERNET, ETHERNET, ETHERNET}, .caplen = 900};
	struct peer *p = begin();
	struct stat st;
	int r;

	(void)state;
	/* More than the log has so far. */
	fill_disk(3000);
	send_data(p, 2, &big);
	bench.now += 40 * SECOND;
	run(p);
	r = next_message(p);
	setrlimit(RLIMIT_FSIZE, &file_limit);
	/* No ACK, but a sign of life. */
	assert_int_equal(r, STREAM_PING);
	assert_int_equal(session_events(p->session), 0);
	assert_packets_in("dump.pcap", 0);
	bench.now += SECOND;
	run(p);
	expect_ack(p, 2, 0);
	assert_int_equal(stat(bench.path, &st), 0);
	assert_int_equal(st.st_size, FILE_HEADER + 4 * 916);
	assert_logged("the disk is full");
	assert_logged("takes packets again");
	/* And it has three heartbeats again. */
	bench.now += 29 * SECOND;
	run(p);
	assert_non_null(p->session);
}

static void small_messages_on_a_full_disk_are_no_news(void **state)
{
	struct data big = {.interfaces = {ETHERNET, ETHERNET, ETHERNET, ETHERNET}, .caplen = 900};
	struct peer *p = begin(), *other = begin_other(1);

	(void)state;
	/* More than the log has so far. */
	fill_disk(3000);
	send_data(p, 2, &big);
	for (uint64_t seq = 2; seq < 6; seq++) {
		send_data(other, seq, &one_packet);
		bench.now += SECOND;
		run(p);
	}
	setrlimit(RLIMIT_FSIZE, &file_limit);
	expect_ack(other, 2, 0);
	assert_int_equal(next_message(p), 0);
	assert_int_equal(count_logged("the disk is full"), 1);
	assert_int_equal(count_logged("takes packets again"), 0);
	bench.now += SECOND;
	run(p);
	expect_ack(p, 2, 0);
	assert_int_equal(count_logged("the disk is full"), 1);
	assert_int_equal(count_logged("takes packets again"), 1);
}

static void bench_open_raw(void)
{
	struct err err;

	assert_int_equal(output_open(bench.output, LINK_RAW, &err), 0);
	commit_now();
}

/* The raw file takes its packet, then the Ethernet file is full; the session ends there. */
static void half_written_message_is_finished_by_the_next_session(void **state)
{
	const struct data mixed = {.interfaces = {RAW, ETHERNET}, .caplen = 900};
	struct peer *p = begin();
	char path[128];
	struct stat st;

	(void)state;
	send_meta(p, 2, RAW);
	bench_open_raw();
	for (uint64_t seq = 3; seq < 7; seq++)
		send_data(p, seq, &(struct data){.interfaces = {ETHERNET}, .caplen = 900});
	fill_disk(FILE_HEADER + 4 * 916 + 100);
	send_data(p, 7, &mixed);
	setrlimit(RLIMIT_FSIZE, &file_limit);
	commit_now();
	p = dial(0);
	send_hello(p, 7, 8);
	expect_welcome(p, 7);
	send_data(p, 7, &mixed);
	expect_ack(p, 7, 0);
	snprintf(path, sizeof(path), "%.60s/dump.raw.pcap", bench.dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, FILE_HEADER + 916);
	assert_int_equal(stat(bench.path, &st), 0);
	assert_int_equal(st.st_size, FILE_HEADER + 5 * 916);
	assert_reported("complete: 6 packets (12000 bytes) written");
}

static void peer_that_reads_nothing_is_dropped(void **state)
{
	const struct stream_ping ping = {.sent_ns = 1};
	struct peer *p = begin();
	struct buf payload = {}, b = {};
	size_t sent = 0;

	(void)state;
	stream_ping_encode(&payload, &ping);
	while (b.len < MESSAGE_ROOM / 16)
		stream_message(&b, STREAM_PING, 0, payload.data, payload.len);
	while (p->session && sent < 64 * MESSAGE_ROOM) {
		ssize_t n = send(p->fd, b.data, b.len, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n > 0)
			sent += (size_t)n;
		/* A message cut by a full socket is a protocol error: send whole ones. */
		if (n >= 0 && (size_t)n < b.len) {
			run(p);
			send_all(p, b.data + n, b.len - (size_t)n);
		}
		run(p);
	}
	assert_null(p->session);
	assert_logged("does not read");
	buf_free(&payload);
	buf_free(&b);
}

static void optional_messages_are_skipped_and_others_refused(void **state)
{
	struct stream_header h = {.type = 99, .flags = STREAM_FLAG_OPTIONAL};
	uint8_t head[STREAM_HEADER_SIZE];
	struct peer *p = begin();

	(void)state;
	h.payload_crc = gzip_crc32(0, "", 0);
	stream_header_encode(head, &h);
	send_all(p, head, sizeof(head));
	assert_int_equal(next_message(p), 0);
	h.flags = 0;
	stream_header_encode(head, &h);
	send_all(p, head, sizeof(head));
	expect_error(p, STREAM_E_PROTOCOL);
}

static void stop_acknowledges_and_says_goodbye(void **state)
{
	struct peer *p = begin();

	(void)state;
	send_data(p, 2, &one_packet);
	expect_committed(p, 2, 0);
	session_stop(p->session, bench.now);
	await_news(p);
	expect_committed(p, 2, 2);
	expect_bye(p, STREAM_BYE_DRAIN, 2);
	assert_reported("verdict over 1 streams: complete");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(good_stream_is_written_and_complete),
		TEST(burst_is_acknowledged_once),
		TEST(bytes_may_come_one_by_one),
		TEST(repeated_message_is_acknowledged_and_not_written),
		TEST(hole_is_refused),
		TEST(bad_data_costs_the_session_and_nothing_else),
		TEST(bomb_stays_within_its_declared_size),
		TEST(oversized_message_is_refused_by_its_header),
		TEST(large_messages_share_a_budget),
		TEST(buffer_of_a_large_message_is_given_back),
		TEST(torn_stream_is_unknown),
		TEST(only_hello_may_come_first),
		TEST(hello_comes_once),
		TEST(tls_peer_is_told_apart),
		TEST(health_check_is_no_news),
		TEST(stranger_has_ten_seconds),
		TEST(silent_agent_is_gone_after_three_heartbeats),
		TEST(stream_resumes_after_a_reconnect),
		TEST(agent_whose_numbers_went_back_is_refused),
		TEST(second_connection_supersedes_the_first),
		TEST(gap_is_recorded_and_jumped),
		TEST(losses_at_the_agent_make_it_incomplete),
		TEST(goodbye_before_the_last_message_is_unknown),
		TEST(packets_that_never_came_make_it_incomplete),
		TEST(each_link_type_goes_to_its_file),
		TEST(link_type_that_cannot_be_written_is_counted),
		TEST(full_disk_is_waited_for),
		TEST(small_messages_on_a_full_disk_are_no_news),
		TEST(half_written_message_is_finished_by_the_next_session),
		TEST(peer_that_reads_nothing_is_dropped),
		TEST(optional_messages_are_skipped_and_others_refused),
		TEST(stop_acknowledges_and_says_goodbye),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
