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

static const struct packet sample = {
	.interface_id = 7,
	.time = 0x1122334455667788,
	.len = 70000,
	.direction = 2,
	.data = bytes,
};

static size_t block(uint8_t *out, uint32_t caplen)
{
	struct packet p = sample;

	p.caplen = caplen;
	return packet_write(out, &p);
}

/* The other form: a packet that the device was to cut into segments. */
static size_t offload_block(uint8_t *out, uint32_t caplen)
{
	struct packet p = sample;

	p.caplen = caplen;
	p.has_offload = true;
	p.csum = PACKET_CSUM_PARTIAL;
	p.gso_size = 1448;
	p.gso_segs = 45;
	assert_int_equal(packet_size(&p), 60 + (caplen + 3) / 4 * 4);
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
		assert_false(p.has_offload);
		assert_int_equal(p.csum | p.gso_size | p.gso_segs, 0);
		assert_int_equal(packet_next(run + size, 0, &p, NULL), 0);
	}
}

static void what_was_left_to_the_device_survives_a_round_trip(void **state)
{
	(void)state;
	for (uint32_t caplen = 0; caplen <= sizeof(bytes); caplen++) {
		uint8_t run[80], again[80];
		size_t size = offload_block(run, caplen);
		struct packet p;

		assert_int_equal(packet_next(run, size, &p, NULL), size);
		assert_int_equal(p.caplen, caplen);
		assert_int_equal(p.direction, 2);
		assert_memory_equal(p.data, bytes, caplen);
		assert_true(p.has_offload);
		assert_int_equal(p.csum, PACKET_CSUM_PARTIAL);
		assert_int_equal(p.gso_size, 1448);
		assert_int_equal(p.gso_segs, 45);
		assert_int_equal(packet_write(again, &p), size);
		assert_memory_equal(again, run, size);
	}
}

/* The worked example of ps-stream(7), and of bpf/abi.h. */
static void the_option_has_the_bytes_of_the_manual(void **state)
{
	static const uint8_t option[] = {0xad, 0x0b, 0x0c, 0, 0xd9, 0x7e, 0, 0,
					 0xa8, 0x05, 0x2d, 0, 2,    1,    0, 0};
	uint8_t run[80];

	(void)state;
	offload_block(run, 5);
	assert_memory_equal(run + 36, option, sizeof(option));
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
		size += i == 1 ? offload_block(run + size, i + 1) : block(run + size, i + 1);
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
	const struct packet in = {.caplen = PACKET_CAPLEN_MAX,
				  .len = UINT32_MAX,
				  .direction = 1,
				  .data = data,
				  .has_offload = true};
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
static const struct malformed {
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

/* The same of a block with the option (68 in all). */
static const struct malformed malformed_option[] = {
	{"a total length without the option", 4, 52},
	{"a total length between the two forms", 4, 60},
	{"a total length with more than the option", 4, 72},
	{"another custom option", 36, 0x000c0bac},
	{"the option that is not to be copied", 36, 0x000c4bad},
	{"the flags first", 36, 0x00040002},
	{"an option that is too long", 36, 0x00100bad},
	{"an option that is too short", 36, 0x00080bad},
	{"another enterprise", 40, 32474},
	{"an unknown checksum state", 48, 0x00000103},
	{"another version of the option", 48, 0x00000202},
	{"no version of the option", 48, 0x00000002},
	{"a reserved field that is set", 48, 0x01000102},
	{"no flags behind the option", 52, 0x000c0bad},
	{"no direction", 56, 0},
	{"a third option", 60, 0x00040002},
	{"two lengths that disagree", 64, 52},
};

static void check_malformed(const struct malformed *m, bool option)
{
	uint8_t run[128] = {};
	size_t size = option ? offload_block(run, 5) : block(run, 5);
	const struct packet before = {.caplen = 99};
	struct packet p = before;
	struct err err = {};

	put_le32(run + m->at, m->value);
	if (packet_next(run, size, &p, &err) != -EBADMSG)
		fail_msg("accepted: %s", m->what);
	assert_true(err.text[0]);
	assert_memory_equal(&p, &before, sizeof(p));
}

static void malformed_blocks_are_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(malformed); i++)
		check_malformed(&malformed[i], false);
	for (size_t i = 0; i < ARRAY_SIZE(malformed_option); i++)
		check_malformed(&malformed_option[i], true);
}

static void block_cut_short_anywhere_is_refused(void **state)
{
	uint8_t whole[80];
	struct packet p;

	(void)state;
	for (int form = 0; form < 2; form++) {
		size_t size = form ? offload_block(whole, 5) : block(whole, 5);

		for (size_t n = 1; n < size; n++) {
			/* Of exactly this size, so that the sanitizer sees a read too far. */
			uint8_t *run = malloc(n);

			assert_non_null(run);
			memcpy(run, whole, n);
			assert_int_equal(packet_next(run, n, &p, NULL), -EBADMSG);
			free(run);
		}
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
		cmocka_unit_test(what_was_left_to_the_device_survives_a_round_trip),
		cmocka_unit_test(the_option_has_the_bytes_of_the_manual),
		cmocka_unit_test(run_is_walked_to_its_end),
		cmocka_unit_test(largest_block_is_taken),
		cmocka_unit_test(malformed_blocks_are_refused),
		cmocka_unit_test(block_cut_short_anywhere_is_refused),
		cmocka_unit_test(only_known_link_types_have_names),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
