/* SPDX-License-Identifier: Apache-2.0 */
/* The examples of ps-stream(7), read from the page itself: what it shows is what we speak. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "gzip.h"
#include "packet.h"
#include "stream_samples.h"

#define PAGE "contrib/man/ps-stream.7"

struct example {
	uint8_t data[256];
	size_t n;
};

static struct example examples[16];
static size_t n_examples;

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A line of bytes, two digits each. */
static void read_line(struct example *e, const char *line)
{
	while (digit(line[0]) >= 0 && digit(line[1]) >= 0) {
		assert_true(e->n < sizeof(e->data));
		e->data[e->n++] = (uint8_t)(digit(line[0]) << 4 | digit(line[1]));
		line += 2;
		while (*line == ' ')
			line++;
	}
	assert_int_equal(*line, '\n');
}

static int read_page(void **state)
{
	FILE *f = fopen(PAGE, "re");
	bool there = false, literal = false;
	char line[512];

	(void)state;
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, ".Sh ", 4)) {
			there = !strcmp(line, ".Sh MESSAGES BYTE BY BYTE\n");
		} else if (!strncmp(line, ".Bd ", 4)) {
			literal = there;
		} else if (!strncmp(line, ".Ed", 3)) {
			n_examples += literal;
			literal = false;
		} else if (literal && n_examples < ARRAY_SIZE(examples)) {
			read_line(&examples[n_examples], line);
		}
	}
	fclose(f);
	return n_examples <= ARRAY_SIZE(examples) ? 0 : -1;
}

/* The example that is a whole message of @type, its payload and header. */
static const uint8_t *message(uint8_t type, struct stream_header *h)
{
	for (size_t i = 0; i < n_examples; i++) {
		const struct example *e = &examples[i];

		if (e->n < STREAM_HEADER_SIZE || e->data[3] != type)
			continue;
		assert_int_equal(stream_header_decode(e->data, h, NULL), 0);
		assert_int_equal(h->type, type);
		assert_int_equal(e->n, STREAM_HEADER_SIZE + h->payload_len);
		assert_int_equal(gzip_crc32(0, e->data + STREAM_HEADER_SIZE, h->payload_len),
				 h->payload_crc);
		return e->data + STREAM_HEADER_SIZE;
	}
	fail_msg("no %s in " PAGE, stream_type_name(type));
	return NULL;
}

static void every_example_is_one_of_ours(void **state)
{
	static const uint8_t types[] = {STREAM_ACK, STREAM_META, STREAM_DATA, STREAM_NOTE,
					STREAM_BYE};
	struct stream_header h;

	(void)state;
	/* And an option of a block. */
	assert_int_equal(n_examples, ARRAY_SIZE(types) + 1);
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		message(types[i], &h);
}

static void small_messages_say_what_the_page_says(void **state)
{
	struct stream_header h;
	struct stream_meta meta;
	struct stream_bye bye;
	const uint8_t *p;

	(void)state;
	p = message(STREAM_META, &h);
	assert_int_equal(h.seq, 1);
	assert_int_equal(stream_meta_decode(p, h.payload_len, &meta, NULL), 0);
	assert_int_equal(meta.iface.id, 0);
	assert_string_equal(meta.iface.name, "eth0");
	assert_int_equal(meta.iface.ifindex, 2);
	assert_int_equal(meta.iface.link_type, LINK_ETHERNET);
	assert_int_equal(meta.iface.snaplen, 65535);
	p = message(STREAM_BYE, &h);
	assert_int_equal(stream_bye_decode(p, h.payload_len, &bye, NULL), 0);
	assert_int_equal(bye.reason, STREAM_BYE_STOP);
	assert_int_equal(bye.last_seq, 3);
}

static void note_has_the_bytes_of_the_page(void **state)
{
	static const struct stream_note m = {.time = 1766000000500000000,
					     .kind = STREAM_NOTE_FILTER,
					     .has_iface = true,
					     .text = "tcp port 443"};
	struct buf b = {}, whole = {};
	struct stream_header h;
	const uint8_t *p = message(STREAM_NOTE, &h);

	(void)state;
	stream_note_encode(&b, &m);
	stream_message(&whole, STREAM_NOTE, 3, b.data, b.len);
	assert_int_equal(whole.len, STREAM_HEADER_SIZE + h.payload_len);
	assert_memory_equal(whole.data, p - STREAM_HEADER_SIZE, whole.len);
	buf_free(&b);
	buf_free(&whole);
}

static void data_holds_the_packet_of_the_page(void **state)
{
	struct gzip *gz = gzip_new();
	struct stream_header h;
	const uint8_t *p = message(STREAM_DATA, &h);
	struct stream_data head;
	struct packet packet;
	uint8_t raw[64];

	(void)state;
	assert_int_equal(h.seq, 2);
	assert_true(h.raw_len <= sizeof(raw));
	assert_int_equal(stream_data_decode(p, h.payload_len, &head, NULL), 0);
	assert_int_equal(gzip_inflate(gz, p + STREAM_DATA_HEAD, h.payload_len - STREAM_DATA_HEAD,
				      raw, h.raw_len, NULL),
			 0);
	assert_int_equal(packet_next(raw, h.raw_len, &packet, NULL), h.raw_len);
	assert_int_equal(packet.time, 1766000000000000001);
	assert_int_equal(head.first, packet.time);
	assert_int_equal(packet.direction, 1);
	assert_int_equal(packet.caplen, 14);
	for (uint8_t i = 0; i < 14; i++)
		assert_int_equal(packet.data[i], i + 1);
	gzip_free(gz);
}

static void option_has_the_bytes_of_the_page(void **state)
{
	const struct packet p = {.direction = 1,
				 .has_offload = true,
				 .csum = PACKET_CSUM_PARTIAL,
				 .gso_size = 1448,
				 .gso_segs = 45};
	const struct example *option = &examples[n_examples - 1];
	uint8_t block[64];

	(void)state;
	assert_int_equal(packet_write(block, &p), 60);
	assert_int_equal(option->n, 16);
	assert_memory_equal(block + 28, option->data, option->n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_example_is_one_of_ours),
		cmocka_unit_test(small_messages_say_what_the_page_says),
		cmocka_unit_test(note_has_the_bytes_of_the_page),
		cmocka_unit_test(data_holds_the_packet_of_the_page),
		cmocka_unit_test(option_has_the_bytes_of_the_page),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, read_page, NULL);
}
