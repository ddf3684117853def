/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions over a socketpair in plain text, with a real registry, output and journal, driven from
 * one thread with a clock of the test's own. Nothing is committed before commit_now().
 */
#ifndef PS_SESSION_BENCH_H
#define PS_SESSION_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
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
	struct commit *commit;
	struct noise noise;
	struct tls_store *tls;
	struct session_env env;
	struct session_scratch scratch;
	struct gzip *gzip;
	struct peer peers[2];
	nsec_t now;
	bool fatal;
	char *lines; /* of reports */
} bench;

static inline void collect_line(void *ctx, enum log_level level, const char *line)
{
	char *lines;

	(void)ctx;
	(void)level;
	assert_true(asprintf(&lines, "%s%s\n", bench.lines ? bench.lines : "", line) > 0);
	free(bench.lines);
	bench.lines = lines;
}

static inline void note_fatal(void *ctx, const struct err *err)
{
	(void)ctx;
	(void)err;
	bench.fatal = true;
}

static inline void nobody_to_wake(void *ctx)
{
	(void)ctx;
}

/* @durable: what agents are told to wait for. */
static inline int setup_mode(bool durable)
{
	const struct registry_limits limits = {.feeds = 8, .resting_ifaces = 1000, .ifaces = 1000};
	const struct tls_config plain = {};
	struct commit_config commit = {
		.durable = durable,
		.wait = 3600 * SECOND,
		.wake = nobody_to_wake,
		.fatal = note_fatal,
	};
	struct bench *b = &bench;
	struct err err;

	*b = (struct bench){.now = 1000 * SECOND};
	snprintf(b->dir, sizeof(b->dir), "/tmp/ps-session-XXXXXX");
	if (!mkdtemp(b->dir))
		return -1;
	snprintf(b->path, sizeof(b->path), "%.60s/dump.pcap", b->dir);
	snprintf(b->log, sizeof(b->log), "%.60s/log", b->dir);
	commit.path = b->path;
	b->env.registry = registry_new(&limits, NULL, collect_line, NULL);
	if (log_open(b->log, &err) < 0 ||
	    commit_open(&commit, b->env.registry, &b->output, &b->commit, &err) < 0 ||
	    commit_start(b->commit, &err) < 0 ||
	    tls_store_new(TLS_COLLECTOR, &plain, &b->tls, &err) < 0)
		return -1;
	noise_init(&b->noise);
	b->gzip = gzip_new();
	b->scratch.gzip = gzip_new();
	b->scratch.raw = malloc(STREAM_RAW_MAX);
	b->scratch.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	b->env = (struct session_env){
		.tls = b->tls,
		.registry = b->env.registry,
		.output = b->output,
		.commit = b->commit,
		.noise = &b->noise,
		.max_sessions = 8,
		.memory = 1 << 30,
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

static inline int setup(void **state)
{
	(void)state;
	return setup_mode(true);
}

static inline int teardown(void **state)
{
	static const char *const names[] = {"dump.pcap", "dump.raw.pcap", "dump.pcap.journal",
					    "log"};
	struct bench *b = &bench;
	char path[128];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(b->peers); i++) {
		session_free(b->peers[i].session);
		if (b->peers[i].fd >= 0)
			close(b->peers[i].fd);
	}
	commit_stop(b->commit, NULL);
	commit_free(b->commit);
	registry_free(b->env.registry);
	output_free(b->output);
	tls_store_free(b->tls);
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
static inline void run(struct peer *p)
{
	enum session_next next = SESSION_AGAIN;

	while (p->session && next == SESSION_AGAIN) {
		next = session_run(p->session, bench.now, false);
		if (next == SESSION_OVER)
			p->session = session_free(p->session);
	}
}

/* Everything that was taken so far; sessions learn of it when they are run. */
static inline void commit_now(void)
{
	uint64_t number = commit_hurry(bench.commit);
	nsec_t deadline = clock_monotonic() + 20 * SECOND;

	while (!commit_is_done(bench.commit, number)) {
		assert_true(clock_monotonic() < deadline);
		poll(NULL, 0, 1);
	}
}

/* Somebody hurried the commit that the session waits for. */
static inline void await_news(struct peer *p)
{
	nsec_t deadline = clock_monotonic() + 20 * SECOND;

	while (!session_has_news(p->session)) {
		assert_true(clock_monotonic() < deadline);
		poll(NULL, 0, 1);
	}
	run(p);
}

static inline void send_all(struct peer *p, const void *data, size_t n)
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

static inline void send_message(struct peer *p, uint8_t type, uint64_t seq, struct buf *payload)
{
	struct buf b = {};

	stream_message(&b, type, seq, payload->data, payload->len);
	assert_false(buf_failed(&b));
	send_all(p, b.data, b.len);
	buf_free(&b);
	buf_free(payload);
}

/* The next message from the collector; 0 when there is none, -1 at the end. */
static inline int next_message(struct peer *p)
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

static inline struct stream_ack next_ack(struct peer *p)
{
	struct stream_ack ack = {};

	assert_int_equal(next_message(p), STREAM_ACK);
	assert_int_equal(stream_ack_decode(p->payload, p->header.payload_len, &ack, NULL), 0);
	return ack;
}

static inline void expect_ack(struct peer *p, uint64_t written, uint64_t credit)
{
	struct stream_ack ack = next_ack(p);

	assert_int_equal(ack.written, written);
	assert_true(ack.durable <= written);
	if (credit)
		assert_int_equal(ack.credit, credit);
}

static inline void expect_committed(struct peer *p, uint64_t written, uint64_t durable)
{
	struct stream_ack ack = next_ack(p);

	assert_int_equal(ack.written, written);
	assert_int_equal(ack.durable, durable);
}

static inline void expect_error(struct peer *p, enum stream_error_code code)
{
	struct stream_error m = {};
	int type;

	do {
		type = next_message(p);
	} while (type == STREAM_ACK || type == STREAM_WELCOME || type == STREAM_PING);
	assert_int_equal(type, STREAM_ERROR);
	assert_int_equal(stream_error_decode(p->payload, p->header.payload_len, &m, NULL), 0);
	assert_int_equal(m.code, code);
	assert_true(m.text[0]);
	assert_int_equal(next_message(p), -1);
}

static inline struct peer *dial(int i)
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

/* Its HELLO comes so late that WELCOME waits for no commit. */
static inline struct peer *dial_late(int i)
{
	struct peer *p = dial(i);

	bench.now += bench.env.hello_timeout / 2;
	return p;
}

static inline struct stream_iface interface(uint32_t id)
{
	static const uint32_t types[] = {
		[ETHERNET] = LINK_ETHERNET, [RAW] = LINK_RAW, [EXOTIC] = EXOTIC_TYPE};
	struct stream_iface m = {.id = id, .link_type = types[id], .snaplen = 1000};

	snprintf(m.name, sizeof(m.name), "eth%u", id);
	return m;
}

static inline void send_hello(struct peer *p, uint64_t first_unacked, uint64_t next_seq)
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

static inline void expect_welcome(struct peer *p, uint64_t resume)
{
	struct stream_welcome m = {};

	assert_int_equal(next_message(p), STREAM_WELCOME);
	assert_int_equal(stream_welcome_decode(p->payload, p->header.payload_len, &m, NULL), 0);
	assert_int_equal(m.resume_seq, resume);
	assert_int_equal(m.credit, 1 << 20);
	assert_int_equal(m.heartbeat_ms, 10000);
	assert_int_equal(m.ack_mode, commit_ack_mode(bench.commit));
}

static inline void send_meta(struct peer *p, uint64_t seq, uint32_t id)
{
	const struct stream_meta m = {.iface = interface(id)};
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

static inline size_t make_data(const struct data *d, uint64_t seq, uint8_t *out)
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

static inline size_t send_data(struct peer *p, uint64_t seq, const struct data *d)
{
	uint8_t message[20000];
	size_t n = make_data(d, seq, message);

	send_all(p, message, n);
	return n;
}

static const struct data one_packet = {.interfaces = {ETHERNET}};

static inline void send_stats(struct peer *p, uint64_t seq, uint64_t packets, uint64_t lost_ring)
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

static inline void send_goodbye(struct peer *p, const struct stream_bye *m)
{
	struct buf b = {};

	stream_bye_encode(&b, m);
	send_message(p, STREAM_BYE, 0, &b);
}

static inline void send_bye(struct peer *p, uint64_t last)
{
	send_goodbye(p, &(struct stream_bye){.reason = STREAM_BYE_STOP, .last_seq = last});
	await_news(p);
}

static inline void expect_bye(struct peer *p, enum stream_bye_reason reason, uint64_t last)
{
	struct stream_bye bye = {};

	assert_int_equal(next_message(p), STREAM_BYE);
	assert_int_equal(stream_bye_decode(p->payload, p->header.payload_len, &bye, NULL), 0);
	assert_int_equal(bye.reason, reason);
	assert_int_equal(bye.last_seq, last);
	assert_int_equal(next_message(p), -1);
}

/* Connected, welcomed, and interface 1 described by message 1. */
static inline struct peer *begin(void)
{
	struct peer *p = dial(0);

	send_hello(p, 1, 1);
	expect_welcome(p, 1);
	send_meta(p, 1, ETHERNET);
	expect_ack(p, 1, 0);
	return p;
}

/* The stream of another agent. */
static inline struct peer *begin_other(uint64_t epoch)
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

static inline void assert_packets_in(const char *name, uint64_t packets)
{
	struct stat st;
	char path[128];

	snprintf(path, sizeof(path), "%.60s/%s", bench.dir, name);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, FILE_HEADER + packets * RECORD);
}

static inline const char *read_log(void)
{
	static char log[1u << 20];
	int fd = open(bench.log, O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, log, sizeof(log) - 1);

	assert_true(n >= 0);
	log[n] = '\0';
	close(fd);
	return log;
}

static inline int count_logged(const char *text)
{
	int n = 0;

	for (const char *at = read_log(); (at = strstr(at, text)); at++)
		n++;
	return n;
}

static inline void assert_logged(const char *text)
{
	if (!count_logged(text))
		fail_msg("\"%s\" is not in the log:\n%s", text, read_log());
}

static inline void assert_reported(const char *text)
{
	registry_report(bench.env.registry);
	if (!strstr(bench.lines, text))
		fail_msg("\"%s\" is not in the report:\n%s", text, bench.lines);
}

#endif
