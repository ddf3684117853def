/* SPDX-License-Identifier: Apache-2.0 */
/* Memory and disk as one: in order, whole, and every packet booked once. */
#include <errno.h>
#include <fts.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "backlog.h"
#include "gzip.h"
#include "log.h"
#include "packet.h"
#include "util.h"

#define QUEUE    (1u << 20)
#define PATIENCE (60 * NSEC_PER_SEC)
#define BODY     2000u

struct bench {
	char dir[64];
	struct book *book;
	struct queue *queue;
	struct spool *spool;
	struct backlog *backlog;
	uint32_t iface;
	uint64_t epoch;
	uint64_t captured, refused; /* packets */
	struct buf wire;
};

static void remove_tree(char *dir)
{
	char *const paths[] = {dir, NULL};
	FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	FTSENT *e;

	while (fts && (e = fts_read(fts)))
		if (e->fts_info != FTS_D)
			remove(e->fts_accpath);
	fts_close(fts);
}

/* Folders of epochs and what is in them. */
static size_t entries(struct bench *b)
{
	char *const paths[] = {b->dir, NULL};
	FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	size_t n = 0;
	FTSENT *e;

	while ((e = fts_read(fts)))
		n += e->fts_level > 1 || (e->fts_level == 1 && e->fts_info == FTS_D);
	fts_close(fts);
	return n;
}

static void open_spool(struct bench *b, uint64_t max_bytes)
{
	const struct spool_config config = {
		.path = b->dir,
		.max_bytes = max_bytes,
		.segment_bytes = 64u << 10,
	};
	uint8_t agent_id[16] = {1};
	struct err err;

	if (spool_open(&config, agent_id, &b->spool, &err) < 0)
		fail_msg("%s", err.text);
}

static void begin(struct bench *b, enum spool_mode mode, uint64_t max_bytes)
{
	struct stream_iface info = {.name = "eth0", .link_type = LINK_ETHERNET, .snaplen = 100};
	struct backlog_config config = {
		.mode = mode,
		.hello = {.epoch = ++b->epoch, .agent_name = "node", .version = "1"},
	};
	struct err err;

	if (mode != SPOOL_OFF)
		open_spool(b, max_bytes);
	config.book = b->book = book_new();
	config.queue = b->queue = queue_new(QUEUE);
	config.spool = b->spool;
	assert_true(b->book && b->queue);
	assert_int_equal(book_add(b->book, &info), 0);
	b->iface = info.id;
	b->captured = b->refused = 0;
	if (backlog_new(&config, &b->backlog, &err) < 0 || backlog_start(b->backlog, &err) < 0)
		fail_msg("%s", err.text);
}

static void end(struct bench *b)
{
	b->backlog = backlog_free(b->backlog);
	b->spool = b->spool ? spool_close(b->spool) : NULL;
	b->queue = queue_free(b->queue);
	b->book = book_free(b->book);
}

static void limit_files(rlim_t bytes)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = MIN(bytes, limit.rlim_max);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static int setup(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));

	assert_non_null(b);
	snprintf(b->dir, sizeof(b->dir), "/tmp/test_agent_backlog.XXXXXX");
	assert_non_null(mkdtemp(b->dir));
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bench *b = *state;

	limit_files(RLIM_INFINITY);
	end(b);
	buf_free(&b->wire);
	remove_tree(b->dir);
	free(b);
	return 0;
}

/* DATA with @packets in it; its body says how many. */
static bool push(struct bench *b, size_t n, uint32_t packets)
{
	static uint8_t body[QUEUE];
	struct stream_data data = {.iface_min = b->iface,
				   .iface_max = b->iface,
				   .first = 1000,
				   .last = 2000,
				   .packets = packets,
				   .wire_bytes = 10 * packets};
	struct stream_header h = {.type = STREAM_DATA, .raw_len = (uint32_t)n};
	struct tally t = {.n = 1, .parts = {{.iface = b->iface, .direction = 1}}};
	uint8_t head[STREAM_DATA_HEAD];

	t.parts[0].count = (struct ledger_count){packets, 10 * packets};
	stream_data_encode(head, &data);
	memset(body, (int)packets, n);
	h.payload_crc = gzip_crc32(gzip_crc32(0, head, sizeof(head)), body, n);
	b->captured += packets;
	if (queue_push(b->queue, &h, head, sizeof(head), body, n, &t) == 0)
		return true;
	b->refused += packets;
	book_settle(b->book, &t, LEDGER_LOST_QUEUE);
	return false;
}

static void push_many(struct bench *b, size_t n)
{
	while (n--)
		assert_true(push(b, BODY, 1 + (uint32_t)n % 9));
}

/* The packets in a message that was read. */
static uint32_t check_data(const struct buf *wire, const struct backlog_message *m)
{
	struct stream_data data;
	struct stream_header h;

	assert_int_equal(m->last_seq, m->seq);
	assert_int_equal(m->size, wire->len);
	assert_int_equal(stream_header_decode(wire->data, &h, NULL), 0);
	assert_int_equal(h.seq, m->seq);
	assert_int_equal(h.type, m->type);
	assert_int_equal(gzip_crc32(0, wire->data + STREAM_HEADER_SIZE, h.payload_len),
			 h.payload_crc);
	if (m->type != STREAM_DATA)
		return 0;
	assert_int_equal(
		stream_data_decode(wire->data + STREAM_HEADER_SIZE, h.payload_len, &data, NULL), 0);
	assert_int_equal(wire->data[wire->len - 1], (uint8_t)data.packets);
	return data.packets;
}

static uint32_t read_data(struct backlog *backlog, struct buf *wire, uint64_t seq)
{
	struct backlog_message m;
	struct err err;
	int r = backlog_read(backlog, seq, wire, &m, &err);

	if (r < 0)
		fail_msg("%s", err.text);
	assert_int_equal(r, 1);
	assert_int_equal(m.seq, seq);
	assert_int_equal(m.type, STREAM_DATA);
	return check_data(wire, &m);
}

static bool wait_for_bytes(struct queue *q, size_t max)
{
	nsec_t until = clock_monotonic() + PATIENCE;

	while (queue_bytes(q) > max && clock_monotonic() < until)
		poll(NULL, 0, 1);
	return queue_bytes(q) <= max;
}

/* More than half of the queue, by the last push. */
static void push_over_half(struct bench *b)
{
	while (queue_bytes(b->queue) + 2 * (size_t)BODY <= QUEUE / 2)
		push_many(b, 1);
	push(b, 3 * (size_t)BODY, 5);
}

static void sum_up(void *ctx, const struct stream_iface *info, enum direction direction,
		   const struct ledger *l, const struct ledger_span *unseen)
{
	(void)info;
	(void)direction;
	(void)unseen;
	assert_true(ledger_adds_up(l));
	ledger_add(ctx, l);
}

static struct ledger ledger_now(struct bench *b)
{
	struct capture_counts counts = {};
	struct ledger sum = {};

	counts.packets[CAPTURE_SEEN] = counts.packets[CAPTURE_CAPTURED] = b->captured;
	counts.bytes[CAPTURE_SEEN] = counts.bytes[CAPTURE_CAPTURED] = 10 * b->captured;
	book_counts(b->book, b->iface, DIRECTION_INGRESS, &counts);
	book_for_each(b->book, sum_up, &sum);
	return sum;
}

static void without_a_spool_all_is_in_memory(void **state)
{
	struct bench *b = *state;
	struct ledger l;

	begin(b, SPOOL_OFF, 0);
	assert_true(backlog_empty(b->backlog));
	push_many(b, 20);
	for (uint64_t seq = 1; seq <= 20; seq++)
		read_data(b->backlog, &b->wire, seq);
	backlog_ack(b->backlog, 15);
	assert_int_equal(backlog_first_seq(b->backlog), 16);
	assert_false(backlog_store(b->backlog));
	backlog_ack(b->backlog, UINT64_MAX);
	assert_true(backlog_empty(b->backlog));
	assert_int_equal(backlog_next_seq(b->backlog), 21);
	assert_true(backlog_store(b->backlog));
	l = ledger_now(b);
	assert_int_equal(l.c[LEDGER_COMMITTED].packets, b->captured);
	assert_int_equal(entries(b), 0);
}

static void a_queue_that_is_emptied_in_time_stays_off_the_disk(void **state)
{
	struct bench *b = *state;

	begin(b, SPOOL_OVERFLOW, 1 << 30);
	backlog_connected(b->backlog, true);
	for (uint64_t seq = 1; seq <= 2000; seq++) {
		push_many(b, 1);
		read_data(b->backlog, &b->wire, seq);
		if (seq % 100 == 0)
			backlog_ack(b->backlog, seq);
	}
	assert_int_equal(entries(b), 0);
	assert_int_equal(ledger_now(b).c[LEDGER_COMMITTED].packets, b->captured);
}

static void more_than_half_a_queue_goes_to_the_disk_until_a_quarter_is_left(void **state)
{
	struct bench *b = *state;
	uint64_t packets = 0;

	begin(b, SPOOL_OVERFLOW, 1 << 30);
	backlog_connected(b->backlog, true);
	push_over_half(b);
	assert_true(wait_for_bytes(b->queue, QUEUE / 4));
	/* It goes no further than that. */
	poll(NULL, 0, 50);
	assert_true(queue_bytes(b->queue) > QUEUE / 4 - 2 * BODY);
	assert_int_equal(backlog_first_seq(b->backlog), 1);
	for (uint64_t seq = 1; seq < backlog_next_seq(b->backlog); seq++)
		packets += read_data(b->backlog, &b->wire, seq);
	assert_int_equal(packets, b->captured);
	backlog_ack(b->backlog, backlog_next_seq(b->backlog) - 1);
	assert_int_equal(ledger_now(b).c[LEDGER_COMMITTED].packets, b->captured);
	assert_true(backlog_empty(b->backlog));
}

static void without_a_connection_all_goes_to_the_disk_after_a_while(void **state)
{
	struct bench *b = *state;

	begin(b, SPOOL_OVERFLOW, 1 << 30);
	push_many(b, 10);
	poll(NULL, 0, 100);
	assert_true(queue_bytes(b->queue) > 0);
	assert_true(wait_for_bytes(b->queue, 0));
	push_many(b, 10);
	assert_true(wait_for_bytes(b->queue, 0));
	for (uint64_t seq = 1; seq <= 20; seq++)
		read_data(b->backlog, &b->wire, seq);
	/* And stays in memory again with one. */
	backlog_connected(b->backlog, true);
	push_many(b, 10);
	poll(NULL, 0, 50);
	assert_true(queue_bytes(b->queue) > 0);
	backlog_ack(b->backlog, 30);
	assert_int_equal(ledger_now(b).c[LEDGER_COMMITTED].packets, b->captured);
}

static void numbers_that_were_acknowledged_in_memory_never_come_to_the_disk(void **state)
{
	struct bench *b = *state;

	begin(b, SPOOL_OVERFLOW, 1 << 30);
	backlog_connected(b->backlog, true);
	for (int round = 0; round < 4; round++) {
		uint64_t first = backlog_next_seq(b->backlog), next;

		push_many(b, 7);
		backlog_ack(b->backlog, first + 6);
		push_over_half(b);
		assert_true(wait_for_bytes(b->queue, QUEUE / 4));
		next = backlog_next_seq(b->backlog);
		for (uint64_t seq = first + 7; seq < next; seq++)
			read_data(b->backlog, &b->wire, seq);
		backlog_ack(b->backlog, next - 1);
	}
	assert_int_equal(ledger_now(b).c[LEDGER_COMMITTED].packets, b->captured);
}

/* Epoch @b->epoch as the next run finds it: all of it, from @first on. */
static uint64_t drain_recovered(struct bench *b, uint64_t first, uint64_t next,
				struct stream_hello *hello, struct stream_bye *bye)
{
	struct spool_epoch *e;
	struct backlog *old;
	uint64_t packets = 0;
	struct err err;

	open_spool(b, 1 << 30);
	e = spool_oldest(b->spool);
	assert_non_null(e);
	old = backlog_recovered(b->spool, e);
	assert_true(backlog_is_recovered(old));
	assert_int_equal(backlog_fd(old), -1);
	assert_int_equal(backlog_first_seq(old), first);
	assert_int_equal(backlog_next_seq(old), next);
	assert_int_equal(backlog_hello(old, hello, &err), 0);
	for (uint64_t seq = first; seq < next; seq++)
		packets += read_data(old, &b->wire, seq);
	backlog_ack(old, next - 1);
	assert_true(backlog_empty(old));
	*bye = backlog_bye(old);
	backlog_free(old);
	spool_remove(b->spool, e);
	assert_null(spool_oldest(b->spool));
	b->spool = spool_close(b->spool);
	return packets;
}

static void what_is_left_at_a_stop_waits_for_the_next_start(void **state)
{
	struct bench *b = *state;
	struct stream_hello hello;
	struct stream_bye bye;
	struct ledger l;
	uint64_t captured;

	begin(b, SPOOL_OVERFLOW, 1 << 30);
	backlog_connected(b->backlog, true);
	push_many(b, 30);
	backlog_ack(b->backlog, 10);
	assert_true(backlog_store(b->backlog));
	l = ledger_now(b);
	captured = b->captured;
	assert_int_equal(ledger_in_flight(&l).packets, captured - l.c[LEDGER_COMMITTED].packets);
	end(b);

	assert_int_equal(drain_recovered(b, 11, 31, &hello, &bye),
			 captured - l.c[LEDGER_COMMITTED].packets);
	assert_true(hello.recovered);
	assert_int_equal(hello.epoch, b->epoch);
	assert_int_equal(hello.n_ifaces, 1);
	assert_string_equal(hello.ifaces[0].name, "eth0");
	assert_int_equal(hello.ifaces[0].committed[0].packets, l.c[LEDGER_COMMITTED].packets);
	stream_hello_free(&hello);
	assert_int_equal(bye.reason, STREAM_BYE_STOP);
	assert_int_equal(bye.last_seq, 30);
	assert_int_equal(entries(b), 0);
}

static void what_was_acknowledged_of_a_file_is_not_sent_after_a_stop(void **state)
{
	struct bench *b = *state;
	struct stream_hello hello;
	struct stream_bye bye;
	struct ledger l;
	uint64_t captured;

	begin(b, SPOOL_ALWAYS, 1 << 30);
	push_many(b, 30);
	assert_true(wait_for_bytes(b->queue, 0));
	backlog_ack(b->backlog, 10);
	assert_true(backlog_store(b->backlog));
	l = ledger_now(b);
	captured = b->captured;
	end(b);

	/* It may go to another collector, which has not seen the first ten. */
	assert_int_equal(drain_recovered(b, 11, 31, &hello, &bye),
			 captured - l.c[LEDGER_COMMITTED].packets);
	assert_int_equal(hello.first_unacked, 11);
	assert_int_equal(hello.ifaces[0].committed[0].packets, l.c[LEDGER_COMMITTED].packets);
	stream_hello_free(&hello);
	assert_int_equal(bye.last_seq, 30);
}

static void an_end_without_a_stop_is_unclean(void **state)
{
	struct bench *b = *state;
	struct stream_hello hello;
	struct stream_bye bye;

	begin(b, SPOOL_ALWAYS, 1 << 30);
	push_many(b, 30);
	assert_true(wait_for_bytes(b->queue, 0));
	end(b);
	drain_recovered(b, 1, 31, &hello, &bye);
	stream_hello_free(&hello);
	assert_int_equal(bye.reason, STREAM_BYE_UNCLEAN);
	assert_int_equal(bye.last_seq, 30);
}

static void a_goodbye_that_nobody_heard_is_kept(void **state)
{
	struct bench *b = *state;
	struct stream_hello hello;
	struct stream_bye bye;

	begin(b, SPOOL_OVERFLOW, 1 << 30);
	push_many(b, 5);
	backlog_ack(b->backlog, 5);
	assert_true(backlog_store(b->backlog));
	end(b);
	assert_int_equal(drain_recovered(b, 6, 6, &hello, &bye), 0);
	stream_hello_free(&hello);
	assert_int_equal(bye.reason, STREAM_BYE_STOP);
	assert_int_equal(bye.last_seq, 5);
}

static void nothing_makes_nothing_on_the_disk(void **state)
{
	struct bench *b = *state;

	begin(b, SPOOL_ALWAYS, 1 << 30);
	assert_true(backlog_store(b->backlog));
	end(b);
	assert_int_equal(entries(b), 0);
	/* Nor does a run whose messages were all acknowledged and whose goodbye was heard. */
	begin(b, SPOOL_ALWAYS, 1 << 30);
	push_many(b, 50);
	assert_true(wait_for_bytes(b->queue, 0));
	backlog_ack(b->backlog, 50);
	end(b);
	open_spool(b, 1 << 30);
	assert_null(spool_oldest(b->spool));
	assert_int_equal(entries(b), 0);
}

static void a_disk_that_takes_nothing_costs_nothing_until_the_queue_is_full(void **state)
{
	struct bench *b = *state;
	uint64_t packets = 0, n = 0;

	begin(b, SPOOL_ALWAYS, 1 << 30);
	push_many(b, 10);
	assert_true(wait_for_bytes(b->queue, 0));
	limit_files(0);
	push_many(b, 100);
	poll(NULL, 0, 300);
	for (uint64_t seq = 1; seq <= 110; seq++)
		packets += read_data(b->backlog, &b->wire, seq);
	assert_int_equal(packets, b->captured);
	while (push(b, BODY, 3))
		;
	assert_int_equal(ledger_now(b).c[LEDGER_LOST_QUEUE].packets, b->refused);
	limit_files(RLIM_INFINITY);
	assert_true(wait_for_bytes(b->queue, 0));
	push_many(b, 10);
	assert_true(wait_for_bytes(b->queue, 0));
	n = backlog_next_seq(b->backlog);
	packets = 0;
	for (uint64_t seq = 1; seq < n; seq++)
		packets += read_data(b->backlog, &b->wire, seq);
	assert_int_equal(packets, b->captured - b->refused);
	backlog_ack(b->backlog, n - 1);
	assert_int_equal(ledger_now(b).c[LEDGER_COMMITTED].packets, b->captured - b->refused);
}

static void the_oldest_go_only_when_memory_is_needed_too(void **state)
{
	struct bench *b = *state;
	uint64_t next, packets = 0;
	nsec_t until = clock_monotonic() + PATIENCE;
	struct ledger l;

	begin(b, SPOOL_ALWAYS, 1 << 20);
	for (int i = 0; i < (1 << 20) / (int)BODY + 20; i++) {
		push_many(b, 1);
		wait_for_bytes(b->queue, QUEUE / 4);
	}
	next = backlog_next_seq(b->backlog);
	for (uint64_t seq = 1; seq < next; seq++)
		packets += read_data(b->backlog, &b->wire, seq);
	assert_int_equal(packets, b->captured);
	assert_int_equal(ledger_now(b).c[LEDGER_LOST_SPOOL].packets, 0);
	push_over_half(b);
	assert_true(wait_for_bytes(b->queue, QUEUE / 4));
	/* Those that were read may have arrived: they are lost once the collector has not got them.
	 */
	while (!backlog_empty(b->backlog)) {
		struct backlog_message m;
		struct err err;

		assert_int_equal(
			backlog_read(b->backlog, backlog_first_seq(b->backlog), &b->wire, &m, &err),
			1);
		backlog_ack(b->backlog, m.last_seq);
		assert_true(clock_monotonic() < until);
	}
	/* What was on its way to the disk when it was acknowledged is booked when it is there. */
	do {
		l = ledger_now(b);
		assert_true(clock_monotonic() < until);
	} while (ledger_in_flight(&l).packets);
	assert_true(l.c[LEDGER_LOST_SPOOL].packets > 0);
	assert_int_equal(l.c[LEDGER_LOST_SPOOL].packets + l.c[LEDGER_COMMITTED].packets,
			 b->captured);
}

static void what_cannot_be_stored_at_a_stop_is_said_to_be_in_memory_only(void **state)
{
	struct bench *b = *state;
	struct ledger l;

	begin(b, SPOOL_OVERFLOW, 1 << 30);
	backlog_connected(b->backlog, true);
	push_many(b, 10);
	limit_files(0);
	assert_false(backlog_store(b->backlog));
	limit_files(RLIM_INFINITY);
	l = ledger_now(b);
	assert_int_equal(ledger_in_flight(&l).packets, b->captured);
}

/*
 * A pusher, the mover, and a peer that takes messages as a collector does: in order, each once,
 * with acknowledgements that lag, and connections that break while messages are under way.
 */
struct peer {
	struct bench *bench;
	uint64_t have; /* up to here it has taken everything */
	uint64_t acked, read_to;
	uint64_t received, lost; /* packets */
	uint64_t gaps;
	uint32_t random;
};

static uint32_t next_random(struct peer *p)
{
	p->random = p->random * 1664525 + 1013904223;
	return p->random >> 8;
}

/* What is under way, between read and taken. */
struct flying {
	uint64_t seq, last_seq, packets;
	bool gap;
};
#define FLYING 8u

static bool read_next(struct peer *p, struct flying *f)
{
	struct bench *b = p->bench;
	struct backlog_message m;
	struct stream_header h;
	struct stream_gap gap;
	struct err err;
	int r = backlog_read(b->backlog, p->read_to + 1, &b->wire, &m, &err);

	if (r < 0)
		fail_msg("%s", err.text);
	if (r == 0)
		return false;
	assert_int_equal(m.seq, p->read_to + 1);
	assert_true(m.last_seq >= m.seq);
	*f = (struct flying){.seq = m.seq, .last_seq = m.last_seq, .gap = m.type == STREAM_GAP};
	if (f->gap) {
		assert_int_equal(stream_header_decode(b->wire.data, &h, NULL), 0);
		assert_int_equal(stream_gap_decode(b->wire.data + STREAM_HEADER_SIZE, h.payload_len,
						   &gap, NULL),
				 0);
		assert_int_equal(gap.first_seq, m.seq);
		assert_int_equal(gap.last_seq, m.last_seq);
		for (size_t i = 0; i < gap.n_parts; i++)
			f->packets += gap.parts[i].lost.packets;
		stream_gap_free(&gap);
	} else {
		f->packets = check_data(&b->wire, &m);
	}
	p->read_to = m.last_seq;
	return true;
}

static void take(struct peer *p, const struct flying *f)
{
	assert_int_equal(f->seq, p->have + 1);
	p->have = f->last_seq;
	if (f->gap) {
		p->lost += f->packets;
		p->gaps++;
	} else {
		p->received += f->packets;
	}
}

/* Read some, take a first part of them, go on or break the connection. */
static void converse(struct peer *p)
{
	struct bench *b = p->bench;
	struct flying flying[FLYING];
	uint32_t n = 0, taken, want = 1 + next_random(p) % FLYING;

	while (n < want && read_next(p, &flying[n]))
		n++;
	taken = next_random(p) % 4 ? n : next_random(p) % (n + 1);
	for (uint32_t i = 0; i < taken; i++)
		take(p, &flying[i]);
	if (next_random(p) % 2)
		backlog_ack(b->backlog, p->have);
	if (taken == n && next_random(p) % 50)
		return;
	backlog_connected(b->backlog, false);
	if (next_random(p) % 3)
		poll(NULL, 0, (int)(next_random(p) % 20));
	/* WELCOME. */
	backlog_connected(b->backlog, true);
	assert_true(backlog_first_seq(b->backlog) <= p->have + 1);
	backlog_ack(b->backlog, p->have);
	p->read_to = p->have;
}

struct pusher {
	struct bench *bench;
	int messages;
	bool patient;
	atomic_bool done;
};

static void *push_all(void *arg)
{
	struct pusher *p = arg;
	uint32_t random = 7;

	for (int i = 0; i < p->messages; i++) {
		random = random * 1664525 + 1013904223;
		while (p->patient && queue_bytes(p->bench->queue) > QUEUE / 8 * 5)
			poll(NULL, 0, 1);
		if (!p->patient && i % 10 == 0)
			poll(NULL, 0, 1);
		push(p->bench, 1 + (random >> 8) % 8000, 1 + (random >> 8) % 100);
		if (i % 100 == 0)
			queue_push_control(p->bench->queue, STREAM_STATS, "x", 1);
	}
	atomic_store(&p->done, true);
	return NULL;
}

static void everything_at_once(struct bench *b, enum spool_mode mode, uint64_t max_bytes,
			       bool patient, bool lossless)
{
	struct pusher pusher = {.bench = b, .messages = 6000, .patient = patient};
	struct peer peer = {.bench = b, .random = 3};
	nsec_t until = clock_monotonic() + PATIENCE;
	pthread_t thread;
	struct ledger l;

	begin(b, mode, max_bytes);
	backlog_connected(b->backlog, true);
	assert_int_equal(pthread_create(&thread, NULL, push_all, &pusher), 0);
	while (!atomic_load(&pusher.done) || peer.have + 1 < backlog_next_seq(b->backlog)) {
		converse(&peer);
		assert_true(clock_monotonic() < until);
		if (!lossless)
			poll(NULL, 0, 1);
	}
	pthread_join(thread, NULL);
	backlog_ack(b->backlog, peer.have);
	/* The mover may be about to book one that was acknowledged on its way. */
	while (l = ledger_now(b), ledger_in_flight(&l).packets && clock_monotonic() < until)
		poll(NULL, 0, 1);
	assert_int_equal(ledger_in_flight(&l).packets, 0);
	assert_int_equal(l.c[LEDGER_LOST_QUEUE].packets, b->refused);
	assert_int_equal(l.c[LEDGER_COMMITTED].packets, peer.received);
	assert_int_equal(l.c[LEDGER_LOST_SPOOL].packets, peer.lost);
	assert_int_equal(b->captured, b->refused + peer.received + peer.lost);
	if (lossless)
		assert_int_equal(b->captured, peer.received);
	print_message("# %llu packets: %llu received, %llu refused, %llu in %llu gaps\n",
		      (unsigned long long)b->captured, (unsigned long long)peer.received,
		      (unsigned long long)b->refused, (unsigned long long)peer.lost,
		      (unsigned long long)peer.gaps);
}

static void every_packet_arrives_once_whoever_is_faster(void **state)
{
	everything_at_once(*state, SPOOL_ALWAYS, 1 << 30, true, true);
}

static void every_packet_arrives_once_through_an_overflow(void **state)
{
	everything_at_once(*state, SPOOL_OVERFLOW, 1 << 30, true, true);
}

static void what_the_spool_has_no_room_for_is_lost_to_the_packet(void **state)
{
	everything_at_once(*state, SPOOL_ALWAYS, 1 << 20, true, false);
}

static void what_neither_has_room_for_is_lost_to_the_packet(void **state)
{
	everything_at_once(*state, SPOOL_OVERFLOW, 1 << 20, false, false);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(without_a_spool_all_is_in_memory),
		TEST(a_queue_that_is_emptied_in_time_stays_off_the_disk),
		TEST(more_than_half_a_queue_goes_to_the_disk_until_a_quarter_is_left),
		TEST(without_a_connection_all_goes_to_the_disk_after_a_while),
		TEST(numbers_that_were_acknowledged_in_memory_never_come_to_the_disk),
		TEST(what_is_left_at_a_stop_waits_for_the_next_start),
		TEST(what_was_acknowledged_of_a_file_is_not_sent_after_a_stop),
		TEST(an_end_without_a_stop_is_unclean),
		TEST(a_goodbye_that_nobody_heard_is_kept),
		TEST(nothing_makes_nothing_on_the_disk),
		TEST(a_disk_that_takes_nothing_costs_nothing_until_the_queue_is_full),
		TEST(the_oldest_go_only_when_memory_is_needed_too),
		TEST(what_cannot_be_stored_at_a_stop_is_said_to_be_in_memory_only),
		TEST(every_packet_arrives_once_whoever_is_faster),
		TEST(every_packet_arrives_once_through_an_overflow),
		TEST(what_the_spool_has_no_room_for_is_lost_to_the_packet),
		TEST(what_neither_has_room_for_is_lost_to_the_packet),
	};

	/* A file that may not grow is an error, not the end. */
	signal(SIGXFSZ, SIG_IGN);
	/* What the mover complains of is not of interest. */
	log_open("/dev/null", NULL);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("agent_backlog", tests, NULL, NULL);
}
