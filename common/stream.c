/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The header of ps-stream(7) and the payloads that make up a session, encoders next to decoders;
 * stream_numbered.c has what a stream consists of. The control payloads are tables of TLV fields;
 * adding a field is a line in a table with a new number (optional, so that older peers can be
 * read) and a line in ps-stream(7).
 */
#include "stream.h"

#include <errno.h>

#include "gzip.h"
#include "tlv.h"
#include "util.h"

#define MAGIC "PS"

static const struct {
	const char *name;
	bool numbered;
	uint32_t max;
} types[] = {
	[STREAM_HELLO] = {"HELLO", false, STREAM_CONTROL_MAX},
	[STREAM_WELCOME] = {"WELCOME", false, STREAM_CONTROL_MAX},
	[STREAM_ERROR] = {"ERROR", false, STREAM_CONTROL_MAX},
	[STREAM_META] = {"META", true, STREAM_CONTROL_MAX},
	[STREAM_DATA] = {"DATA", true, STREAM_PAYLOAD_MAX},
	[STREAM_GAP] = {"GAP", true, STREAM_CONTROL_MAX},
	[STREAM_STATS] = {"STATS", true, STREAM_PAYLOAD_MAX},
	[STREAM_ACK] = {"ACK", false, STREAM_CONTROL_MAX},
	[STREAM_PING] = {"PING", false, STREAM_CONTROL_MAX},
	[STREAM_PONG] = {"PONG", false, STREAM_CONTROL_MAX},
	[STREAM_BYE] = {"BYE", false, STREAM_CONTROL_MAX},
	[STREAM_CONTROL] = {"CONTROL", false, STREAM_CONTROL_MAX},
	[STREAM_TALLY] = {"TALLY", false, STREAM_CONTROL_MAX},
	[STREAM_NOTE] = {"NOTE", true, STREAM_CONTROL_MAX},
};

static bool known(uint8_t type)
{
	return type < ARRAY_SIZE(types) && types[type].name;
}

const char *stream_type_name(uint8_t type)
{
	return known(type) ? types[type].name : "unknown";
}

bool stream_type_numbered(uint8_t type)
{
	return known(type) && types[type].numbered;
}

void stream_header_encode(uint8_t out[STREAM_HEADER_SIZE], const struct stream_header *h)
{
	memcpy(out, MAGIC, 2);
	out[2] = STREAM_VERSION;
	out[3] = h->type;
	put_le16(out + 4, h->flags);
	put_le16(out + 6, 0);
	put_le32(out + 8, h->payload_len);
	put_le32(out + 12, h->raw_len);
	put_le64(out + 16, h->seq);
	put_le32(out + 24, h->payload_crc);
	put_le32(out + 28, gzip_crc32(0, out, 28));
}

int stream_header_decode(const uint8_t in[STREAM_HEADER_SIZE], struct stream_header *ret,
			 struct err *err)
{
	struct stream_header h = {
		.type = in[3],
		.flags = get_le16(in + 4),
		.payload_len = get_le32(in + 8),
		.raw_len = get_le32(in + 12),
		.seq = get_le64(in + 16),
		.payload_crc = get_le32(in + 24),
	};
	uint32_t max = known(h.type) ? types[h.type].max : STREAM_CONTROL_MAX;

	if (memcmp(in, MAGIC, 2) != 0)
		return err_set(err, -EBADMSG, "not a ps-stream message");
	if (get_le32(in + 28) != gzip_crc32(0, in, 28))
		return err_set(err, -EBADMSG, "a message header is damaged");
	if (in[2] != STREAM_VERSION)
		return err_set(err, -EPROTONOSUPPORT, "ps-stream version %u, not %u", in[2],
			       STREAM_VERSION);
	if (get_le16(in + 6) != 0)
		return err_set(err, -EBADMSG, "a reserved header field is set");
	if (h.payload_len > max)
		return err_set(err, -EMSGSIZE, "%s message of %u bytes, at most %u",
			       stream_type_name(h.type), h.payload_len, max);
	if (h.raw_len > (h.type == STREAM_DATA ? STREAM_RAW_MAX : 0))
		return err_set(err, -EMSGSIZE, "%s message of %u bytes inflated",
			       stream_type_name(h.type), h.raw_len);
	if (known(h.type) && types[h.type].numbered != (h.seq != 0))
		return err_set(err, -EBADMSG, "%s message with sequence number %llu",
			       stream_type_name(h.type), (unsigned long long)h.seq);
	*ret = h;
	return 0;
}

void stream_message(struct buf *out, uint8_t type, uint64_t seq, const void *payload, size_t n)
{
	struct stream_header h = {
		.type = type,
		.payload_len = (uint32_t)n,
		.seq = seq,
		.payload_crc = gzip_crc32(0, payload, n),
	};
	uint8_t *p = buf_reserve(out, STREAM_HEADER_SIZE + n);

	if (!p)
		return;
	stream_header_encode(p, &h);
	out->len += STREAM_HEADER_SIZE;
	buf_put(out, payload, n);
}

/* META, and the interfaces in HELLO. */
static const struct tlv_field iface_fields[] = {
	TLV_FIELD(stream_iface, id, 1, TLV_U32),
	TLV_FIELD(stream_iface, ifindex, 2, TLV_U32),
	TLV_FIELD(stream_iface, netns, 3, TLV_U64),
	TLV_FIELD(stream_iface, link_type, 4, TLV_U32),
	TLV_FIELD(stream_iface, snaplen, 5, TLV_U32),
	TLV_FIELD(stream_iface, speed_mbps, 6, TLV_U32),
	TLV_FIELD(stream_iface, mac, 7, TLV_BYTES),
	TLV_FIELD(stream_iface, gone, 8, TLV_BOOL),
	TLV_FIELD(stream_iface, name, 9, TLV_STRING),
	TLV_OPTIONAL(stream_iface, committed[0].packets, 10, TLV_U64),
	TLV_OPTIONAL(stream_iface, committed[0].bytes, 11, TLV_U64),
	TLV_OPTIONAL(stream_iface, committed[1].packets, 12, TLV_U64),
	TLV_OPTIONAL(stream_iface, committed[1].bytes, 13, TLV_U64),
};

/* META has these, too. */
static const struct tlv_field meta_fields[] = {
	TLV_OPTIONAL(stream_meta, hook, 14, TLV_STRING),
	TLV_OPTIONAL(stream_meta, netns_name, 15, TLV_STRING),
	TLV_OPTIONAL(stream_meta, filter, 16, TLV_STRING),
};

static int decode_iface(const uint8_t *in, size_t n, void *into, struct err *err)
{
	struct stream_iface *m = into;
	int r = tlv_decode(in, n, iface_fields, ARRAY_SIZE(iface_fields), m, err);

	if (r == 0 && !m->name[0])
		return err_set(err, -EBADMSG, "an interface without a name");
	return r;
}

void stream_meta_encode(struct buf *out, const struct stream_meta *m)
{
	tlv_encode(out, iface_fields, ARRAY_SIZE(iface_fields), &m->iface);
	tlv_encode(out, meta_fields, ARRAY_SIZE(meta_fields), m);
}

int stream_meta_decode(const uint8_t *in, size_t n, struct stream_meta *ret, struct err *err)
{
	struct stream_meta m = {};
	int r = decode_iface(in, n, &m.iface, err);

	if (r == 0)
		r = tlv_decode(in, n, meta_fields, ARRAY_SIZE(meta_fields), &m, err);
	if (r == 0)
		*ret = m;
	return r;
}

static const struct tlv_field hello_fields[] = {
	TLV_FIELD(stream_hello, agent_id, 1, TLV_BYTES),
	TLV_FIELD(stream_hello, boot_id, 2, TLV_BYTES),
	TLV_FIELD(stream_hello, epoch, 3, TLV_U64),
	TLV_FIELD(stream_hello, first_unacked, 4, TLV_U64),
	TLV_FIELD(stream_hello, next_seq, 5, TLV_U64),
	TLV_FIELD(stream_hello, realtime_ns, 6, TLV_U64),
	TLV_FIELD(stream_hello, boottime_ns, 7, TLV_U64),
	TLV_FIELD(stream_hello, agent_name, 8, TLV_STRING),
	TLV_FIELD(stream_hello, version, 9, TLV_STRING),
	TLV_OPTIONAL(stream_hello, recovered, 10, TLV_BOOL),
	TLV_OPTIONAL(stream_hello, clock_state, 11, TLV_U8),
	TLV_OPTIONAL(stream_hello, clock_error_ns, 12, TLV_U64),
};
#define HELLO_IFACE TLV_NESTED

void stream_hello_encode(struct buf *out, const struct stream_hello *m)
{
	tlv_encode(out, hello_fields, ARRAY_SIZE(hello_fields), m);
	for (size_t i = 0; i < m->n_ifaces; i++) {
		size_t mark = tlv_begin(out, HELLO_IFACE);

		tlv_encode(out, iface_fields, ARRAY_SIZE(iface_fields), &m->ifaces[i]);
		tlv_end(out, mark);
	}
}

int stream_hello_decode(const uint8_t *in, size_t n, struct stream_hello *ret, struct err *err)
{
	struct stream_hello m = {};
	void *ifaces;
	int r;

	r = tlv_decode(in, n, hello_fields, ARRAY_SIZE(hello_fields), &m, err);
	if (r < 0)
		return r;
	if (!m.first_unacked || m.first_unacked > m.next_seq)
		return err_set(err, -EBADMSG, "first unacknowledged number %llu, next %llu",
			       (unsigned long long)m.first_unacked, (unsigned long long)m.next_seq);
	if (!m.agent_name[0])
		return err_set(err, -EBADMSG, "an agent without a name");
	r = tlv_decode_array(in, n, HELLO_IFACE, STREAM_INTERFACES_MAX, sizeof(*m.ifaces),
			     decode_iface, &ifaces, &m.n_ifaces, err);
	m.ifaces = ifaces;
	if (r < 0)
		stream_hello_free(&m);
	else
		*ret = m;
	return r;
}

void stream_hello_free(struct stream_hello *m)
{
	free(m->ifaces);
	m->ifaces = NULL;
	m->n_ifaces = 0;
}

static const struct tlv_field welcome_fields[] = {
	TLV_FIELD(stream_welcome, session_id, 1, TLV_U64),
	TLV_FIELD(stream_welcome, resume_seq, 2, TLV_U64),
	TLV_FIELD(stream_welcome, credit, 3, TLV_U64),
	TLV_FIELD(stream_welcome, max_payload, 4, TLV_U32),
	TLV_FIELD(stream_welcome, max_raw, 5, TLV_U32),
	TLV_FIELD(stream_welcome, heartbeat_ms, 6, TLV_U32),
	TLV_FIELD(stream_welcome, realtime_ns, 7, TLV_U64),
	TLV_OPTIONAL(stream_welcome, ack_mode, 8, TLV_U8),
};

void stream_welcome_encode(struct buf *out, const struct stream_welcome *m)
{
	tlv_encode(out, welcome_fields, ARRAY_SIZE(welcome_fields), m);
}

int stream_welcome_decode(const uint8_t *in, size_t n, struct stream_welcome *ret, struct err *err)
{
	struct stream_welcome m = {.ack_mode = STREAM_ACK_WRITTEN};
	int r = tlv_decode(in, n, welcome_fields, ARRAY_SIZE(welcome_fields), &m, err);

	if (r < 0)
		return r;
	if (!m.resume_seq || !m.heartbeat_ms)
		return err_set(err, -EBADMSG, "a resume number or heartbeat of 0");
	if (m.ack_mode != STREAM_ACK_WRITTEN && m.ack_mode != STREAM_ACK_DURABLE)
		return err_set(err, -EBADMSG, "acknowledgement mode %u", m.ack_mode);
	*ret = m;
	return 0;
}

static const struct tlv_field error_fields[] = {
	TLV_FIELD(stream_error, code, 1, TLV_U32),
	TLV_FIELD(stream_error, retry_after_ms, 2, TLV_U32),
	TLV_FIELD(stream_error, text, 3, TLV_STRING),
};

void stream_error_encode(struct buf *out, const struct stream_error *m)
{
	tlv_encode(out, error_fields, ARRAY_SIZE(error_fields), m);
}

int stream_error_decode(const uint8_t *in, size_t n, struct stream_error *ret, struct err *err)
{
	struct stream_error m = {};
	int r = tlv_decode(in, n, error_fields, ARRAY_SIZE(error_fields), &m, err);

	if (r == 0)
		*ret = m;
	return r;
}

static const struct tlv_field ack_fields[] = {
	TLV_FIELD(stream_ack, written, 1, TLV_U64),
	TLV_FIELD(stream_ack, durable, 2, TLV_U64),
	TLV_FIELD(stream_ack, credit, 3, TLV_U64),
};

void stream_ack_encode(struct buf *out, const struct stream_ack *m)
{
	tlv_encode(out, ack_fields, ARRAY_SIZE(ack_fields), m);
}

int stream_ack_decode(const uint8_t *in, size_t n, struct stream_ack *ret, struct err *err)
{
	struct stream_ack m = {};
	int r = tlv_decode(in, n, ack_fields, ARRAY_SIZE(ack_fields), &m, err);

	if (r == 0)
		*ret = m;
	return r;
}

static const struct tlv_field ping_fields[] = {
	TLV_FIELD(stream_ping, sent_ns, 1, TLV_U64),
	TLV_FIELD(stream_ping, received_ns, 2, TLV_U64),
};

void stream_ping_encode(struct buf *out, const struct stream_ping *m)
{
	tlv_encode(out, ping_fields, ARRAY_SIZE(ping_fields), m);
}

int stream_ping_decode(const uint8_t *in, size_t n, struct stream_ping *ret, struct err *err)
{
	struct stream_ping m = {};
	int r = tlv_decode(in, n, ping_fields, ARRAY_SIZE(ping_fields), &m, err);

	if (r == 0)
		*ret = m;
	return r;
}

static const struct tlv_field bye_fields[] = {
	TLV_FIELD(stream_bye, reason, 1, TLV_U32),
	TLV_FIELD(stream_bye, last_seq, 2, TLV_U64),
	TLV_OPTIONAL(stream_bye, unknown_after, 3, TLV_U64),
};

void stream_bye_encode(struct buf *out, const struct stream_bye *m)
{
	tlv_encode(out, bye_fields, ARRAY_SIZE(bye_fields), m);
}

int stream_bye_decode(const uint8_t *in, size_t n, struct stream_bye *ret, struct err *err)
{
	struct stream_bye m = {};
	int r = tlv_decode(in, n, bye_fields, ARRAY_SIZE(bye_fields), &m, err);

	if (r == 0)
		*ret = m;
	return r;
}
