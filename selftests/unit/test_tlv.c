/* SPDX-License-Identifier: Apache-2.0 */
/* The table-driven fields beneath every control message. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tlv.h"
#include "util.h"

struct thing {
	uint8_t u8;
	uint32_t u32;
	uint64_t u64;
	bool flag;
	uint8_t bytes[3];
	char text[5];
	uint32_t maybe;
};

static const struct tlv_field fields[] = {
	TLV_FIELD(thing, u8, 1, TLV_U8),         TLV_FIELD(thing, u32, 2, TLV_U32),
	TLV_FIELD(thing, u64, 3, TLV_U64),       TLV_FIELD(thing, flag, 4, TLV_BOOL),
	TLV_FIELD(thing, bytes, 5, TLV_BYTES),   TLV_FIELD(thing, text, 6, TLV_STRING),
	TLV_OPTIONAL(thing, maybe, 63, TLV_U32),
};

static const struct thing sample = {
	.u8 = 0xab,
	.u32 = 0x01020304,
	.u64 = 0x1112131415161718,
	.flag = true,
	.bytes = {7, 8, 9},
	.text = "four",
	.maybe = 5,
};

/* The same, written by hand. */
static const uint8_t wire[] = "\1\0\1\0"
			      "\xab"
			      "\2\0\4\0"
			      "\4\3\2\1"
			      "\3\0\10\0"
			      "\x18\x17\x16\x15\x14\x13\x12\x11"
			      "\4\0\1\0"
			      "\1"
			      "\5\0\3\0"
			      "\7\10\11"
			      "\6\0\4\0"
			      "four"
			      "\77\0\4\0"
			      "\5\0\0"; /* and the 0 that ends the string */
#define FLAG_AT  29u
#define TEXT_AT  41u
#define MAYBE_AT 45u

/* Decode a copy of exactly @n bytes. */
static int decode(const uint8_t *in, size_t n, struct thing *ret, struct err *err)
{
	uint8_t *exact = malloc(n);
	int r;

	memcpy(exact, in, n);
	r = tlv_decode(exact, n, fields, ARRAY_SIZE(fields), ret, err);
	free(exact);
	return r;
}

static void fields_are_encoded_as_documented(void **state)
{
	struct buf b = {};

	(void)state;
	tlv_encode(&b, fields, ARRAY_SIZE(fields), &sample);
	assert_int_equal(b.len, sizeof(wire));
	assert_memory_equal(b.data, wire, sizeof(wire));
	buf_free(&b);
}

static void fields_decode_in_any_order(void **state)
{
	uint8_t turned[sizeof(wire)];
	struct thing t = {};

	(void)state;
	memcpy(turned, wire + TEXT_AT - 4, sizeof(wire) - TEXT_AT + 4);
	memcpy(turned + sizeof(wire) - TEXT_AT + 4, wire, TEXT_AT - 4);
	assert_int_equal(decode(turned, sizeof(turned), &t, NULL), 0);
	assert_int_equal(t.u8, sample.u8);
	assert_int_equal(t.u32, sample.u32);
	assert_int_equal(t.u64, sample.u64);
	assert_true(t.flag);
	assert_memory_equal(t.bytes, sample.bytes, 3);
	assert_string_equal(t.text, "four");
	assert_int_equal(t.maybe, 5);
}

static void every_truncation_is_refused(void **state)
{
	(void)state;
	for (size_t n = 0; n < sizeof(wire); n++) {
		struct thing t = {.maybe = 99};
		struct err err = {};
		int r = decode(wire, n, &t, &err);

		if (n == MAYBE_AT) {
			assert_int_equal(r, 0);
			assert_int_equal(t.maybe, 99);
		} else {
			assert_int_equal(r, -EBADMSG);
			assert_string_not_equal(err.text, "");
		}
	}
}

static void errors_name_the_field(void **state)
{
	uint8_t bad[sizeof(wire)];
	struct err err = {};
	struct thing t;

	(void)state;
	memcpy(bad, wire, sizeof(wire));
	bad[FLAG_AT] = 2;
	assert_int_equal(decode(bad, sizeof(bad), &t, &err), -EBADMSG);
	assert_string_equal(err.text, "field flag is neither 0 nor 1");
	assert_int_equal(decode(wire + 5, sizeof(wire) - 5, &t, &err), -EBADMSG);
	assert_string_equal(err.text, "field u8 is missing");
	bad[FLAG_AT] = 1;
	bad[0] = 4;
	bad[4] = 1;
	assert_int_equal(decode(bad, sizeof(bad), &t, &err), -EBADMSG);
	assert_string_equal(err.text, "field flag is there twice");
}

static void control_characters_in_strings_are_refused(void **state)
{
	uint8_t bad[sizeof(wire)];
	struct thing t;

	(void)state;
	memcpy(bad, wire, sizeof(wire));
	for (unsigned int c = 0; c < 256; c++) {
		bad[TEXT_AT + 2] = (uint8_t)c;
		assert_int_equal(decode(bad, sizeof(bad), &t, NULL),
				 c < 0x20 || c == 0x7f ? -EBADMSG : 0);
	}
}

static void control_characters_are_never_encoded(void **state)
{
	struct thing odd = sample, t;
	struct buf b = {};

	(void)state;
	memcpy(odd.text,
	       "\x01"
	       "a\x7f\n",
	       5);
	tlv_encode(&b, fields, ARRAY_SIZE(fields), &odd);
	assert_int_equal(decode(b.data, b.len, &t, NULL), 0);
	assert_string_equal(t.text, "?a??");
	buf_free(&b);
}

static void a_string_needs_room_for_its_end(void **state)
{
	static const uint8_t long_text[] = {6, 0, 5, 0, 'f', 'o', 'u', 'r', 's'};
	static const uint8_t no_text[] = {6, 0, 0, 0};
	struct thing t = sample;

	(void)state;
	assert_int_equal(tlv_decode(long_text, sizeof(long_text), &fields[5], 1, &t, NULL),
			 -EBADMSG);
	assert_int_equal(tlv_decode(no_text, sizeof(no_text), &fields[5], 1, &t, NULL), 0);
	assert_string_equal(t.text, "");
}

static void unknown_and_nested_types_are_left_alone(void **state)
{
	static const uint8_t in[] = {64,   0,    1, 0, 1, 64, 0, 1, 0, 2,
				     0xff, 0xff, 0, 0, 1, 0,  1, 0, 9};
	struct thing t = {};

	(void)state;
	assert_int_equal(tlv_decode(in, sizeof(in), fields, 1, &t, NULL), 0);
	assert_int_equal(t.u8, 9);
}

static void nested_tlvs_are_counted_and_walked(void **state)
{
	struct tlv_reader r;
	struct buf b = {};
	struct tlv t;
	size_t mark;

	(void)state;
	for (uint8_t i = 0; i < 3; i++) {
		mark = tlv_begin(&b, (uint16_t)(TLV_NESTED + i % 2));
		buf_put_u8(&b, i);
		tlv_end(&b, mark);
	}
	assert_int_equal(tlv_count(b.data, b.len, TLV_NESTED), 2);
	assert_int_equal(tlv_count(b.data, b.len, TLV_NESTED + 1), 1);
	assert_int_equal(tlv_count(b.data, b.len, TLV_NESTED + 2), 0);
	assert_int_equal(tlv_count(b.data, b.len - 1, TLV_NESTED), -EBADMSG);
	r = (struct tlv_reader){b.data, b.len};
	for (uint8_t i = 0; i < 3; i++) {
		assert_int_equal(tlv_next(&r, &t), 1);
		assert_int_equal(t.type, TLV_NESTED + i % 2);
		assert_int_equal(t.len, 1);
		assert_int_equal(t.value[0], i);
	}
	assert_int_equal(tlv_next(&r, &t), 0);
	assert_int_equal(tlv_next(&r, &t), 0);
	buf_free(&b);
}

static void a_nested_tlv_that_is_too_long_fails_the_buffer(void **state)
{
	struct buf b = {};
	size_t mark = tlv_begin(&b, TLV_NESTED);

	(void)state;
	assert_non_null(buf_reserve(&b, 65536));
	memset(b.data + b.len, 0, 65536);
	b.len += 65535;
	tlv_end(&b, mark);
	assert_false(buf_failed(&b));
	assert_int_equal(get_le16(b.data + 2), 65535);
	b.len++;
	tlv_end(&b, mark);
	assert_true(buf_failed(&b));
	buf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fields_are_encoded_as_documented),
		cmocka_unit_test(fields_decode_in_any_order),
		cmocka_unit_test(every_truncation_is_refused),
		cmocka_unit_test(errors_name_the_field),
		cmocka_unit_test(control_characters_in_strings_are_refused),
		cmocka_unit_test(control_characters_are_never_encoded),
		cmocka_unit_test(a_string_needs_room_for_its_end),
		cmocka_unit_test(unknown_and_nested_types_are_left_alone),
		cmocka_unit_test(nested_tlvs_are_counted_and_walked),
		cmocka_unit_test(a_nested_tlv_that_is_too_long_fails_the_buffer),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
