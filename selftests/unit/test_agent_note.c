/* SPDX-License-Identifier: Apache-2.0 */
/* Notes: what goes into the stream, and that the collector's codec takes it whatever it says. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "note.h"
#include "util.h"

/* The message @seq, which must be a NOTE. */
static struct stream_note taken(struct queue *q, uint64_t seq)
{
	struct backlog_message m;
	struct stream_note note;
	struct stream_header h;
	struct buf wire = {};
	struct tally t;
	struct err err;

	assert_int_equal(queue_read(q, seq, &wire, &m, &t), 1);
	assert_int_equal(t.n, 0);
	assert_int_equal(m.type, STREAM_NOTE);
	assert_int_equal(stream_header_decode(wire.data, &h, &err), 0);
	assert_int_equal(h.type, STREAM_NOTE);
	assert_int_equal(h.seq, seq);
	assert_int_equal(h.flags, 0);
	if (stream_note_decode(wire.data + STREAM_HEADER_SIZE, h.payload_len, &note, &err) < 0)
		fail_msg("%s", err.text);
	buf_free(&wire);
	return note;
}

static void note_is_numbered_and_says_when(void **state)
{
	struct queue *q = queue_new(1 << 20);
	const uint32_t iface = 0;
	nsec_t before = clock_realtime();
	struct stream_note m;

	(void)state;
	assert_int_equal(note_push(q, STREAM_NOTE_DEGRADE, NULL, "slice %d", 128), 0);
	assert_int_equal(note_push(q, STREAM_NOTE_LIMIT, &iface, "%s", ""), 0);
	m = taken(q, 1);
	assert_in_range(m.time, before, clock_realtime());
	assert_int_equal(m.kind, STREAM_NOTE_DEGRADE);
	assert_false(m.has_iface);
	assert_string_equal(m.text, "slice 128");
	m = taken(q, 2);
	assert_int_equal(m.kind, STREAM_NOTE_LIMIT);
	assert_true(m.has_iface);
	assert_int_equal(m.iface, 0);
	assert_string_equal(m.text, "");
	assert_int_equal(queue_next_seq(q), 3);
	queue_free(q);
}

static void agent_without_a_collector_has_nobody_to_tell(void **state)
{
	(void)state;
	assert_int_equal(note_push(NULL, STREAM_NOTE_FILTER, NULL, "%s", "tcp"), 0);
}

static void long_text_is_cut_between_characters(void **state)
{
	static char text[5000];
	struct queue *q = queue_new(1 << 20);
	struct stream_note m;

	(void)state;
	for (size_t pad = 0; pad < 4; pad++) {
		memset(text, 'x', pad);
		for (size_t i = pad; i + 3 < sizeof(text); i += 3)
			memcpy(text + i, "\xe2\x82\xac", 3);
		assert_int_equal(note_push(q, STREAM_NOTE_FILTER, NULL, "%s", text), 0);
		m = taken(q, pad + 1);
		assert_in_range(strlen(m.text), STREAM_NOTE_MAX - 2, STREAM_NOTE_MAX);
		assert_int_equal((strlen(m.text) - 3 - pad) % 3, 0);
		assert_memory_equal(m.text, text, strlen(m.text) - 3);
		assert_string_equal(m.text + strlen(m.text) - 3, "...");
	}
	/* One that just fits is whole. */
	memset(text, 'y', STREAM_NOTE_MAX);
	text[STREAM_NOTE_MAX] = '\0';
	assert_int_equal(note_push(q, STREAM_NOTE_FILTER, NULL, "%s", text), 0);
	assert_string_equal(taken(q, 5).text, text);
	queue_free(q);
}

/* A filter may come from several lines of a file. */
static void control_characters_are_blanks(void **state)
{
	struct queue *q = queue_new(1 << 20);

	(void)state;
	assert_int_equal(note_push(q, STREAM_NOTE_FILTER, NULL, "tcp\n\tor\x7fudp\x01"), 0);
	assert_string_equal(taken(q, 1).text, "tcp  or udp ");
	queue_free(q);
}

static void full_queue_refuses(void **state)
{
	struct queue *q = queue_new(4096);
	uint64_t n = 0;

	(void)state;
	while (note_push(q, STREAM_NOTE_OTHER, NULL, "note %d", (int)n) == 0)
		n++;
	assert_in_range(n, 10, 100);
	assert_int_equal(note_push(q, STREAM_NOTE_OTHER, NULL, "one more"), -ENOBUFS);
	assert_int_equal(queue_next_seq(q), n + 1);
	queue_free(q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(note_is_numbered_and_says_when),
		cmocka_unit_test(agent_without_a_collector_has_nobody_to_tell),
		cmocka_unit_test(long_text_is_cut_between_characters),
		cmocka_unit_test(control_characters_are_blanks),
		cmocka_unit_test(full_queue_refuses),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
