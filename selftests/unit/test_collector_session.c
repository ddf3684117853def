/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions over a socketpair in plain text, with a real registry and output, driven from
 * one thread with a clock of the test's own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "gzip.h"
#include "packet.h"
#include "session.h"
#include "stream.h"
#include "util.h"

#define SECOND       NSEC_PER_SEC
#define RECORD       (16 + CAPLEN) /* in the file */
#define CAPLEN       60u
#define ETHERNET     1u /* interface ids */
#define RAW          2u
#define EXOTIC       3u
#define EXOTIC_TYPE  276u
#define FILE_HEADER  24u
#define MESSAGE_ROOM (1u << 20)

/* The agent's end of a session. */
struct peer {
	int fd;
	struct session *session; /* NULL once it is over */
	struct stream_header header;
	uint8_t payload[4096]; /* of the message read last */
};

static struct bench {
	char dir[64], path[96], log[96];
	struct output *output;
	struct noise noise;
	struct tls_context *tls;
	struct session_env env;
	struct session_scratch scratch;
	struct gzip *gzip;
	struct peer peers[2];
	nsec_t now;
	bool fatal;
	char *lines; /* of reports */
} bench;

static void collect_line(void *ctx, enum log_level level, const char *line)
{
	char *lines;

	(void)ctx;
	(void)level;
	assert_true(asprintf(&lines, "%s%s\n", bench.lines ? bench.lines : "", line) > 0);
	free(bench.lines);
	bench.lines = lines;
}

static void note_fatal(void *ctx, const struct err *err)
{
	(void)ctx;
	(void)err;
	bench.fatal = true;
}

static int setup(void **state)
{
	const struct registry_limits limits = {.feeds = 8, .resting_ifaces = 1000, .ifaces = 1000};
	const struct tls_config plain = {};
	struct bench *b = &bench;
	struct output_config output;
	struct err err;

	(void)state;
	*b = (struct bench){.now = 1000 * SECOND};
	snprintf(b->dir, sizeof(b->dir), "/tmp/ps-session-XXXXXX");
	if (!mkdtemp(b->dir))
		return -1;
	snprintf(b->path, sizeof(b->path), "%.60s/dump.pcap", b->dir);
	snprintf(b->log, sizeof(b->log), "%.60s/log", b->dir);
	output = (struct output_config){.path = b->path};
	if (log_open(b->log, &err) < 0 || output_new(&output, &b->output, &err) < 0 ||
	    tls_context_new(TLS_COLLECTOR, &plain, &b->tls, &err) < 0)
		return -1;
	noise_init(&b->noise);
	b->gzip = gzip_new();
	b->scratch.gzip = gzip_new();
	b->scratch.raw = malloc(STREAM_RAW_MAX);
	b->scratch.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	b->env = (struct session_env){
		.tls = b->tls,
		.registry = registry_new(&limits, b->output, collect_line, NULL),
		.output = b->output,
		.noise = &b->noise,
		.payload_max = 3 << 20,
		.credit = 1 << 20,
		.hello_timeout = 10 * SECOND,
		.heartbeat = 10 * SECOND,
		.retry = SECOND / 2,
		.fatal = note_fatal,
	};
	for (size_t i = 0; i < ARRAY_SIZE(b->peers); i++)
		b->peers[i].fd = -1;
	return 0;
}

static int teardown(void **state)
{
	static const char *const names[] = {"dump.pcap", "dump.raw.pcap", "log"};
	struct bench *b = &bench;
	char path[128];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(b->peers); i++) {
		session_free(b->peers[i].session);
		if (b->peers[i].fd >= 0)
			close(b->peers[i].fd);
	}
	registry_free(b->env.registry);
	output_free(b->output);
	tls_context_free(b->tls);
	gzip_free(b->gzip);
	gzip_free(b->scratch.gzip);
	free(b->scratch.raw);
	close(b->scratch.wake_fd);
	noise_destroy(&b->noise);
	free(b->lines);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%.60s/%s", b->dir, names[i]);
		unlink(path);
	}
	return rmdir(b->dir);
}

/* Let the session do all that it can now. */
static void run(struct peer *p)
{
	enum session_next next = SESSION_AGAIN;

	while (p->session && next == SESSION_AGAIN) {
		next = session_run(p->session, bench.now, false);
		if (next == SESSION_OVER)
			p->session = session_free(p->session);
	}
}

static void send_all(struct peer *p, const void *data, size_t n)
{
	const uint8_t *at = data;

	while (n) {
		ssize_t w = send(p->fd, at, n, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (w < 0 && errno == EAGAIN) {
			run(p);
			continue;
		}
		assert_true(w > 0);
		at += w;
		n -= (size_t)w;
	}
	run(p);
}

static void send_message(struct peer *p, uint8_t type, uint64_t seq, struct buf *payload)
{
	struct buf b = {};

	stream_message(&b, type, seq, payload->data, payload->len);
	assert_false(buf_failed(&b));
	send_all(p, b.data, b.len);
	buf_free(&b);
	buf_free(payload);
}

/* The next message from the collector; 0 when there is none, -1 at the end. */
static int next_message(struct peer *p)
{
	uint8_t head[STREAM_HEADER_SIZE];
	ssize_t n = recv(p->fd, head, sizeof(head), MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN ? 0 : -1;
	if (n == 0)
		return -1;
	assert_int_equal(n, sizeof(head));
	assert_int_equal(stream_header_decode(head, &p->header, NULL), 0);
	assert_true(p->header.payload_len <= sizeof(p->payload));
	if (p->header.payload_len)
		assert_int_equal(recv(p->fd, p->payload, p->header.payload_len, MSG_DONTWAIT),
				 p->header.payload_len);
	return p->header.type;
}

static void expect_ack(struct peer *p, uint64_t written, uint64_t credit)
{
	struct stream_ack ack = {};

	assert_int_equal(next_message(p), STREAM_ACK);
	assert_int_equal(stream_ack_decode(p->payload, p->header.payload_len, &ack, NULL), 0);
	assert_int_equal(ack.written, written);
	assert_int_equal(ack.durable, 0);
	if (credit)
		assert_int_equal(ack.credit, credit);
}

static void expect_error(struct peer *p, enum stream_error_code code)
{
	struct stream_error m = {};
	int type;

	do {
		type = next_message(p);
	} while (type == STREAM_ACK || type == STREAM_WELCOME);
	assert_int_equal(type, STREAM_ERROR);
	assert_int_equal(stream_error_decode(p->payload, p->header.payload_len, &m, NULL), 0);
	assert_int_equal(m.code, code);
	assert_true(m.text[0]);
	assert_int_equal(next_message(p), -1);
}

static struct peer *dial(int i)
{
	struct peer *p = &bench.peers[i];
	struct err err;
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds),
			 0);
	session_free(p->session);
	if (p->fd >= 0)
		close(p->fd);
	p->fd = fds[0];
	assert_int_equal(session_new(&bench.env, &bench.scratch, fds[1], "192.0.2.1:5", bench.now,
				     &p->session, &err),
			 0);
	run(p);
	return p;
}

static struct stream_iface interface(uint32_t id)
{
	static const uint32_t types[] = {
		[ETHERNET] = LINK_ETHERNET, [RAW] = LINK_RAW, [EXOTIC] = EXOTIC_TYPE};
	struct stream_iface m = {.id = id, .link_type = types[id], .snaplen = 1000};

	snprintf(m.name, sizeof(m.name), "eth%u", id);
	return m;
}

static void send_hello(struct peer *p, uint64_t first_unacked, uint64_t next_seq)
{
	struct stream_iface ifaces[] = {interface(ETHERNET)};
	struct stream_hello m = {
		.agent_id = {1, 2, 3},
		.epoch = 9,
		.first_unacked = first_unacked,
		.next_seq = next_seq,
		.agent_name = "web1",
		.version = "1",
		.ifaces = ifaces,
		.n_ifaces = next_seq > 1 ? 1 : 0,
	};
	struct buf b = {};

	stream_hello_encode(&b, &m);
	send_message(p, STREAM_HELLO, 0, &b);
}

static void expect_welcome(struct peer *p, uint64_t resume)
{
	struct stream_welcome m = {};

	assert_int_equal(next_message(p), STREAM_WELCOME);
	assert_int_equal(stream_welcome_decode(p->payload, p->header.payload_len, &m, NULL), 0);
	assert_int_equal(m.resume_seq, resume);
	assert_int_equal(m.credit, 1 << 20);
	assert_int_equal(m.heartbeat_ms, 10000);
}

static void send_meta(struct peer *p, uint64_t seq, uint32_t id)
{
	struct stream_iface m = interface(id);
	struct buf b = {};

	stream_meta_encode(&b, &m);
	send_message(p, STREAM_META, seq, &b);
}

/* What may be wrong with a DATA message. */
struct data {
	uint32_t interfaces[4]; /* one packet each, up to the first 0 */
	uint32_t packets;       /* 0: as many as there are */
	int raw_len;            /* added to the true one */
	uint32_t caplen;        /* 0: CAPLEN */
	bool damaged;
};

static size_t make_data(const struct data *d, uint64_t seq, uint8_t *out)
{
	static const uint8_t bytes[4096];
	uint8_t raw[4 * 4200], *payload = out + STREAM_HEADER_SIZE;
	struct stream_data head = {.iface_max = UINT32_MAX, .first = 1, .last = 2};
	struct stream_header h = {.type = STREAM_DATA, .seq = seq};
	size_t size = 0;

	for (size_t i = 0; i < ARRAY_SIZE(d->interfaces) && d->interfaces[i]; i++) {
		const struct packet p = {
			.interface_id = d->interfaces[i],
			.time = bench.now,
			.caplen = d->caplen ? d->caplen : CAPLEN,
			.len = 2000,
			.direction = 1 + i % 2,
			.data = bytes,
		};

		size += packet_write(raw + size, &p);
		head.packets++;
		head.wire_bytes += p.len;
	}
	if (d->packets)
		head.packets = d->packets;
	stream_data_encode(payload, &head);
	h.payload_len = STREAM_DATA_HEAD +
			(uint32_t)gzip_compress(bench.gzip, raw, size, payload + STREAM_DATA_HEAD);
	h.raw_len = (uint32_t)((int)size + d->raw_len);
	h.payload_crc = gzip_crc32(0, payload, h.payload_len) ^ d->damaged;
	stream_header_encode(out, &h);
	return STREAM_HEADER_SIZE + h.payload_len;
}

static size_t send_data(struct peer *p, uint64_t seq, const struct data *d)
{
	uint8_t message[20000];
	size_t n = make_data(d, seq, message);

	send_all(p, message, n);
	return n;
}

static const struct data one_packet = {.interfaces = {ETHERNET}};

static void send_stats(struct peer *p, uint64_t seq, uint64_t packets, uint64_t lost_ring)
{
	struct stream_stats_part part = {.iface = ETHERNET, .direction = 1};
	struct stream_stats m = {.parts = &part, .n_parts = 1};
	struct buf b = {};

	part.counts.c[LEDGER_SEEN] =
		(struct ledger_count){packets + lost_ring, (packets + lost_ring) * 2000};
	part.counts.c[LEDGER_CAPTURED] = (struct ledger_count){packets, packets * 2000};
	part.counts.c[LEDGER_LOST_RING] = (struct ledger_count){lost_ring, lost_ring * 2000};
	stream_stats_encode(&b, &m);
	send_message(p, STREAM_STATS, seq, &b);
}

static void send_bye(struct peer *p, uint64_t last)
{
	const struct stream_bye m = {.reason = STREAM_BYE_STOP, .last_seq = last};
	struct buf b = {};

	stream_bye_encode(&b, &m);
	send_message(p, STREAM_BYE, 0, &b);
}

/* Connected, welcomed, and interface 1 described by message 1. */
static struct peer *begin(void)
{
	struct peer *p = dial(0);

	send_hello(p, 1, 1);
	expect_welcome(p, 1);
	send_meta(p, 1, ETHERNET);
	expect_ack(p, 1, 0);
	return p;
}

static void assert_packets_in(const char *name, uint64_t packets)
{
	struct stat st;
	char path[128];

	snprintf(path, sizeof(path), "%.60s/%s", bench.dir, name);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, FILE_HEADER + packets * RECORD);
}

static void assert_logged(const char *text)
{
	static char log[65536];
	int fd = open(bench.log, O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, log, sizeof(log) - 1);

	assert_true(n >= 0);
	log[n] = '\0';
	close(fd);
	if (!strstr(log, text))
		fail_msg("\"%s\" is not in the log:\n%s", text, log);
}

static void assert_reported(const char *text)
{
	registry_report(bench.env.registry);
	if (!strstr(bench.lines, text))
		fail_msg("\"%s\" is not in the report:\n%s", text, bench.lines);
}

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
	assert_int_equal(next_message(p), STREAM_BYE);
	assert_int_equal(next_message(p), -1);
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

/* The stream of another agent. */
static struct peer *begin_other(uint64_t epoch)
{
	struct stream_hello m = {.agent_id = {4},
				 .epoch = epoch,
				 .first_unacked = 1,
				 .next_seq = 1,
				 .agent_name = "web2"};
	struct peer *p = dial(1);
	struct buf b = {};

	stream_hello_encode(&b, &m);
	send_message(p, STREAM_HELLO, 0, &b);
	expect_welcome(p, 1);
	send_meta(p, 1, ETHERNET);
	expect_ack(p, 1, 0);
	return p;
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
	bench.now += 29 * SECOND;
	run(p);
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
	send_hello(second, 2, 3);
	expect_welcome(second, 2);
	assert_int_equal(read(bench.scratch.wake_fd, &count, sizeof(count)), sizeof(count));
	assert_true(session_superseded(first->session));
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
	assert_reported("incomplete: 1 packets (2000 bytes) written, 5 lost (lost_spool 5)");
}

static void losses_at_the_agent_make_it_incomplete(void **state)
{
	struct peer *p = begin();

	(void)state;
	send_data(p, 2, &one_packet);
	send_stats(p, 3, 1, 4);
	send_bye(p, 3);
	assert_non_null(strstr(bench.lines, "\"verdict\":\"incomplete\""));
	assert_reported("incomplete: 1 packets (2000 bytes) written, 4 lost (lost_ring 4)");
}

static void goodbye_before_the_last_message_is_unknown(void **state)
{
	struct peer *p = begin();

	(void)state;
	send_data(p, 2, &one_packet);
	send_stats(p, 3, 1, 0);
	send_bye(p, 5);
	assert_logged("speaks of message 5, the last here is 3");
	assert_reported("unknown: 1 packets (2000 bytes) written");
}

static void packets_that_never_came_make_it_incomplete(void **state)
{
	struct peer *p = begin();

	(void)state;
	send_data(p, 2, &one_packet);
	send_stats(p, 3, 3, 0);
	send_bye(p, 3);
	assert_reported("incomplete: 1 packets (2000 bytes) written, 0 lost, 2 under way");
}

static void each_link_type_goes_to_its_file(void **state)
{
	const struct data mixed = {.interfaces = {ETHERNET, RAW, RAW, ETHERNET}};
	struct peer *p = begin();

	(void)state;
	send_meta(p, 2, RAW);
	send_data(p, 3, &mixed);
	expect_ack(p, 2, 0);
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
	assert_reported("incomplete: 2 packets (4000 bytes) written, 2 lost (lost_output 2)");
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

static int count_logged(const char *text)
{
	static char log[65536];
	int fd = open(bench.log, O_RDONLY | O_CLOEXEC), n = 0;
	ssize_t size = read(fd, log, sizeof(log) - 1);

	assert_true(size >= 0);
	log[size] = '\0';
	close(fd);
	for (const char *at = log; (at = strstr(at, text)); at++)
		n++;
	return n;
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

/* The raw file takes its packet, then the Ethernet file is full; the session ends there. */
static void half_written_message_is_finished_by_the_next_session(void **state)
{
	const struct data mixed = {.interfaces = {RAW, ETHERNET}, .caplen = 900};
	struct peer *p = begin();
	char path[128];
	struct stat st;

	(void)state;
	send_meta(p, 2, RAW);
	for (uint64_t seq = 3; seq < 7; seq++)
		send_data(p, seq, &(struct data){.interfaces = {ETHERNET}, .caplen = 900});
	fill_disk(FILE_HEADER + 4 * 916 + 100);
	send_data(p, 7, &mixed);
	setrlimit(RLIMIT_FSIZE, &file_limit);
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
	struct stream_bye bye = {};

	(void)state;
	send_data(p, 2, &one_packet);
	session_stop(p->session, bench.now);
	run(p);
	expect_ack(p, 2, 0);
	assert_int_equal(next_message(p), STREAM_BYE);
	assert_int_equal(stream_bye_decode(p->payload, p->header.payload_len, &bye, NULL), 0);
	assert_int_equal(bye.reason, STREAM_BYE_DRAIN);
	assert_int_equal(bye.last_seq, 2);
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
