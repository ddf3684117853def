/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a stream of ps-stream(7) consists of, beside META: DATA, GAP, STATS, NOTE. Written as
 * stream.c is.
 */
#include <errno.h>

#include "stream.h"
#include "tlv.h"
#include "util.h"

/*
 * The head of DATA, fixed so that the body starts at a known place:
 *	0 interface min   4 interface max   8 first time   16 last time
 *	24 packets        28 codec (1 gzip), 0, 0, 0       32 bytes on the wire
 */
#define CODEC_GZIP 1u

void stream_data_encode(uint8_t out[STREAM_DATA_HEAD], const struct stream_data *m)
{
	put_le32(out, m->iface_min);
	put_le32(out + 4, m->iface_max);
	put_le64(out + 8, m->first);
	put_le64(out + 16, m->last);
	put_le32(out + 24, m->packets);
	put_le32(out + 28, CODEC_GZIP);
	put_le64(out + 32, m->wire_bytes);
}

int stream_data_decode(const uint8_t *in, size_t n, struct stream_data *ret, struct err *err)
{
	struct stream_data m;

	if (n < STREAM_DATA_HEAD)
		return err_set(err, -EBADMSG, "DATA of %zu bytes", n);
	m = (struct stream_data){
		.iface_min = get_le32(in),
		.iface_max = get_le32(in + 4),
		.first = get_le64(in + 8),
		.last = get_le64(in + 16),
		.packets = get_le32(in + 24),
		.wire_bytes = get_le64(in + 32),
	};
	if (get_le32(in + 28) != CODEC_GZIP)
		return err_set(err, -EBADMSG, "DATA with codec %u", get_le32(in + 28));
	if (m.iface_min > m.iface_max || m.first > m.last)
		return err_set(err, -EBADMSG, "DATA with a range that ends before it begins");
	if (!m.packets || m.packets > STREAM_PACKETS_MAX)
		return err_set(err, -EBADMSG, "DATA of %u packets", m.packets);
	*ret = m;
	return 0;
}

static const struct tlv_field gap_fields[] = {
	TLV_FIELD(stream_gap, first_seq, 1, TLV_U64),
	TLV_FIELD(stream_gap, last_seq, 2, TLV_U64),
	TLV_FIELD(stream_gap, reason, 3, TLV_U32),
};
#define GAP_PART TLV_NESTED
static const struct tlv_field gap_part_fields[] = {
	TLV_FIELD(stream_gap_part, iface, 1, TLV_U32),
	TLV_FIELD(stream_gap_part, direction, 2, TLV_U8),
	TLV_FIELD(stream_gap_part, first, 3, TLV_U64),
	TLV_FIELD(stream_gap_part, last, 4, TLV_U64),
	TLV_FIELD(stream_gap_part, lost.packets, 5, TLV_U64),
	TLV_FIELD(stream_gap_part, lost.bytes, 6, TLV_U64),
};

/* An entry for each interface and direction. */
#define PARTS_MAX (2u * STREAM_INTERFACES_MAX)

static int check_direction(uint8_t direction, struct err *err)
{
	return direction == 1 || direction == 2 ? 0
						: err_set(err, -EBADMSG, "direction %u", direction);
}

static int decode_gap_part(const uint8_t *in, size_t n, void *into, struct err *err)
{
	struct stream_gap_part *p = into;
	int r = tlv_decode(in, n, gap_part_fields, ARRAY_SIZE(gap_part_fields), p, err);

	if (r == 0 && p->first > p->last)
		return err_set(err, -EBADMSG, "a gap whose time ends before it begins");
	return r < 0 ? r : check_direction(p->direction, err);
}

void stream_gap_encode(struct buf *out, const struct stream_gap *m)
{
	tlv_encode(out, gap_fields, ARRAY_SIZE(gap_fields), m);
	for (size_t i = 0; i < m->n_parts; i++) {
		size_t mark = tlv_begin(out, GAP_PART);

		tlv_encode(out, gap_part_fields, ARRAY_SIZE(gap_part_fields), &m->parts[i]);
		tlv_end(out, mark);
	}
}

int stream_gap_decode(const uint8_t *in, size_t n, struct stream_gap *ret, struct err *err)
{
	struct stream_gap m = {};
	void *parts;
	int r = tlv_decode(in, n, gap_fields, ARRAY_SIZE(gap_fields), &m, err);

	if (r < 0)
		return r;
	if (!m.first_seq || m.first_seq > m.last_seq)
		return err_set(err, -EBADMSG, "a gap that ends before it begins");
	r = tlv_decode_array(in, n, GAP_PART, PARTS_MAX, sizeof(*m.parts), decode_gap_part, &parts,
			     &m.n_parts, err);
	m.parts = parts;
	if (r < 0)
		stream_gap_free(&m);
	else
		*ret = m;
	return r;
}

void stream_gap_free(struct stream_gap *m)
{
	free(m->parts);
	m->parts = NULL;
	m->n_parts = 0;
}

static const struct tlv_field stats_fields[] = {
	TLV_FIELD(stream_stats, time, 1, TLV_U64),
};
#define STATS_PART TLV_NESTED
static const struct tlv_field stats_part_fields[] = {
	TLV_FIELD(stream_stats_part, iface, 1, TLV_U32),
	TLV_FIELD(stream_stats_part, direction, 2, TLV_U8),
};
static const struct tlv_field stats_unseen_fields[] = {
	TLV_OPTIONAL(stream_stats_part, unseen.from, 3, TLV_U64),
	TLV_OPTIONAL(stream_stats_part, unseen.to, 4, TLV_U64),
};
/* Then for each counter that is not zero: u16 counter, u64 packets, u64 bytes. */
#define STATS_COUNTER      TLV_NESTED
#define STATS_COUNTER_SIZE 18u

static void encode_counts(struct buf *out, const struct ledger *l)
{
	for (uint16_t c = 0; c < LEDGER_COUNTERS; c++) {
		size_t mark;

		if (c == LEDGER_COMMITTED || (!l->c[c].packets && !l->c[c].bytes))
			continue;
		mark = tlv_begin(out, STATS_COUNTER);
		buf_put_le16(out, c);
		buf_put_le64(out, l->c[c].packets);
		buf_put_le64(out, l->c[c].bytes);
		tlv_end(out, mark);
	}
}

static int decode_counts(const uint8_t *in, size_t n, struct ledger *l, struct err *err)
{
	struct tlv_reader r = {in, n};
	uint32_t seen = 0;
	struct tlv t;

	*l = (struct ledger){};
	while (tlv_next(&r, &t) > 0) {
		uint16_t c;

		if (t.type != STATS_COUNTER)
			continue;
		if (t.len != STATS_COUNTER_SIZE)
			return err_set(err, -EBADMSG, "a counter of %u bytes", t.len);
		c = get_le16(t.value);
		/* A newer agent may count what we have no name for. */
		if (c >= LEDGER_COUNTERS || c == LEDGER_COMMITTED)
			continue;
		if (seen & 1u << c)
			return err_set(err, -EBADMSG, "counter %s is there twice",
				       ledger_counter_name(c));
		seen |= 1u << c;
		l->c[c].packets = get_le64(t.value + 2);
		l->c[c].bytes = get_le64(t.value + 10);
	}
	return 0;
}

static int decode_stats_part(const uint8_t *in, size_t n, void *into, struct err *err)
{
	struct stream_stats_part *p = into;
	int r = tlv_decode(in, n, stats_part_fields, ARRAY_SIZE(stats_part_fields), p, err);

	if (r == 0)
		r = check_direction(p->direction, err);
	if (r == 0)
		r = tlv_decode(in, n, stats_unseen_fields, ARRAY_SIZE(stats_unseen_fields), p, err);
	return r < 0 ? r : decode_counts(in, n, &p->counts, err);
}

void stream_stats_encode(struct buf *out, const struct stream_stats *m)
{
	tlv_encode(out, stats_fields, ARRAY_SIZE(stats_fields), m);
	for (size_t i = 0; i < m->n_parts; i++) {
		size_t mark = tlv_begin(out, STATS_PART);

		tlv_encode(out, stats_part_fields, ARRAY_SIZE(stats_part_fields), &m->parts[i]);
		if (m->parts[i].unseen.to)
			tlv_encode(out, stats_unseen_fields, ARRAY_SIZE(stats_unseen_fields),
				   &m->parts[i]);
		encode_counts(out, &m->parts[i].counts);
		tlv_end(out, mark);
	}
}

int stream_stats_decode(const uint8_t *in, size_t n, struct stream_stats *ret, struct err *err)
{
	struct stream_stats m = {};
	void *parts;
	int r = tlv_decode(in, n, stats_fields, ARRAY_SIZE(stats_fields), &m, err);

	if (r < 0)
		return r;
	r = tlv_decode_array(in, n, STATS_PART, PARTS_MAX, sizeof(*m.parts), decode_stats_part,
			     &parts, &m.n_parts, err);
	m.parts = parts;
	if (r < 0)
		stream_stats_free(&m);
	else
		*ret = m;
	return r;
}

void stream_stats_free(struct stream_stats *m)
{
	free(m->parts);
	m->parts = NULL;
	m->n_parts = 0;
}

static const struct tlv_field note_fields[] = {
	TLV_FIELD(stream_note, time, 1, TLV_U64),
	TLV_FIELD(stream_note, kind, 2, TLV_U8),
	TLV_FIELD(stream_note, text, 3, TLV_STRING),
};
/* It is there when the note is about one interface. */
#define NOTE_IFACE 4
static const struct tlv_field note_iface_fields[] = {
	TLV_FIELD(stream_note, iface, NOTE_IFACE, TLV_U32),
};

const char *stream_note_name(uint8_t kind)
{
	static const char *const names[] = {
		[STREAM_NOTE_OTHER] = "other",     [STREAM_NOTE_FILTER] = "filter",
		[STREAM_NOTE_DEGRADE] = "degrade", [STREAM_NOTE_LIMIT] = "limit",
		[STREAM_NOTE_BACKEND] = "backend", [STREAM_NOTE_CLOCK] = "clock",
	};

	return names[kind < ARRAY_SIZE(names) ? kind : STREAM_NOTE_OTHER];
}

void stream_note_encode(struct buf *out, const struct stream_note *m)
{
	tlv_encode(out, note_fields, ARRAY_SIZE(note_fields), m);
	if (m->has_iface)
		tlv_encode(out, note_iface_fields, ARRAY_SIZE(note_iface_fields), m);
}

int stream_note_decode(const uint8_t *in, size_t n, struct stream_note *ret, struct err *err)
{
	struct stream_note m = {.has_iface = tlv_count(in, n, NOTE_IFACE) > 0};
	int r = tlv_decode(in, n, note_fields, ARRAY_SIZE(note_fields), &m, err);

	if (r == 0 && m.has_iface)
		r = tlv_decode(in, n, note_iface_fields, ARRAY_SIZE(note_iface_fields), &m, err);
	if (r == 0)
		*ret = m;
	return r;
}
