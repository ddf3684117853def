/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder of the fuzzer's making is opened as a spool, read, evicted, acknowledged, and
 * opened again. Nobody guesses a checksum, so the input is a program that makes segments: of
 * good messages with any numbers, of messages with any payload, of any bytes.
 */
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"
#include "spool.h"
#include "util.h"

#define EPOCH 0x10u

static char folder[64];

struct input {
	const uint8_t *p;
	size_t left;
};

static uint8_t next(struct input *in)
{
	if (!in->left)
		return 0;
	in->left--;
	return *in->p++;
}

static void hello(void *ctx, uint64_t first, struct buf *out)
{
	struct stream_iface iface = {.id = 1, .link_type = 1, .snaplen = 96, .name = "eth0"};
	struct stream_hello h = {.epoch = EPOCH,
				 .first_unacked = first,
				 .next_seq = first,
				 .agent_name = "a",
				 .ifaces = &iface,
				 .n_ifaces = 1};

	(void)ctx;
	stream_hello_encode(out, &h);
}

static void settle(void *ctx, const struct tally *t, enum ledger_counter counter)
{
	(void)ctx;
	FUZZ_ASSERT(t->n && t->n <= TALLY_PARTS);
	FUZZ_ASSERT(counter == LEDGER_COMMITTED || counter == LEDGER_LOST_SPOOL);
}

static void put_gap(struct buf *out, uint8_t type, struct input *in)
{
	struct stream_gap_part part = {
		.iface = 1, .direction = 1, .first = 1, .last = 2, .lost = {1, 60}};
	struct stream_gap gap = {.first_seq = next(in), .parts = &part};
	struct buf payload = {};

	gap.last_seq = gap.first_seq + next(in);
	gap.reason = next(in) % 4;
	gap.n_parts = gap.reason & 1;
	stream_gap_encode(&payload, &gap);
	stream_message(out, type, type == STREAM_GAP ? gap.first_seq : 0, payload.data,
		       payload.len);
	buf_free(&payload);
}

static void put_data(struct buf *out, uint64_t seq)
{
	struct stream_data head = {
		.iface_min = 1, .iface_max = 1, .first = 1, .last = 2, .packets = 1};
	uint8_t payload[STREAM_DATA_HEAD + 8] = {};

	stream_data_encode(payload, &head);
	stream_message(out, STREAM_DATA, seq, payload, sizeof(payload));
}

/* One step of the program, of those that add to a file. */
static void put(struct buf *out, uint8_t op, struct input *in)
{
	struct stream_bye bye = {.reason = STREAM_BYE_STOP};
	struct buf payload = {};
	uint8_t type, seq;
	size_t n;

	switch (op % 8) {
	case 0:
		hello(NULL, 1 + next(in), &payload);
		stream_message(out, STREAM_HELLO, 0, payload.data, payload.len);
		break;
	case 1:
		put_gap(out, STREAM_TALLY, in);
		break;
	case 2:
		put_gap(out, STREAM_GAP, in);
		break;
	case 3:
		put_data(out, next(in));
		break;
	case 4:
		type = next(in) % 16;
		seq = next(in);
		n = next(in);
		stream_message(out, type, seq, in->p, MIN(n, in->left));
		break;
	case 5:
		n = next(in);
		n = MIN(n, in->left);
		buf_put(out, in->p, n);
		in->p += n;
		in->left -= n;
		break;
	case 6:
		bye.last_seq = next(in);
		stream_bye_encode(&payload, &bye);
		stream_message(out, STREAM_BYE, 0, payload.data, payload.len);
		break;
	case 7: /* damage */
		if (out->len)
			out->data[next(in) * 7u % out->len] ^= 1;
		break;
	}
	buf_free(&payload);
}

static void write_file(const char *name, const struct buf *data)
{
	char path[160];
	int fd;

	snprintf(path, sizeof(path), "%s/%016x", folder, EPOCH);
	mkdir(path, 0700);
	snprintf(path, sizeof(path), "%s/%016x/%s", folder, EPOCH, name);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	FUZZ_ASSERT(fd >= 0 && write(fd, data->data, data->len) == (ssize_t)data->len);
	close(fd);
}

/* Files of up to fifteen steps each: a segment with any number, or the end mark. */
static void make_files(struct input *in)
{
	while (in->left) {
		uint8_t first = next(in), steps = next(in) % 16;
		struct buf file = {};
		char name[32];

		while (steps--)
			put(&file, next(in), in);
		snprintf(name, sizeof(name), "%016x.seg", first);
		write_file(first ? name : "end", &file);
		buf_free(&file);
	}
}

/* Every number comes once, in a message that is whole. */
static void read_all(struct spool_epoch *e)
{
	uint64_t seq = spool_first_seq(e);
	struct backlog_message m;
	struct stream_header h;
	struct stream_gap gap;
	struct buf wire = {};
	struct err err = {};
	int r;

	while ((r = spool_read(e, seq, &wire, &m, &err)) > 0) {
		FUZZ_ASSERT(m.seq == seq && m.last_seq >= seq && m.size == wire.len);
		FUZZ_ASSERT(stream_header_decode(wire.data, &h, &err) == 0);
		FUZZ_ASSERT(h.seq == seq && STREAM_HEADER_SIZE + h.payload_len == m.size);
		if (m.type == STREAM_GAP) {
			FUZZ_ASSERT(stream_gap_decode(wire.data + STREAM_HEADER_SIZE, h.payload_len,
						      &gap, &err) == 0);
			FUZZ_ASSERT(gap.first_seq == seq && gap.last_seq == m.last_seq);
			stream_gap_free(&gap);
		} else {
			FUZZ_ASSERT(m.last_seq == seq);
		}
		seq = m.last_seq + 1;
	}
	FUZZ_ASSERT(r == 0 && seq == spool_next_seq(e));
	buf_free(&wire);
}

static void append(struct spool_epoch *e, uint64_t seq)
{
	struct tally t = {.n = 1, .parts = {{.iface = 1, .direction = 1, .count = {1, 60}}}};
	struct backlog_message m = {.seq = seq, .last_seq = seq, .type = STREAM_DATA};
	struct buf wire = {};
	struct err err;

	put_data(&wire, seq);
	m.size = (uint32_t)wire.len;
	/* It may find no room when all that is there is holes. */
	spool_append(e, &m, wire.data, &t, &err);
	buf_free(&wire);
}

static void use(const struct spool_config *config, uint64_t live, uint8_t ack)
{
	struct spool_epoch *e, *now;
	struct stream_hello h;
	struct spool *s;
	struct err err = {};
	uint8_t id[16] = {};
	uint64_t end;

	if (spool_open(config, id, &s, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		abort();
	}
	now = spool_begin(s, live, hello, settle, NULL);
	FUZZ_ASSERT(now);
	e = spool_oldest(s);
	if (e) {
		FUZZ_ASSERT(spool_hello(e, &h, &err) == 0);
		FUZZ_ASSERT(h.first_unacked <= h.next_seq);
		stream_hello_free(&h);
		end = spool_next_seq(e);
		FUZZ_ASSERT(spool_bye(e).last_seq == end - 1);
		read_all(e);
		spool_ack(e, spool_first_seq(e) + ack - 1);
		read_all(e);
	}
	for (uint64_t seq = 1; seq < 8; seq++)
		append(now, seq);
	read_all(now);
	spool_tend(s);
	if (e)
		read_all(e);
	spool_ack(now, spool_next_seq(now) - 1);
	spool_tend(s);
	spool_close(s);
}

static int unlink_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)st, (void)type;
	if (where->level)
		remove(path);
	return 0;
}

static void remove_folder(void)
{
	rmdir(folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct spool_config config = {.path = folder, .max_bytes = 1u << 20, .segment_bytes = 500};
	struct input in = {data, size};
	uint8_t ack;

	if (!folder[0]) {
		snprintf(folder, sizeof(folder), "%s/ps-fuzz-spool-XXXXXX",
			 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
		FUZZ_ASSERT(mkdtemp(folder));
		atexit(remove_folder);
	}
	config.max_bytes = 800u + 16u * next(&in);
	ack = next(&in);
	make_files(&in);
	use(&config, EPOCH + 1, ack % 4);
	config.max_age = 1;
	use(&config, EPOCH + 2, ack / 4);
	nftw(folder, unlink_one, 16, FTW_DEPTH | FTW_PHYS);
	return 0;
}
