/* SPDX-License-Identifier: Apache-2.0 */
/* The codec of ps-stream(7). Inputs are exact heap copies, so that ASan sees an over-read. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gzip.h"
#include "stream_samples.h"
#include "tlv.h"

/* Control messages are TLVs; DATA is not. */
#define FOR_EACH_CODEC(type)                                             \
	for (uint8_t type = 0; type < ARRAY_SIZE(sample_codecs); type++) \
		if (sample_codecs[type].sample)
#define FOR_EACH_TLV_CODEC(type) FOR_EACH_CODEC(type) if (type != STREAM_DATA)

static struct buf sample(uint8_t type)
{
	struct buf b = {};

	sample_codecs[type].sample(&b);
	assert_false(buf_failed(&b));
	return b;
}

/* Decode the bytes from a copy of exactly their size, encode the result to @out. */
static int again(uint8_t type, const uint8_t *in, size_t n, struct buf *out)
{
	uint8_t *exact = malloc(n);
	struct err err = {};
	int r;

	memcpy(exact, in, n);
	buf_reset(out);
	r = sample_codecs[type].again(exact, n, out, &err);
	free(exact);
	if (r < 0)
		assert_string_not_equal(err.text, "");
	else
		assert_string_equal(err.text, "");
	return r;
}

/* The TLVs of @b: where each begins; the last element is the end. */
static size_t tlv_starts(const struct buf *b, size_t *starts, size_t max)
{
	struct tlv_reader r = {b->data, b->len};
	struct tlv t;
	size_t n = 0;

	do {
		assert_true(n < max);
		starts[n++] = b->len - r.left;
	} while (tlv_next(&r, &t) > 0);
	assert_int_equal(r.left, 0);
	return n - 1;
}

static bool same(const struct buf *a, const struct buf *b)
{
	return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

static void every_message_survives_the_round_trip(void **state)
{
	(void)state;
	FOR_EACH_CODEC(type)
	{
		struct buf in = sample(type), out = {};

		assert_int_equal(again(type, in.data, in.len, &out), 0);
		assert_true(same(&in, &out));
		buf_free(&in);
		buf_free(&out);
	}
}

static void check_iface(const struct stream_iface *a, const struct stream_iface *b)
{
	assert_int_equal(a->id, b->id);
	assert_int_equal(a->ifindex, b->ifindex);
	assert_int_equal(a->netns, b->netns);
	assert_int_equal(a->link_type, b->link_type);
	assert_int_equal(a->snaplen, b->snaplen);
	assert_int_equal(a->speed_mbps, b->speed_mbps);
	assert_memory_equal(a->mac, b->mac, sizeof(a->mac));
	assert_int_equal(a->gone, b->gone);
	assert_string_equal(a->name, b->name);
	assert_memory_equal(a->committed, b->committed, sizeof(a->committed));
}

static void hello_decodes_to_what_was_encoded(void **state)
{
	struct buf in = sample(STREAM_HELLO);
	struct stream_hello m;

	(void)state;
	assert_int_equal(stream_hello_decode(in.data, in.len, &m, NULL), 0);
	assert_memory_equal(m.agent_id, sample_hello.agent_id, 16);
	assert_memory_equal(m.boot_id, sample_hello.boot_id, 16);
	assert_int_equal(m.epoch, sample_hello.epoch);
	assert_int_equal(m.first_unacked, 5);
	assert_int_equal(m.next_seq, 9);
	assert_int_equal(m.realtime_ns, sample_hello.realtime_ns);
	assert_int_equal(m.boottime_ns, sample_hello.boottime_ns);
	assert_string_equal(m.agent_name, "node-1.example");
	assert_string_equal(m.version, "0.1.0");
	assert_true(m.recovered);
	assert_int_equal(m.clock_state, STREAM_CLOCK_SYNCED);
	assert_int_equal(m.clock_error_ns, 1500000);
	assert_int_equal(m.n_ifaces, 2);
	check_iface(&m.ifaces[0], &sample_ifaces[0]);
	check_iface(&m.ifaces[1], &sample_ifaces[1]);
	stream_hello_free(&m);
	assert_null(m.ifaces);
	stream_hello_free(&m);
	buf_free(&in);
}

static void gap_and_stats_decode_to_what_was_encoded(void **state)
{
	struct buf g = sample(STREAM_GAP), s = sample(STREAM_STATS);
	struct stream_stats stats;
	struct stream_gap gap;

	(void)state;
	assert_int_equal(stream_gap_decode(g.data, g.len, &gap, NULL), 0);
	assert_int_equal(gap.first_seq, 3);
	assert_int_equal(gap.last_seq, 8);
	assert_int_equal(gap.reason, STREAM_GAP_EVICTED);
	assert_int_equal(gap.n_parts, 2);
	assert_int_equal(gap.parts[0].lost.packets, 10);
	assert_int_equal(gap.parts[1].iface, 7);
	assert_int_equal(gap.parts[1].direction, 2);
	assert_int_equal(gap.parts[1].last, 150);
	assert_int_equal(gap.parts[1].lost.bytes, 60);
	stream_gap_free(&gap);

	assert_int_equal(stream_stats_decode(s.data, s.len, &stats, NULL), 0);
	assert_int_equal(stats.time, sample_stats.time);
	assert_int_equal(stats.n_parts, 2);
	assert_true(ledger_equal(&stats.parts[0].counts, &sample_stats_parts[0].counts));
	assert_true(ledger_equal(&stats.parts[1].counts, &(struct ledger){}));
	assert_int_equal(stats.parts[1].direction, 2);
	assert_int_equal(stats.parts[0].unseen.to, 0);
	assert_int_equal(stats.parts[1].unseen.from, sample_stats_parts[1].unseen.from);
	assert_int_equal(stats.parts[1].unseen.to, sample_stats_parts[1].unseen.to);
	stream_stats_free(&stats);
	buf_free(&g);
	buf_free(&s);
}

static void meta_and_note_decode_to_what_was_encoded(void **state)
{
	struct buf m = sample(STREAM_META), n = sample(STREAM_NOTE), again = {};
	struct stream_note note, whole = sample_note;
	struct stream_meta meta;

	(void)state;
	assert_int_equal(stream_meta_decode(m.data, m.len, &meta, NULL), 0);
	check_iface(&meta.iface, &sample_meta.iface);
	assert_string_equal(meta.hook, "af_xdp zero-copy");
	assert_string_equal(meta.netns_name, "blue");
	assert_string_equal(meta.filter, sample_meta.filter);
	assert_int_equal(stream_note_decode(n.data, n.len, &note, NULL), 0);
	assert_int_equal(note.time, sample_note.time);
	assert_int_equal(note.kind, STREAM_NOTE_FILTER);
	assert_true(note.has_iface);
	assert_int_equal(note.iface, 7);
	assert_string_equal(note.text, sample_note.text);
	/* Of the whole agent: interface 0 is another thing. */
	whole.has_iface = false;
	stream_note_encode(&again, &whole);
	assert_int_equal(again.len, n.len - 8);
	assert_int_equal(stream_note_decode(again.data, again.len, &note, NULL), 0);
	assert_false(note.has_iface);
	buf_free(&m);
	buf_free(&n);
	buf_free(&again);
}

/* What older agents send has nothing of what was added. */
static void meta_without_the_newer_fields_is_taken(void **state)
{
	struct buf b = sample(STREAM_META);
	size_t starts[32], n = tlv_starts(&b, starts, ARRAY_SIZE(starts));
	struct stream_meta meta;

	(void)state;
	assert_int_equal(get_le16(b.data + starts[n - 3]), 14);
	assert_int_equal(stream_meta_decode(b.data, starts[n - 3], &meta, NULL), 0);
	check_iface(&meta.iface, &sample_meta.iface);
	assert_string_equal(meta.hook, "");
	assert_string_equal(meta.filter, "");
	buf_free(&b);
}

static void small_messages_decode_to_what_was_encoded(void **state)
{
	struct buf w = sample(STREAM_WELCOME), e = sample(STREAM_ERROR), a = sample(STREAM_ACK),
		   p = sample(STREAM_PING), b = sample(STREAM_BYE), d = sample(STREAM_DATA);
	struct stream_welcome welcome;
	struct stream_error error;
	struct stream_data data;
	struct stream_ack ack;
	struct stream_ping ping;
	struct stream_bye bye;

	(void)state;
	assert_int_equal(stream_welcome_decode(w.data, w.len, &welcome, NULL), 0);
	assert_int_equal(welcome.session_id, 0x1122334455667788);
	assert_int_equal(welcome.resume_seq, 6);
	assert_int_equal(welcome.credit, 4u << 20);
	assert_int_equal(welcome.max_payload, STREAM_PAYLOAD_MAX);
	assert_int_equal(welcome.max_raw, STREAM_RAW_MAX);
	assert_int_equal(welcome.heartbeat_ms, 5000);
	assert_int_equal(welcome.realtime_ns, sample_welcome.realtime_ns);
	assert_int_equal(welcome.ack_mode, STREAM_ACK_DURABLE);
	assert_int_equal(stream_error_decode(e.data, e.len, &error, NULL), 0);
	assert_int_equal(error.code, STREAM_E_BUSY);
	assert_int_equal(error.retry_after_ms, 30000);
	assert_string_equal(error.text, "4096 sessions are open");
	assert_int_equal(stream_ack_decode(a.data, a.len, &ack, NULL), 0);
	assert_int_equal(ack.written, 8);
	assert_int_equal(ack.durable, 6);
	assert_int_equal(ack.credit, 65536);
	assert_int_equal(stream_ping_decode(p.data, p.len, &ping, NULL), 0);
	assert_int_equal(ping.sent_ns, sample_ping.sent_ns);
	assert_int_equal(ping.received_ns, sample_ping.received_ns);
	assert_int_equal(stream_bye_decode(b.data, b.len, &bye, NULL), 0);
	assert_int_equal(bye.reason, STREAM_BYE_STOP);
	assert_int_equal(bye.last_seq, 8);
	assert_int_equal(stream_data_decode(d.data, d.len, &data, NULL), 0);
	assert_int_equal(data.iface_min, 1);
	assert_int_equal(data.iface_max, 7);
	assert_int_equal(data.first, sample_data.first);
	assert_int_equal(data.last, sample_data.last);
	assert_int_equal(data.packets, 3);
	assert_int_equal(data.wire_bytes, 4242);
	buf_free(&w);
	buf_free(&e);
	buf_free(&a);
	buf_free(&p);
	buf_free(&b);
	buf_free(&d);
}

/* The worked example of ps-stream(7): whoever changes these bytes changes the protocol. */
static void ack_message_has_the_bytes_of_the_manual(void **state)
{
	/* 32 bytes of header; then written 8, durable 6, credit 65536. */
	static const uint8_t wire[] = {
		'P', 'S', 1, 8, 0, 0, 0, 0,    36,   0,    0,    0,    0,    0,    0,    0, 0,
		0,   0,   0, 0, 0, 0, 0, 0x9e, 0xeb, 0xff, 0xa8, 0xf6, 0x3d, 0x15, 0x95, 1, 0,
		8,   0,   8, 0, 0, 0, 0, 0,    0,    0,    2,    0,    8,    0,    6,    0, 0,
		0,   0,   0, 0, 0, 3, 0, 8,    0,    0,    0,    1,    0,    0,    0,    0, 0};
	struct buf payload = sample(STREAM_ACK), out = {};
	struct stream_header h;

	(void)state;
	stream_message(&out, STREAM_ACK, 0, payload.data, payload.len);
	assert_int_equal(out.len, sizeof(wire));
	assert_memory_equal(out.data, wire, sizeof(wire));
	assert_int_equal(stream_header_decode(out.data, &h, NULL), 0);
	assert_int_equal(h.type, STREAM_ACK);
	assert_int_equal(h.payload_len, payload.len);
	assert_int_equal(h.payload_crc, gzip_crc32(0, payload.data, payload.len));
	buf_free(&payload);
	buf_free(&out);
}

static void truncation_is_refused_or_ends_a_field_that_may_be_last(void **state)
{
	(void)state;
	FOR_EACH_CODEC(type)
	{
		struct buf in = sample(type), out = {};
		size_t starts[32], n = 0, accepted = 0;

		if (type != STREAM_DATA)
			n = tlv_starts(&in, starts, ARRAY_SIZE(starts));
		for (size_t len = 0; len < in.len; len++) {
			bool boundary = false;

			for (size_t i = 0; i < n; i++)
				boundary |= starts[i] == len;
			if (again(type, in.data, len, &out) == 0) {
				assert_true(boundary);
				accepted++;
			}
		}
		/* Seven optional fields; three, and two interfaces; one; two parts. */
		assert_int_equal(accepted, type == STREAM_META      ? 7
					   : type == STREAM_HELLO   ? 5
					   : type == STREAM_WELCOME ? 1
					   : type == STREAM_BYE     ? 1
					   : type == STREAM_NOTE    ? 1
					   : type == STREAM_GAP     ? 2
					   : type == STREAM_STATS   ? 2
								    : 0);
		buf_free(&in);
		buf_free(&out);
	}
}

static void a_field_twice_is_refused(void **state)
{
	(void)state;
	FOR_EACH_TLV_CODEC(type)
	{
		struct buf in = sample(type), out = {};
		size_t starts[32], n = tlv_starts(&in, starts, ARRAY_SIZE(starts)), len = in.len;

		for (size_t i = 0; i < n && get_le16(in.data + starts[i]) < TLV_NESTED; i++) {
			size_t size = starts[i + 1] - starts[i];

			assert_non_null(buf_reserve(&in, size));
			buf_put(&in, in.data + starts[i], size);
			assert_int_equal(again(type, in.data, in.len, &out), -EBADMSG);
			in.len = len;
		}
		buf_free(&in);
		buf_free(&out);
	}
}

static void an_unknown_field_is_skipped(void **state)
{
	static const uint8_t unknown[] = {63, 0, 3, 0, 1, 2, 3, 0xff, 0xff, 0, 0};

	(void)state;
	FOR_EACH_TLV_CODEC(type)
	{
		struct buf plain = sample(type), in = {}, out = {};

		buf_put(&in, unknown, sizeof(unknown));
		buf_put(&in, plain.data, plain.len);
		buf_put(&in, unknown, sizeof(unknown));
		assert_int_equal(again(type, in.data, in.len, &out), 0);
		assert_true(same(&plain, &out));
		buf_free(&plain);
		buf_free(&in);
		buf_free(&out);
	}
}

/* Below that number, all fields have to be there. */
static const uint16_t first_optional[] = {
	[STREAM_HELLO] = 10, [STREAM_WELCOME] = 8, [STREAM_ERROR] = 64, [STREAM_META] = 10,
	[STREAM_GAP] = 64,   [STREAM_STATS] = 64,  [STREAM_ACK] = 64,   [STREAM_PING] = 64,
	[STREAM_PONG] = 64,  [STREAM_BYE] = 3,     [STREAM_NOTE] = 4,
};

/* A field left out, or one byte too long or too short, is refused, unless it may be. */
static void a_missing_or_misshapen_field_is_refused(void **state)
{
	(void)state;
	FOR_EACH_TLV_CODEC(type)
	{
		struct buf in = sample(type), cut = {}, out = {};
		size_t starts[32], n = tlv_starts(&in, starts, ARRAY_SIZE(starts));

		for (size_t i = 0; i < n; i++) {
			const uint8_t *field = in.data + starts[i];
			uint16_t number = get_le16(field), len = get_le16(field + 2);
			bool optional = number >= TLV_NESTED || number >= first_optional[type];
			bool text = (type == STREAM_HELLO && (number == 8 || number == 9)) ||
				    (type == STREAM_META && number == 9) ||
				    (type == STREAM_META && number >= 14) ||
				    (type == STREAM_NOTE && number == 3) ||
				    (type == STREAM_ERROR && number == 3);

			buf_reset(&cut);
			buf_put(&cut, in.data, starts[i]);
			buf_put(&cut, in.data + starts[i + 1], in.len - starts[i + 1]);
			assert_int_equal(again(type, cut.data, cut.len, &out),
					 optional ? 0 : -EBADMSG);

			for (int by = -1; by <= 1; by += 2) {
				buf_reset(&cut);
				buf_put(&cut, in.data, starts[i] + 4u + len - (by < 0));
				if (by > 0)
					buf_put_u8(&cut, 'x');
				put_le16(cut.data + starts[i] + 2, (uint16_t)(len + by));
				buf_put(&cut, in.data + starts[i + 1], in.len - starts[i + 1]);
				assert_int_equal(again(type, cut.data, cut.len, &out),
						 text ? 0 : -EBADMSG);
			}
		}
		buf_free(&in);
		buf_free(&cut);
		buf_free(&out);
	}
}

static void kinds_of_notes_have_names(void **state)
{
	static const char *const names[] = {"other",   "filter", "degrade", "limit",
					    "backend", "clock",  "other"};

	(void)state;
	for (uint8_t kind = 0; kind < ARRAY_SIZE(names); kind++)
		assert_string_equal(stream_note_name(kind), names[kind]);
	assert_string_equal(stream_note_name(255), "other");
}

static void types_have_names_and_know_their_numbering(void **state)
{
	(void)state;
	assert_string_equal(stream_type_name(STREAM_HELLO), "HELLO");
	assert_string_equal(stream_type_name(STREAM_CONTROL), "CONTROL");
	assert_string_equal(stream_type_name(0), "unknown");
	assert_string_equal(stream_type_name(STREAM_TALLY), "TALLY");
	assert_string_equal(stream_type_name(STREAM_NOTE), "NOTE");
	assert_string_equal(stream_type_name(STREAM_NOTE + 1), "unknown");
	assert_string_equal(stream_type_name(255), "unknown");
	for (unsigned int type = 0; type < 256; type++)
		assert_int_equal(stream_type_numbered((uint8_t)type),
				 (type >= STREAM_META && type <= STREAM_STATS) ||
					 type == STREAM_NOTE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_message_survives_the_round_trip),
		cmocka_unit_test(hello_decodes_to_what_was_encoded),
		cmocka_unit_test(gap_and_stats_decode_to_what_was_encoded),
		cmocka_unit_test(meta_and_note_decode_to_what_was_encoded),
		cmocka_unit_test(meta_without_the_newer_fields_is_taken),
		cmocka_unit_test(small_messages_decode_to_what_was_encoded),
		cmocka_unit_test(kinds_of_notes_have_names),
		cmocka_unit_test(ack_message_has_the_bytes_of_the_manual),
		cmocka_unit_test(truncation_is_refused_or_ends_a_field_that_may_be_last),
		cmocka_unit_test(a_field_twice_is_refused),
		cmocka_unit_test(an_unknown_field_is_skipped),
		cmocka_unit_test(a_missing_or_misshapen_field_is_refused),
		cmocka_unit_test(types_have_names_and_know_their_numbering),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
