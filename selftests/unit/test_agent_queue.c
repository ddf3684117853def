/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>

#include <cmocka.h>

#include "gzip.h"
#include "queue.h"
#include "util.h"

#define SIZE (1u << 20)

static int push(struct queue *q, size_t n, uint32_t packets)
{
	static uint8_t body[SIZE];
	struct stream_header h = {.type = STREAM_DATA, .raw_len = 1};
	struct tally t = {.n = 1, .parts = {{.iface = 7, .direction = 1}}};

	t.parts[0].count = (struct ledger_count){packets, n};
	memset(body, (int)packets, n);
	return queue_push(q, &h, "HEAD", 4, body, n, &t);
}

static void add_packets(void *ctx, const struct tally *tally)
{
	*(uint64_t *)ctx += tally->parts[0].count.packets;
}

static int read_one(struct queue *q, uint64_t seq, struct buf *wire, struct tally *t)
{
	struct backlog_message m;
	int r = queue_read(q, seq, wire, &m, t);

	if (r > 0) {
		assert_int_equal(m.seq, seq);
		assert_int_equal(m.last_seq, seq);
		assert_int_equal(m.size, wire->len);
	}
	return r;
}

static void messages_come_out_in_order_and_whole(void **state)
{
	struct queue *q = queue_new(SIZE);
	struct backlog_message m;
	struct stream_header h;
	struct buf wire = {};
	struct tally t;

	(void)state;
	for (uint32_t i = 1; i <= 5; i++)
		assert_int_equal(push(q, 100 * i, i), 0);
	for (uint64_t seq = 1; seq <= 5; seq++) {
		assert_int_equal(queue_read(q, seq, &wire, &m, &t), 1);
		assert_int_equal(m.seq, seq);
		assert_int_equal(m.type, STREAM_DATA);
		assert_int_equal(m.size, STREAM_HEADER_SIZE + 4 + 100 * seq);
		assert_int_equal(wire.len, m.size);
		assert_int_equal(stream_header_decode(wire.data, &h, NULL), 0);
		assert_int_equal(h.seq, seq);
		assert_int_equal(h.payload_len, 4 + 100 * seq);
		assert_memory_equal(wire.data + STREAM_HEADER_SIZE, "HEAD", 4);
		assert_int_equal(wire.data[m.size - 1], seq);
		assert_int_equal(t.n, 1);
		assert_int_equal(t.parts[0].count.packets, seq);
	}
	assert_int_equal(read_one(q, 6, &wire, NULL), 0);
	assert_int_equal(read_one(q, 0, &wire, NULL), 0);
	queue_push_control(q, STREAM_STATS, "stats", 5);
	assert_int_equal(queue_read(q, 6, &wire, &m, &t), 1);
	assert_int_equal(m.type, STREAM_STATS);
	assert_int_equal(t.n, 0);
	buf_free(&wire);
	queue_free(q);
}

static void reading_can_start_again_from_an_earlier_message(void **state)
{
	struct queue *q = queue_new(SIZE);
	uint64_t packets = 0;
	struct buf wire = {};

	(void)state;
	for (uint32_t i = 1; i <= 9; i++)
		push(q, 1000, i);
	assert_int_equal(read_one(q, 8, &wire, NULL), 1);
	assert_int_equal(read_one(q, 2, &wire, NULL), 1);
	queue_ack(q, 4, add_packets, &packets);
	assert_int_equal(packets, 1 + 2 + 3 + 4);
	assert_int_equal(queue_first_seq(q), 5);
	assert_int_equal(read_one(q, 4, &wire, NULL), 0);
	assert_int_equal(read_one(q, 5, &wire, NULL), 1);
	buf_free(&wire);
	queue_free(q);
}

static void what_is_released_is_not_booked(void **state)
{
	struct queue *q = queue_new(SIZE);
	uint64_t packets = 0;
	struct buf wire = {};

	(void)state;
	for (uint32_t i = 1; i <= 9; i++)
		push(q, 1000, i);
	queue_release(q, 3);
	assert_int_equal(read_one(q, 3, &wire, NULL), 0);
	queue_ack(q, 9, add_packets, &packets);
	assert_int_equal(packets, 4 + 5 + 6 + 7 + 8 + 9);
	assert_int_equal(queue_bytes(q), 0);
	assert_int_equal(queue_first_seq(q), 10);
	buf_free(&wire);
	queue_free(q);
}

/* One reads and acknowledges far ahead, one takes the oldest away. */
static void two_readers_do_not_disturb_each_other(void **state)
{
	struct queue *q = queue_new(SIZE);
	struct buf wire = {}, other = {};
	uint64_t pushed = 0, released = 0, sent = 0;

	(void)state;
	for (int round = 0; round < 3000; round++) {
		while (push(q, 1 + (size_t)round * 37 % 9000, 1) == 0)
			pushed++;
		for (int i = 0; i < 5 && sent < pushed; i++)
			assert_int_equal(read_one(q, ++sent, &wire, NULL), 1);
		for (int i = 0; i < 7 && released < pushed; i++) {
			assert_int_equal(read_one(q, ++released, &other, NULL), 1);
			queue_release(q, released);
		}
		if (sent < released)
			sent = released;
	}
	buf_free(&wire);
	buf_free(&other);
	queue_free(q);
}

static void a_level_is_signalled_when_it_is_passed(void **state)
{
	struct queue *q = queue_new(SIZE);
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct pollfd p = {.fd = fd, .events = POLLIN};

	(void)state;
	queue_watch(q, fd, 10000);
	push(q, 5000, 1);
	assert_int_equal(poll(&p, 1, 0), 0);
	push(q, 5000, 1);
	assert_int_equal(poll(&p, 1, 0), 1);
	event_clear(fd);
	push(q, 5000, 1);
	assert_int_equal(poll(&p, 1, 0), 0);
	queue_release(q, 3);
	queue_watch(q, fd, 0);
	push(q, 1, 1);
	assert_int_equal(poll(&p, 1, 0), 1);
	queue_watch(q, -1, 0);
	close(fd);
	queue_free(q);
}

static void a_full_queue_refuses_data_and_still_takes_control(void **state)
{
	struct queue *q = queue_new(SIZE);
	uint64_t packets = 0, pushed = 0;
	uint64_t next;

	(void)state;
	while (push(q, 5000, 1) == 0)
		pushed++;
	next = queue_next_seq(q);
	assert_int_equal(next, pushed + 1);
	assert_true(queue_half_full(q));
	for (int i = 0; i < 50; i++)
		assert_int_equal(queue_push_control(q, STREAM_STATS, "stats", 5), 0);
	assert_int_equal(push(q, 5000, 1), -ENOBUFS);
	queue_ack(q, UINT64_MAX, add_packets, &packets);
	assert_int_equal(packets, pushed);
	assert_int_equal(queue_bytes(q), 0);
	assert_int_equal(push(q, 5000, 1), 0);
	queue_free(q);
}

/* Push, look at and acknowledge for many rounds, so that the ring wraps everywhere. */
static void numbers_have_no_holes_however_the_ring_wraps(void **state)
{
	struct queue *q = queue_new(SIZE);
	uint64_t in = 0, out = 0, sent = 0, acked = 0;
	uint32_t random = 1;
	struct buf wire = {};

	(void)state;
	for (int round = 0; round < 20000; round++) {
		random = random * 1664525 + 1013904223;
		if (random >> 31) {
			if (push(q, 1 + (random >> 8) % 60000, random % 100) == 0)
				in += random % 100;
		} else if (read_one(q, sent + 1, &wire, NULL)) {
			sent++;
			if (random % 3 == 0) {
				acked = sent;
				queue_ack(q, acked, add_packets, &out);
				assert_int_equal(queue_first_seq(q), acked + 1);
			}
		}
	}
	queue_ack(q, UINT64_MAX, add_packets, &out);
	assert_int_equal(in, out);
	buf_free(&wire);
	queue_free(q);
}

static void a_push_makes_the_descriptor_readable(void **state)
{
	struct queue *q = queue_new(SIZE);
	struct pollfd p = {.fd = queue_fd(q), .events = POLLIN};

	(void)state;
	assert_int_equal(poll(&p, 1, 0), 0);
	push(q, 1, 1);
	assert_int_equal(poll(&p, 1, 0), 1);
	event_clear(queue_fd(q));
	assert_int_equal(poll(&p, 1, 0), 0);
	queue_free(q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_come_out_in_order_and_whole),
		cmocka_unit_test(reading_can_start_again_from_an_earlier_message),
		cmocka_unit_test(what_is_released_is_not_booked),
		cmocka_unit_test(two_readers_do_not_disturb_each_other),
		cmocka_unit_test(a_level_is_signalled_when_it_is_passed),
		cmocka_unit_test(a_full_queue_refuses_data_and_still_takes_control),
		cmocka_unit_test(numbers_have_no_holes_however_the_ring_wraps),
		cmocka_unit_test(a_push_makes_the_descriptor_readable),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
