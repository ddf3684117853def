/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the tests of the spool: a folder of their own, messages whose content follows from their
 * number, and a reader that checks every one against that.
 *
 * Of seven messages the first is META, the fourth STATS, the others DATA with packets of two
 * interfaces. What number N holds is counts_of(N).
 */
#ifndef PS_SPOOL_BENCH_H
#define PS_SPOOL_BENCH_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "gzip.h"
#include "spool.h"
#include "util.h"

#define EPOCH 0x17000000aull

static char folder[64];
static struct err why;

struct bench {
	struct spool *spool;
	struct spool_epoch *e;
	struct ledger_count lost[3], committed[3]; /* by interface */
	size_t body;                               /* bytes of a DATA body */
};

static inline int bench_unlink(const char *path, const struct stat *st, int type, struct FTW *f)
{
	(void)st, (void)type, (void)f;
	return remove(path);
}

static inline void wipe(const char *path)
{
	nftw(path, bench_unlink, 16, FTW_DEPTH | FTW_PHYS);
}

static inline int make_folder(void **state)
{
	const char *tmp = getenv("TMPDIR");

	(void)state;
	if (!tmp || strlen(tmp) > 40)
		tmp = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	snprintf(folder, sizeof(folder), "%s/ps-spool-XXXXXX", tmp);
	return mkdtemp(folder) ? 0 : -1;
}

static inline int remove_folder(void **state)
{
	(void)state;
	wipe(folder);
	return 0;
}

static inline uint8_t type_of(uint64_t seq)
{
	if (seq % 14 == 11)
		return STREAM_NOTE;
	return seq % 7 == 1 ? STREAM_META : seq % 7 == 4 ? STREAM_STATS : STREAM_DATA;
}

static inline bool has_packets(uint64_t seq)
{
	return type_of(seq) == STREAM_DATA;
}

static inline struct tally counts_of(uint64_t seq)
{
	struct tally t = {.n = 2,
			  .parts = {{.iface = 1, .direction = 1, .count = {seq, 100 * seq}},
				    {.iface = 2, .direction = 2, .count = {1, 60}}}};

	if (!has_packets(seq))
		t.n = 0;
	return t;
}

/* The sum over @first to @last of interface @i. */
static inline struct ledger_count sum_of(uint64_t first, uint64_t last, uint32_t i)
{
	struct ledger_count c = {};

	for (uint64_t seq = first; seq <= last; seq++) {
		struct tally t = counts_of(seq);

		for (uint32_t p = 0; p < t.n; p++) {
			if (t.parts[p].iface != i)
				continue;
			c.packets += t.parts[p].count.packets;
			c.bytes += t.parts[p].count.bytes;
		}
	}
	return c;
}

static inline struct stream_iface iface_of(uint32_t id)
{
	struct stream_iface m = {
		.id = id, .ifindex = id, .link_type = 1, .snaplen = 65535, .name = "eth"};

	return m;
}

static inline void message_of(uint64_t seq, size_t body, struct buf *out)
{
	struct stream_meta meta = {.iface = iface_of(1 + seq % 2)};
	struct stream_note note = {.time = 1000000 + seq, .text = "a note"};
	struct stream_stats stats = {.time = 1000000 + seq};
	struct stream_data head = {.iface_min = 1,
				   .iface_max = 2,
				   .first = seq * 1000,
				   .last = seq * 1000 + 999,
				   .packets = (uint32_t)MIN(seq, 65535u) + 1,
				   .wire_bytes = 100 * seq + 60};
	struct buf payload = {};
	uint64_t x = seq;

	switch (type_of(seq)) {
	case STREAM_META:
		stream_meta_encode(&payload, &meta);
		break;
	case STREAM_NOTE:
		stream_note_encode(&payload, &note);
		break;
	case STREAM_STATS:
		stream_stats_encode(&payload, &stats);
		break;
	default:
		stream_data_encode(buf_reserve(&payload, STREAM_DATA_HEAD), &head);
		payload.len = STREAM_DATA_HEAD;
		for (size_t i = 0; i < body; i++) {
			x = x * 6364136223846793005u + 1442695040888963407u;
			buf_put_u8(&payload, (uint8_t)(x >> 56));
		}
	}
	buf_reset(out);
	stream_message(out, type_of(seq), seq, payload.data, payload.len);
	buf_free(&payload);
}

static inline void bench_hello(void *ctx, uint64_t first, struct buf *out)
{
	struct stream_iface ifaces[2] = {iface_of(1), iface_of(2)};
	struct stream_hello h = {.epoch = EPOCH,
				 .first_unacked = first,
				 .next_seq = first,
				 .realtime_ns = 77,
				 .agent_name = "node-1",
				 .version = "1",
				 .ifaces = ifaces,
				 .n_ifaces = 2};

	(void)ctx;
	stream_hello_encode(out, &h);
}

static inline void bench_settle(void *ctx, const struct tally *t, enum ledger_counter counter)
{
	struct bench *b = ctx;

	for (uint32_t i = 0; i < t->n; i++) {
		struct ledger_count *c = counter == LEDGER_COMMITTED ? b->committed : b->lost;

		assert_true(counter == LEDGER_COMMITTED || counter == LEDGER_LOST_SPOOL);
		assert_in_range(t->parts[i].iface, 1, 2);
		assert_int_equal(t->parts[i].direction, t->parts[i].iface);
		c[t->parts[i].iface].packets += t->parts[i].count.packets;
		c[t->parts[i].iface].bytes += t->parts[i].count.bytes;
	}
}

static inline struct spool_config bench_config(void)
{
	return (struct spool_config){
		.path = folder, .max_bytes = 1u << 30, .segment_bytes = 8u << 10};
}

static inline struct spool *open_spool(const struct spool_config *config)
{
	uint8_t id[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
	struct spool *s = NULL;
	int r;

	why.text[0] = 0;
	r = spool_open(config, id, &s, &why);
	if (r < 0)
		fail_msg("%s", why.text);
	return s;
}

static inline void bench_open(struct bench *b, const struct spool_config *config)
{
	*b = (struct bench){.spool = open_spool(config), .body = 300};
	b->e = spool_begin(b->spool, EPOCH, bench_hello, bench_settle, b);
	assert_non_null(b->e);
}

static inline int append(struct bench *b, uint64_t seq)
{
	struct tally t = counts_of(seq);
	struct backlog_message m = {.seq = seq, .last_seq = seq, .type = type_of(seq)};
	struct buf wire = {};
	int r;

	message_of(seq, b->body, &wire);
	m.size = (uint32_t)wire.len;
	r = spool_append(b->e, &m, wire.data, t.n ? &t : NULL, &why);
	buf_free(&wire);
	return r;
}

static inline void append_all(struct bench *b, uint64_t first, uint64_t last)
{
	for (uint64_t seq = first; seq <= last; seq++)
		if (append(b, seq) < 0)
			fail_msg("%" PRIu64 ": %s", seq, why.text);
}

/* What came of the numbers that were read. */
struct outcome {
	uint64_t next;    /* where reading ended */
	uint64_t whole;   /* messages as they were appended */
	uint64_t counted; /* in GAPs that have their exact counts */
	uint64_t unknown; /* in GAPs without counts */
	uint64_t gaps;
	struct ledger_count lost[3];
	uint64_t first_unknown;
};

/* A GAP has exactly what its numbers held, or nothing. */
static inline void check_gap(const struct buf *wire, const struct backlog_message *m,
			     struct outcome *o)
{
	uint64_t n = m->last_seq - m->seq + 1;
	struct stream_gap gap;
	struct stream_header h;
	struct ledger_count got[3] = {};

	assert_int_equal(stream_header_decode(wire->data, &h, NULL), 0);
	assert_int_equal(h.type, STREAM_GAP);
	assert_int_equal(h.seq, m->seq);
	assert_int_equal(
		stream_gap_decode(wire->data + STREAM_HEADER_SIZE, h.payload_len, &gap, &why), 0);
	assert_int_equal(gap.first_seq, m->seq);
	assert_int_equal(gap.last_seq, m->last_seq);
	o->gaps++;
	for (size_t i = 0; i < gap.n_parts; i++) {
		const struct stream_gap_part *p = &gap.parts[i];

		assert_in_range(p->iface, 1, 2);
		assert_in_range(p->first, m->seq * 1000, m->last_seq * 1000 + 999);
		assert_in_range(p->last, p->first, m->last_seq * 1000 + 999);
		got[p->iface] = p->lost;
		o->lost[p->iface].packets += p->lost.packets;
		o->lost[p->iface].bytes += p->lost.bytes;
	}
	if (gap.n_parts || gap.reason == STREAM_GAP_EVICTED) {
		for (uint32_t i = 1; i <= 2; i++) {
			struct ledger_count c = sum_of(m->seq, m->last_seq, i);

			assert_memory_equal(&c, &got[i], sizeof(c));
		}
		o->counted += n;
	} else {
		assert_int_equal(gap.reason, STREAM_GAP_CORRUPT);
		if (!o->unknown)
			o->first_unknown = m->seq;
		o->unknown += n;
	}
	stream_gap_free(&gap);
}

/* Read from @from to the end; every number comes once. */
static inline struct outcome read_all(struct spool_epoch *e, uint64_t from, size_t body)
{
	struct outcome o = {.next = from};
	struct buf wire = {}, expected = {};
	struct backlog_message m;
	int r;

	while ((r = spool_read(e, o.next, &wire, &m, &why)) > 0) {
		assert_int_equal(m.seq, o.next);
		assert_int_equal(m.size, wire.len);
		assert_true(m.last_seq >= m.seq);
		if (m.type == STREAM_GAP) {
			check_gap(&wire, &m, &o);
		} else {
			message_of(m.seq, body, &expected);
			assert_int_equal(m.type, type_of(m.seq));
			assert_int_equal(wire.len, expected.len);
			assert_memory_equal(wire.data, expected.data, wire.len);
			o.whole++;
		}
		o.next = m.last_seq + 1;
	}
	if (r < 0)
		fail_msg("%s", why.text);
	assert_int_equal(o.next, MAX(spool_next_seq(e), from));
	buf_free(&wire);
	buf_free(&expected);
	return o;
}

static inline void assert_count(struct ledger_count a, struct ledger_count b)
{
	assert_int_equal(a.packets, b.packets);
	assert_int_equal(a.bytes, b.bytes);
}

/* Files of the spool, by name. */
static inline void path_in(char out[256], const char *name)
{
	snprintf(out, 256, "%s/%s", folder, name);
}

static inline void path_segment(char out[256], uint64_t epoch, uint64_t first)
{
	snprintf(out, 256, "%s/%016" PRIx64 "/%016" PRIx64 ".seg", folder, epoch, first);
}

/* The names of the segments of @epoch, in order. */
static inline size_t segments(uint64_t epoch, uint64_t v[64])
{
	char path[256];
	struct dirent *d;
	size_t n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/%016" PRIx64, folder, epoch);
	dir = opendir(path);
	while (dir && (d = readdir(dir))) {
		uint64_t name;
		size_t i;

		if (sscanf(d->d_name, "%16" SCNx64 ".seg", &name) != 1 ||
		    !strstr(d->d_name, ".seg"))
			continue;
		assert_in_range(n, 0, 63);
		for (i = n++; i && v[i - 1] > name; i--)
			v[i] = v[i - 1];
		v[i] = name;
	}
	if (dir)
		closedir(dir);
	return n;
}

static inline uint64_t file_size(uint64_t epoch, uint64_t first)
{
	char path[256];
	struct stat st;

	path_segment(path, epoch, first);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	return (uint64_t)st.st_size;
}

static inline uint8_t *load(const char *path, size_t *n)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	uint8_t *data;

	if (fd < 0)
		fail_msg("%s is not there", path);
	assert_int_equal(fstat(fd, &st), 0);
	*n = (size_t)st.st_size;
	data = malloc(*n + 1);
	assert_int_equal(read(fd, data, *n), *n);
	close(fd);
	return data;
}

static inline void save(const char *path, const uint8_t *data, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, n), n);
	close(fd);
}

#endif
