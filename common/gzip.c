/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two compressors, one contract. ISA-L does the work where it was found at build time
 * (several times as fast as zlib at nearly its ratio), zlib elsewhere.
 *
 * Much of real traffic is encrypted, and trying to shrink that is most of what a
 * compressor would do all day. So the input is looked at in chunks: a sample of bytes
 * tells those that look random, and they are stored; the others are deflated, run by
 * run. All of it is one member of ordinary deflate blocks. A member that would be longer
 * than the same bytes stored is stored.
 */
#include "gzip.h"

#include <errno.h>
#include <stdbool.h>
#ifdef HAVE_ISAL
#include <isa-l.h>
#endif
#include <zlib.h>

#include "util.h"

#define GZIP_HEADER     10u
#define GZIP_TRAILER    8u
#define FLAGS_AT        3u
#define FLAGS_RESERVED  0xe0
#define STORED_MAX      65535u /* bytes in one stored block */
#define STORED_OVERHEAD 5u

/*
 * A chunk is random when SAMPLES of its bytes take at least RANDOM_VALUES different
 * values. Of really random bytes 162 are to be expected, of packet headers and text
 * fewer than 100; on mixed traffic this doubles the speed at the cost of 2 % in size.
 */
#define CHUNK         4096u
#define SAMPLES       256u
#define RANDOM_VALUES 130

#ifdef HAVE_ISAL
struct gzip {
	struct isal_zstream deflate;
	struct inflate_state inflate;
};
#else
struct gzip {
	z_stream deflate, inflate;
};
#endif

static size_t stored_blocks(size_t size)
{
	return size ? (size + STORED_MAX - 1) / STORED_MAX : 1;
}

size_t gzip_bound(size_t size)
{
	return GZIP_HEADER + stored_blocks(size) * STORED_OVERHEAD + size + GZIP_TRAILER;
}

static size_t stored_size(size_t size)
{
	return stored_blocks(size) * STORED_OVERHEAD + size;
}

/* Stored blocks of @in; @last: the final one ends the member's data. */
static uint8_t *store(uint8_t *p, const uint8_t *in, size_t size, bool last)
{
	do {
		uint16_t n = (uint16_t)MIN(size, STORED_MAX);

		size -= n;
		*p = last && size == 0; /* BFINAL, BTYPE 00 */
		put_le16(p + 1, n);
		put_le16(p + 3, (uint16_t)~n);
		memcpy(p + STORED_OVERHEAD, in, n);
		p += STORED_OVERHEAD + n;
		in += n;
	} while (size);
	return p;
}

static bool looks_random(const uint8_t *chunk)
{
	uint64_t seen[256 / 64] = {};
	int values = 0;

	for (unsigned int i = 0; i < SAMPLES; i++) {
		uint8_t value = chunk[i * (CHUNK / SAMPLES)];

		seen[value / 64] |= 1ull << value % 64;
	}
	for (size_t i = 0; i < ARRAY_SIZE(seen); i++)
		values += __builtin_popcountll(seen[i]);
	return values >= RANDOM_VALUES;
}

/* The length of the run of chunks alike at the front; what is no whole chunk joins it. */
static size_t next_run(const uint8_t *in, size_t size, bool *ret_random)
{
	size_t n = CHUNK;

	*ret_random = false;
	if (size < CHUNK)
		return size;
	*ret_random = looks_random(in);
	while (size - n >= CHUNK && looks_random(in + n) == *ret_random)
		n += CHUNK;
	return size - n < CHUNK ? size : n;
}

/*
 * Deflate one run into at most @room bytes, up to a byte's end; @last as in store().
 * Returns the length, 0 when it does not fit.
 */
static size_t deflate_run(struct gzip *gz, const uint8_t *in, size_t size, uint8_t *out,
			  size_t room, bool last);

size_t gzip_compress(struct gzip *gz, const uint8_t *in, size_t size, uint8_t *out)
{
	static const uint8_t header[GZIP_HEADER] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255};
	uint8_t *data = out + GZIP_HEADER, *end = data + stored_size(size), *p = data;
	size_t at = 0;

	memcpy(out, header, sizeof(header));
	do {
		bool random;
		size_t n = next_run(in + at, size - at, &random), made = 0;
		bool last = at + n == size;

		if (!random)
			made = deflate_run(gz, in + at, n, p, (size_t)(end - p), last);
		if (made) {
			p += made;
		} else if (stored_size(n) <= (size_t)(end - p)) {
			p = store(p, in + at, n, last);
		} else {
			p = store(data, in, size, true);
			break;
		}
		at += n;
	} while (at < size);
	put_le32(p, gzip_crc32(0, in, size));
	put_le32(p + 4, (uint32_t)size);
	return (size_t)(p + GZIP_TRAILER - out);
}

#ifdef HAVE_ISAL

struct gzip *gzip_new(void)
{
	return calloc(1, sizeof(struct gzip));
}

struct gzip *gzip_free(struct gzip *gz)
{
	free(gz);
	return NULL;
}

static size_t deflate_run(struct gzip *gz, const uint8_t *in, size_t size, uint8_t *out,
			  size_t room, bool last)
{
	struct isal_zstream *s = &gz->deflate;

	isal_deflate_stateless_init(s);
	s->end_of_stream = last;
	s->flush = last ? NO_FLUSH : FULL_FLUSH;
	s->gzip_flag = IGZIP_DEFLATE;
	s->next_in = (uint8_t *)(uintptr_t)in;
	s->avail_in = (uint32_t)size;
	s->next_out = out;
	s->avail_out = (uint32_t)MIN(room, stored_size(size));
	return isal_deflate_stateless(s) == COMP_OK ? s->total_out : 0;
}

/* Inflates one member; *ret_used is what it took of the input. */
static int inflate_member(struct gzip *gz, const uint8_t *in, size_t size, uint8_t *out,
			  size_t out_size, size_t *ret_used, size_t *ret_made)
{
	struct inflate_state *s = &gz->inflate;
	int r;

	isal_inflate_init(s);
	s->crc_flag = ISAL_GZIP;
	s->next_in = (uint8_t *)(uintptr_t)in;
	s->avail_in = (uint32_t)size;
	s->next_out = out;
	s->avail_out = (uint32_t)out_size;
	r = isal_inflate_stateless(s);
	*ret_used = size - s->avail_in;
	*ret_made = s->total_out;
	return r == ISAL_DECOMP_OK ? 0 : -EBADMSG;
}

uint32_t gzip_crc32(uint32_t crc, const void *data, size_t size)
{
	return crc32_gzip_refl(crc, data, size);
}

const char *gzip_library(void)
{
	return "isa-l";
}

#else

struct gzip *gzip_new(void)
{
	struct gzip *gz = calloc(1, sizeof(*gz));

	if (!gz)
		return NULL;
	if (deflateInit2(&gz->deflate, 1, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) != Z_OK ||
	    inflateInit2(&gz->inflate, 15 + 16) != Z_OK)
		return gzip_free(gz);
	return gz;
}

struct gzip *gzip_free(struct gzip *gz)
{
	if (!gz)
		return NULL;
	deflateEnd(&gz->deflate);
	inflateEnd(&gz->inflate);
	free(gz);
	return NULL;
}

static size_t deflate_run(struct gzip *gz, const uint8_t *in, size_t size, uint8_t *out,
			  size_t room, bool last)
{
	z_stream *s = &gz->deflate;
	int r;

	deflateReset(s);
	s->next_in = (uint8_t *)(uintptr_t)in;
	s->avail_in = (uInt)size;
	s->next_out = out;
	s->avail_out = (uInt)MIN(room, stored_size(size));
	r = deflate(s, last ? Z_FINISH : Z_FULL_FLUSH);
	/* A flush that just fits leaves room; one that was cut off does not. */
	return r == Z_STREAM_END || (!last && r == Z_OK && s->avail_out) ? s->total_out : 0;
}

static int inflate_member(struct gzip *gz, const uint8_t *in, size_t size, uint8_t *out,
			  size_t out_size, size_t *ret_used, size_t *ret_made)
{
	z_stream *s = &gz->inflate;
	int r;

	inflateReset(s);
	s->next_in = (uint8_t *)(uintptr_t)in;
	s->avail_in = (uInt)size;
	s->next_out = out;
	s->avail_out = (uInt)out_size;
	r = inflate(s, Z_FINISH);
	*ret_used = size - s->avail_in;
	*ret_made = out_size - s->avail_out;
	return r == Z_STREAM_END ? 0 : -EBADMSG;
}

uint32_t gzip_crc32(uint32_t crc, const void *data, size_t size)
{
	return (uint32_t)crc32_z(crc, data, size);
}

const char *gzip_library(void)
{
	return "zlib";
}

#endif

int gzip_inflate(struct gzip *gz, const uint8_t *in, size_t size, uint8_t *out, size_t out_size,
		 struct err *err)
{
	size_t used, made;

	if (size > UINT32_MAX || out_size > UINT32_MAX)
		return err_set(err, -EBADMSG, "a gzip member of %zu bytes is too large", size);
	/* RFC 1952 wants these refused; ISA-L does not, and then gunzip would. */
	if (size > FLAGS_AT && in[FLAGS_AT] & FLAGS_RESERVED)
		return err_set(err, -EBADMSG, "the gzip member has unknown flags");
	if (inflate_member(gz, in, size, out, out_size, &used, &made) < 0)
		return err_set(err, -EBADMSG,
			       "the gzip member is damaged or longer than the %zu bytes declared",
			       out_size);
	if (made != out_size)
		return err_set(err, -EBADMSG, "the gzip member holds %zu bytes, not %zu", made,
			       out_size);
	if (used != size)
		return err_set(err, -EBADMSG, "%zu bytes follow the gzip member", size - used);
	return 0;
}
