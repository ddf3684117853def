/* SPDX-License-Identifier: Apache-2.0 */
/* The book, the batch and the tally: what is counted, where. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "batch.h"
#include "book.h"
#include "link_type.h"
#include "packet.h"
#include "util.h"

static uint32_t add(struct book *b, const char *name)
{
	struct stream_iface info = {.link_type = LINK_ETHERNET};

	snprintf(info.name, sizeof(info.name), "%s", name);
	assert_int_equal(book_add(b, &info), 0);
	return info.id;
}

static void captured(struct book *b, uint32_t id, uint64_t packets)
{
	struct capture_counts counts = {};

	counts.packets[CAPTURE_SEEN] = counts.packets[CAPTURE_CAPTURED] = packets;
	counts.bytes[CAPTURE_SEEN] = counts.bytes[CAPTURE_CAPTURED] = 100 * packets;
	book_counts(b, id, DIRECTION_INGRESS, &counts);
}

static struct tally tally_of(uint32_t id, uint64_t packets)
{
	return (struct tally){
		.n = 1,
		.parts = {{.iface = id, .direction = 1, .count = {packets, 100 * packets}}},
	};
}

struct seen {
	size_t lines;
	struct ledger sum;
	struct ledger_span unseen;
};

static void sum_up(void *ctx, const struct stream_iface *info, enum direction direction,
		   const struct ledger *l, const struct ledger_span *unseen)
{
	struct seen *s = ctx;

	(void)info;
	(void)direction;
	assert_true(ledger_adds_up(l));
	ledger_span_add(&s->unseen, unseen->from, unseen->to);
	s->lines++;
	ledger_add(&s->sum, l);
}

static void ids_are_never_reused(void **state)
{
	struct book *b = book_new();
	uint32_t first = add(b, "eth0"), second = add(b, "eth1");
	struct seen gone = {};

	(void)state;
	book_gone(b, first);
	book_prune(b, 0, sum_up, &gone);
	assert_int_equal(gone.lines, 2);
	assert_int_equal(book_link_type(b, first), 0);
	assert_int_equal(book_link_type(b, second), LINK_ETHERNET);
	assert_true(add(b, "eth0") > second);
	book_free(b);
}

static void what_nobody_counted_is_reported_of_its_interface(void **state)
{
	struct book *b = book_new();
	uint32_t eth0 = add(b, "eth0"), eth1 = add(b, "eth1"), gone = add(b, "eth2");
	struct stream_stats_part *parts;
	struct seen s = {};

	(void)state;
	book_gone(b, gone);
	book_unseen(b, eth1, 5, 7);
	assert_int_equal(book_changes(b, &parts), 2);
	assert_int_equal(parts[1].iface, eth1);
	assert_int_equal(parts[1].unseen.from, 5);
	assert_int_equal(parts[1].unseen.to, 7);
	free(parts);
	assert_int_equal(book_changes(b, &parts), 0);
	free(parts);
	book_all_unseen(b, 6, 9);
	assert_int_equal(book_changes(b, &parts), 4);
	assert_int_equal(parts[0].iface, eth0);
	assert_int_equal(parts[0].unseen.from, 6);
	assert_int_equal(parts[3].unseen.from, 5);
	assert_int_equal(parts[3].unseen.to, 9);
	free(parts);
	book_report_again(b);
	assert_int_equal(book_changes(b, &parts), 4);
	free(parts);
	book_for_each(b, sum_up, &s);
	assert_int_equal(s.unseen.from, 5);
	assert_int_equal(s.unseen.to, 9);
	book_free(b);
}

/* Every counter of the kernel's has its place in the ledger. */
static void what_the_kernel_counts_is_in_the_ledger(void **state)
{
	static const enum ledger_counter places[CAPTURE_COUNTERS] = {
		LEDGER_SEEN,         LEDGER_RULED_OUT,      LEDGER_CAPTURED,    LEDGER_LOST_RING,
		LEDGER_LOST_ERROR,   LEDGER_EXPRESSION_OUT, LEDGER_SAMPLED_OUT, LEDGER_DUPLICATES,
		LEDGER_RATE_LIMITED, LEDGER_SLICED};
	/* seen is the sum; the last three are parts of others. */
	struct capture_counts counts = {.packets = {27, 2, 3, 4, 5, 6, 7, 1, 2, 3},
					.bytes = {270, 20, 30, 40, 50, 60, 70, 10, 20, 30}};
	struct book *b = book_new();
	uint32_t id = add(b, "eth0");
	struct stream_stats_part *parts;

	(void)state;
	book_counts(b, id, DIRECTION_EGRESS, &counts);
	assert_int_equal(book_changes(b, &parts), 1);
	assert_int_equal(parts[0].direction, DIRECTION_EGRESS);
	assert_true(ledger_adds_up(&parts[0].counts));
	for (size_t i = 0; i < CAPTURE_COUNTERS; i++) {
		assert_int_equal(parts[0].counts.c[places[i]].packets, counts.packets[i]);
		assert_int_equal(parts[0].counts.c[places[i]].bytes, counts.bytes[i]);
	}
	free(parts);
	book_free(b);
}

static void what_was_captured_is_settled_to_the_packet(void **state)
{
	struct book *b = book_new();
	uint32_t id = add(b, "eth0");
	struct tally some = tally_of(id, 30), few = tally_of(id, 5);
	struct seen s = {};

	(void)state;
	captured(b, id, 40);
	book_settle(b, &some, LEDGER_COMMITTED);
	book_settle(b, &few, LEDGER_LOST_QUEUE);
	book_for_each(b, sum_up, &s);
	assert_int_equal(s.lines, 2);
	assert_int_equal(ledger_in_flight(&s.sum).packets, 5);
	assert_int_equal(s.sum.c[LEDGER_COMMITTED].bytes, 3000);
	assert_int_equal(ledger_lost(&s.sum).packets, 5);
	book_free(b);
}

/* An interface that is gone is announced while its packets may arrive, and no longer. */
static void what_the_spool_lost_will_not_arrive(void **state)
{
	struct book *b = book_new();
	uint32_t id = add(b, "eth0");
	struct tally evicted = tally_of(id, 30), arrived = tally_of(id, 10);
	struct stream_iface *ifaces;
	struct seen s = {};

	(void)state;
	captured(b, id, 40);
	book_gone(b, id);
	book_settle(b, &evicted, LEDGER_LOST_SPOOL);
	assert_int_equal(book_interfaces(b, &ifaces), 1);
	assert_int_equal(ifaces[0].committed[0].packets, 0);
	free(ifaces);
	book_settle(b, &arrived, LEDGER_COMMITTED);
	assert_int_equal(book_interfaces(b, &ifaces), 0);
	free(ifaces);
	book_for_each(b, sum_up, &s);
	assert_int_equal(ledger_in_flight(&s.sum).packets, 0);
	assert_int_equal(s.sum.c[LEDGER_LOST_SPOOL].packets, 30);
	assert_int_equal(s.sum.c[LEDGER_COMMITTED].packets, 10);
	book_free(b);
}

static void only_changes_are_reported(void **state)
{
	struct book *b = book_new();
	uint32_t id = add(b, "eth0");
	struct stream_stats_part *parts;
	struct tally t = tally_of(id, 1);

	(void)state;
	assert_int_equal(book_changes(b, &parts), 0);
	free(parts);
	captured(b, id, 1);
	assert_int_equal(book_changes(b, &parts), 1);
	assert_int_equal(parts[0].iface, id);
	assert_int_equal(parts[0].direction, 1);
	free(parts);
	/* The collector knows what it has committed. */
	book_settle(b, &t, LEDGER_COMMITTED);
	assert_int_equal(book_changes(b, &parts), 0);
	free(parts);
	book_free(b);
}

static void many_changes_are_reported_in_pieces(void **state)
{
	struct book *b = book_new();
	struct stream_stats_part *parts;
	uint32_t told = 0;
	long n;

	(void)state;
	for (int i = 0; i < 2 * BOOK_CHANGES_MAX + 1; i++)
		captured(b, add(b, "eth0"), 1);
	while ((n = book_changes(b, &parts)) > 0) {
		assert_in_range(n, 1, BOOK_CHANGES_MAX);
		for (long i = 0; i < n; i++)
			assert_int_equal(parts[i].iface, told++);
		free(parts);
	}
	free(parts);
	assert_int_equal(told, 2 * BOOK_CHANGES_MAX + 1);
	book_free(b);
}

static void hello_names_what_lives_or_is_in_flight(void **state)
{
	struct book *b = book_new();
	uint32_t done = add(b, "eth0"), flying = add(b, "eth1"), alive = add(b, "eth2");
	struct tally t = tally_of(done, 3);
	struct stream_iface *ifaces;

	(void)state;
	captured(b, done, 3);
	captured(b, flying, 3);
	book_settle(b, &t, LEDGER_COMMITTED);
	book_gone(b, done);
	book_gone(b, flying);
	assert_int_equal(book_interfaces(b, &ifaces), 2);
	assert_int_equal(ifaces[0].id, flying);
	assert_int_equal(ifaces[1].id, alive);
	free(ifaces);
	book_free(b);
}

static void one_gone_interface_is_kept_while_its_packets_fly(void **state)
{
	struct book *b = book_new();
	uint32_t id = add(b, "eth0");
	struct stream_stats_part *parts;
	struct seen s = {};

	(void)state;
	captured(b, id, 3);
	book_gone(b, id);
	book_changes(b, &parts);
	free(parts);
	book_prune(b, 0, sum_up, &s);
	assert_int_equal(s.lines, 0);
	book_free(b);
}

/* A block as the kernel makes it, in two pieces as the ring hands it over. */
static bool add_packet(struct batch *b, const struct packet *p)
{
	static uint8_t block[EPB_SIZE_MAX(SNAPLEN_MAX)];
	struct epb_header header;

	packet_write(block, p);
	memcpy(&header, block, sizeof(header));
	return batch_add(b, &header, block + sizeof(header));
}

static bool add_block(struct batch *b, uint32_t iface, uint32_t caplen, nsec_t time)
{
	static const uint8_t data[SNAPLEN_MAX];

	return add_packet(b, &(struct packet){.interface_id = iface,
					      .time = time,
					      .caplen = caplen,
					      .len = caplen + 1,
					      .direction = 2,
					      .data = data});
}

static void a_batch_knows_what_is_in_it(void **state)
{
	struct batch b;
	struct packet p;

	(void)state;
	assert_int_equal(batch_init(&b, 4096, 65535), 0);
	assert_true(add_block(&b, 5, 60, 2000));
	assert_true(add_block(&b, 3, 61, 1000));
	assert_true(add_block(&b, 3, 62, 3000));
	assert_int_equal(b.head.packets, 3);
	assert_int_equal(b.head.iface_min, 3);
	assert_int_equal(b.head.iface_max, 5);
	assert_int_equal(b.head.first, 1000);
	assert_int_equal(b.head.last, 3000);
	assert_int_equal(b.head.wire_bytes, 61 + 62 + 63);
	assert_int_equal(b.tally.n, 2);
	assert_int_equal(b.tally.parts[1].count.packets, 2);
	assert_int_equal(b.tally.parts[1].direction, 2);
	assert_int_equal(packet_next(b.raw, b.len, &p, NULL), EPB_SIZE(60u));
	assert_int_equal(p.interface_id, 5);
	batch_reset(&b);
	assert_true(batch_empty(&b));
	batch_done(&b);
}

/* The option stands before the direction, and makes the longest block longer. */
static void a_batch_takes_blocks_with_an_option(void **state)
{
	static const uint8_t data[SNAPLEN_MAX];
	struct packet p = {.interface_id = 5,
			   .caplen = 61,
			   .len = 3000,
			   .direction = 1,
			   .data = data,
			   .has_offload = true,
			   .csum = EPB_CSUM_PARTIAL,
			   .gso_size = 1448,
			   .gso_segs = 2};
	struct epb_offload option;
	struct tally t = {};
	struct batch b;

	(void)state;
	assert_int_equal(batch_init(&b, 4096, SNAPLEN_MAX), 0);
	assert_true(add_packet(&b, &p));
	assert_true(add_block(&b, 5, 60, 1));
	assert_int_equal(b.len, EPB_SIZE_MAX(61u) + EPB_SIZE(60u));
	assert_int_equal(b.tally.n, 2);
	assert_int_equal(b.tally.parts[0].direction, 1);
	batch_tally(&b, 0, b.len, &t);
	assert_int_equal(t.n, 2);
	assert_int_equal(t.parts[0].direction, 1);
	assert_int_equal(t.parts[1].direction, 2);
	memcpy(&option, b.raw + EPB_HEADER + ALIGN4(61u), sizeof(option));
	assert_int_equal(option.code, EPB_OPT_CUSTOM);
	assert_int_equal(option.len, EPB_OFFLOAD - 4);
	assert_int_equal(option.pen, EPB_OFFLOAD_PEN);
	assert_int_equal(option.gso_size, 1448);
	assert_int_equal(option.gso_segs, 2);
	assert_int_equal(option.csum, EPB_CSUM_PARTIAL);
	assert_int_equal(option.version, EPB_OFFLOAD_VERSION);
	assert_int_equal(option.zero, 0);

	batch_reset(&b);
	p.caplen = p.len = SNAPLEN_MAX;
	assert_true(add_packet(&b, &p));
	assert_int_equal(b.len, b.cap);
	batch_done(&b);
}

static void a_block_longer_than_a_batch_goes_alone(void **state)
{
	struct batch b;

	(void)state;
	assert_int_equal(batch_init(&b, 4096, SNAPLEN_MAX), 0);
	assert_true(add_block(&b, 1, 100, 1));
	assert_false(add_block(&b, 1, SNAPLEN_MAX, 2));
	batch_reset(&b);
	assert_true(add_block(&b, 1, SNAPLEN_MAX, 2));
	assert_false(add_block(&b, 1, 0, 3));
	batch_done(&b);
}

static void a_batch_ends_when_its_tally_is_full(void **state)
{
	struct batch b;

	(void)state;
	assert_int_equal(batch_init(&b, 1 << 20, 65535), 0);
	for (uint32_t i = 0; i < TALLY_PARTS; i++)
		assert_true(add_block(&b, i, 60, i));
	assert_false(add_block(&b, TALLY_PARTS, 60, 0));
	assert_true(add_block(&b, 0, 60, 0));
	assert_int_equal(b.head.packets, TALLY_PARTS + 1);
	batch_done(&b);
}

static void tunnels_are_raw_ip_and_unknown_devices_nothing(void **state)
{
	(void)state;
	assert_int_equal(link_type_of(1), LINK_ETHERNET);
	assert_int_equal(link_type_of(772), LINK_ETHERNET); /* loopback */
	assert_int_equal(link_type_of(65534), LINK_RAW);    /* tun, wireguard */
	assert_int_equal(link_type_of(803), 0);             /* 802.11 monitor */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ids_are_never_reused),
		cmocka_unit_test(what_nobody_counted_is_reported_of_its_interface),
		cmocka_unit_test(what_the_kernel_counts_is_in_the_ledger),
		cmocka_unit_test(what_was_captured_is_settled_to_the_packet),
		cmocka_unit_test(what_the_spool_lost_will_not_arrive),
		cmocka_unit_test(only_changes_are_reported),
		cmocka_unit_test(many_changes_are_reported_in_pieces),
		cmocka_unit_test(hello_names_what_lives_or_is_in_flight),
		cmocka_unit_test(one_gone_interface_is_kept_while_its_packets_fly),
		cmocka_unit_test(a_batch_knows_what_is_in_it),
		cmocka_unit_test(a_batch_takes_blocks_with_an_option),
		cmocka_unit_test(a_block_longer_than_a_batch_goes_alone),
		cmocka_unit_test(a_batch_ends_when_its_tally_is_full),
		cmocka_unit_test(tunnels_are_raw_ip_and_unknown_devices_nothing),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
