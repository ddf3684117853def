/* SPDX-License-Identifier: Apache-2.0 */
/* Losses in time, verdicts in words, clocks, files: what a feed says of its stream. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */

#include "registry_bench.h"

#define T0 (1793527200 * NSEC_PER_SEC) /* 2026-11-01T10:00:00Z */

static struct registry_owner owner;

/* A stream that began at T0, with one interface. */
static struct feed *begin(void)
{
	const struct stream_hello m = hello(T0, 1, 1);
	const struct stream_iface iface = interface(1);
	struct feed *f = attach(&m, &owner, 1);

	assert_int_equal(feed_describe(f, &iface, NULL), 0);
	return f;
}

static void end(struct feed *f, enum feed_state state, nsec_t unknown_after)
{
	registry_detach(registry, f, &owner, state, unknown_after);
}

static struct stream_stats_part counts(uint64_t captured)
{
	struct stream_stats_part part = {.iface = 1, .direction = 1};

	part.counts.c[LEDGER_SEEN].packets = captured;
	part.counts.c[LEDGER_CAPTURED].packets = captured;
	return part;
}

static void tell(struct feed *f, nsec_t time, struct stream_stats_part part)
{
	assert_int_equal(
		feed_stats(f, &(struct stream_stats){.time = time, .parts = &part, .n_parts = 1},
			   NULL),
		0);
}

static void write_at(struct feed *f, nsec_t time, uint32_t packets)
{
	for (uint32_t i = 0; i < packets; i++)
		feed_tally(f, feed_find(f, 1), &(struct packet){.direction = 1, .time = time + i});
	feed_settle(f, FEED_WRITTEN, 0);
}

static void ring_losses_lie_between_two_stats(void **state)
{
	struct feed *f = begin();
	struct stream_stats_part part = counts(117);

	(void)state;
	write_at(f, T0, 117);
	tell(f, T0 + NSEC_PER_SEC, part);
	tell(f, T0 + 1500 * NSEC_PER_MSEC, part);
	part.counts.c[LEDGER_SEEN].packets += 3;
	part.counts.c[LEDGER_LOST_RING].packets = 3;
	tell(f, T0 + 2250 * NSEC_PER_MSEC, part);
	/* Its last counters are said once more: no loss of that time. */
	tell(f, T0 + 9 * NSEC_PER_SEC, part);
	end(f, FEED_ENDED, 0);
	report_has("incomplete: 3 of 120 packets lost at lost_ring between 2026-11-01T10:00:01.5Z "
		   "and 2026-11-01T10:00:02.25Z; 117 packets (0 bytes) written\n");
	report_has(
		"\"losses\":[{\"stage\":\"lost_ring\",\"packets\":3,\"from\":1793527201500000000,"
		"\"to\":1793527202250000000}]");
	report_has("\"packets\":117,\"bytes\":0,\"first\":1793527200000000000,"
		   "\"last\":1793527200000000116,\"lost\":3,\"verdict\":\"incomplete\"}");
}

/* The agent was killed before it could count what it had sent. */
static void what_is_here_was_captured(void **state)
{
	struct feed *f = begin();

	(void)state;
	write_at(f, T0, 10);
	tell(f, T0 + NSEC_PER_SEC, counts(10));
	write_at(f, T0 + NSEC_PER_SEC, 5);
	end(f, FEED_LOST, 0);
	report_has("\"seen\":15,");
	report_has("\"captured\":15,");
	report_has("\"committed\":15,");
}

/* Counters that are the last ones have to add up as they are. */
static void a_goodbye_with_too_few_captured_is_told_of(void **state)
{
	struct feed *f = begin();

	(void)state;
	write_at(f, T0, 10);
	tell(f, T0 + NSEC_PER_SEC, counts(9));
	end(f, FEED_ENDED, 0);
	report_has("does not add up");
	report_has("\"captured\":9,");
}

static void before_the_first_stats_lies_the_start(void **state)
{
	struct feed *f = begin();
	struct stream_stats_part part = counts(0);

	(void)state;
	part.counts.c[LEDGER_SEEN].packets = part.counts.c[LEDGER_LOST_ERROR].packets = 2;
	tell(f, T0 + NSEC_PER_SEC, part);
	end(f, FEED_ENDED, 0);
	report_has("2 of 2 packets lost at lost_error between 2026-11-01T10:00:00Z and "
		   "2026-11-01T10:00:01Z; ");
}

static void gaps_say_when_and_stats_repeat_it(void **state)
{
	struct stream_gap_part lost = {.iface = 1,
				       .direction = 1,
				       .first = T0 + 5,
				       .last = T0 + 10,
				       .lost = {.packets = 2}};
	const struct stream_gap gap = {.reason = STREAM_GAP_EVICTED, .parts = &lost, .n_parts = 1};
	struct stream_stats_part part = counts(6);
	struct feed *f = begin();

	(void)state;
	write_at(f, T0, 4);
	assert_int_equal(feed_gap(f, &gap, NULL), 0);
	part.counts.c[LEDGER_LOST_SPOOL].packets = 2;
	tell(f, T0 + NSEC_PER_SEC, part);
	report_has("\"stage\":\"lost_spool\",\"packets\":2,\"from\":1793527200000000005,"
		   "\"to\":1793527200000000010}");
	/* What no GAP told of was lost since the last STATS. */
	part.counts.c[LEDGER_LOST_SPOOL].packets = 3;
	part.counts.c[LEDGER_SEEN].packets = part.counts.c[LEDGER_CAPTURED].packets = 7;
	tell(f, T0 + 2 * NSEC_PER_SEC, part);
	end(f, FEED_ENDED, 0);
	report_has("3 of 7 packets lost at lost_spool between 2026-11-01T10:00:00.000000005Z and "
		   "2026-11-01T10:00:02Z; 4 ");
}

static void what_cannot_be_written_is_lost_at_its_time(void **state)
{
	struct feed *f = begin();
	struct stream_stats_part part = counts(3);

	(void)state;
	write_at(f, T0, 1);
	part.counts.c[LEDGER_SEEN].packets++;
	part.counts.c[LEDGER_LOST_RING].packets++;
	tell(f, T0 + NSEC_PER_SEC, part);
	feed_tally(f, feed_find(f, 1), &(struct packet){.direction = 1, .time = T0 + 7});
	feed_tally(f, feed_find(f, 1), &(struct packet){.direction = 1, .time = T0 + 6});
	feed_settle(f, FEED_UNSUPPORTED, 0);
	feed_tally(f, feed_find(f, 1), &(struct packet){.direction = 1, .time = 1});
	feed_settle(f, FEED_FORGET, 0);
	end(f, FEED_ENDED, 0);
	report_has("3 of 4 packets lost: 1 at lost_ring between 2026-11-01T10:00:00Z and "
		   "2026-11-01T10:00:01Z, 2 at lost_output between "
		   "2026-11-01T10:00:00.000000006Z and 2026-11-01T10:00:00.000000007Z; 1 packets");
}

static void unknown_after_the_last_stats(void **state)
{
	struct feed *f = begin();

	(void)state;
	write_at(f, T0 + 5 * NSEC_PER_SEC, 2);
	tell(f, T0 + 2 * NSEC_PER_SEC, counts(1));
	end(f, FEED_LOST, 0);
	report_has("unknown after 2026-11-01T10:00:02Z: 2 packets (0 bytes) written, 0 lost");
	report_has("\"verdict\":\"unknown\",\"unknown_after\":1793527202000000000}");
}

static void what_passed_uncounted_is_unknown_whatever_comes_later(void **state)
{
	struct feed *f = begin();
	struct stream_stats_part part = counts(2);

	(void)state;
	write_at(f, T0 + NSEC_PER_SEC, 2);
	part.unseen = (struct ledger_span){T0 + 2 * NSEC_PER_SEC, T0 + 3 * NSEC_PER_SEC};
	tell(f, T0 + 4 * NSEC_PER_SEC, part);
	tell(f, T0 + 9 * NSEC_PER_SEC, part);
	end(f, FEED_ENDED, 0);
	report_has("\"verdict\":\"unknown\",\"unknown_after\":1793527202000000000}");
}

static void unknown_after_the_last_packet_without_stats(void **state)
{
	struct feed *f = begin();

	(void)state;
	write_at(f, T0 + NSEC_PER_SEC, 1);
	end(f, FEED_LOST, 0);
	report_has("unknown after 2026-11-01T10:00:01Z: ");
}

static void unknown_after_the_connection_without_anything(void **state)
{
	struct feed *f = begin();
	nsec_t before = clock_realtime();

	(void)state;
	end(f, FEED_LOST, 0);
	assert_true(f->unknown_after >= before);
	report_has("unknown after 20");
}

static void a_broken_stream_is_unknown_after_what_its_agent_says(void **state)
{
	struct feed *f = begin();

	(void)state;
	write_at(f, T0, 1);
	tell(f, T0 + NSEC_PER_SEC, counts(3));
	end(f, FEED_BROKEN, T0 + 3 * NSEC_PER_SEC);
	/* It is over: reported at once, and what was counted and is not here is missing. */
	assert_non_null(strstr(lines, "unknown after 2026-11-01T10:00:03Z: 2 of 3 packets lost: "
				      "2 did not arrive; 1 packets"));
}

static void a_gap_without_counts_is_unknown_up_to_the_next_stats(void **state)
{
	const struct stream_gap gap = {.reason = STREAM_GAP_CORRUPT};
	struct feed *f = begin();

	(void)state;
	write_at(f, T0, 1);
	tell(f, T0 + NSEC_PER_SEC, counts(1));
	assert_int_equal(feed_gap(f, &gap, NULL), 0);
	report_has("unknown after 2026-11-01T10:00:01Z: 1 packets");
	tell(f, T0 + 4 * NSEC_PER_SEC, counts(1));
	end(f, FEED_ENDED, 0);
	report_has("unknown between 2026-11-01T10:00:01Z and 2026-11-01T10:00:04Z: 1 packets");
}

static void counters_that_stay_wrong_are_told_once(void **state)
{
	struct stream_stats_part part = counts(1000);
	struct feed *f = begin();

	(void)state;
	/* A few, of packets that are counted right now, are told when they stay. */
	part.counts.c[LEDGER_SEEN].packets += 2;
	for (nsec_t t = 1; t <= 7; t++)
		tell(f, T0 + t, part);
	tell(f, T0 + 8, counts(1000));
	assert_null(lines);
	for (nsec_t t = 9; t <= 16; t++)
		tell(f, T0 + t, part);
	assert_non_null(strstr(lines,
			       "warning: the counters of agent \"web1\", interface \"eth1\", "
			       "ingress do not add up: 2 packets"));
	free(lines);
	lines = NULL;
	for (nsec_t t = 17; t <= 40; t++)
		tell(f, T0 + t, part);
	assert_null(lines);
	write_at(f, T0, 1000);
	end(f, FEED_ENDED, 0);
	assert_null(strstr(lines, "warning"));
}

static void many_wrong_counts_are_told_the_second_time(void **state)
{
	struct stream_stats_part part = counts(1000);
	struct feed *f = begin();

	(void)state;
	part.counts.c[LEDGER_SEEN].packets += 100;
	tell(f, T0 + 1, part);
	assert_null(lines);
	tell(f, T0 + 2, part);
	assert_non_null(strstr(lines, "do not add up: 100 packets"));
	end(f, FEED_LOST, 0);
}

static void the_best_of_the_latest_clock_measurements_counts(void **state)
{
	struct feed_clock_sample best;
	struct feed *f = begin();

	(void)state;
	assert_int_equal(feed_clock_best(f, &best), 0);
	registry_report(registry);
	assert_null(strstr(lines, "clock {"));
	/* The agent is 500 behind; a slow answer says something else. */
	feed_clock(f, 10000, 9600, 10200);
	feed_clock(f, 20000, 25000, 29000);
	feed_clock(f, 30000, 30000, 20000); /* our clock was set */
	assert_int_equal(feed_clock_best(f, &best), 10200);
	assert_int_equal(best.offset, -500);
	assert_int_equal(best.rtt, 200);
	report_has(
		"clock {\"agent\":\"web1\",\"agent_id\":\"abcd0000-0000-0000-0000-000000000000\","
		"\"offset_ns\":-500,\"rtt_ns\":200,\"synchronized\":false,\"error_ns\":0}\n");
	/* It drifts, so what is old does not count. */
	for (nsec_t t = 0; t < FEED_CLOCK_SAMPLES; t++)
		feed_clock(f, 40000, 40200, 41000 + t);
	assert_int_equal(feed_clock_best(f, &best), 41000);
	end(f, FEED_LOST, 0);
}

static void packets_of_files_are_counted_apart(void **state)
{
	struct stream_iface raw = interface(2);
	struct feed *f = begin();

	(void)state;
	raw.link_type = LINK_RAW;
	assert_int_equal(feed_describe(f, &raw, NULL), 0);
	write_at(f, T0, 3);
	feed_tally(f, feed_find(f, 2), &(struct packet){.direction = 2, .time = T0, .len = 9});
	feed_settle(f, FEED_UNSUPPORTED, 0);
	tell(f, T0 + 1, counts(3));
	end(f, FEED_CONNECTED, 0);
	/* The loss is not one of this file. */
	report_has("dump.pcap\",\"agents\":1,\"streams\":1,\"packets\":3,\"bytes\":0,"
		   "\"first\":1793527200000000000,\"last\":1793527200000000002,\"lost\":0,"
		   "\"verdict\":\"complete\"}");
	report_has("verdict over 1 streams: incomplete: 1 of ");
}

/* A hundred at once, then one each second; what was left out is told with the next. */
static void what_an_agent_words_is_rationed(void **state)
{
	struct feed f = {};
	uint64_t left_out = 99;
	nsec_t now = 5;

	(void)state;
	for (int round = 0; round < 2; round++) {
		for (unsigned int i = 0; i < FEED_TELL_BURST; i++) {
			assert_true(feed_may_tell(&f, now, &left_out));
			assert_int_equal(left_out, 0);
		}
		for (int i = 0; i < 7; i++)
			assert_false(feed_may_tell(&f, now + i, &left_out));
		now += FEED_TELL_EACH;
		assert_true(feed_may_tell(&f, now, &left_out));
		assert_int_equal(left_out, 7);
		assert_false(feed_may_tell(&f, now, &left_out));
		/* It was quiet for long. */
		now += 2 * FEED_TELL_BURST * FEED_TELL_EACH;
		assert_true(feed_may_tell(&f, now, &left_out));
		assert_int_equal(left_out, 1);
		now += FEED_TELL_BURST * FEED_TELL_EACH;
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(ring_losses_lie_between_two_stats),
		TEST(what_is_here_was_captured),
		TEST(a_goodbye_with_too_few_captured_is_told_of),
		TEST(before_the_first_stats_lies_the_start),
		TEST(gaps_say_when_and_stats_repeat_it),
		TEST(what_cannot_be_written_is_lost_at_its_time),
		TEST(unknown_after_the_last_stats),
		TEST(what_passed_uncounted_is_unknown_whatever_comes_later),
		TEST(unknown_after_the_last_packet_without_stats),
		TEST(unknown_after_the_connection_without_anything),
		TEST(a_broken_stream_is_unknown_after_what_its_agent_says),
		TEST(a_gap_without_counts_is_unknown_up_to_the_next_stats),
		TEST(counters_that_stay_wrong_are_told_once),
		TEST(many_wrong_counts_are_told_the_second_time),
		TEST(the_best_of_the_latest_clock_measurements_counts),
		TEST(packets_of_files_are_counted_apart),
		cmocka_unit_test(what_an_agent_words_is_rationed),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
