/* SPDX-License-Identifier: Apache-2.0 */
/* What the codec of ps-stream(7) refuses: damaged headers, and values out of their range. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gzip.h"
#include "stream_samples.h"
#include "tlv.h"

static const struct stream_header data_header = {
	.type = STREAM_DATA,
	.flags = 0xbeef,
	.payload_len = 1000,
	.raw_len = 4000,
	.seq = 0x0102030405060708,
	.payload_crc = 0xcafebabe,
};

/* Encode @h, put @value at @at of it, mend the checksum, decode. */
static int patched(const struct stream_header *h, size_t at, uint8_t value)
{
	uint8_t bytes[STREAM_HEADER_SIZE];
	struct stream_header ret;
	struct err err = {};
	int r;

	stream_header_encode(bytes, h);
	bytes[at] = value;
	put_le32(bytes + 28, gzip_crc32(0, bytes, 28));
	r = stream_header_decode(bytes, &ret, &err);
	assert_int_equal(r < 0, err.text[0] != '\0');
	return r;
}

static int header(uint8_t type, uint32_t payload_len, uint32_t raw_len, uint64_t seq)
{
	struct stream_header h = {
		.type = type, .payload_len = payload_len, .raw_len = raw_len, .seq = seq};

	return patched(&h, 0, 'P');
}

static void header_survives_the_round_trip(void **state)
{
	uint8_t bytes[STREAM_HEADER_SIZE];
	struct stream_header h;

	(void)state;
	stream_header_encode(bytes, &data_header);
	assert_int_equal(stream_header_decode(bytes, &h, NULL), 0);
	assert_int_equal(h.type, STREAM_DATA);
	assert_int_equal(h.flags, 0xbeef);
	assert_int_equal(h.payload_len, 1000);
	assert_int_equal(h.raw_len, 4000);
	assert_int_equal(h.seq, 0x0102030405060708);
	assert_int_equal(h.payload_crc, 0xcafebabe);
}

static void header_with_any_bit_flipped_is_refused(void **state)
{
	uint8_t bytes[STREAM_HEADER_SIZE];
	struct stream_header h;

	(void)state;
	stream_header_encode(bytes, &data_header);
	for (size_t bit = 0; bit < 8 * sizeof(bytes); bit++) {
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(stream_header_decode(bytes, &h, NULL), -EBADMSG);
		bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_int_equal(stream_header_decode(bytes, &h, NULL), 0);
}

static void header_of_another_protocol_or_version_is_refused(void **state)
{
	(void)state;
	assert_int_equal(patched(&data_header, 0, 'p'), -EBADMSG);
	assert_int_equal(patched(&data_header, 1, 's'), -EBADMSG);
	assert_int_equal(patched(&data_header, 2, STREAM_VERSION + 1), -EPROTONOSUPPORT);
	assert_int_equal(patched(&data_header, 2, 0), -EPROTONOSUPPORT);
	assert_int_equal(patched(&data_header, 6, 1), -EBADMSG);
	assert_int_equal(patched(&data_header, 7, 1), -EBADMSG);
}

static void header_bounds_the_payload_by_its_type(void **state)
{
	(void)state;
	for (uint8_t type = STREAM_HELLO; type <= STREAM_NOTE; type++) {
		bool large = type == STREAM_DATA || type == STREAM_STATS;
		uint32_t max = large ? STREAM_PAYLOAD_MAX : STREAM_CONTROL_MAX;
		uint64_t seq = stream_type_numbered(type);

		assert_int_equal(header(type, max, 0, seq), 0);
		assert_int_equal(header(type, max + 1, 0, seq), -EMSGSIZE);
		assert_int_equal(header(type, UINT32_MAX, 0, seq), -EMSGSIZE);
	}
}

static void header_bounds_the_inflated_size(void **state)
{
	(void)state;
	assert_int_equal(header(STREAM_DATA, 0, STREAM_RAW_MAX, 1), 0);
	assert_int_equal(header(STREAM_DATA, 0, STREAM_RAW_MAX + 1, 1), -EMSGSIZE);
	assert_int_equal(header(STREAM_STATS, 0, 1, 1), -EMSGSIZE);
	assert_int_equal(header(STREAM_ACK, 0, 1, 0), -EMSGSIZE);
}

static void header_has_a_number_exactly_when_its_type_has_one(void **state)
{
	(void)state;
	for (uint8_t type = STREAM_HELLO; type <= STREAM_NOTE; type++) {
		bool numbered = stream_type_numbered(type);

		assert_int_equal(header(type, 0, 0, 1), numbered ? 0 : -EBADMSG);
		assert_int_equal(header(type, 0, 0, 0), numbered ? -EBADMSG : 0);
	}
}

/* Whether to skip it is for the session, by STREAM_FLAG_OPTIONAL; its length is bounded here. */
static void header_of_an_unknown_type_is_decoded(void **state)
{
	(void)state;
	assert_int_equal(header(200, STREAM_CONTROL_MAX, 0, 0), 0);
	assert_int_equal(header(200, 0, 0, 77), 0);
	assert_int_equal(header(200, STREAM_CONTROL_MAX + 1, 0, 0), -EMSGSIZE);
	assert_int_equal(header(200, 0, 1, 0), -EMSGSIZE);
}

/* Encode @m and decode it again; the decoded message is freed. */
#define DEFINE_ROUND(name, struct_, encode_)                   \
	static int name##_round(const struct struct_ *m)       \
	{                                                      \
		struct buf in = {}, out = {};                  \
		struct err err = {};                           \
		int r;                                         \
                                                               \
		encode_(&in, m);                               \
		assert_false(buf_failed(&in));                 \
		r = name##_again(in.data, in.len, &out, &err); \
		assert_int_equal(r < 0, err.text[0] != '\0');  \
		buf_free(&in);                                 \
		buf_free(&out);                                \
		return r;                                      \
	}
DEFINE_ROUND(hello, stream_hello, stream_hello_encode)
DEFINE_ROUND(welcome, stream_welcome, stream_welcome_encode)
DEFINE_ROUND(meta, stream_meta, stream_meta_encode)
DEFINE_ROUND(note, stream_note, stream_note_encode)
DEFINE_ROUND(data, stream_data, data_put)
DEFINE_ROUND(gap, stream_gap, stream_gap_encode)
DEFINE_ROUND(stats, stream_stats, stream_stats_encode)

/* The result for a sample with one member set to something else. */
#define RESULT(name, struct_, member, value)          \
	({                                            \
		struct struct_ with_ = sample_##name; \
                                                      \
		with_.member = (value);               \
		name##_round(&with_);                 \
	})

static void hello_out_of_range_is_refused(void **state)
{
	(void)state;
	assert_int_equal(RESULT(hello, stream_hello, first_unacked, 0), -EBADMSG);
	assert_int_equal(RESULT(hello, stream_hello, first_unacked, 10), -EBADMSG);
	assert_int_equal(RESULT(hello, stream_hello, first_unacked, 9), 0);
	assert_int_equal(RESULT(hello, stream_hello, agent_name[0], '\0'), -EBADMSG);
	assert_int_equal(RESULT(hello, stream_hello, version[0], '\0'), 0);
}

static void welcome_out_of_range_is_refused(void **state)
{
	(void)state;
	assert_int_equal(RESULT(welcome, stream_welcome, resume_seq, 0), -EBADMSG);
	assert_int_equal(RESULT(welcome, stream_welcome, heartbeat_ms, 0), -EBADMSG);
	assert_int_equal(RESULT(welcome, stream_welcome, credit, 0), 0);
	assert_int_equal(RESULT(welcome, stream_welcome, ack_mode, 0), -EBADMSG);
	assert_int_equal(RESULT(welcome, stream_welcome, ack_mode, 3), -EBADMSG);
	assert_int_equal(RESULT(welcome, stream_welcome, ack_mode, STREAM_ACK_WRITTEN), 0);
}

static void data_out_of_range_is_refused(void **state)
{
	uint8_t head[STREAM_DATA_HEAD];

	(void)state;
	assert_int_equal(RESULT(data, stream_data, iface_min, 8), -EBADMSG);
	assert_int_equal(RESULT(data, stream_data, iface_min, 7), 0);
	assert_int_equal(RESULT(data, stream_data, last, sample_data.first - 1), -EBADMSG);
	assert_int_equal(RESULT(data, stream_data, last, sample_data.first), 0);
	assert_int_equal(RESULT(data, stream_data, packets, 0), -EBADMSG);
	assert_int_equal(RESULT(data, stream_data, packets, STREAM_PACKETS_MAX), 0);
	assert_int_equal(RESULT(data, stream_data, packets, STREAM_PACKETS_MAX + 1), -EBADMSG);
	for (size_t at = 28; at < 32; at++) {
		struct stream_data m;

		stream_data_encode(head, &sample_data);
		head[at] ^= 2;
		assert_int_equal(stream_data_decode(head, sizeof(head), &m, NULL), -EBADMSG);
	}
}

static void gap_out_of_range_is_refused(void **state)
{
	struct stream_gap_part part = sample_gap_parts[0];
	struct stream_gap gap = {.first_seq = 1, .last_seq = 1, .parts = &part, .n_parts = 1};

	(void)state;
	assert_int_equal(gap_round(&gap), 0);
	assert_int_equal(RESULT(gap, stream_gap, first_seq, 0), -EBADMSG);
	assert_int_equal(RESULT(gap, stream_gap, first_seq, 9), -EBADMSG);
	part.direction = 0;
	assert_int_equal(gap_round(&gap), -EBADMSG);
	part.direction = 3;
	assert_int_equal(gap_round(&gap), -EBADMSG);
	part.direction = 2;
	part.last = part.first - 1;
	assert_int_equal(gap_round(&gap), -EBADMSG);
}

static void stats_of_no_direction_are_refused(void **state)
{
	struct stream_stats_part part = sample_stats_parts[0];
	struct stream_stats stats = {.parts = &part, .n_parts = 1};

	(void)state;
	assert_int_equal(stats_round(&stats), 0);
	part.direction = 0;
	assert_int_equal(stats_round(&stats), -EBADMSG);
	part.direction = 3;
	assert_int_equal(stats_round(&stats), -EBADMSG);
}

/* STATS of one part with the given counters appended; *ret_stats is to be freed on success. */
static int decode_counters(const uint16_t *counters, size_t n, size_t size,
			   struct stream_stats *ret_stats)
{
	static const uint8_t head[] = {1, 0, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0};
	static const uint8_t part[] = {1, 0, 4, 0, 9, 0, 0, 0, 2, 0, 1, 0, 1};
	uint8_t value[32] = {};
	struct buf b = {};
	size_t outer, inner;
	int r;

	buf_put(&b, head, sizeof(head));
	outer = tlv_begin(&b, TLV_NESTED);
	buf_put(&b, part, sizeof(part));
	for (size_t i = 0; i < n; i++) {
		put_le16(value, counters[i]);
		put_le64(value + 2, i + 1);
		put_le64(value + 10, i + 2);
		inner = tlv_begin(&b, TLV_NESTED);
		buf_put(&b, value, size);
		tlv_end(&b, inner);
	}
	tlv_end(&b, outer);
	assert_false(buf_failed(&b));
	r = stream_stats_decode(b.data, b.len, ret_stats, NULL);
	buf_free(&b);
	return r;
}

static void stats_with_a_newer_counter_keep_the_others(void **state)
{
	const uint16_t counters[] = {LEDGER_SEEN, LEDGER_COUNTERS, 40000, LEDGER_CAPTURED};
	struct stream_stats stats;

	(void)state;
	assert_int_equal(decode_counters(counters, 4, 18, &stats), 0);
	assert_int_equal(stats.n_parts, 1);
	assert_int_equal(stats.parts[0].counts.c[LEDGER_SEEN].packets, 1);
	assert_int_equal(stats.parts[0].counts.c[LEDGER_CAPTURED].packets, 4);
	assert_int_equal(stats.parts[0].counts.c[LEDGER_CAPTURED].bytes, 5);
	stream_stats_free(&stats);
}

static void stats_never_say_what_the_collector_committed(void **state)
{
	const uint16_t counters[] = {LEDGER_COMMITTED};
	struct stream_stats stats;

	(void)state;
	assert_int_equal(decode_counters(counters, 1, 18, &stats), 0);
	assert_int_equal(stats.parts[0].counts.c[LEDGER_COMMITTED].packets, 0);
	stream_stats_free(&stats);
}

static void stats_with_a_counter_twice_or_misshapen_are_refused(void **state)
{
	const uint16_t twice[] = {LEDGER_SEEN, LEDGER_SEEN};
	struct stream_stats stats;

	(void)state;
	assert_int_equal(decode_counters(twice, 2, 18, &stats), -EBADMSG);
	assert_int_equal(decode_counters(twice, 1, 17, &stats), -EBADMSG);
	assert_int_equal(decode_counters(twice, 1, 19, &stats), -EBADMSG);
	assert_int_equal(decode_counters(twice, 1, 0, &stats), -EBADMSG);
}

static void names_are_bounded_and_printable(void **state)
{
	struct stream_meta m = sample_meta;
	char *name = m.iface.name;

	(void)state;
	memset(name, 'x', STREAM_NAME_MAX);
	name[STREAM_NAME_MAX] = '\0';
	assert_int_equal(meta_round(&m), 0);
	name[STREAM_NAME_MAX] = 'x'; /* not terminated: as long as the array */
	assert_int_equal(meta_round(&m), -EBADMSG);
	assert_int_equal(RESULT(meta, stream_meta, iface.name[0], '\0'), -EBADMSG);
}

/* A text of exactly its limit is taken, one byte more is not. */
#define CHECK_TEXT(name, struct_, member)                                    \
	do {                                                                 \
		struct struct_ m_ = sample_##name;                           \
                                                                             \
		memset(m_.member, 'x', sizeof(m_.member) - 1);               \
		m_.member[sizeof(m_.member) - 1] = '\0';                     \
		assert_int_equal(name##_round(&m_), 0);                      \
		m_.member[sizeof(m_.member) - 1] = 'x';                      \
		assert_int_equal(name##_round(&m_), -EBADMSG);               \
		assert_int_equal(RESULT(name, struct_, member[0], '\0'), 0); \
	} while (0)

static void texts_are_bounded(void **state)
{
	(void)state;
	assert_int_equal(sizeof(sample_note.text), 1024 + 1);
	assert_int_equal(sizeof(sample_meta.filter), 1024 + 1);
	assert_int_equal(sizeof(sample_meta.hook), 32 + 1);
	CHECK_TEXT(note, stream_note, text);
	CHECK_TEXT(meta, stream_meta, filter);
	CHECK_TEXT(meta, stream_meta, hook);
	CHECK_TEXT(meta, stream_meta, netns_name);
}

static void arrays_are_bounded(void **state)
{
	struct stream_gap_part *gaps = calloc(8193, sizeof(*gaps));
	struct stream_stats_part *stats = calloc(8193, sizeof(*stats));
	struct stream_iface *ifaces = calloc(STREAM_INTERFACES_MAX + 1, sizeof(*ifaces));

	(void)state;
	for (size_t i = 0; i < 8193; i++)
		gaps[i].direction = stats[i].direction = 1;
	for (size_t i = 0; i <= STREAM_INTERFACES_MAX; i++)
		ifaces[i] = sample_ifaces[0];
	for (size_t more = 0; more < 2; more++) {
		struct stream_gap gap = {
			.first_seq = 1, .last_seq = 1, .parts = gaps, .n_parts = 8192 + more};
		struct stream_stats stat = {.parts = stats, .n_parts = 8192 + more};
		struct stream_hello hello = sample_hello;

		hello.ifaces = ifaces;
		hello.n_ifaces = STREAM_INTERFACES_MAX + more;
		assert_int_equal(gap_round(&gap), more ? -EBADMSG : 0);
		assert_int_equal(stats_round(&stat), more ? -EBADMSG : 0);
		assert_int_equal(hello_round(&hello), more ? -EBADMSG : 0);
	}
	free(gaps);
	free(stats);
	free(ifaces);
}

/* The largest HELLO, GAP and STATS that the codec takes also fit the bounds of their types. */
static void the_largest_messages_fit_their_bounds(void **state)
{
	struct stream_iface *ifaces = calloc(STREAM_INTERFACES_MAX, sizeof(*ifaces));
	struct stream_hello hello = sample_hello;
	struct buf b = {};

	(void)state;
	for (size_t i = 0; i < STREAM_INTERFACES_MAX; i++) {
		ifaces[i] = sample_ifaces[0];
		memset(ifaces[i].name, 'x', STREAM_NAME_MAX);
	}
	hello.ifaces = ifaces;
	hello.n_ifaces = STREAM_INTERFACES_MAX;
	stream_hello_encode(&b, &hello);
	assert_in_range(b.len, 1, STREAM_CONTROL_MAX);
	buf_free(&b);
	free(ifaces);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(header_survives_the_round_trip),
		cmocka_unit_test(header_with_any_bit_flipped_is_refused),
		cmocka_unit_test(header_of_another_protocol_or_version_is_refused),
		cmocka_unit_test(header_bounds_the_payload_by_its_type),
		cmocka_unit_test(header_bounds_the_inflated_size),
		cmocka_unit_test(header_has_a_number_exactly_when_its_type_has_one),
		cmocka_unit_test(header_of_an_unknown_type_is_decoded),
		cmocka_unit_test(hello_out_of_range_is_refused),
		cmocka_unit_test(welcome_out_of_range_is_refused),
		cmocka_unit_test(data_out_of_range_is_refused),
		cmocka_unit_test(gap_out_of_range_is_refused),
		cmocka_unit_test(stats_of_no_direction_are_refused),
		cmocka_unit_test(stats_with_a_newer_counter_keep_the_others),
		cmocka_unit_test(stats_never_say_what_the_collector_committed),
		cmocka_unit_test(stats_with_a_counter_twice_or_misshapen_are_refused),
		cmocka_unit_test(names_are_bounded_and_printable),
		cmocka_unit_test(texts_are_bounded),
		cmocka_unit_test(arrays_are_bounded),
		cmocka_unit_test(the_largest_messages_fit_their_bounds),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
