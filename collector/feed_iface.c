/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interfaces of a feed. They come with HELLO, META, and in a pinch with the first STATS
 * or GAP that names them; they are told to be gone, and stay for their ledgers. Beyond
 * FEED_GONE_MAX the one that went first is added to the sum of its file and forgotten.
 * Called by the holder of the turn, or while the journal is loaded.
 */
#include <errno.h>
#include <stdio.h>

#include "feed_internal.h"
#include "util.h"

unsigned int feed_file_of(const struct feed_iface *iface)
{
	switch (iface->meta.link_type) {
	case 0: /* never described; the Ethernet file is everybody's */
	case LINK_ETHERNET:
		return 0;
	case LINK_RAW:
		return 1;
	default:
		return 2;
	}
}

void feed_mark(struct feed *f, struct feed_iface *iface, unsigned int what)
{
	if (!iface->changed) {
		iface->next_changed = f->changed_ifaces;
		f->changed_ifaces = iface;
	}
	iface->changed |= what;
}

/* Where @id is, or where it would go. */
static size_t position(const struct feed *f, uint32_t id)
{
	size_t low = 0, high = f->n_ifaces;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (f->ifaces[middle]->meta.id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct feed_iface *feed_lookup(const struct feed *f, uint32_t id)
{
	size_t at = position(f, id);

	return at < f->n_ifaces && f->ifaces[at]->meta.id == id ? f->ifaces[at] : NULL;
}

struct feed_iface *feed_find(struct feed *f, uint32_t id)
{
	struct feed_iface *iface = feed_lookup(f, id);

	return iface && iface->described ? iface : NULL;
}

void feed_remove(struct feed *f, struct feed_iface *iface)
{
	size_t at = position(f, iface->meta.id);
	struct feed_iface **link = &f->changed_ifaces;

	while (*link && *link != iface)
		link = &(*link)->next_changed;
	if (*link)
		*link = iface->next_changed;
	f->n_gone -= iface->meta.gone;
	free(iface);
	atomic_fetch_sub(&f->room->used, 1);
	f->n_ifaces--;
	memmove(&f->ifaces[at], &f->ifaces[at + 1], (f->n_ifaces - at) * sizeof(*f->ifaces));
}

static void add_side(struct feed_side *to, const struct feed_side *from)
{
	ledger_add(&to->stats, &from->stats);
	ledger_span_add(&to->unseen, from->unseen.from, from->unseen.to);
	to->blind |= from->blind;
	to->warned |= from->warned;
	feed_count_add(&to->committed, &from->committed);
	feed_count_add(&to->lost_output, &from->lost_output);
	feed_count_add(&to->gap, &from->gap);
	ledger_span_add(&to->packets, from->packets.from, from->packets.to);
	for (size_t i = 0; i < LEDGER_LOSSES; i++)
		ledger_span_add(&to->lost[i], from->lost[i].from, from->lost[i].to);
}

struct feed_iface *feed_sum_of_gone(struct feed *f, unsigned int file)
{
	struct feed_iface *sum = &f->folded[file];

	sum->described = true;
	feed_mark(f, sum, FEED_CHANGED_ALL);
	return sum;
}

/* Sum up the interface that went first. */
static void fold_one(struct feed *f)
{
	struct feed_iface *first = NULL, *sum;

	for (size_t i = 0; i < f->n_ifaces; i++)
		if (f->ifaces[i]->meta.gone &&
		    (!first || f->ifaces[i]->gone_order < first->gone_order))
			first = f->ifaces[i];
	sum = feed_sum_of_gone(f, feed_file_of(first));
	for (int d = 0; d < 2; d++)
		add_side(&sum->side[d], &first->side[d]);
	f->folded_order = first->gone_order;
	f->changed = true;
	if (f->n_dropped < FEED_DROPPED_MAX)
		f->dropped[f->n_dropped++] = first->meta.id;
	else
		f->save_all = true;
	feed_remove(f, first);
}

static int add(struct feed *f, uint32_t id, struct feed_iface **ret, struct err *err)
{
	struct feed_iface *iface, **ifaces;
	size_t at = position(f, id);

	ifaces = reallocarray(f->ifaces, f->n_ifaces + 1, sizeof(*ifaces));
	if (!ifaces)
		return err_set(err, -ENOMEM, "out of memory");
	f->ifaces = ifaces;
	iface = calloc(1, sizeof(*iface));
	if (!iface)
		return err_set(err, -ENOMEM, "out of memory");
	iface->meta.id = id;
	snprintf(iface->meta.name, sizeof(iface->meta.name), "interface %u", id);
	memmove(&ifaces[at + 1], &ifaces[at], (f->n_ifaces - at) * sizeof(*ifaces));
	ifaces[at] = iface;
	f->n_ifaces++;
	if (id > f->highest_id) {
		f->highest_id = id;
		f->changed = true;
	}
	feed_mark(f, iface, FEED_CHANGED_ALL);
	*ret = iface;
	return 0;
}

int feed_restore(struct feed *f, uint32_t id, struct feed_iface **ret, struct err *err)
{
	int r;

	*ret = feed_lookup(f, id);
	if (*ret)
		return 0;
	if (atomic_fetch_add(&f->room->used, 1) < f->room->max)
		r = add(f, id, ret, err);
	else
		r = err_set(err, -ENOMEM, "more than %zu interfaces of all agents", f->room->max);
	if (r < 0)
		atomic_fetch_sub(&f->room->used, 1);
	return r;
}

int feed_obtain(struct feed *f, uint32_t id, struct feed_iface **ret, struct err *err)
{
	*ret = feed_lookup(f, id);
	if (!*ret && f->n_ifaces - f->n_gone >= STREAM_INTERFACES_MAX)
		return err_set(err, -EPROTO, "more than %u interfaces", STREAM_INTERFACES_MAX);
	return feed_restore(f, id, ret, err);
}

void feed_set_meta(struct feed *f, struct feed_iface *iface, const struct stream_iface *meta)
{
	f->n_gone -= iface->meta.gone;
	f->n_gone += meta->gone;
	iface->meta = *meta;
	/* Of the moment of HELLO only: see feed_introduce(). */
	memset(iface->meta.committed, 0, sizeof(iface->meta.committed));
	feed_mark(f, iface, FEED_CHANGED_META);
}

static int describe_locked(struct feed *f, const struct stream_iface *meta, struct feed_iface **ret,
			   struct err *err)
{
	struct feed_iface *iface;
	int r = feed_obtain(f, meta->id, &iface, err);

	if (r < 0)
		return r;
	if (iface->described && iface->meta.link_type != meta->link_type)
		return err_set(err, -EPROTO, "interface %u changes its link type from %u to %u",
			       meta->id, iface->meta.link_type, meta->link_type);
	feed_set_meta(f, iface, meta);
	if (meta->gone) {
		iface->gone_order = ++f->last_gone_order;
		f->changed = true;
	}
	iface->described = true;
	*ret = iface;
	return 0;
}

int feed_describe(struct feed *f, const struct stream_iface *meta, struct err *err)
{
	struct feed_iface *iface;
	int r;

	pthread_mutex_lock(&f->lock);
	r = describe_locked(f, meta, &iface, err);
	while (r == 0 && f->n_gone > FEED_GONE_MAX)
		fold_one(f);
	pthread_mutex_unlock(&f->lock);
	return r;
}

static void adopt_counts(struct feed *f, struct feed_iface *iface, const struct stream_iface *told)
{
	for (int d = 0; d < 2; d++) {
		iface->side[d].committed = told->committed[d];
		iface->side[d].blind = iface->side[d].committed.packets > 0;
		feed_mark(f, iface, FEED_CHANGED_WRITTEN(d) | FEED_CHANGED_STATS(d));
	}
}

int feed_introduce(struct feed *f, const struct stream_hello *hello, bool adopt, struct err *err)
{
	struct feed_iface *iface;
	size_t n_gone = 0;
	int r = 0;

	pthread_mutex_lock(&f->lock);
	memcpy(f->agent_name, hello->agent_name, sizeof(f->agent_name));
	f->clock_state = hello->clock_state;
	f->clock_error = hello->clock_error_ns;
	f->changed = true;
	for (size_t i = 0; r == 0 && i < hello->n_ifaces; i++) {
		n_gone += hello->ifaces[i].gone;
		r = describe_locked(f, &hello->ifaces[i], &iface, err);
		if (r == 0 && adopt)
			adopt_counts(f, iface, &hello->ifaces[i]);
	}
	/*
	 * An unacknowledged message may name what is gone, if HELLO names it too. Those were
	 * just told, so what went first is never one of them.
	 */
	while (f->n_gone > MAX(n_gone, FEED_GONE_MAX))
		fold_one(f);
	pthread_mutex_unlock(&f->lock);
	return r;
}
