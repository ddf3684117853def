/* SPDX-License-Identifier: Apache-2.0 */
/* A feed as entries of the journal, and back. The format: feed_code.h. */
#include <errno.h>

#include "feed_code.h"
#include "feed_internal.h"

/* An interface of the feed, or the sum of those of a file that are gone. */
struct which {
	bool sum;
	uint32_t id;
	unsigned int direction;
};

void feed_code_number(struct code *c, uint64_t *number)
{
	code_u64(c, number);
	/* There is always a next one. */
	if (!c->out && (!*number || *number == UINT64_MAX))
		c->bad = true;
}

void feed_code_new(struct code *c, struct feed *f)
{
	feed_code_number(c, &f->number);
	code_u64(c, &f->epoch);
	code_bytes(c, f->agent_id, sizeof(f->agent_id));
	code_string(c, f->identity, sizeof(f->identity));
}

static void code_at(struct code *c, struct feed *f)
{
	uint64_t number = f->number, next_seq = f->next_seq, partial = f->partial;

	feed_code_number(c, &number);
	code_u64(c, &next_seq);
	code_u64(c, &partial);
	if (c->out)
		return;
	if (!next_seq || partial > STREAM_RAW_MAX)
		c->bad = true;
	f->next_seq = next_seq;
	f->partial = (size_t)partial;
}

static void code_clock(struct code *c, struct feed *f)
{
	struct feed_clock_sample best;
	uint64_t offset;

	feed_clock_best(f, &best);
	offset = (uint64_t)best.offset;
	code_u64(c, &offset);
	code_u64(c, &best.rtt);
	code_u64(c, &best.when);
	f->clock_state = (uint8_t)code_small(c, f->clock_state, UINT8_MAX);
	code_u64(c, &f->clock_error);
	if (c->out)
		return;
	best.offset = (int64_t)offset;
	memset(f->clock, 0, sizeof(f->clock));
	f->clock[0] = best;
	f->clock_next = 1;
}

static void code_state(struct code *c, struct feed *f)
{
	f->state = code_small(c, f->state, FEED_BROKEN);
	code_u64(c, &f->ended);
	code_u64(c, &f->unknown_after);
	code_u64(c, &f->stats_time);
	code_u64(c, &f->stats_before);
	code_span(c, &f->uncounted);
	code_bool(c, &f->uncounted_open);
	code_u64(c, &f->folded_order);
	code_u64(c, &f->last_gone_order);
	code_u32(c, &f->highest_id);
	code_clock(c, f);
	code_string(c, f->agent_name, sizeof(f->agent_name));
}

static void code_which(struct code *c, struct which *w)
{
	code_bool(c, &w->sum);
	code_u32(c, &w->id);
	w->direction = code_small(c, w->direction, 1);
	if (w->sum && w->id >= FEED_FILES)
		c->bad = true;
}

static void code_meta(struct code *c, struct feed_iface *iface, struct stream_iface *meta)
{
	code_bool(c, &iface->described);
	code_bool(c, &iface->unsupported_told);
	code_u64(c, &iface->gone_order);
	code_bool(c, &meta->gone);
	code_u32(c, &meta->ifindex);
	code_u64(c, &meta->netns);
	code_u32(c, &meta->link_type);
	code_u32(c, &meta->snaplen);
	code_u32(c, &meta->speed_mbps);
	code_bytes(c, meta->mac, sizeof(meta->mac));
	code_string(c, meta->name, sizeof(meta->name));
}

static void code_written(struct code *c, struct feed_side *s)
{
	code_count(c, &s->committed);
	code_count(c, &s->lost_output);
	code_count(c, &s->gap);
	code_span(c, &s->packets);
}

static void code_stats(struct code *c, struct feed_side *s)
{
	code_bool(c, &s->blind);
	code_bool(c, &s->warned);
	code_ledger(c, &s->stats, s->lost);
}

static void save_iface(struct buf *out, struct feed_iface *iface, bool sum, unsigned int what)
{
	struct which w = {.sum = sum, .id = iface->meta.id};
	struct code c = {.out = out};
	size_t mark;

	/* META first: what the others speak of. */
	if (what & FEED_CHANGED_META) {
		mark = tlv_begin(out, ENTRY_META);
		code_which(&c, &w);
		code_meta(&c, iface, &iface->meta);
		tlv_end(out, mark);
	}
	for (w.direction = 0; w.direction < 2; w.direction++) {
		if (what & FEED_CHANGED_WRITTEN(w.direction)) {
			mark = tlv_begin(out, ENTRY_WRITTEN);
			code_which(&c, &w);
			code_written(&c, &iface->side[w.direction]);
			tlv_end(out, mark);
		}
		if (what & FEED_CHANGED_STATS(w.direction)) {
			mark = tlv_begin(out, ENTRY_STATS);
			code_which(&c, &w);
			code_stats(&c, &iface->side[w.direction]);
			tlv_end(out, mark);
		}
		if (what & FEED_CHANGED_STATS(w.direction) && iface->side[w.direction].unseen.to) {
			mark = tlv_begin(out, ENTRY_UNSEEN);
			code_which(&c, &w);
			code_span(&c, &iface->side[w.direction].unseen);
			tlv_end(out, mark);
		}
	}
}

static bool is_sum(const struct feed *f, const struct feed_iface *iface)
{
	for (unsigned int i = 0; i < FEED_FILES; i++)
		if (iface == &f->folded[i])
			return true;
	return false;
}

static void is_saved(struct feed *f)
{
	while (f->changed_ifaces) {
		f->changed_ifaces->changed = 0;
		f->changed_ifaces = f->changed_ifaces->next_changed;
	}
	f->n_dropped = 0;
	f->save_all = false;
	f->saved = true;
	f->changed = false;
}

void feed_save(struct feed *f, bool all, struct buf *out)
{
	struct code c = {.out = out};
	size_t mark;

	pthread_mutex_lock(&f->lock);
	all |= f->save_all;
	if (all || !f->saved) {
		mark = tlv_begin(out, ENTRY_NEW);
		feed_code_new(&c, f);
		tlv_end(out, mark);
	}
	mark = tlv_begin(out, ENTRY_AT);
	code_at(&c, f);
	tlv_end(out, mark);
	for (unsigned int i = 0; !all && i < f->n_dropped; i++) {
		mark = tlv_begin(out, ENTRY_DROP);
		code_u32(&c, &f->dropped[i]);
		tlv_end(out, mark);
	}
	for (size_t i = 0; all && i < f->n_ifaces; i++)
		save_iface(out, f->ifaces[i], false, FEED_CHANGED_ALL);
	for (unsigned int i = 0; all && i < FEED_FILES; i++)
		if (f->folded[i].described)
			save_iface(out, &f->folded[i], true, FEED_CHANGED_ALL);
	for (struct feed_iface *i = f->changed_ifaces; !all && i; i = i->next_changed)
		save_iface(out, i, is_sum(f, i), i->changed);
	if (all || f->changed) {
		mark = tlv_begin(out, ENTRY_STATE);
		code_state(&c, f);
		tlv_end(out, mark);
	}
	is_saved(f);
	pthread_mutex_unlock(&f->lock);
}

static void load_meta(struct feed *f, struct feed_iface *iface, struct code *c)
{
	struct stream_iface meta = iface->meta;

	code_meta(c, iface, &meta);
	/* A sum has no state of its own. */
	if (!is_sum(f, iface))
		feed_set_meta(f, iface, &meta);
}

static void load_drop(struct feed *f, struct code *c)
{
	struct feed_iface *iface;
	uint32_t id = 0;

	code_u32(c, &id);
	iface = feed_lookup(f, id);
	if (iface)
		feed_remove(f, iface);
}

static void load_state(struct feed *f, struct code *c)
{
	code_state(c, f);
	/* The collector ended before the session did. */
	if (f->state == FEED_CONNECTED)
		feed_rest_locked(f, FEED_LOST, 0);
}

static int load_iface(struct feed *f, const struct tlv *entry, struct code *c)
{
	struct feed_iface *iface;
	struct which w = {};
	int r = 0;

	code_which(c, &w);
	if (c->bad)
		return -EBADMSG;
	iface = &f->folded[w.id % FEED_FILES];
	if (!w.sum)
		r = feed_restore(f, w.id, &iface, NULL);
	if (r < 0)
		return r;
	if (entry->type == ENTRY_META)
		load_meta(f, iface, c);
	else if (entry->type == ENTRY_WRITTEN)
		code_written(c, &iface->side[w.direction]);
	else if (entry->type == ENTRY_STATS)
		code_stats(c, &iface->side[w.direction]);
	else
		code_span(c, &iface->side[w.direction].unseen);
	return 0;
}

int feed_load(struct feed *f, const struct tlv *entry)
{
	struct code c = {.in = entry->value, .left = entry->len};
	int r = 0;

	pthread_mutex_lock(&f->lock);
	if (entry->type == ENTRY_AT) {
		code_at(&c, f);
		atomic_store(&f->committed_seq, f->next_seq - 1);
	} else if (entry->type == ENTRY_DROP) {
		load_drop(f, &c);
	} else if (entry->type == ENTRY_STATE) {
		load_state(f, &c);
	} else {
		r = load_iface(f, entry, &c);
	}
	is_saved(f);
	pthread_mutex_unlock(&f->lock);
	return c.bad ? -EBADMSG : r;
}

static int check_iface(const struct tlv *entry, struct code *c)
{
	struct feed_iface iface = {};
	struct which w = {};

	code_which(c, &w);
	if (entry->type == ENTRY_META)
		code_meta(c, &iface, &iface.meta);
	else if (entry->type == ENTRY_WRITTEN)
		code_written(c, &iface.side[0]);
	else if (entry->type == ENTRY_STATS)
		code_stats(c, &iface.side[0]);
	else
		code_span(c, &iface.side[0].unseen);
	return c->bad ? -EBADMSG : 0;
}

int feed_check(const struct tlv *entry)
{
	struct code c = {.in = entry->value, .left = entry->len};
	struct feed f = {};
	uint32_t id = 0;

	if (entry->type == ENTRY_NEW)
		feed_code_new(&c, &f);
	else if (entry->type == ENTRY_AT)
		code_at(&c, &f);
	else if (entry->type == ENTRY_DROP)
		code_u32(&c, &id);
	else if (entry->type == ENTRY_STATE)
		code_state(&c, &f);
	else
		return check_iface(entry, &c);
	return c.bad ? -EBADMSG : 0;
}
