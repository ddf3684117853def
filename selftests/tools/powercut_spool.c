/* SPDX-License-Identifier: Apache-2.0 */
/*
 * powercut_spool FOLDER CUTS FILE=DURABLE...
 *
 * FOLDER is the spool of an agent that was killed under load; of each FILE only the first
 * DURABLE bytes are safe. Cuts every FILE at up to CUTS places above that (also with zeros in
 * place of what is cut off), opens the spool with the agent's code and reads everything: all
 * whole messages that were durable are there, byte for byte, nothing else is, and every other
 * number is in a GAP or after the end. Below DURABLE it cuts too, and flips bits there: then it
 * must open, read on to the end, and give back nothing that was not written.
 */
#include <inttypes.h>
#include <stdbool.h>

#include "gzip.h"
#include "log.h"
#include "spool.h"
#include "util.h"

#include "tools/powercut.h"

#define NEAR  (64u << 10)
#define BELOW 8192u

/* A message as it was written. */
struct written {
	uint64_t epoch, seq;
	const uint8_t *wire;
	size_t size;
	const struct tree_file *file;
	size_t end; /* in the file */
	bool got;
};

static struct {
	struct written *all;
	size_t n, cap;
} sent;

/* PATH/EPOCH/FIRST.seg; 0: something else. */
static uint64_t epoch_of(const char *path)
{
	const char *name = strrchr(path, '/'), *suffix = strrchr(path, '.');

	return suffix && strcmp(suffix, ".seg") == 0 ? strtoull(name - 16, NULL, 16) : 0;
}

/* All whole messages of a segment, read here without the spool's code. */
static void learn(const struct tree_file *f)
{
	struct stream_header h;
	size_t at = 0;

	while (epoch_of(f->path) && f->size - at >= STREAM_HEADER_SIZE &&
	       stream_header_decode(f->data + at, &h, NULL) == 0 &&
	       f->size - at >= STREAM_HEADER_SIZE + h.payload_len) {
		size_t size = STREAM_HEADER_SIZE + h.payload_len;

		if (sent.n == sent.cap) {
			sent.cap = sent.cap ? 2 * sent.cap : 1024;
			sent.all = realloc(sent.all, sent.cap * sizeof(*sent.all));
		}
		if (stream_type_numbered(h.type) && h.type != STREAM_GAP)
			sent.all[sent.n++] = (struct written){.epoch = epoch_of(f->path),
							      .seq = h.seq,
							      .wire = f->data + at,
							      .size = size,
							      .file = f,
							      .end = at + size};
		at += size;
	}
}

static int by_number(const void *a, const void *b)
{
	const struct written *x = a, *y = b;

	if (x->epoch != y->epoch)
		return x->epoch < y->epoch ? -1 : 1;
	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static struct written *find(uint64_t epoch, uint64_t seq)
{
	const struct written key = {.epoch = epoch, .seq = seq};

	return bsearch(&key, sent.all, sent.n, sizeof(key), by_number);
}

static void read_epoch(struct spool_epoch *e)
{
	uint64_t seq = spool_first_seq(e);
	struct stream_hello hello = {};
	struct backlog_message m;
	struct buf wire = {};
	struct err err = {};
	int r;

	if (spool_hello(e, &hello, &err) < 0)
		finding("no HELLO: %s", err.text);
	while ((r = spool_read(e, seq, &wire, &m, &err)) == 1) {
		struct written *w = find(hello.epoch, m.seq);

		if (m.seq != seq || m.last_seq < seq)
			finding("message %" PRIu64 " to %" PRIu64 " for %" PRIu64, m.seq,
				m.last_seq, seq);
		if (m.type != STREAM_GAP) {
			if (!w || w->size != wire.len || memcmp(w->wire, wire.data, wire.len) != 0)
				finding("message %" PRIu64 " is not what was written", seq);
			else
				w->got = true;
		}
		seq = m.last_seq + 1;
	}
	if (r < 0)
		finding("message %" PRIu64 " cannot be read: %s", seq, err.text);
	if (seq != spool_next_seq(e))
		finding("reading ends at %" PRIu64 ", not at %" PRIu64, seq, spool_next_seq(e));
	if (seq > spool_first_seq(e))
		spool_ack(e, seq - 1);
	stream_hello_free(&hello);
	buf_free(&wire);
}

/* What is left of @f: so many bytes. */
static void try(const struct tree_file *f, size_t left)
{
	const struct spool_config config = {
		.path = cut.folder, .max_bytes = 1u << 30, .segment_bytes = 1u << 20};
	struct spool_epoch *e;
	struct spool *s = NULL;
	uint8_t id[16] = {1};
	struct err err = {};

	cut.tried++;
	for (size_t i = 0; i < sent.n; i++)
		sent.all[i].got = false;
	if (spool_open(&config, id, &s, &err) < 0) {
		finding("cannot be opened: %s", err.text);
		return;
	}
	while ((e = spool_oldest(s))) {
		read_epoch(e);
		spool_remove(s, e);
	}
	spool_close(s);
	for (size_t i = 0; i < sent.n; i++) {
		const struct written *w = &sent.all[i];

		if (!w->got && (w->file != f || w->end <= left))
			finding("message %" PRIu64 " of %zu bytes was in %s and is lost", w->seq,
				w->size, strrchr(w->file->path, '/') + 1);
	}
}

static void cut_at(struct tree_file *f, size_t size, size_t zeros)
{
	tree_restore(cut.folder);
	tree_write(f, size, zeros);
	snprintf(cut.what, sizeof(cut.what), "%s of %zu bytes (%zu durable)%s",
		 strrchr(f->path, '/') + 1, size, f->durable, zeros ? " and zeros" : "");
	try(f, size);
}

/* Damage in the middle: what comes after it in the file may be lost too, but no more. */
static void flip(struct tree_file *f, size_t at)
{
	tree_restore(cut.folder);
	f->data[at] ^= 0x10;
	tree_write(f, f->size, 0);
	f->data[at] ^= 0x10;
	snprintf(cut.what, sizeof(cut.what), "%s with byte %zu damaged", strrchr(f->path, '/') + 1,
		 at);
	try(f, 0);
}

static void cut_file(struct tree_file *f)
{
	size_t low = f->durable - MIN(f->durable, BELOW), end = MIN(f->size, f->durable + NEAR);
	size_t step = MAX((end - f->durable) / cut.cuts, 1u);
	unsigned int n = 0;

	for (size_t at = f->durable; at < end; at += step, n++)
		cut_at(f, at, n % 3 ? 0 : f->size - at);
	step = MAX(MIN(f->size, NEAR) / cut.cuts, 1u);
	for (size_t at = f->size - MIN(f->size, NEAR); at <= f->size; at += step, n++)
		cut_at(f, at, n % 3 ? 0 : f->size - at);
	step = MAX((f->durable - low) / cut.cuts, 1u);
	for (size_t at = low; at < f->durable; at += step, n++)
		cut_at(f, at, n % 3 ? 0 : f->size - at);
	for (size_t at = f->size % 97; at < f->size; at += MAX(f->size / cut.cuts, 1u))
		flip(f, at);
}

int main(int argc, char **argv)
{
	struct err err;

	if (argc < 4)
		return 2;
	cut.folder = argv[1];
	cut.cuts = (unsigned int)strtoul(argv[2], NULL, 10);
	if (log_open("/dev/null", &err) < 0)
		return 2;
	tree_load(cut.folder);
	for (int i = 3; i < argc; i++)
		tree_durable(argv[i]);
	for (size_t i = 0; i < tree.n; i++)
		learn(&tree.files[i]);
	qsort(sent.all, sent.n, sizeof(*sent.all), by_number);
	snprintf(cut.what, sizeof(cut.what), "as it was");
	try(NULL, 0);
	for (int i = 3; i < argc; i++)
		cut_file(tree_find(strndup(argv[i], (size_t)(strrchr(argv[i], '=') - argv[i]))));
	tree_restore(cut.folder);
	printf("%u cuts, %zu messages, %u findings\n", cut.tried, sent.n, cut.wrong);
	return cut.wrong ? 1 : 0;
}
