/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gzip members, whichever library makes them; zlib itself is the judge. The libraries
 * are partly assembly, which no sanitizer watches, so every buffer that they get ends
 * at a page that cannot be touched.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include <cmocka.h>
#include <zlib.h>

#include "gzip.h"
#include "util.h"

#define ARENA (8u << 20)

static struct gzip *gz;
static uint8_t *arenas[3]; /* each of ARENA bytes, then the guard page */

/* @n bytes that end where the guard page of arena @which begins. */
static uint8_t *guarded(size_t which, size_t n)
{
	assert_true(n <= ARENA);
	return arenas[which] + ARENA - n;
}

static int setup(void **state)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(arenas); i++) {
		arenas[i] = mmap(NULL, ARENA + page, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (arenas[i] == MAP_FAILED || mprotect(arenas[i] + ARENA, page, PROT_NONE) < 0)
			return -1;
	}
	gz = gzip_new();
	return gz ? 0 : -1;
}

static int teardown(void **state)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(arenas); i++)
		munmap(arenas[i], ARENA + page);
	gz = gzip_free(gz);
	return gz == NULL ? 0 : -1;
}

/* Bytes that no compressor can shrink. */
static void fill_noise(uint8_t *p, size_t n)
{
	uint64_t x = 88172645463325252ull;

	for (size_t i = 0; i < n; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		p[i] = (uint8_t)x;
	}
}

/* Bytes that shrink about as packets do. */
static void fill_text(uint8_t *p, size_t n)
{
	fill_noise(p, n);
	for (size_t i = 0; i < n; i++)
		p[i] = i % 16 < 10 ? (uint8_t)(i % 16) : p[i] & 7;
}

/* What zlib makes of the member; returns the size, or -1. */
static long zlib_inflate(const uint8_t *in, size_t n, uint8_t *out, size_t size)
{
	z_stream s = {.next_in = (uint8_t *)(uintptr_t)in,
		      .avail_in = (uInt)n,
		      .next_out = out,
		      .avail_out = (uInt)size};
	long made;
	int r;

	assert_int_equal(inflateInit2(&s, 15 + 16), Z_OK);
	r = inflate(&s, Z_FINISH);
	made = r == Z_STREAM_END && !s.avail_in ? (long)s.total_out : -1;
	inflateEnd(&s);
	return made;
}

/* Compress the @n bytes at guarded(0, n) to arena 1; returns the member. */
static uint8_t *member_of(size_t n, size_t *ret_size)
{
	uint8_t *out = guarded(1, gzip_bound(n));

	*ret_size = gzip_compress(gz, guarded(0, n), n, out);
	assert_in_range(*ret_size, 18, gzip_bound(n));
	memmove(guarded(1, *ret_size), out, *ret_size);
	return guarded(1, *ret_size);
}

static int inflate_to(const uint8_t *member, size_t size, size_t out_size)
{
	struct err err = {};
	int r = gzip_inflate(gz, member, size, guarded(2, out_size), out_size, &err);

	assert_int_equal(r < 0, err.text[0] != '\0');
	return r;
}

static const size_t sizes[] = {0,     1,     2,     3,      7,      8,       100,     4095,
			       4096,  65534, 65535, 65536,  65537,  131070,  131071,  1u << 20,
			       70001, 32768, 32769, 262144, 300000, 1000003, 4u << 20};

static void blocks_survive_the_round_trip(void **state)
{
	static void (*const fills[])(uint8_t *, size_t) = {fill_noise, fill_text};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (size_t f = 0; f < ARRAY_SIZE(fills); f++) {
			size_t n = sizes[i], size;
			uint8_t *member;

			fills[f](guarded(0, n), n);
			member = member_of(n, &size);
			assert_int_equal(inflate_to(member, size, n), 0);
			assert_memory_equal(guarded(2, n), guarded(0, n), n);
			memset(guarded(2, n), 0, n);
			assert_int_equal(zlib_inflate(member, size, guarded(2, n), n), n);
			assert_memory_equal(guarded(2, n), guarded(0, n), n);
		}
	}
}

static void what_does_not_shrink_is_stored_within_the_bound(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		size_t n = sizes[i], size;

		fill_noise(guarded(0, n), n);
		member_of(n, &size);
		assert_true(size <= gzip_bound(n));
		if (n > 100)
			assert_true(size > n);
	}
	assert_int_equal(gzip_bound(0), 23);
	assert_int_equal(gzip_bound(65535), 65535 + 23);
	assert_int_equal(gzip_bound(65536), 65536 + 28);
}

static void what_shrinks_is_smaller(void **state)
{
	size_t n = 65536, size;

	(void)state;
	fill_text(guarded(0, n), n);
	member_of(n, &size);
	assert_true(size < n * 2 / 3);
	memset(guarded(0, n), 0, n);
	member_of(n, &size);
	assert_true(size < 1000);
}

static void a_wrong_declared_size_is_refused(void **state)
{
	static void (*const fills[])(uint8_t *, size_t) = {fill_noise, fill_text};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (size_t f = 0; f < ARRAY_SIZE(fills); f++) {
			size_t n = sizes[i], size;
			uint8_t *member;

			fills[f](guarded(0, n), n);
			member = member_of(n, &size);
			assert_int_equal(inflate_to(member, size, n + 1), -EBADMSG);
			assert_int_equal(inflate_to(member, size, n + 70000), -EBADMSG);
			if (!n)
				continue;
			assert_int_equal(inflate_to(member, size, n - 1), -EBADMSG);
			assert_int_equal(inflate_to(member, size, 0), -EBADMSG);
		}
	}
}

static void a_bomb_stops_at_the_declared_size(void **state)
{
	size_t n = 4u << 20, size;
	uint8_t *member;

	(void)state;
	memset(guarded(0, n), 0, n);
	member = member_of(n, &size);
	assert_true(size < n / 100);
	guarded(2, 1001)[0] = 0xa5;
	assert_int_equal(inflate_to(member, size, 1000), -EBADMSG);
	assert_int_equal(guarded(2, 1001)[0], 0xa5);
	/* It may lie in its trailer, too. */
	put_le32(member + size - 4, 1000);
	assert_int_equal(inflate_to(member, size, 1000), -EBADMSG);
	assert_int_equal(inflate_to(member, size, n), -EBADMSG);
}

static void every_truncation_is_refused(void **state)
{
	static const size_t lengths[] = {0, 1, 300, 5000};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		size_t n = lengths[i], size;

		fill_text(guarded(0, n), n);
		member_of(n, &size);
		for (size_t cut = 1; cut <= size; cut++) {
			memmove(guarded(1, size - cut), guarded(1, size - cut + 1), size - cut);
			assert_int_equal(inflate_to(guarded(1, size - cut), size - cut, n),
					 -EBADMSG);
		}
	}
}

static void bytes_after_the_member_are_refused(void **state)
{
	size_t n = 1000, size;
	uint8_t *member, *longer;

	(void)state;
	fill_text(guarded(0, n), n);
	member = member_of(n, &size);
	for (size_t extra = 1; extra < 20; extra++) {
		longer = guarded(0, size + extra);
		memset(longer, 0, size + extra);
		memcpy(longer, member, size);
		assert_int_equal(inflate_to(longer, size + extra, n), -EBADMSG);
	}
}

static void a_second_member_is_refused(void **state)
{
	size_t n = 1000, size;
	uint8_t *member, *two;

	(void)state;
	fill_text(guarded(0, n), n);
	member = member_of(n, &size);
	two = guarded(0, 2 * size);
	memcpy(two, member, size);
	memcpy(two + size, member, size);
	assert_int_equal(inflate_to(two, 2 * size, n), -EBADMSG);
	assert_int_equal(inflate_to(two, 2 * size, 2 * n), -EBADMSG);
	assert_int_equal(inflate_to(two, size, n), 0);
}

/*
 * Header bytes that mean nothing to the contents (time, extra flags, system) are left
 * out. A bit may be padding, or another distance to the same text: then nothing changed.
 */
static void damage_is_refused_or_changes_nothing(void **state)
{
	size_t n = 700, size, refused = 0;
	uint8_t *member;

	(void)state;
	fill_text(guarded(0, n), n);
	member = member_of(n, &size);
	for (size_t i = 0; i < size; i++) {
		if (i >= 4 && i < 10)
			continue;
		member[i] ^= 0x55;
		memset(guarded(2, n), 0, n);
		if (inflate_to(member, size, n) == 0)
			assert_memory_equal(guarded(2, n), guarded(0, n), n);
		else
			refused++;
		member[i] ^= 0x55;
	}
	assert_true(refused > size / 2);
	assert_int_equal(inflate_to(member, size, n), 0);
}

static void the_header_may_carry_a_name(void **state)
{
	static const char name[] = "dump.pcapng";
	size_t n = 700, size;
	uint8_t *member, *named;

	(void)state;
	fill_text(guarded(0, n), n);
	member = member_of(n, &size);
	named = guarded(0, size + sizeof(name));
	memcpy(named, member, 10);
	named[3] |= 8; /* FNAME */
	memcpy(named + 10, name, sizeof(name));
	memcpy(named + 10 + sizeof(name), member + 10, size - 10);
	assert_int_equal(inflate_to(named, size + sizeof(name), n), 0);
}

static void reserved_flags_are_refused(void **state)
{
	size_t n = 700, size;
	uint8_t *member;

	(void)state;
	fill_text(guarded(0, n), n);
	member = member_of(n, &size);
	for (unsigned int bit = 5; bit < 8; bit++) {
		member[3] = (uint8_t)(1u << bit);
		assert_int_equal(inflate_to(member, size, n), -EBADMSG);
	}
}

static void a_failure_leaves_the_state_usable(void **state)
{
	size_t n = 5000, size;
	uint8_t *member;

	(void)state;
	fill_text(guarded(0, n), n);
	for (int i = 0; i < 3; i++) {
		member = member_of(n, &size);
		assert_int_equal(inflate_to(member, size / 2, n), -EBADMSG);
		assert_int_equal(inflate_to(member, size, n), 0);
		assert_memory_equal(guarded(2, n), guarded(0, n), n);
	}
}

static void crc32_is_that_of_gzip(void **state)
{
	size_t n = 5000;
	uint8_t *p = guarded(0, n);
	uint32_t crc;

	(void)state;
	assert_int_equal(gzip_crc32(0, "123456789", 9), 0xcbf43926);
	assert_int_equal(gzip_crc32(0, NULL, 0), 0);
	fill_noise(p, n);
	crc = gzip_crc32(0, p, n);
	assert_int_equal(crc, crc32_z(0, p, n));
	for (size_t i = 0; i <= 70; i++)
		assert_int_equal(gzip_crc32(gzip_crc32(0, p, i), p + i, n - i), crc);
}

static void the_library_has_a_name(void **state)
{
	(void)state;
#ifdef HAVE_ISAL
	assert_string_equal(gzip_library(), "isa-l");
#else
	assert_string_equal(gzip_library(), "zlib");
#endif
	assert_null(gzip_free(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocks_survive_the_round_trip),
		cmocka_unit_test(what_does_not_shrink_is_stored_within_the_bound),
		cmocka_unit_test(what_shrinks_is_smaller),
		cmocka_unit_test(a_wrong_declared_size_is_refused),
		cmocka_unit_test(a_bomb_stops_at_the_declared_size),
		cmocka_unit_test(every_truncation_is_refused),
		cmocka_unit_test(bytes_after_the_member_are_refused),
		cmocka_unit_test(a_second_member_is_refused),
		cmocka_unit_test(damage_is_refused_or_changes_nothing),
		cmocka_unit_test(the_header_may_carry_a_name),
		cmocka_unit_test(reserved_flags_are_refused),
		cmocka_unit_test(a_failure_leaves_the_state_usable),
		cmocka_unit_test(crc32_is_that_of_gzip),
		cmocka_unit_test(the_library_has_a_name),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, setup, teardown);
}
