/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An agent's uplink without capture, and the collectors that the test plays, word by word.
 * For test_agent_uplink*.c.
 */
#ifndef PS_UPLINK_BENCH_H
#define PS_UPLINK_BENCH_H

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
	unsigned int padding; /* of the messages of make_old_epoch(), in fields of 60,000 bytes */
	struct spool *spool;
	struct uplink *uplink;
	pthread_t stopper;
	nsec_t stop_timeout;
	bool stopped;
};

static const uint8_t agent_id[16] = {1, 2, 3};

static inline void listen_again(struct bench *b, size_t i)
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

static inline void open_spool(struct bench *b)
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

static inline void put_hello(void *ctx, uint64_t first_unacked, struct buf *out)
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

static inline void settle_nothing(void *ctx, const struct tally *t, enum ledger_counter counter)
{
	(void)ctx, (void)t, (void)counter;
}

/* Leave an epoch of @n messages in the spool, as a run that is over. */
static inline void make_old_epoch(struct bench *b, uint64_t n, bool clean)
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
		for (unsigned int i = 0; i < b->padding; i++) {
			buf_put_le16(&payload, 60); /* a type that nobody knows */
			buf_put_le16(&payload, 60000);
			assert_non_null(buf_reserve(&payload, 60000));
			memset(payload.data + payload.len, 0, 60000);
			payload.len += 60000;
		}
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
static inline void bench_init(struct bench *b, size_t n)
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

static inline void bench_make(struct bench *b)
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

static inline void bench_start(struct bench *b)
{
	struct err err;

	if (!b->uplink)
		bench_make(b);
	assert_int_equal(uplink_start(b->uplink, &err), 0);
}

static inline int unlink_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static inline void bench_done(struct bench *b)
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

static inline void *stop_main(void *arg)
{
	struct bench *b = arg;

	b->stopped = uplink_stop(b->uplink, b->stop_timeout);
	return NULL;
}

static inline void begin_stop(struct bench *b, nsec_t timeout)
{
	b->stop_timeout = timeout;
	assert_int_equal(pthread_create(&b->stopper, NULL, stop_main, b), 0);
}

static inline bool end_stop(struct bench *b)
{
	pthread_join(b->stopper, NULL);
	return b->stopped;
}

/* STATS, since any agent may send them at any time. Wire size: STREAM_HEADER_SIZE + 12. */
#define STATS_SIZE (STREAM_HEADER_SIZE + 12u)

static inline void push(struct bench *b, unsigned int n)
{
	struct buf payload = {};

	stream_stats_encode(&payload, &(struct stream_stats){.time = 5});
	assert_int_equal(payload.len, STATS_SIZE - STREAM_HEADER_SIZE);
	while (n--)
		assert_int_equal(
			queue_push_control(b->queue, STREAM_STATS, payload.data, payload.len), 0);
	buf_free(&payload);
}

static inline bool has_input(int fd, nsec_t timeout)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};

	return poll(&pfd, 1, (int)(timeout / NSEC_PER_MSEC)) == 1;
}

/* The agent connects to the @i-th server of its order. */
static inline int meet(struct bench *b, size_t i)
{
	assert_true(has_input(b->listeners[i], PATIENCE));
	return accept4(b->listeners[i], NULL, NULL, SOCK_CLOEXEC);
}

static inline bool nobody_comes(struct bench *b, size_t i, nsec_t within)
{
	return !has_input(b->listeners[i], within);
}

/* False: the agent has closed the connection. */
static inline bool hear(int fd, void *to, size_t n)
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
static inline bool hear_message(int fd, struct heard *m)
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

static inline void expect_message(int fd, uint8_t type, uint64_t seq)
{
	struct heard m;

	assert_true(hear_message(fd, &m));
	assert_int_equal(m.h.type, type);
	assert_int_equal(m.h.seq, seq);
}

/* Numbered ones, from @first to @last. */
static inline void expect_stats(int fd, uint64_t first, uint64_t last)
{
	for (; first <= last; first++)
		expect_message(fd, STREAM_STATS, first);
}

static inline void expect_silence(int fd)
{
	assert_false(has_input(fd, 150 * NSEC_PER_MSEC));
}

static inline void expect_end(int fd)
{
	struct heard m;

	while (hear_message(fd, &m))
		;
	close(fd);
}

static inline struct stream_hello expect_hello(int fd)
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

static inline struct stream_bye expect_bye(int fd)
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
static inline void say(int fd, uint8_t type, struct buf *payload)
{
	struct buf wire = {};

	stream_message(&wire, type, 0, payload->data, payload->len);
	assert_int_equal(send(fd, wire.data, wire.len, MSG_NOSIGNAL), wire.len);
	buf_free(&wire);
	buf_free(payload);
}

static inline struct stream_welcome usual(uint64_t resume)
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

static inline void welcome(int fd, const struct stream_welcome *w)
{
	struct buf b = {};

	stream_welcome_encode(&b, w);
	say(fd, STREAM_WELCOME, &b);
}

static inline void ack(int fd, uint64_t written, uint64_t durable, uint64_t credit)
{
	struct stream_ack a = {.written = written, .durable = durable, .credit = credit};
	struct buf b = {};

	stream_ack_encode(&b, &a);
	say(fd, STREAM_ACK, &b);
}

static inline void say_bye(int fd, uint32_t reason)
{
	struct buf b = {};

	stream_bye_encode(&b, &(struct stream_bye){.reason = reason});
	say(fd, STREAM_BYE, &b);
}

static inline void say_error(int fd, uint32_t code, uint32_t retry_after_ms)
{
	struct stream_error e = {.code = code, .retry_after_ms = retry_after_ms, .text = "no"};
	struct buf b = {};

	stream_error_encode(&b, &e);
	say(fd, STREAM_ERROR, &b);
	shutdown(fd, SHUT_WR);
}

static inline void wait_for_first(struct bench *b, uint64_t seq)
{
	nsec_t end = clock_monotonic() + PATIENCE;

	while (backlog_first_seq(b->live) != seq && clock_monotonic() < end)
		poll(NULL, 0, 1);
	assert_int_equal(backlog_first_seq(b->live), seq);
}

/* From HELLO to WELCOME in the usual way. */
static inline int begin_session(struct bench *b, size_t server, uint64_t resume)
{
	struct stream_welcome w = usual(resume);
	int fd = meet(b, server);

	expect_hello(fd);
	welcome(fd, &w);
	return fd;
}

/* A stop that goes well. */
static inline void finish(struct bench *b, int fd, uint64_t last_seq)
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

#endif
