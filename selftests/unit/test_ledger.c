/* SPDX-License-Identifier: Apache-2.0 */
/* The identities of the ledger, and the JSON object that scripts read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "ledger.h"
#include "util.h"

static const struct ledger sample = {
	.c = {[LEDGER_SEEN] = {1000, 100000},
	      [LEDGER_RULED_OUT] = {100, 9000},
	      [LEDGER_EXPRESSION_OUT] = {50, 5000},
	      [LEDGER_SAMPLED_OUT] = {25, 2500},
	      [LEDGER_CAPTURED] = {800, 80000},
	      [LEDGER_LOST_RING] = {20, 3000},
	      [LEDGER_LOST_ERROR] = {5, 500},
	      [LEDGER_LOST_QUEUE] = {3, 300},
	      [LEDGER_LOST_SPOOL] = {2, 200},
	      [LEDGER_LOST_OUTPUT] = {1, 100},
	      [LEDGER_COMMITTED] = {790, 79000},
	      [LEDGER_DUPLICATES] = {30, 3000},
	      [LEDGER_RATE_LIMITED] = {20, 2000},
	      [LEDGER_SLICED] = {700, 79900}},
};

static const struct ledger_subject who = {
	.agent = "node-1",
	.agent_id = "01020304-0506-0708-090a-0b0c0d0e0f10",
	.epoch = 1700000000000000000,
	.interface = "eth0",
	.direction = "ingress",
	.file = "/var/lib/ps/dump.pcap",
};

/* The identities of ledger.h, written out. */
static void identities_hold_for_a_ledger_that_adds_up(void **state)
{
	struct ledger_count in_flight = ledger_in_flight(&sample), lost = ledger_lost(&sample);

	(void)state;
	assert_true(ledger_adds_up(&sample));
	assert_int_equal(in_flight.packets, 800 - 790 - 3 - 2 - 1);
	assert_int_equal(in_flight.bytes, 80000 - 79000 - 300 - 200 - 100);
	assert_int_equal(lost.packets, 20 + 5 + 3 + 2 + 1);
	assert_int_equal(lost.bytes, 3000 + 500 + 300 + 200 + 100);
	assert_true(ledger_adds_up(&(struct ledger){}));
}

static void one_packet_or_byte_off_does_not_add_up(void **state)
{
	(void)state;
	for (size_t c = 0; c < LEDGER_COUNTERS; c++) {
		/*
		 * What became of captured packets may still change: they are in flight. What is
		 * only for information is in no sum.
		 */
		bool open = c == LEDGER_COMMITTED || c == LEDGER_LOST_QUEUE ||
			    c == LEDGER_LOST_SPOOL || c == LEDGER_LOST_OUTPUT ||
			    c == LEDGER_DUPLICATES || c == LEDGER_RATE_LIMITED ||
			    c == LEDGER_SLICED;
		struct ledger l = sample;

		l.c[c].packets += 4;
		assert_int_equal(ledger_adds_up(&l), open);
		l = sample;
		l.c[c].bytes++;
		assert_int_equal(ledger_adds_up(&l), open);
		l = sample;
		l.c[c].packets -= 1;
		assert_int_equal(ledger_adds_up(&l), open);
	}
}

static void more_settled_than_captured_is_no_packets_in_flight(void **state)
{
	struct ledger l = sample;

	(void)state;
	l.c[LEDGER_COMMITTED].packets = 795;
	assert_int_equal(ledger_in_flight(&l).packets, 0);
	assert_false(ledger_adds_up(&l));
	l.c[LEDGER_COMMITTED] = (struct ledger_count){794, 79400};
	assert_true(ledger_adds_up(&l));
	assert_int_equal(ledger_in_flight(&l).packets, 0);
	assert_int_equal(ledger_in_flight(&l).bytes, 0);
}

static void ledgers_are_added_counter_by_counter(void **state)
{
	struct ledger l = sample;

	(void)state;
	assert_true(ledger_equal(&l, &sample));
	ledger_add(&l, &sample);
	assert_false(ledger_equal(&l, &sample));
	for (size_t c = 0; c < LEDGER_COUNTERS; c++) {
		assert_int_equal(l.c[c].packets, 2 * sample.c[c].packets);
		assert_int_equal(l.c[c].bytes, 2 * sample.c[c].bytes);
	}
	assert_true(ledger_adds_up(&l));
}

static void counters_and_verdicts_have_their_documented_names(void **state)
{
	static const char *const names[] = {
		"seen",      "ruled_out",  "expression_out", "sampled_out", "captured",
		"lost_ring", "lost_error", "lost_queue",     "lost_spool",  "lost_output",
		"committed", "duplicates", "rate_limited",   "sliced"};

	(void)state;
	for (size_t i = 0; i < LEDGER_COUNTERS; i++)
		assert_string_equal(ledger_counter_name((enum ledger_counter)i), names[i]);
	assert_null(ledger_counter_name(LEDGER_COUNTERS));
	assert_string_equal(ledger_verdict_name(VERDICT_COMPLETE), "complete");
	assert_string_equal(ledger_verdict_name(VERDICT_INCOMPLETE), "incomplete");
	assert_string_equal(ledger_verdict_name(VERDICT_UNKNOWN), "unknown");
}

static void the_object_holds_every_number(void **state)
{
	static const char *const expected =
		"{\"agent\":\"node-1\",\"agent_id\":\"01020304-0506-0708-090a-0b0c0d0e0f10\","
		"\"epoch\":1700000000000000000,\"interface\":\"eth0\",\"direction\":\"ingress\","
		"\"seen\":1000,\"seen_bytes\":100000,\"ruled_out\":100,\"ruled_out_bytes\":9000,"
		"\"expression_out\":50,\"expression_out_bytes\":5000,"
		"\"sampled_out\":25,\"sampled_out_bytes\":2500,"
		"\"captured\":800,\"captured_bytes\":80000,\"lost_ring\":20,\"lost_ring_bytes\":3000,"
		"\"lost_error\":5,\"lost_error_bytes\":500,\"lost_queue\":3,\"lost_queue_bytes\":300,"
		"\"lost_spool\":2,\"lost_spool_bytes\":200,\"lost_output\":1,\"lost_output_bytes\":100,"
		"\"committed\":790,\"committed_bytes\":79000,"
		"\"duplicates\":30,\"duplicates_bytes\":3000,"
		"\"rate_limited\":20,\"rate_limited_bytes\":2000,"
		"\"sliced\":700,\"sliced_bytes\":79900,\"in_flight\":4,\"in_flight_bytes\":400,"
		"\"file\":\"/var/lib/ps/dump.pcap\",\"verdict\":\"incomplete\"}";
	struct ledger_subject nowhere = who;
	char out[LEDGER_JSON_MAX];

	(void)state;
	assert_int_equal(ledger_json(&sample, &who, VERDICT_INCOMPLETE, out, sizeof(out)),
			 strlen(expected));
	assert_string_equal(out, expected);
	nowhere.file = NULL;
	ledger_json(&sample, &nowhere, VERDICT_COMPLETE, out, sizeof(out));
	assert_null(strstr(out, "\"file\""));
	assert_non_null(strstr(out, "\"verdict\":\"complete\"}"));
}

static void the_object_says_when_packets_were_lost(void **state)
{
	struct ledger_span spans[LEDGER_LOSSES] = {
		{10, 20}, {30, 40}, {50, 60}, {70, 80}, {90, 99}};
	struct ledger_subject when = who;
	struct ledger l = sample;
	char out[LEDGER_JSON_MAX];

	(void)state;
	when.spans = spans;
	when.unknown_after = 12345;
	l.c[LEDGER_LOST_ERROR] = l.c[LEDGER_LOST_QUEUE] = l.c[LEDGER_LOST_OUTPUT] =
		(struct ledger_count){};
	ledger_json(&l, &when, VERDICT_UNKNOWN, out, sizeof(out));
	assert_non_null(strstr(out,
			       ",\"losses\":[{\"stage\":\"lost_ring\",\"packets\":20,\"from\":10,"
			       "\"to\":20},{\"stage\":\"lost_spool\",\"packets\":2,\"from\":70,"
			       "\"to\":80}],\"file\""));
	assert_non_null(strstr(out, "\"verdict\":\"unknown\",\"unknown_after\":12345}"));
	ledger_json(&(struct ledger){}, &when, VERDICT_COMPLETE, out, sizeof(out));
	assert_non_null(strstr(out, "\"losses\":[],"));
	assert_null(strstr(out, "unknown_after"));
}

static void a_span_grows(void **state)
{
	struct ledger_span s = {};

	(void)state;
	ledger_span_add(&s, 5, 0); /* nothing */
	assert_int_equal(s.to, 0);
	ledger_span_add(&s, 5, 7);
	assert_int_equal(s.from, 5);
	ledger_span_add(&s, 6, 6);
	assert_int_equal(s.from, 5);
	assert_int_equal(s.to, 7);
	ledger_span_add(&s, 0, 9);
	assert_int_equal(s.from, 0);
	assert_int_equal(s.to, 9);
}

static void files_and_clocks_have_objects(void **state)
{
	const struct ledger_file file = {.file = "/a \"b\".pcap",
					 .agents = 2,
					 .streams = 3,
					 .written = {4, 5},
					 .packets = {6, 7},
					 .lost = 8,
					 .verdict = VERDICT_INCOMPLETE};
	const struct ledger_clock clock = {.agent = "node-1",
					   .agent_id = "0102",
					   .offset_ns = -5,
					   .rtt_ns = 6,
					   .synchronized = true,
					   .error_ns = 7};
	char out[LEDGER_JSON_MAX];

	(void)state;
	ledger_file_json(&file, out, sizeof(out));
	assert_string_equal(out, "{\"file\":\"/a \\\"b\\\".pcap\",\"agents\":2,\"streams\":3,"
				 "\"packets\":4,\"bytes\":5,\"first\":6,\"last\":7,\"lost\":8,"
				 "\"verdict\":\"incomplete\"}");
	ledger_clock_json(&clock, out, sizeof(out));
	assert_string_equal(out, "{\"agent\":\"node-1\",\"agent_id\":\"0102\",\"offset_ns\":-5,"
				 "\"rtt_ns\":6,\"synchronized\":true,\"error_ns\":7}");
}

/* The object's "interface", as it is written there. */
static const char *interface_as_json(const char *name)
{
	static char out[LEDGER_JSON_MAX];
	struct ledger_subject odd = who;
	char *from, *to;

	odd.interface = name;
	ledger_json(&sample, &odd, VERDICT_COMPLETE, out, sizeof(out));
	from = strstr(out, "\"interface\":\"");
	assert_non_null(from);
	from += strlen("\"interface\":\"");
	to = strstr(from, "\",\"direction\"");
	assert_non_null(to);
	*to = '\0';
	return from;
}

static void names_are_escaped(void **state)
{
	static const struct {
		const char *name, *json;
	} table[] = {
		{"", ""},
		{"eth0.100@if7", "eth0.100@if7"},
		{"a\"b\\c", "a\\\"b\\\\c"},
		{"\x01\t\n\x1f\x7f", "\\u0001\\u0009\\u000a\\u001f\\u007f"},
		{"100%s%n", "100%s%n"},
		{"b\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80", "b\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80"},
		{"\xff\x80", "\\ufffd\\ufffd"},
		{"\xc3", "\\ufffd"},
		{"\xc3(", "\\ufffd("},
		{"\xe2\x82", "\\ufffd\\ufffd"},
		{"\xf0\x9f\x98", "\\ufffd\\ufffd\\ufffd"},
		{"\xc0\xaf", "\\ufffd\\ufffd"},
		{"\xe0\x9f\xbf", "\\ufffd\\ufffd\\ufffd"},
		{"\xed\xa0\x80", "\\ufffd\\ufffd\\ufffd"},
		{"\xf4\x90\x80\x80", "\\ufffd\\ufffd\\ufffd\\ufffd"},
		{"\xf5\x80\x80\x80", "\\ufffd\\ufffd\\ufffd\\ufffd"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		/* An exact copy: the end of a string may come within a character. */
		char *name = strdup(table[i].name);

		assert_string_equal(interface_as_json(name), table[i].json);
		free(name);
	}
}

static void the_longest_values_fit(void **state)
{
	struct ledger_span spans[LEDGER_LOSSES];
	char endless[5001], out[LEDGER_JSON_MAX];
	struct ledger_subject odd;
	struct ledger l;
	size_t n;

	(void)state;
	memset(endless, 1, sizeof(endless) - 1);
	endless[sizeof(endless) - 1] = '\0';
	memset(&l, 0xff, sizeof(l));
	odd = (struct ledger_subject){endless, endless, UINT64_MAX, endless,   endless,
				      endless, endless, spans,      UINT64_MAX};
	memset(spans, 0xff, sizeof(spans));
	n = ledger_json(&l, &odd, VERDICT_UNKNOWN, out, sizeof(out));
	assert_true(n < sizeof(out) - 1);
	assert_int_equal(n, strlen(out));
	assert_non_null(strstr(out, "...\",\"verdict\":\"unknown\",\"unknown_after\":"));
	assert_int_equal(out[n - 1], '}');
}

static void a_short_buffer_is_not_overrun(void **state)
{
	(void)state;
	for (size_t size = 1; size < 300; size++) {
		char *out = malloc(size);

		assert_int_equal(ledger_json(&sample, &who, VERDICT_COMPLETE, out, size), size - 1);
		assert_int_equal(strlen(out), size - 1);
		free(out);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(identities_hold_for_a_ledger_that_adds_up),
		cmocka_unit_test(one_packet_or_byte_off_does_not_add_up),
		cmocka_unit_test(more_settled_than_captured_is_no_packets_in_flight),
		cmocka_unit_test(ledgers_are_added_counter_by_counter),
		cmocka_unit_test(counters_and_verdicts_have_their_documented_names),
		cmocka_unit_test(the_object_holds_every_number),
		cmocka_unit_test(the_object_says_when_packets_were_lost),
		cmocka_unit_test(a_span_grows),
		cmocka_unit_test(files_and_clocks_have_objects),
		cmocka_unit_test(names_are_escaped),
		cmocka_unit_test(the_longest_values_fit),
		cmocka_unit_test(a_short_buffer_is_not_overrun),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
