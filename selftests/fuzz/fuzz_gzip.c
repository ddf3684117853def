/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first byte chooses, the next three are a size, little-endian. 0: inflate the rest
 * with that declared size; what our library takes, zlib must take, and make the same
 * of it. 1: compress the rest, repeated up to that size, and inflate it again with both.
 * 2: the rest is a deflate stream; when zlib can read it, a member is made of it, with
 * the checksum that a fuzzer never guesses, and our library must make the same of it.
 *
 * ISA-L is assembly, which no sanitizer watches: its buffers end at a page that
 * cannot be touched.
 */
#include <string.h>
#include <sys/mman.h>
#include <zlib.h>

#include "fuzz.h"
#include "gzip.h"
#include "util.h"

#define INPUT_HEAD 4u
#define RAW_MAX    (256u << 10)
#define ARENA      (512u << 10)

enum arena { INPUT, OUTPUT, AGAIN, ARENAS };

static uint8_t *arenas[ARENAS];
static struct gzip *gz;

static void setup(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	if (gz)
		return;
	for (size_t i = 0; i < ARENAS; i++) {
		arenas[i] = mmap(NULL, ARENA + page, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		FUZZ_ASSERT(arenas[i] != MAP_FAILED);
		FUZZ_ASSERT(mprotect(arenas[i] + ARENA, page, PROT_NONE) == 0);
	}
	gz = gzip_new();
	FUZZ_ASSERT(gz);
}

/* @n bytes that end where the arena ends. */
static uint8_t *guarded(enum arena which, size_t n)
{
	FUZZ_ASSERT(n <= ARENA);
	return arenas[which] + ARENA - n;
}

static bool zlib_agrees(const uint8_t *member, size_t size, const uint8_t *raw, size_t raw_size)
{
	uint8_t *out = guarded(AGAIN, raw_size);
	z_stream s = {.next_in = (uint8_t *)(uintptr_t)member,
		      .avail_in = (uInt)size,
		      .next_out = out,
		      .avail_out = (uInt)raw_size};
	int r;

	FUZZ_ASSERT(inflateInit2(&s, 15 + 16) == Z_OK);
	r = inflate(&s, Z_FINISH);
	inflateEnd(&s);
	return r == Z_STREAM_END && !s.avail_in && !s.avail_out && memcmp(raw, out, raw_size) == 0;
}

static void fuzz_inflate(const uint8_t *data, size_t size, size_t raw_size)
{
	uint8_t *member = guarded(INPUT, size), *raw = guarded(OUTPUT, raw_size);
	struct err err = {};

	memcpy(member, data, size);
	if (gzip_inflate(gz, member, size, raw, raw_size, &err) < 0) {
		FUZZ_ASSERT(err.text[0]);
		return;
	}
	FUZZ_ASSERT(zlib_agrees(member, size, raw, raw_size));
}

static void fuzz_compress(const uint8_t *data, size_t size, size_t raw_size)
{
	size_t bound = gzip_bound(raw_size), made;
	uint8_t *raw = guarded(INPUT, raw_size), *member = guarded(OUTPUT, bound);

	for (size_t at = 0; at < raw_size; at += MIN(size, raw_size - at))
		memcpy(raw + at, data, MIN(size, raw_size - at));
	made = gzip_compress(gz, raw, raw_size, member);
	FUZZ_ASSERT(made <= bound);
	memmove(guarded(OUTPUT, made), member, made);
	member = guarded(OUTPUT, made);
	FUZZ_ASSERT(gzip_inflate(gz, member, made, guarded(AGAIN, raw_size), raw_size, NULL) == 0);
	FUZZ_ASSERT(memcmp(raw, guarded(AGAIN, raw_size), raw_size) == 0);
	FUZZ_ASSERT(zlib_agrees(member, made, raw, raw_size));
}

static void fuzz_deflate(const uint8_t *data, size_t size)
{
	static const uint8_t header[] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255};
	uint8_t *expected = arenas[AGAIN], *member, *p;
	z_stream s = {.next_in = (uint8_t *)(uintptr_t)data,
		      .avail_in = (uInt)size,
		      .next_out = expected,
		      .avail_out = RAW_MAX};
	size_t raw_size, made;
	int r;

	FUZZ_ASSERT(inflateInit2(&s, -15) == Z_OK);
	r = inflate(&s, Z_FINISH);
	inflateEnd(&s);
	if (r != Z_STREAM_END)
		return;
	raw_size = s.total_out;
	made = sizeof(header) + s.total_in + 8;
	member = p = guarded(INPUT, made);
	p = mempcpy(p, header, sizeof(header));
	p = mempcpy(p, data, s.total_in);
	put_le32(p, (uint32_t)crc32(0, expected, (uInt)raw_size));
	put_le32(p + 4, (uint32_t)raw_size);
	FUZZ_ASSERT(gzip_inflate(gz, member, made, guarded(OUTPUT, raw_size), raw_size, NULL) == 0);
	FUZZ_ASSERT(memcmp(guarded(OUTPUT, raw_size), expected, raw_size) == 0);
	/* One byte less of room, or one more: refused. */
	FUZZ_ASSERT(gzip_inflate(gz, member, made, guarded(OUTPUT, raw_size + 1), raw_size + 1,
				 NULL) < 0);
	FUZZ_ASSERT(!raw_size || gzip_inflate(gz, member, made, guarded(OUTPUT, raw_size - 1),
					      raw_size - 1, NULL) < 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t raw_size;

	setup();
	if (size < INPUT_HEAD)
		return 0;
	raw_size = get_le32(data) >> 8;
	if (raw_size > RAW_MAX)
		return 0;
	if (data[0] == 0 && size <= RAW_MAX)
		fuzz_inflate(data + INPUT_HEAD, size - INPUT_HEAD, raw_size);
	else if (data[0] == 1 && size > INPUT_HEAD)
		fuzz_compress(data + INPUT_HEAD, size - INPUT_HEAD, raw_size);
	else if (data[0] == 2 && size <= RAW_MAX)
		fuzz_deflate(data + INPUT_HEAD, size - INPUT_HEAD);
	return 0;
}
