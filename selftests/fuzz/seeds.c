/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes the seed corpora: `make fuzz-seeds` writes them to selftests/fuzz/corpus. A
 * seed is a valid input, or one with a single thing wrong, so that the fuzzer starts
 * past the first check.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "bpf/shapes.h"
#include "gzip.h"
#include "packet.h"
#include "stream_samples.h"

static const char *folder;

__attribute__((format(printf, 3, 4))) static void seed(const void *data, size_t size,
						       const char *fmt, ...)
{
	char name[128], path[4096];
	va_list ap;
	FILE *f;

	va_start(ap, fmt);
	vsnprintf(name, sizeof(name), fmt, ap);
	va_end(ap);
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	f = fopen(path, "we");
	if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0) {
		perror(path);
		exit(1);
	}
}

static void stream_seeds(void)
{
	struct stream_header h = {
		.type = STREAM_DATA, .payload_len = 1000, .raw_len = 4000, .seq = 7};
	uint8_t header[1 + STREAM_HEADER_SIZE] = {0};
	struct buf b = {};

	stream_header_encode(header + 1, &h);
	header[1 + 28] &= 0xfe; /* fuzz_stream.c mends the checksum then */
	seed(header, sizeof(header), "stream/header-data");
	header[1 + 28] |= 1;
	seed(header, sizeof(header), "stream/header-damaged");

	for (uint8_t type = 0; type < ARRAY_SIZE(sample_codecs); type++) {
		if (!sample_codecs[type].sample)
			continue;
		buf_reset(&b);
		buf_put_u8(&b, type);
		sample_codecs[type].sample(&b);
		seed(b.data, b.len, "stream/%s", stream_type_name(type));
		seed(b.data, b.len - 3, "stream/%s-cut", stream_type_name(type));
	}
	buf_free(&b);
}

/* The member, to be inflated with the declared size; and its deflate stream alone. */
static void gzip_seed(struct gzip *gz, uint32_t declared, const uint8_t *raw, size_t size,
		      const char *name)
{
	uint8_t *out = malloc(4 + gzip_bound(size)), *deflate = out + 10;
	size_t n;

	put_le32(out, declared << 8);
	n = gzip_compress(gz, raw, size, out + 4);
	seed(out, 4 + n, "gzip/inflate-%s", name);
	if (declared == size) {
		put_le32(deflate, 2);
		seed(deflate, n - 14, "gzip/deflate-%s", name);
	}
	free(out);
}

static void gzip_seeds(void)
{
	/* Nothing, in a member with a flag that RFC 1952 does not know. */
	static const uint8_t reserved_flag[] = {0, 0,   0, 0, 0x1f, 0x8b, 8, 0x20, 0, 0, 0, 0,
						0, 255, 3, 0, 0,    0,    0, 0,    0, 0, 0, 0};
	static uint8_t zeros[3000], noise[400], mixed[700];
	struct gzip *gz = gzip_new();
	uint8_t again[4 + 64] = {1};
	uint32_t x = 1;

	for (size_t i = 0; i < sizeof(mixed); i++) {
		x = x * 1103515245 + 12345;
		mixed[i] = i % 16 < 8 ? (uint8_t)(i % 16) : (uint8_t)(x >> 29);
		noise[i % sizeof(noise)] = (uint8_t)(x >> 16);
	}
	gzip_seed(gz, 0, zeros, 0, "empty");
	gzip_seed(gz, 1, zeros, 1, "one");
	gzip_seed(gz, sizeof(zeros), zeros, sizeof(zeros), "zeros");
	gzip_seed(gz, 100, zeros, sizeof(zeros), "bomb");
	gzip_seed(gz, sizeof(zeros) + 1, zeros, sizeof(zeros), "too-short");
	gzip_seed(gz, sizeof(noise), noise, sizeof(noise), "stored");
	gzip_seed(gz, sizeof(mixed), mixed, sizeof(mixed), "mixed");
	for (size_t i = 0; i < 64; i++)
		again[4 + i] = mixed[i];
	for (uint32_t size = 0, n = 0; n < 8; size = size * 13 + 1, n++) {
		if (size > 256u << 10)
			break;
		put_le32(again, size << 8 | 1);
		seed(again, sizeof(again), "gzip/compress-%u", size);
	}
	gzip_free(gz);
	seed(reserved_flag, sizeof(reserved_flag), "gzip/inflate-reserved-flag");
}

static void decide_seed(const struct shape *s, size_t skip, const char *name)
{
	uint8_t all[1 + SHAPE_MAX] = {skip != 0};

	memcpy(all + 1, s->data + skip, s->len - skip);
	seed(all, 1 + s->len - skip, "decide/%s", name);
}

/* A byte of choices, then a packet. */
static void decide_seeds(void)
{
	/* A header of 32 bytes: NOP, NOP, time stamp. */
	static const uint8_t options[] = {1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8};
	struct shape s;

	shape_ethernet(&s, 0x800);
	shape_ipv4(&s, 6, 8, 0, 1);
	shape_ports(&s);
	s.len = s.ports_end + 16;
	s.data[s.ports_end + 8] = 0x80;
	shape_bytes(&s, options, sizeof(options));
	decide_seed(&s, 0, "tcp4");
	decide_seed(&s, 14, "tcp4-raw");
	shape_ethernet(&s, 0x88a8);
	shape_tag(&s, 1, 0x8100);
	shape_tag(&s, 2, 0x86dd);
	shape_ipv6(&s, 0);
	shape_extension(&s, 0, 51, 0);
	shape_extension(&s, 51, 44, 1);
	shape_fragment(&s, 17, 1, 3);
	shape_ports(&s);
	decide_seed(&s, 0, "udp6-deep");
	decide_seed(&s, 22, "udp6-deep-raw");
	shape_ethernet(&s, 0x800);
	shape_ipv4(&s, 17, 0, 4, 1);
	shape_fill(&s, 1, 20);
	decide_seed(&s, 0, "later-fragment");
	shape_ethernet(&s, 0x806);
	shape_fill(&s, 1, 28);
	decide_seed(&s, 0, "arp");
}

static void packet_seeds(void)
{
	static uint8_t data[600], run[4096];
	struct packet p = {
		.interface_id = 1, .time = 1700000000000000000, .direction = 1, .data = data};
	size_t n, total = 0;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)i;
	for (uint32_t caplen = 0; caplen < 600; caplen = caplen * 3 + 1) {
		p.caplen = caplen;
		p.len = caplen + caplen % 2 * 70000;
		p.direction = 1 + (int)(caplen % 2);
		n = packet_write(run + total, &p);
		seed(run + total, n, "packet/one-%u", caplen);
		seed(run + total, n - 1, "packet/cut-%u", caplen);
		total += n;
	}
	seed(run, 0, "packet/empty");
	/* The other form, with what was left to the device. */
	p.has_offload = true;
	for (p.caplen = 0; p.caplen < 60; p.caplen = p.caplen * 3 + 13) {
		p.len = 45 * 1448 + p.caplen;
		p.csum = p.caplen == 13 ? PACKET_CSUM_UNNECESSARY : PACKET_CSUM_PARTIAL;
		p.gso_size = 1448;
		p.gso_segs = 45;
		n = packet_write(run + total, &p);
		seed(run + total, n, "packet/offload-%u", p.caplen);
		seed(run + total, n - 20, "packet/offload-cut-%u", p.caplen);
		total += n;
	}
	seed(run, total, "packet/run");
	run[8] = 0xff;
	run[28 + 4] ^= 3; /* no direction */
	seed(run, total, "packet/no-direction");
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: seeds FOLDER (with stream, gzip and packet in it)\n");
		return 2;
	}
	folder = argv[1];
	stream_seeds();
	gzip_seeds();
	decide_seeds();
	packet_seeds();
	return 0;
}
