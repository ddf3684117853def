/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first byte chooses the decoder, the rest is what it reads: a header for 0, else
 * the payload of that enum stream_type. What a decoder takes is encoded again; that
 * must decode too, and to the same bytes.
 */
#include <string.h>

#include "fuzz.h"
#include "gzip.h"
#include "stream_samples.h"

static void fuzz_header(const uint8_t *data, size_t size)
{
	uint8_t in[STREAM_HEADER_SIZE], out[STREAM_HEADER_SIZE];
	struct stream_header h;
	struct err err = {};

	if (size < sizeof(in))
		return;
	memcpy(in, data, sizeof(in));
	/* Nobody guesses a checksum: only its lowest bit is the fuzzer's. */
	put_le32(in + 28, gzip_crc32(0, in, 28) ^ (in[28] & 1));
	if (stream_header_decode(in, &h, &err) < 0) {
		FUZZ_ASSERT(err.text[0]);
		return;
	}
	FUZZ_ASSERT(h.payload_len <= STREAM_PAYLOAD_MAX && h.raw_len <= STREAM_RAW_MAX);
	stream_header_encode(out, &h);
	FUZZ_ASSERT(memcmp(in, out, sizeof(in)) == 0);
}

static void fuzz_payload(const struct sample_codec *codec, const uint8_t *data, size_t size)
{
	struct buf once = {}, twice = {};
	struct err err = {};

	if (codec->again(data, size, &once, &err) == 0) {
		FUZZ_ASSERT(!err.text[0]);
		FUZZ_ASSERT(!buf_failed(&once));
		FUZZ_ASSERT(codec->again(once.data, once.len, &twice, &err) == 0);
		FUZZ_ASSERT(once.len == twice.len);
		FUZZ_ASSERT(memcmp(once.data, twice.data, once.len) == 0);
	} else {
		FUZZ_ASSERT(err.text[0]);
	}
	buf_free(&once);
	buf_free(&twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	if (!data[0])
		fuzz_header(data + 1, size - 1);
	else if (data[0] < ARRAY_SIZE(sample_codecs) && sample_codecs[data[0]].again)
		fuzz_payload(&sample_codecs[data[0]], data + 1, size - 1);
	return 0;
}
