/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */
#include <errno.h>

#include "packet.h"
#include "util.h"

static const uint8_t bytes[] = {1, 2, 3, 4, 5};

static size_t block(uint8_t *out, uint32_t caplen)
{
	const struct packet p = {
		.interface_id = 7,
		.time = 0x1122334455667788,
		.caplen = caplen,
		.len = 70000,
		.direction = 2,
		.data = bytes,
	};

	return packet_write(out, &p);
}

static void block_survives_a_round_trip(void **state)
{
	(void)state;
	for (uint32_t caplen = 0; caplen <= sizeof(bytes); caplen++) {
		uint8_t run[64];
		size_t size = block(run, caplen);
		struct packet p;

		assert_int_equal(size, 44 + (caplen + 3) / 4 * 4);
		assert_int_equal(packet_next(run, size, &p, NULL), size);
		assert_int_equal(p.interface_id, 7);
		assert_int_equal(p.time, 0x1122334455667788);
		assert_int_equal(p.caplen, caplen);
		assert_int_equal(p.len, 70000);
		assert_int_equal(p.direction, 2);
		assert_ptr_equal(p.data, run + 28);
		assert_memory_equal(p.data, bytes, caplen);
		assert_int_equal(packet_next(run + size, 0, &p, NULL), 0);
	}
}

static void run_is_walked_to_its_end(void **state)
{
	uint8_t run[3 * 64];
	size_t size = 0, at = 0;
	struct packet p;
	int n = 0;
	long r;

	(void)state;
	for (uint32_t i = 0; i < 3; i++)
		size += block(run + size, i + 1);
	while ((r = packet_next(run + at, size - at, &p, NULL)) > 0) {
		assert_int_equal(p.caplen, ++n);
		at += (size_t)r;
	}
	assert_int_equal(r, 0);
	assert_int_equal(n, 3);
}

static void largest_block_is_taken(void **state)
{
	uint8_t *data = calloc(1, PACKET_CAPLEN_MAX), *run = malloc(PACKET_BLOCK_MAX);
	const struct packet in = {
		.caplen = PACKET_CAPLEN_MAX, .len = UINT32_MAX, .direction = 1, .data = data};
	struct packet p;

	(void)state;
	assert_non_null(data);
	assert_non_null(run);
	assert_int_equal(packet_write(run, &in), PACKET_BLOCK_MAX);
	assert_int_equal(packet_next(run, PACKET_BLOCK_MAX, &p, NULL), PACKET_BLOCK_MAX);
	assert_int_equal(p.len, UINT32_MAX);
	free(data);
	free(run);
}

/* A good block of 5 bytes (52 in all) with one 32-bit word changed. */
static const struct {
	const char *what;
	size_t at;
	uint32_t value;
} malformed[] = {
	{"another block type", 0, 5},
	{"a total length that is too short", 4, 48},
	{"a total length of zero", 4, 0},
	{"a total length that is too long", 4, 56},
	{"a total length that wraps", 4, UINT32_MAX},
	{"a captured length above the true one", 24, 4},
	{"a captured length above the limit", 20, PACKET_CAPLEN_MAX + 1},
	{"a captured length that wraps", 20, UINT32_MAX},
	{"a captured length that does not fit the block", 20, 9},
	{"padding that is not zero", 32, 0x01000005},
	{"another option", 36, 0x00040003},
	{"an option of another length", 36, 0x00080002},
	{"no direction", 40, 0},
	{"an unknown direction", 40, 3},
	{"flags besides the direction", 40, 0x101},
	{"no end of options", 44, 0x00040002},
	{"two lengths that disagree", 48, 48},
};

static void malformed_blocks_are_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(malformed); i++) {
		uint8_t run[128] = {};
		size_t size = block(run, 5);
		struct err err = {};
		struct packet p;

		put_le32(run + malformed[i].at, malformed[i].value);
		if (packet_next(run, size, &p, &err) != -EBADMSG)
			fail_msg("accepted: %s", malformed[i].what);
		assert_true(err.text[0]);
	}
}

static void block_cut_short_anywhere_is_refused(void **state)
{
	uint8_t whole[64];
	size_t size = block(whole, 5);
	struct packet p;

	(void)state;
	for (size_t n = 1; n < size; n++) {
		/* Of exactly this size, so that the sanitizer sees a read too far. */
		uint8_t *run = malloc(n);

		assert_non_null(run);
		memcpy(run, whole, n);
		assert_int_equal(packet_next(run, n, &p, NULL), -EBADMSG);
		free(run);
	}
}

static void only_known_link_types_have_names(void **state)
{
	(void)state;
	assert_string_equal(link_type_name(LINK_ETHERNET), "ethernet");
	assert_string_equal(link_type_name(LINK_RAW), "raw");
	assert_null(link_type_name(0));
	assert_null(link_type_name(276));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(block_survives_a_round_trip),
		cmocka_unit_test(run_is_walked_to_its_end),
		cmocka_unit_test(largest_block_is_taken),
		cmocka_unit_test(malformed_blocks_are_refused),
		cmocka_unit_test(block_cut_short_anywhere_is_refused),
		cmocka_unit_test(only_known_link_types_have_names),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
