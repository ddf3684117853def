// SPDX-License-Identifier: Apache-2.0
/*
 * A packet is copied out of the ring before it is judged, because it is judged when its turn has
 * come in the order of time, after packets of other interfaces: only then is every
 * first fragment known that came before it, and every connection of ours.
 */
#include "source.h"

#include <errno.h>

#include "util.h"

struct source_stashed {
	struct source_stashed *next;
	struct source_packet packet;
};

static bool unstash(struct source *s)
{
	struct source_stashed *first = s->first;

	if (!first)
		return false;
	free(s->head.data);
	s->head = first->packet;
	s->has_head = true;
	s->first = first->next;
	if (!s->first)
		s->last = &s->first;
	free(first);
	return true;
}

struct source *source_free(struct source *s)
{
	if (!s)
		return NULL;
	live_close(&s->live);
	while (unstash(s))
		;
	free(s->head.data);
	free(s);
	return NULL;
}

int source_open(const struct live_config *config, struct source **ret, struct err *err)
{
	struct source *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_set(err, -ENOMEM, "out of memory");
	s->last = &s->first;
	s->ring_bytes = config->ring_bytes;
	r = live_open(&s->live, config, err);
	if (r)
		source_free(s);
	else
		*ret = s;
	return r;
}

static bool fill(struct source_packet *p, const uint8_t *data, uint32_t caplen, uint32_t len,
		 nsec_t time)
{
	size_t need = EPB_SIZE(caplen) - EPB_HEADER;

	if (p->room < need) {
		uint8_t *more = realloc(p->data, need);

		if (!more)
			return false;
		p->data = more;
		p->room = need;
	}
	memcpy(p->data, data, caplen);
	p->time = time;
	p->caplen = caplen;
	p->len = len;
	p->judged = false;
	return true;
}

void source_count_lost(struct source *s, uint32_t n)
{
	s->counts->packets[CAPTURE_SEEN] += n;
	s->counts->packets[CAPTURE_LOST_ERROR] += n;
}

void source_count_drops(struct source *s)
{
	uint32_t n = live_drops(&s->live);

	s->counts->packets[CAPTURE_SEEN] += n;
	s->counts->packets[CAPTURE_LOST_RING] += n;
}

/* Without memory for it. */
static void count_failed(struct source *s, uint32_t len)
{
	source_count_lost(s, 1);
	s->counts->bytes[CAPTURE_SEEN] += len;
	s->counts->bytes[CAPTURE_LOST_ERROR] += len;
}

static void to_head(void *ctx, const uint8_t *data, uint32_t caplen, uint32_t len, nsec_t time)
{
	struct source *s = ctx;

	s->has_head = fill(&s->head, data, caplen, len, time);
	if (!s->has_head)
		count_failed(s, len);
}

void source_pull(struct source *s)
{
	if (s->has_head || unstash(s))
		return;
	while (!s->has_head && s->ready && !s->closed) {
		int n = live_next(&s->live, to_head, s);

		s->ready = n > 0;
		s->failed |= n < 0;
	}
}

bool source_is_done(const struct source *s)
{
	return s->closed && !s->has_head && !s->first;
}

struct emptying {
	struct source *source;
	source_judge_fn *judge;
	void *ctx;
};

static void to_stash(void *ctx, const uint8_t *data, uint32_t caplen, uint32_t len, nsec_t time)
{
	struct emptying *e = ctx;
	struct source_stashed *new = calloc(1, sizeof(*new));
	struct source *s = e->source;

	if (!new || !fill(&new->packet, data, caplen, len, time)) {
		count_failed(s, len);
	} else if (e->judge(e->ctx, s, &new->packet)) {
		*s->last = new;
		s->last = &new->next;
		return;
	}
	if (new)
		free(new->packet.data);
	free(new);
}

void source_empty(struct source *s, source_judge_fn *judge, void *ctx)
{
	struct emptying e = {.source = s, .judge = judge, .ctx = ctx};

	if (s->has_head && !s->head.judged)
		s->has_head = judge(ctx, s, &s->head);
	while (live_next(&s->live, to_stash, &e) > 0)
		;
	source_count_drops(s);
}

const void *source_block(struct source *s, struct epb_header *ret)
{
	uint32_t caplen = s->head.caplen;
	uint32_t padded = ALIGN4(caplen);
	struct epb_trailer trailer = {
		.flags_code = EPB_OPT_FLAGS,
		.flags_len = sizeof(trailer.flags),
		.flags = s->direction,
		.total_len = EPB_HEADER + padded + EPB_TRAILER,
	};

	*ret = (struct epb_header){
		.type = EPB_TYPE,
		.total_len = trailer.total_len,
		.interface_id = s->rule.id,
		.ts_high = (uint32_t)(s->head.time >> 32),
		.ts_low = (uint32_t)s->head.time,
		.caplen = caplen,
		.len = s->head.len,
	};
	memset(s->head.data + caplen, 0, padded - caplen);
	memcpy(s->head.data + padded, &trailer, sizeof(trailer));
	return s->head.data;
}
