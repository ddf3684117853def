/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two compressors, one contract. ISA-L's level 1 is six times as fast as zlib's at
 * nearly its ratio, so it makes the members where it was found at build time; zlib
 * inflates in either case when ISA-L is absent. Stored members are written by hand:
 * both libraries may grow a block that does not shrink by more than the five bytes
 * for each 64 KiB that RFC 1951 needs.
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

#ifdef HAVE_ISAL
struct gzip {
	struct isal_zstream deflate;
	struct inflate_state inflate;
	uint8_t level_buf[ISAL_DEF_LVL1_DEFAULT];
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

/* A member of stored blocks. */
static size_t store(const uint8_t *in, size_t size, uint8_t *out)
{
	static const uint8_t header[GZIP_HEADER] = {0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255};
	uint32_t crc = gzip_crc32(0, in, size);
	size_t left = size;
	uint8_t *p = out;

	memcpy(p, header, sizeof(header));
	p += sizeof(header);
	do {
		uint16_t n = (uint16_t)MIN(left, STORED_MAX);

		left -= n;
		*p = left == 0; /* BFINAL, BTYPE 00 */
		put_le16(p + 1, n);
		put_le16(p + 3, (uint16_t)~n);
		memcpy(p + STORED_OVERHEAD, in, n);
		p += STORED_OVERHEAD + n;
		in += n;
	} while (left);
	put_le32(p, crc);
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

size_t gzip_compress(struct gzip *gz, const uint8_t *in, size_t size, uint8_t *out)
{
	struct isal_zstream *s = &gz->deflate;

	isal_deflate_stateless_init(s);
	s->end_of_stream = 1;
	s->flush = NO_FLUSH;
	s->gzip_flag = IGZIP_GZIP;
	s->level = 1;
	s->level_buf = gz->level_buf;
	s->level_buf_size = sizeof(gz->level_buf);
	s->next_in = (uint8_t *)(uintptr_t)in;
	s->avail_in = (uint32_t)size;
	s->next_out = out;
	s->avail_out = (uint32_t)gzip_bound(size);
	if (isal_deflate_stateless(s) != COMP_OK || s->total_out >= gzip_bound(size))
		return store(in, size, out);
	return s->total_out;
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
	if (deflateInit2(&gz->deflate, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK ||
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

size_t gzip_compress(struct gzip *gz, const uint8_t *in, size_t size, uint8_t *out)
{
	z_stream *s = &gz->deflate;

	deflateReset(s);
	s->next_in = (uint8_t *)(uintptr_t)in;
	s->avail_in = (uInt)size;
	s->next_out = out;
	s->avail_out = (uInt)gzip_bound(size);
	if (deflate(s, Z_FINISH) != Z_STREAM_END || s->total_out >= gzip_bound(size))
		return store(in, size, out);
	return s->total_out;
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
