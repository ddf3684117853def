// SPDX-License-Identifier: Apache-2.0
/*
 * The uplink against collectors that the test plays, word by word, in plain text over
 * loopback: what it says, what it forgets and when, where it goes next, how it ends.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <ftw.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "gzip.h"
#include "log.h"
#include "uplink_internal.h"
#include "util.h"

#define PATIENCE (10 * NSEC_PER_SEC)
#define CREDIT   (1u << 20)
#define SERVERS  3

/* An agent without capture, and the collectors' listening sockets. */
struct bench {
	int listeners[SERVERS];
	struct yaml_server list[SERVERS];
	struct yaml_servers servers;
	char host[16];
	struct queue *queue;
	struct book *book;
	struct backlog *live;
	struct tls_store *tls;
	char folder[64];
	struct spool *spool;
	struct uplink *uplink;
	pthread_t stopper;
	nsec_t stop_timeout;
	bool stopped;
};

static const uint8_t agent_id[16] = {1, 2, 3};

static void listen_again(struct bench *b, size_t i)
{
	struct sockaddr_in sa = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		.sin_port = htons(b->list[i].port),
	};
	socklen_t len = sizeof(sa);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 16), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	/* Once it runs, the agent reads the list. */
	if (!b->list[i].port)
		b->list[i].port = ntohs(sa.sin_port);
	b->listeners[i] = fd;
}

static void open_spool(struct bench *b)
{
	struct spool_config config = {
		.path = b->folder,
		.max_bytes = 16 << 20,
		.segment_bytes = 1 << 20,
	};
	uint8_t id[16];
	struct err err;

	memcpy(id, agent_id, sizeof(id));
	if (spool_open(&config, id, &b->spool, &err) < 0)
		fail_msg("%s", err.text);
}

static void put_hello(void *ctx, uint64_t first_unacked, struct buf *out)
{
	struct stream_hello h = {
		.epoch = 7,
		.first_unacked = first_unacked,
		.next_seq = 1000,
		.agent_name = "a",
		.version = "v",
	};

	(void)ctx;
	memcpy(h.agent_id, agent_id, sizeof(h.agent_id));
	stream_hello_encode(out, &h);
}

static void settle_nothing(void *ctx, const struct tally *t, enum ledger_counter counter)
{
	(void)ctx, (void)t, (void)counter;
}

/* Leave an epoch of @n messages in the spool, as a run that is over. */
static void make_old_epoch(struct bench *b, uint64_t n, bool clean)
{
	struct spool_epoch *e;
	struct buf wire = {}, hello = {}, bye = {};
	struct err err;

	snprintf(b->folder, sizeof(b->folder), "/tmp/test_agent_uplink.XXXXXX");
	assert_non_null(mkdtemp(b->folder));
	open_spool(b);
	e = spool_begin(b->spool, 7, put_hello, settle_nothing, NULL);
	assert_non_null(e);
	for (uint64_t seq = 1; seq <= n; seq++) {
		struct backlog_message m = {.seq = seq, .last_seq = seq, .type = STREAM_STATS};
		struct stream_stats stats = {.time = seq};
		struct buf payload = {};

		stream_stats_encode(&payload, &stats);
		buf_reset(&wire);
		stream_message(&wire, STREAM_STATS, seq, payload.data, payload.len);
		m.size = (uint32_t)wire.len;
		assert_int_equal(spool_append(e, &m, wire.data, NULL, &err), 0);
		buf_free(&payload);
	}
	if (clean) {
		put_hello(NULL, 1, &hello);
		stream_bye_encode(&bye,
				  &(struct stream_bye){.reason = STREAM_BYE_STOP, .last_seq = n});
		assert_int_equal(spool_end(e, &hello, &bye, &err), 0);
	} else {
		assert_int_equal(spool_sync(e, &err), 0);
	}
	spool_close(b->spool);
	buf_free(&wire);
	buf_free(&hello);
	buf_free(&bye);
	open_spool(b);
	assert_non_null(spool_oldest(b->spool));
}

/* @n servers, in the order in which the agent likes them. */
static void bench_init(struct bench *b, size_t n)
{
	const struct tls_config plain = {.enable = false};
	struct backlog_config config = {.mode = SPOOL_OFF};
	struct servers order;
	struct err err;

	snprintf(b->host, sizeof(b->host), "127.0.0.1");
	for (size_t i = 0; i < n; i++) {
		b->list[i].host = b->host;
		listen_again(b, i);
	}
	b->servers = (struct yaml_servers){.v = b->list, .n = n};
	assert_int_equal(servers_init(&order, &b->servers, agent_id), 0);
	{
		struct yaml_server sorted[SERVERS];
		int fds[SERVERS];

		for (size_t i = 0; i < n; i++) {
			sorted[i] = *order.order[i];
			fds[i] = b->listeners[order.order[i] - b->list];
		}
		memcpy(b->list, sorted, n * sizeof(sorted[0]));
		memcpy(b->listeners, fds, n * sizeof(fds[0]));
	}
	servers_done(&order);

	b->queue = queue_new(4 << 20);
	b->book = book_new();
	assert_true(b->queue && b->book);
	config.queue = b->queue;
	config.book = b->book;
	config.hello.epoch = 9;
	memcpy(config.hello.agent_id, agent_id, sizeof(agent_id));
	snprintf(config.hello.agent_name, sizeof(config.hello.agent_name), "a");
	snprintf(config.hello.version, sizeof(config.hello.version), "v");
	assert_int_equal(backlog_new(&config, &b->live, &err), 0);
	assert_int_equal(tls_store_new(TLS_AGENT, &plain, &b->tls, &err), 0);
}

static void bench_make(struct bench *b)
{
	struct uplink_config config = {
		.servers = &b->servers,
		.tls = b->tls,
		.live = b->live,
		.spool = b->spool,
		.book = b->book,
	};
	struct err err;

	memcpy(config.agent_id, agent_id, sizeof(agent_id));
	assert_int_equal(uplink_new(&config, &b->uplink, &err), 0);
}

static void bench_start(struct bench *b)
{
	struct err err;

	if (!b->uplink)
		bench_make(b);
	assert_int_equal(uplink_start(b->uplink, &err), 0);
}

static int unlink_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static void bench_done(struct bench *b)
{
	uplink_stop(b->uplink, 0);
	uplink_free(b->uplink);
	backlog_free(b->live);
	if (b->spool)
		spool_close(b->spool);
	if (*b->folder)
		nftw(b->folder, unlink_one, 8, FTW_DEPTH | FTW_PHYS);
	queue_free(b->queue);
	book_free(b->book);
	tls_store_free(b->tls);
	for (size_t i = 0; i < b->servers.n; i++)
		if (b->listeners[i] >= 0)
			close(b->listeners[i]);
}

static void *stop_main(void *arg)
{
	struct bench *b = arg;

	b->stopped = uplink_stop(b->uplink, b->stop_timeout);
	return NULL;
}

static void begin_stop(struct bench *b, nsec_t timeout)
{
	b->stop_timeout = timeout;
	assert_int_equal(pthread_create(&b->stopper, NULL, stop_main, b), 0);
}

static bool end_stop(struct bench *b)
{
	pthread_join(b->stopper, NULL);
	return b->stopped;
}

/* STATS, since any agent may send them at any time. Wire size: STREAM_HEADER_SIZE + 12. */
#define STATS_SIZE (STREAM_HEADER_SIZE + 12u)

static void push(struct bench *b, unsigned int n)
{
	struct buf payload = {};

	stream_stats_encode(&payload, &(struct stream_stats){.time = 5});
	assert_int_equal(payload.len, STATS_SIZE - STREAM_HEADER_SIZE);
	while (n--)
		assert_int_equal(
			queue_push_control(b->queue, STREAM_STATS, payload.data, payload.len), 0);
	buf_free(&payload);
}

static bool has_input(int fd, nsec_t timeout)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};

	return poll(&pfd, 1, (int)(timeout / NSEC_PER_MSEC)) == 1;
}

/* The agent connects to the @i-th server of its order. */
static int meet(struct bench *b, size_t i)
{
	assert_true(has_input(b->listeners[i], PATIENCE));
	return accept4(b->listeners[i], NULL, NULL, SOCK_CLOEXEC);
}

static bool nobody_comes(struct bench *b, size_t i, nsec_t within)
{
	return !has_input(b->listeners[i], within);
}

/* False: the agent has closed the connection. */
static bool hear(int fd, void *to, size_t n)
{
	for (size_t at = 0; at < n;) {
		ssize_t got;

		assert_true(has_input(fd, PATIENCE));
		got = recv(fd, (char *)to + at, n - at, 0);
		if (got <= 0)
			return false;
		at += (size_t)got;
	}
	return true;
}

struct heard {
	struct stream_header h;
	uint8_t payload[4096];
};

/* The next message that is no PING. */
static bool hear_message(int fd, struct heard *m)
{
	uint8_t header[STREAM_HEADER_SIZE];
	struct err err;

	do {
		if (!hear(fd, header, sizeof(header)))
			return false;
		assert_int_equal(stream_header_decode(header, &m->h, &err), 0);
		assert_true(m->h.payload_len <= sizeof(m->payload));
		if (!hear(fd, m->payload, m->h.payload_len))
			return false;
		assert_int_equal(gzip_crc32(0, m->payload, m->h.payload_len), m->h.payload_crc);
	} while (m->h.type == STREAM_PING);
	return true;
}

static void expect_message(int fd, uint8_t type, uint64_t seq)
{
	struct heard m;

	assert_true(hear_message(fd, &m));
	assert_int_equal(m.h.type, type);
	assert_int_equal(m.h.seq, seq);
}

/* Numbered ones, from @first to @last. */
static void expect_stats(int fd, uint64_t first, uint64_t last)
{
	for (; first <= last; first++)
		expect_message(fd, STREAM_STATS, first);
}

static void expect_silence(int fd)
{
	assert_false(has_input(fd, 150 * NSEC_PER_MSEC));
}

static void expect_end(int fd)
{
	struct heard m;

	while (hear_message(fd, &m))
		;
	close(fd);
}

static struct stream_hello expect_hello(int fd)
{
	struct stream_hello hello;
	struct heard m;
	struct err err;

	assert_true(hear_message(fd, &m));
	assert_int_equal(m.h.type, STREAM_HELLO);
	assert_int_equal(stream_hello_decode(m.payload, m.h.payload_len, &hello, &err), 0);
	stream_hello_free(&hello);
	assert_memory_equal(hello.agent_id, agent_id, sizeof(agent_id));
	return hello;
}

static struct stream_bye expect_bye(int fd)
{
	struct stream_bye bye;
	struct heard m;
	struct err err;

	assert_true(hear_message(fd, &m));
	assert_int_equal(m.h.type, STREAM_BYE);
	assert_int_equal(stream_bye_decode(m.payload, m.h.payload_len, &bye, &err), 0);
	return bye;
}

/* Say it, and free the payload. */
static void say(int fd, uint8_t type, struct buf *payload)
{
	struct buf wire = {};

	stream_message(&wire, type, 0, payload->data, payload->len);
	assert_int_equal(send(fd, wire.data, wire.len, MSG_NOSIGNAL), wire.len);
	buf_free(&wire);
	buf_free(payload);
}

static struct stream_welcome usual(uint64_t resume)
{
	return (struct stream_welcome){
		.session_id = 1,
		.resume_seq = resume,
		.credit = CREDIT,
		.max_payload = STREAM_PAYLOAD_MAX,
		.max_raw = STREAM_RAW_MAX,
		.heartbeat_ms = 10000,
		.ack_mode = STREAM_ACK_DURABLE,
	};
}

static void welcome(int fd, const struct stream_welcome *w)
{
	struct buf b = {};

	stream_welcome_encode(&b, w);
	say(fd, STREAM_WELCOME, &b);
}

static void ack(int fd, uint64_t written, uint64_t durable, uint64_t credit)
{
	struct stream_ack a = {.written = written, .durable = durable, .credit = credit};
	struct buf b = {};

	stream_ack_encode(&b, &a);
	say(fd, STREAM_ACK, &b);
}

static void say_bye(int fd, uint32_t reason)
{
	struct buf b = {};

	stream_bye_encode(&b, &(struct stream_bye){.reason = reason});
	say(fd, STREAM_BYE, &b);
}

static void say_error(int fd, uint32_t code, uint32_t retry_after_ms)
{
	struct stream_error e = {.code = code, .retry_after_ms = retry_after_ms, .text = "no"};
	struct buf b = {};

	stream_error_encode(&b, &e);
	say(fd, STREAM_ERROR, &b);
	shutdown(fd, SHUT_WR);
}

static void wait_for_first(struct bench *b, uint64_t seq)
{
	nsec_t end = clock_monotonic() + PATIENCE;

	while (backlog_first_seq(b->live) != seq && clock_monotonic() < end)
		usleep(1000);
	assert_int_equal(backlog_first_seq(b->live), seq);
}

/* From HELLO to WELCOME in the usual way. */
static int begin_session(struct bench *b, size_t server, uint64_t resume)
{
	struct stream_welcome w = usual(resume);
	int fd = meet(b, server);

	expect_hello(fd);
	welcome(fd, &w);
	return fd;
}

/* A stop that goes well. */
static void finish(struct bench *b, int fd, uint64_t last_seq)
{
	struct stream_bye bye;

	begin_stop(b, PATIENCE);
	bye = expect_bye(fd);
	assert_int_equal(bye.reason, STREAM_BYE_STOP);
	assert_int_equal(bye.last_seq, last_seq);
	say_bye(fd, STREAM_BYE_STOP);
	assert_true(end_stop(b));
	expect_end(fd);
}

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
	/* First what is under way, and nothing new. */
	push(&b, 2);
	ack(fd, 2, 2, 0);
	ack(fd, 3, 3, 0);
	bye = expect_bye(fd);
	assert_int_equal(bye.reason, STREAM_BYE_DRAIN);
	assert_int_equal(bye.last_seq, 3);
	say_bye(fd, STREAM_BYE_STOP);
	expect_end(fd);
	fd = begin_session(&b, 0, 4);
	expect_stats(fd, 4, 5);
	ack(fd, 5, 5, 0);
	finish(&b, fd, 5);
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
		cmocka_unit_test(new_credentials_end_the_wait),
		cmocka_unit_test(an_earlier_epoch_comes_first),
		cmocka_unit_test(an_epoch_is_kept_until_its_goodbye_is_answered),
		cmocka_unit_test(a_collector_may_have_more_of_an_unclean_epoch),
		cmocka_unit_test(an_epoch_that_is_refused_lets_the_live_one_pass),
		cmocka_unit_test(a_stop_does_not_wait_for_an_earlier_epoch),
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
