// SPDX-License-Identifier: Apache-2.0
/* The book of a tap's queue, and the blocks that it makes, over sockets made up here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tap_queue.h"
#include "util.h"

#define FRAMES 8u
#define CPUS   2u
#define START  256u /* of a packet in its frame */

/* One queue; the program tap_queue.c is linked with it in the place of agent/xsk.c. */
struct xsk {
	uint8_t memory[FRAMES * XSK_FRAME];
	struct xdp_desc ring[FRAMES];
	uint32_t n;
	uint64_t returned[2 * FRAMES];
	uint32_t nreturned;
};

uint32_t xsk_frames(const struct xsk *x)
{
	(void)x;
	return FRAMES;
}

uint8_t *xsk_data(const struct xsk *x, uint64_t addr)
{
	return (uint8_t *)(uintptr_t)x->memory + addr;
}

uint32_t xsk_peek(struct xsk *x, unsigned int queue, struct xdp_desc *ret, uint32_t max)
{
	(void)queue;
	memcpy(ret, x->ring, MIN(x->n, max) * sizeof(*ret));
	return MIN(x->n, max);
}

void xsk_take(struct xsk *x, unsigned int queue, uint32_t peeked, uint32_t taken)
{
	(void)queue;
	(void)peeked;
	x->n -= taken;
	memmove(x->ring, x->ring + taken, x->n * sizeof(*x->ring));
}

void xsk_refill(struct xsk *x, unsigned int queue, const uint64_t *addrs, uint32_t n)
{
	(void)queue;
	assert_true(x->nreturned + n <= ARRAY_SIZE(x->returned));
	memcpy(x->returned + x->nreturned, addrs, n * sizeof(*addrs));
	x->nreturned += n;
}

struct bench {
	struct xsk xsk;
	struct tap_queue q;
	uint8_t scratch[TAP_SCRATCH];
	uint32_t frame; /* the next to be used */
};

static int start(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));

	assert_non_null(b);
	assert_int_equal(tap_queue_init(&b->q, &b->xsk, 0, CPUS, 7, b->scratch), 0);
	*state = b;
	return 0;
}

static int end(void **state)
{
	struct bench *b = *state;

	tap_queue_done(&b->q);
	free(b);
	return 0;
}

/* Put @n bytes into the next frame. */
static void put(struct bench *b, const void *data, size_t n, bool more)
{
	uint64_t addr = (uint64_t)(b->frame++ % FRAMES) * XSK_FRAME + START;

	memcpy(b->xsk.memory + addr, data, n);
	b->xsk.ring[b->xsk.n++] = (struct xdp_desc){
		.addr = addr, .len = (uint32_t)n, .options = more ? XDP_PKT_CONTD : 0};
}

static uint8_t byte_of(uint32_t i)
{
	return (uint8_t)(i * 7 + 1);
}

/* A packet of @len bytes, over as many frames of @room bytes as it takes. */
static void receive(struct bench *b, const struct tap_header *h, uint32_t len, uint32_t room)
{
	size_t size = sizeof(*h) + len;
	uint8_t *data = malloc(size);

	assert_non_null(data);
	memcpy(data, h, sizeof(*h));
	for (uint32_t i = 0; i < len; i++)
		data[sizeof(*h) + i] = byte_of(i);
	for (size_t at = 0; at < size; at += room)
		put(b, data + at, MIN(room, size - at), at + room < size);
	free(data);
}

static void expect(const struct bench *b, uint64_t came, uint64_t came_bytes, uint64_t lost,
		   uint64_t lost_bytes)
{
	assert_int_equal(b->q.came.packets, came);
	assert_int_equal(b->q.came.bytes, came_bytes);
	assert_int_equal(b->q.lost.packets, lost);
	assert_int_equal(b->q.lost.bytes, lost_bytes);
}

static void what_a_sequence_skips_is_lost(void **state)
{
	struct bench *b = *state;

	receive(b, &(struct tap_header){.packets = 0, .bytes = 0, .cpu = 0}, 100, 3840);
	/* Two packets of 500 bytes together are missing, on the other CPU none. */
	receive(b, &(struct tap_header){.packets = 3, .bytes = 600, .cpu = 0}, 60, 3840);
	receive(b, &(struct tap_header){.packets = 0, .bytes = 0, .cpu = 1}, 70, 3840);
	tap_queue_collect(&b->q);
	expect(b, 3, 230, 2, 500);
	/* The kernel's own numbers tell of the rest. */
	tap_queue_settle(&b->q, (struct tap_sent[CPUS]){{5, 1000}, {1, 70}});
	expect(b, 3, 230, 3, 840);
	tap_queue_settle(&b->q, (struct tap_sent[CPUS]){{5, 1000}, {1, 70}});
	expect(b, 3, 230, 3, 840);
}

static void what_comes_after_it_was_given_up_is_not_lost(void **state)
{
	struct bench *b = *state;

	tap_queue_settle(&b->q, (struct tap_sent[CPUS]){{2, 300}, {0, 0}});
	expect(b, 0, 0, 2, 300);
	receive(b, &(struct tap_header){.packets = 1, .bytes = 100}, 200, 3840);
	receive(b, &(struct tap_header){.packets = 2, .bytes = 300}, 50, 3840);
	tap_queue_collect(&b->q);
	expect(b, 2, 250, 1, 100);
}

static void check_block(struct bench *b, uint64_t stamp, uint32_t caplen, uint32_t len)
{
	uint32_t padded = (caplen + 3) & ~3u;
	struct epb_header h;
	struct epb_trailer t;
	const void *rest;
	nsec_t time;

	assert_true(tap_queue_peek(&b->q, &time));
	assert_int_equal(time, stamp);
	tap_queue_block(&b->q, &h, &rest);
	assert_int_equal(h.type, EPB_TYPE);
	assert_int_equal(h.total_len, EPB_SIZE(caplen));
	assert_int_equal(h.interface_id, 7);
	assert_int_equal(h.caplen, caplen);
	assert_int_equal(h.len, len);
	for (uint32_t i = 0; i < padded; i++)
		assert_int_equal(((const uint8_t *)rest)[i], i < caplen ? byte_of(i) : 0);
	memcpy(&t, (const uint8_t *)rest + padded, sizeof(t));
	assert_int_equal(t.flags_code, EPB_OPT_FLAGS);
	assert_int_equal(t.flags, DIRECTION_INGRESS);
	assert_int_equal(t.end_code, 0);
	assert_int_equal(t.total_len, EPB_SIZE(caplen));
	tap_queue_advance(&b->q);
}

/* In its frame, at the frame's end where the trailer does not fit, over several frames, cut off. */
static void blocks_are_whole_wherever_packets_lie(void **state)
{
	const uint32_t room = XSK_FRAME - START, most = room - sizeof(struct tap_header);
	static const uint32_t lens[] = {14, 61, 62, 63, 1514, 3700};
	struct bench *b = *state;
	uint64_t stamp = 0;

	for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
		receive(b, &(struct tap_header){.stamp = ++stamp, .caplen = 262144}, lens[i], room);
		tap_queue_collect(&b->q);
		check_block(b, stamp, lens[i], lens[i]);
	}
	for (uint32_t len = most - 24; len <= most + 2; len++) {
		receive(b, &(struct tap_header){.stamp = ++stamp, .caplen = len}, len, room);
		tap_queue_collect(&b->q);
		check_block(b, stamp, len, len);
	}
	receive(b, &(struct tap_header){.stamp = ++stamp, .caplen = 20000}, 20000, room);
	tap_queue_collect(&b->q);
	check_block(b, stamp, 20000, 20000);
	receive(b, &(struct tap_header){.stamp = ++stamp, .caplen = 54}, 9000, room);
	tap_queue_collect(&b->q);
	check_block(b, stamp, 54, 9000);
	receive(b, &(struct tap_header){.stamp = ++stamp, .caplen = 3900}, 9000, room);
	tap_queue_collect(&b->q);
	check_block(b, stamp, 3900, 9000);
	assert_true(tap_queue_empty(&b->q));
}

static void packets_wait_until_they_are_complete(void **state)
{
	struct tap_header h = {.stamp = 1, .caplen = 262144};
	uint8_t first[sizeof(h) + 100], second[50];
	struct bench *b = *state;

	memcpy(first, &h, sizeof(h));
	for (uint32_t i = 0; i < 100; i++)
		first[sizeof(h) + i] = byte_of(i);
	for (uint32_t i = 0; i < 50; i++)
		second[i] = byte_of(100 + i);
	put(b, first, sizeof(first), true);
	tap_queue_collect(&b->q);
	assert_true(tap_queue_empty(&b->q));
	expect(b, 0, 0, 0, 0);
	put(b, second, sizeof(second), false);
	tap_queue_collect(&b->q);
	expect(b, 1, 150, 0, 0);
	check_block(b, 1, 150, 150);
}

static void frames_go_back_once_they_are_handed_over(void **state)
{
	struct bench *b = *state;

	for (unsigned int round = 0; round < 3; round++) {
		b->xsk.nreturned = 0;
		receive(b, &(struct tap_header){.stamp = 1, .caplen = 9000}, 9000, 3840);
		receive(b, &(struct tap_header){.stamp = 2, .caplen = 60}, 60, 3840);
		tap_queue_collect(&b->q);
		tap_queue_give_back(&b->q);
		assert_int_equal(b->xsk.nreturned, 0);
		check_block(b, 1, 9000, 9000);
		assert_int_equal(tap_queue_idle(&b->q), 3);
		tap_queue_give_back(&b->q);
		assert_int_equal(b->xsk.nreturned, 3);
		check_block(b, 2, 60, 60);
		tap_queue_give_back(&b->q);
		assert_int_equal(b->xsk.nreturned, 4);
		for (unsigned int i = 0; i < 4; i++)
			assert_int_equal(b->xsk.returned[i] / XSK_FRAME, (4 * round + i) % FRAMES);
	}
	/* A socket that is closed gets nothing and has nothing. */
	receive(b, &(struct tap_header){.stamp = 3, .caplen = 60}, 60, 3840);
	tap_queue_collect(&b->q);
	b->q.shut = true;
	receive(b, &(struct tap_header){.stamp = 4, .caplen = 60}, 60, 3840);
	tap_queue_collect(&b->q);
	check_block(b, 3, 60, 60);
	tap_queue_give_back(&b->q);
	assert_int_equal(b->xsk.nreturned, 4);
	assert_true(tap_queue_empty(&b->q));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_a_sequence_skips_is_lost, start, end),
		cmocka_unit_test_setup_teardown(what_comes_after_it_was_given_up_is_not_lost, start,
						end),
		cmocka_unit_test_setup_teardown(blocks_are_whole_wherever_packets_lie, start, end),
		cmocka_unit_test_setup_teardown(packets_wait_until_they_are_complete, start, end),
		cmocka_unit_test_setup_teardown(frames_go_back_once_they_are_handed_over, start,
						end),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
