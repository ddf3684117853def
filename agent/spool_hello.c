/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the session of a recovered epoch begins and ends: what HELLO says of the agent and the
 * interfaces, gathered from every HELLO and META that the scan came across, the later ones
 * above the earlier ones; and BYE.
 */
#include <errno.h>

#include "spool_internal.h"

static struct stream_iface *find(const struct stream_hello *h, uint32_t id)
{
	for (size_t i = 0; i < h->n_ifaces; i++)
		if (h->ifaces[i].id == id)
			return &h->ifaces[i];
	return NULL;
}

/* As many as one HELLO may have; then those that were gone first make room. */
static void learn_iface(struct stream_hello *h, const struct stream_iface *iface)
{
	struct stream_iface *to = find(h, iface->id);

	if (to) {
		struct ledger_count committed[2] = {to->committed[0], to->committed[1]};

		*to = *iface;
		for (size_t i = 0; i < 2; i++) {
			to->committed[i].packets =
				MAX(committed[i].packets, iface->committed[i].packets);
			to->committed[i].bytes = MAX(committed[i].bytes, iface->committed[i].bytes);
		}
		return;
	}
	if (h->n_ifaces == STREAM_INTERFACES_MAX) {
		for (size_t i = 0; i < h->n_ifaces && !to; i++)
			if (h->ifaces[i].gone)
				to = &h->ifaces[i];
		if (to)
			*to = *iface;
		return;
	}
	/* In steps of powers of two. */
	if ((h->n_ifaces & (h->n_ifaces - 1)) == 0) {
		size_t cap = h->n_ifaces ? 2 * h->n_ifaces : 1;

		to = reallocarray(h->ifaces, cap, sizeof(*to));
		if (!to)
			return;
		h->ifaces = to;
	}
	h->ifaces[h->n_ifaces++] = *iface;
}

void spool_learn_hello(struct spool_epoch *e, const uint8_t *payload, size_t n)
{
	struct stream_hello h, *to = &e->hello;

	if (stream_hello_decode(payload, n, &h, NULL) < 0)
		return;
	for (size_t i = 0; i < h.n_ifaces; i++)
		learn_iface(to, &h.ifaces[i]);
	stream_hello_free(&h);
	e->began = MAX(e->began, h.realtime_ns);
	h.ifaces = to->ifaces;
	h.n_ifaces = to->n_ifaces;
	*to = h;
}

void spool_learn_meta(struct spool_epoch *e, const uint8_t *payload, size_t n)
{
	struct stream_meta meta;

	if (stream_meta_decode(payload, n, &meta, NULL) == 0)
		learn_iface(&e->hello, &meta.iface);
}

bool spool_knows(const struct spool_epoch *e, const struct stream_data *head,
		 const struct stream_gap *tally)
{
	if (!find(&e->hello, head->iface_min) || !find(&e->hello, head->iface_max))
		return false;
	for (size_t i = 0; tally && i < tally->n_parts; i++)
		if (!find(&e->hello, tally->parts[i].iface))
			return false;
	return true;
}

void spool_put_hello(struct spool_epoch *e, uint64_t first, struct buf *out)
{
	struct stream_hello h = e->hello;
	struct buf payload = {};

	if (e->live) {
		e->hello_fn(e->ctx, first, &payload);
	} else {
		if (!h.agent_name[0])
			return;
		h.first_unacked = first;
		h.next_seq = MAX(first, e->next);
		stream_hello_encode(&payload, &h);
	}
	if (buf_failed(&payload))
		out->failed = true;
	else
		stream_message(out, STREAM_HELLO, 0, payload.data, payload.len);
	buf_free(&payload);
}

/* The HELLO of this run says who we are when no HELLO of an earlier one is left. */
static int introduce(struct spool *s, struct stream_hello *ret, struct err *err)
{
	struct stream_hello h;
	struct buf payload = {};
	int r = -ENODATA;

	for (struct spool_epoch *e = s->epochs; e; e = e->newer)
		if (e->live)
			e->hello_fn(e->ctx, 1, &payload);
	if (payload.len && !buf_failed(&payload))
		r = stream_hello_decode(payload.data, payload.len, &h, err);
	else
		err_set(err, r, "the spool \"%s\" does not say whose it is", s->path);
	buf_free(&payload);
	if (r < 0)
		return r;
	h.epoch = ret->epoch;
	stream_hello_free(&h);
	*ret = h;
	return 0;
}

int spool_hello(struct spool_epoch *e, struct stream_hello *ret, struct err *err)
{
	struct spool *s = e->spool;
	struct stream_hello h;
	int r = 0;

	pthread_mutex_lock(&s->lock);
	h = e->hello;
	h.epoch = e->number;
	if (!h.agent_name[0])
		r = introduce(s, &h, err);
	h.ifaces = NULL;
	h.n_ifaces = 0;
	if (r == 0 && e->hello.n_ifaces) {
		h.ifaces = reallocarray(NULL, e->hello.n_ifaces, sizeof(*h.ifaces));
		if (!h.ifaces)
			r = err_set(err, -ENOMEM, "out of memory");
	}
	if (h.ifaces) {
		h.n_ifaces = e->hello.n_ifaces;
		memcpy(h.ifaces, e->hello.ifaces, h.n_ifaces * sizeof(*h.ifaces));
	}
	memcpy(h.agent_id, s->agent_id, sizeof(h.agent_id));
	h.recovered = true;
	h.first_unacked = e->first;
	h.next_seq = e->next;
	h.realtime_ns = clock_realtime();
	h.boottime_ns = clock_boottime();
	pthread_mutex_unlock(&s->lock);
	if (r == 0)
		*ret = h;
	return r;
}

struct stream_bye spool_bye(const struct spool_epoch *e)
{
	struct stream_bye bye = e->bye;

	if (!e->ended) {
		bye = (struct stream_bye){.reason = STREAM_BYE_UNCLEAN};
		bye.unknown_after = e->last_stats    ? e->last_stats
				    : e->last_packet ? e->last_packet
						     : e->began;
	}
	bye.last_seq = spool_next_seq(e) - 1;
	return bye;
}
