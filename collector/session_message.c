/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each message means (ps-stream(7)). Runs on the session's worker; the numbered
 * ones have the feed's turn. A message has an effect only after all of it was checked,
 * and its number counts as written only after all of it was written.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "session_internal.h"
#include "util.h"

void session_put(struct session *s, uint8_t type, const struct buf *payload)
{
	stream_message(&s->out, type, 0, payload->data, payload->len);
	s->out.failed |= buf_failed(payload);
}

void session_put_ack(struct session *s)
{
	const struct stream_ack ack = {.written = s->written, .credit = s->credit};
	struct buf b = {};

	if (!s->ack_due)
		return;
	stream_ack_encode(&b, &ack);
	session_put(s, STREAM_ACK, &b);
	buf_free(&b);
	s->ack_due = false;
	s->credit = 0;
}

void session_put_error(struct session *s, enum stream_error_code code, const char *text)
{
	struct stream_error m = {.code = code};
	struct buf b = {};

	if (code == STREAM_E_BUSY || code == STREAM_E_STORAGE)
		m.retry_after_ms = 5000;
	snprintf(m.text, sizeof(m.text), "%s", text);
	stream_error_encode(&b, &m);
	session_put(s, STREAM_ERROR, &b);
	buf_free(&b);
}

void session_put_bye(struct session *s, enum stream_bye_reason reason)
{
	const struct stream_bye bye = {.reason = reason, .last_seq = s->written};
	struct buf b = {};

	stream_bye_encode(&b, &bye);
	session_put(s, STREAM_BYE, &b);
	buf_free(&b);
}

void session_leave(struct session *s, enum feed_state state)
{
	if (!s->feed)
		return;
	registry_detach(s->env->registry, s->feed, &s->owner, state);
	s->feed = NULL;
}

void session_put_ping(struct session *s)
{
	const struct stream_ping ping = {.sent_ns = clock_realtime()};
	struct buf b = {};

	stream_ping_encode(&b, &ping);
	session_put(s, STREAM_PING, &b);
	buf_free(&b);
}

static void put_welcome(struct session *s, uint64_t resume)
{
	const struct stream_welcome m = {
		.session_id = s->owner.session_id,
		.resume_seq = resume,
		.credit = s->env->credit,
		.max_payload = STREAM_PAYLOAD_MAX,
		.max_raw = STREAM_RAW_MAX,
		.heartbeat_ms = (uint32_t)(s->env->heartbeat / NSEC_PER_MSEC),
		.realtime_ns = clock_realtime(),
	};
	struct buf b = {};

	stream_welcome_encode(&b, &m);
	session_put(s, STREAM_WELCOME, &b);
	buf_free(&b);
}

static int take_hello(struct session *s, struct err *err)
{
	struct stream_hello m;
	uint64_t resume;
	int r;

	r = stream_hello_decode(s->payload, s->header.payload_len, &m, err);
	if (r < 0)
		return r;
	r = registry_attach(s->env->registry, tls_peer_identity(s->tls), &m, &s->owner, &s->feed,
			    &resume, err);
	if (r == 0) {
		memcpy(s->agent_name, m.agent_name, sizeof(s->agent_name));
		s->state = SESSION_STREAM;
		s->written = resume - 1;
		put_welcome(s, resume);
		log_info("agent \"%s\" (%s) connected from %s: epoch %" PRIu64
			 ", %zu interfaces, resumes at message %" PRIu64,
			 s->agent_name, s->feed->agent_id_text, s->peer, m.epoch, m.n_ifaces,
			 resume);
	}
	stream_hello_free(&m);
	return r;
}

static int take_meta(struct session *s, struct err *err)
{
	struct stream_iface m;
	int r = stream_meta_decode(s->payload, s->header.payload_len, &m, err);

	return r < 0 ? r : feed_describe(s->feed, &m, err);
}

/* A run of blocks of one link type. */
struct group {
	size_t end; /* where it ends in the inflated message */
	uint32_t link_type;
	uint32_t packets;
	uint64_t bytes;
};

/* Check and tally the blocks from @from on until the link type changes. */
static int walk_group(struct session *s, size_t from, size_t size, struct group *ret,
		      struct err *err)
{
	struct feed_iface *iface = NULL;
	struct group g = {.end = from};
	struct packet p;
	long n;

	while ((n = packet_next(s->scratch->raw + g.end, size - g.end, &p, err)) > 0) {
		if (!iface || iface->meta.id != p.interface_id)
			iface = feed_find(s->feed, p.interface_id);
		if (!iface)
			return err_set(err, -EPROTO, "a packet of interface %u, which is unknown",
				       p.interface_id);
		if (p.caplen > iface->meta.snaplen)
			return err_set(err, -EPROTO,
				       "%u bytes of a packet on \"%s\", whose snap length is %u",
				       p.caplen, iface->meta.name, iface->meta.snaplen);
		if (g.packets && iface->meta.link_type != g.link_type)
			break;
		g.link_type = iface->meta.link_type;
		g.packets++;
		g.bytes += p.len;
		g.end += (size_t)n;
		feed_tally(s->feed, iface, &p);
	}
	*ret = g;
	return n < 0 ? (int)n : 0;
}

/*
 * Check every block of the message. When *ret_first is all of it, as it nearly always
 * is, its tally stands and the walk need not be repeated.
 */
static int check_blocks(struct session *s, const struct stream_data *head, struct group *ret_first,
			struct err *err)
{
	size_t size = s->header.raw_len;
	struct group g = {}, first = {};
	uint64_t bytes = 0, packets = 0;
	int r;

	for (size_t at = 0; at < size; at = g.end) {
		if (at)
			feed_settle(s->feed, FEED_FORGET, 0);
		r = walk_group(s, at, size, &g, err);
		if (r < 0)
			return r;
		if (!at)
			first = g;
		packets += g.packets;
		bytes += g.bytes;
	}
	if (packets != head->packets || bytes != head->wire_bytes)
		return err_set(err, -EPROTO,
			       "a DATA message of %u packets, %" PRIu64
			       " bytes on the wire, holds %" PRIu64 " and %" PRIu64,
			       head->packets, head->wire_bytes, packets, bytes);
	*ret_first = first;
	return 0;
}

/* A full disk may still have room for small messages: it works when nobody else waits. */
static void storage_works(struct session *s)
{
	if (atomic_load(&s->env->storage_failing) && atomic_load(&s->env->stuck) <= s->stuck &&
	    atomic_exchange(&s->env->storage_failing, false))
		log_info("the output takes packets again");
}

static void storage_fails(struct session *s, int code, const struct err *why)
{
	if (atomic_exchange(&s->env->storage_failing, true))
		return;
	log_error("%s%s; agents wait until it goes on",
		  code == -ENOSPC || code == -EDQUOT ? "the disk is full: " : "", why->text);
}

/* Once per interface. */
static void tell_unsupported(struct session *s, const struct err *why)
{
	for (struct feed_iface *i = s->feed->tallied; i; i = i->next_tallied) {
		if (i->unsupported_told)
			continue;
		i->unsupported_told = true;
		log_warn("agent \"%s\": packets of \"%s\" are lost: %s", s->agent_name,
			 i->meta.name, why->text);
	}
}

static int write_group(struct session *s, size_t from, const struct group *g, struct err *err)
{
	struct err why;
	int r = output_write(s->env->output, g->link_type, s->scratch->raw + from, g->end - from,
			     &why);

	switch (r) {
	case 0:
		storage_works(s);
		feed_settle(s->feed, FEED_WRITTEN, g->end);
		return 0;
	case -ENOTSUP:
		tell_unsupported(s, &why);
		feed_settle(s->feed, FEED_UNSUPPORTED, g->end);
		return 0;
	case -EPIPE:
	case -ECANCELED:
		return err_set(err, r, "%s", why.text);
	default:
		storage_fails(s, r, &why);
		return err_set(err, -EAGAIN, "%s", why.text);
	}
}

static int write_blocks(struct session *s, const struct group *first, struct err *err)
{
	size_t size = s->header.raw_len, at = s->feed->partial;
	struct group g = *first;
	int r;

	if (at > size)
		return err_set(err, -EPROTO, "a message is shorter than when it came first");
	/* The tally of a message in one piece is there already. */
	if (at || first->end < size) {
		feed_settle(s->feed, FEED_FORGET, 0);
		r = walk_group(s, at, size, &g, err);
		if (r < 0)
			return r;
	}
	for (;;) {
		r = write_group(s, at, &g, err);
		if (r < 0 || g.end == size)
			return r;
		at = g.end;
		r = walk_group(s, at, size, &g, err);
		if (r < 0)
			return r;
	}
}

static int take_data(struct session *s, struct err *err)
{
	struct stream_data head;
	struct group first;
	int r;

	r = stream_data_decode(s->payload, s->header.payload_len, &head, err);
	if (r == 0)
		r = gzip_inflate(s->scratch->gzip, s->payload + STREAM_DATA_HEAD,
				 s->header.payload_len - STREAM_DATA_HEAD, s->scratch->raw,
				 s->header.raw_len, err);
	if (r == 0)
		r = check_blocks(s, &head, &first, err);
	if (r == 0)
		r = write_blocks(s, &first, err);
	if (r < 0)
		feed_settle(s->feed, FEED_FORGET, 0);
	return r;
}

static int take_gap(struct session *s, uint64_t *ret_next, struct err *err)
{
	static const char *const reasons[] = {
		[STREAM_GAP_EVICTED] = "the agent's queue was full",
		[STREAM_GAP_CORRUPT] = "the agent's spool is damaged",
		[STREAM_GAP_UNCLEAN] = "the agent did not stop cleanly",
	};
	struct stream_gap m;
	uint64_t packets = 0;
	int r;

	r = stream_gap_decode(s->payload, s->header.payload_len, &m, err);
	if (r < 0)
		return r;
	if (m.first_seq != s->header.seq || m.last_seq == UINT64_MAX)
		r = err_set(err, -EPROTO, "GAP %" PRIu64 " speaks of %" PRIu64 " to %" PRIu64,
			    s->header.seq, m.first_seq, m.last_seq);
	else
		r = feed_gap(s->feed, &m, err);
	if (r == 0) {
		for (size_t i = 0; i < m.n_parts; i++)
			packets += m.parts[i].lost.packets;
		noise_warn(s->env->noise,
			   "agent \"%s\": messages %" PRIu64 " to %" PRIu64 " with %" PRIu64
			   " packets are lost: %s",
			   s->agent_name, m.first_seq, m.last_seq, packets,
			   m.reason && m.reason < ARRAY_SIZE(reasons) ? reasons[m.reason]
								      : "no reason given");
		*ret_next = m.last_seq + 1;
	}
	stream_gap_free(&m);
	return r;
}

static int take_stats(struct session *s, struct err *err)
{
	struct stream_stats m;
	int r = stream_stats_decode(s->payload, s->header.payload_len, &m, err);

	if (r < 0)
		return r;
	r = feed_stats(s->feed, &m, err);
	stream_stats_free(&m);
	return r;
}

/* The message is the expected one and the session has the turn. */
static int take_expected(struct session *s, struct err *err)
{
	uint64_t next = s->header.seq + 1;
	int r;

	switch (s->header.type) {
	case STREAM_META:
		r = take_meta(s, err);
		break;
	case STREAM_DATA:
		r = take_data(s, err);
		break;
	case STREAM_GAP:
		r = take_gap(s, &next, err);
		break;
	default:
		r = take_stats(s, err);
		break;
	}
	if (r == 0)
		feed_advance(s->feed, next);
	return r;
}

/* The rule of no holes. */
static int take_numbered(struct session *s, struct err *err)
{
	uint64_t next;
	int r = 0;

	if (!registry_begin(s->feed, &s->owner))
		return err_set(err, -ESTALE, "another session carries the stream on");
	next = s->feed->next_seq;
	if (s->header.seq > next)
		r = err_set(err, -EPROTO, "message %" PRIu64 " where %" PRIu64 " should come",
			    s->header.seq, next);
	else if (s->header.seq == next)
		r = take_expected(s, err);
	next = s->feed->next_seq;
	registry_end(s->feed);
	if (r < 0)
		return r;
	s->written = next - 1;
	s->credit += STREAM_HEADER_SIZE + s->header.payload_len;
	s->ack_due = true;
	return 0;
}

static int take_ping(struct session *s, struct err *err)
{
	struct stream_ping m;
	struct buf b = {};
	int r = stream_ping_decode(s->payload, s->header.payload_len, &m, err);

	if (r < 0)
		return r;
	m.received_ns = clock_realtime();
	stream_ping_encode(&b, &m);
	session_put(s, STREAM_PONG, &b);
	buf_free(&b);
	return 0;
}

static int take_bye(struct session *s, struct err *err)
{
	struct stream_bye m;
	int r = stream_bye_decode(s->payload, s->header.payload_len, &m, err);

	if (r < 0)
		return r;
	if (!registry_begin(s->feed, &s->owner))
		return err_set(err, -ESTALE, "another session carries the stream on");
	registry_end(s->feed);
	session_put_ack(s);
	session_put_bye(s, STREAM_BYE_STOP);
	log_info("agent \"%s\" at %s said goodbye", s->agent_name, s->peer);
	/* Its last counters are among what it kept back. */
	if (m.last_seq != s->written)
		noise_warn(s->env->noise,
			   "agent \"%s\" speaks of message %" PRIu64 ", the last here is %" PRIu64,
			   s->agent_name, m.last_seq, s->written);
	session_leave(s, m.last_seq == s->written ? FEED_ENDED : FEED_LOST);
	return 1;
}

static int take_error(struct session *s, struct err *err)
{
	struct stream_error m;
	int r = stream_error_decode(s->payload, s->header.payload_len, &m, err);

	return r < 0 ? r : err_set(err, -ECONNABORTED, "the agent gave up: %s", m.text);
}

int session_message(struct session *s, struct err *err)
{
	if (gzip_crc32(0, s->payload, s->header.payload_len) != s->header.payload_crc)
		return err_set(err, -EBADMSG, "%s message %" PRIu64 " is damaged",
			       stream_type_name(s->header.type), s->header.seq);
	if (s->state == SESSION_HELLO)
		return take_hello(s, err);
	switch (s->header.type) {
	case STREAM_META:
	case STREAM_DATA:
	case STREAM_GAP:
	case STREAM_STATS:
		return take_numbered(s, err);
	case STREAM_PING:
		return take_ping(s, err);
	case STREAM_PONG:
		return 0;
	case STREAM_BYE:
		return take_bye(s, err);
	case STREAM_ERROR:
		return take_error(s, err);
	default:
		if (s->header.flags & STREAM_FLAG_OPTIONAL)
			return 0;
		return err_set(err, -EPROTO, "%s message (type %u) from an agent",
			       stream_type_name(s->header.type), s->header.type);
	}
}
