/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A feed lives in the registry's table from the first HELLO of its stream until it is
 * evicted there. It is changed by the one session that has the turn, on that session's
 * worker thread, and read by whoever reports, so every change is made under `lock`;
 * the holder of the turn reads without it. The tally belongs to that holder alone.
 *
 * Invariant: a packet is counted in committed or in lost_output exactly when the bytes
 * of its group went to (or were refused by) the output, together with `partial`, so
 * that a message repeated on another session goes on where this one stopped.
 */
#include "feed.h"

#include <errno.h>
#include <stdio.h>

#include "util.h"

static void uuid_text(const uint8_t id[16], char out[37])
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*out++ = '-';
		*out++ = digits[id[i] >> 4];
		*out++ = digits[id[i] & 15];
	}
	*out = '\0';
}

struct feed *feed_new(const char *identity, const struct stream_hello *hello,
		      struct feed_room *room)
{
	struct feed *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	snprintf(f->identity, sizeof(f->identity), "%s", identity);
	memcpy(f->agent_id, hello->agent_id, sizeof(f->agent_id));
	uuid_text(f->agent_id, f->agent_id_text);
	f->epoch = hello->epoch;
	f->room = room;
	f->next_seq = hello->first_unacked;
	memcpy(f->agent_name, hello->agent_name, sizeof(f->agent_name));
	snprintf(f->folded.meta.name, sizeof(f->folded.meta.name), "(gone)");
	pthread_mutex_init(&f->turn, NULL);
	pthread_mutex_init(&f->lock, NULL);
	return f;
}

struct feed *feed_free(struct feed *f)
{
	if (!f)
		return NULL;
	for (size_t i = 0; i < f->n_ifaces; i++)
		free(f->ifaces[i]);
	atomic_fetch_sub(&f->room->used, f->n_ifaces);
	free(f->ifaces);
	pthread_mutex_destroy(&f->turn);
	pthread_mutex_destroy(&f->lock);
	free(f);
	return NULL;
}

bool feed_is(const struct feed *f, const char *identity, const struct stream_hello *hello)
{
	return f->epoch == hello->epoch &&
	       !memcmp(f->agent_id, hello->agent_id, sizeof(f->agent_id)) &&
	       !strcmp(f->identity, identity);
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

static struct feed_iface *lookup(const struct feed *f, uint32_t id)
{
	size_t at = position(f, id);

	return at < f->n_ifaces && f->ifaces[at]->meta.id == id ? f->ifaces[at] : NULL;
}

struct feed_iface *feed_find(struct feed *f, uint32_t id)
{
	struct feed_iface *iface = lookup(f, id);

	return iface && iface->described ? iface : NULL;
}

static void count_add(struct ledger_count *to, const struct ledger_count *c)
{
	to->packets += c->packets;
	to->bytes += c->bytes;
}

/* Sum up the interface that went first. */
static void fold_one(struct feed *f)
{
	uint64_t first = UINT64_MAX;
	size_t at = 0;

	for (size_t i = 0; i < f->n_ifaces; i++) {
		if (f->ifaces[i]->meta.gone && f->ifaces[i]->gone_order < first) {
			first = f->ifaces[i]->gone_order;
			at = i;
		}
	}
	for (int d = 0; d < 2; d++) {
		struct feed_side *from = &f->ifaces[at]->side[d], *to = &f->folded.side[d];

		ledger_add(&to->stats, &from->stats);
		to->blind |= from->blind;
		count_add(&to->committed, &from->committed);
		count_add(&to->lost_output, &from->lost_output);
		count_add(&to->gap, &from->gap);
	}
	f->any_folded = true;
	free(f->ifaces[at]);
	atomic_fetch_sub(&f->room->used, 1);
	f->n_ifaces--;
	f->n_gone--;
	memmove(&f->ifaces[at], &f->ifaces[at + 1], (f->n_ifaces - at) * sizeof(*f->ifaces));
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
	*ret = iface;
	return 0;
}

/* The interface @id, made when there is none. */
static int obtain(struct feed *f, uint32_t id, struct feed_iface **ret, struct err *err)
{
	int r;

	*ret = lookup(f, id);
	if (*ret)
		return 0;
	if (f->n_ifaces - f->n_gone >= STREAM_INTERFACES_MAX)
		return err_set(err, -EPROTO, "more than %u interfaces", STREAM_INTERFACES_MAX);
	if (atomic_fetch_add(&f->room->used, 1) < f->room->max)
		r = add(f, id, ret, err);
	else
		r = err_set(err, -ENOMEM, "more than %zu interfaces of all agents", f->room->max);
	if (r < 0)
		atomic_fetch_sub(&f->room->used, 1);
	return r;
}

static int describe_locked(struct feed *f, const struct stream_iface *meta, struct feed_iface **ret,
			   struct err *err)
{
	struct feed_iface *iface;
	int r = obtain(f, meta->id, &iface, err);

	if (r < 0)
		return r;
	if (iface->described && iface->meta.link_type != meta->link_type)
		return err_set(err, -EPROTO, "interface %u changes its link type from %u to %u",
			       meta->id, iface->meta.link_type, meta->link_type);
	f->n_gone -= iface->meta.gone;
	f->n_gone += meta->gone;
	if (meta->gone)
		iface->gone_order = ++f->last_gone_order;
	iface->meta = *meta;
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

int feed_introduce(struct feed *f, const struct stream_hello *hello, bool adopt, struct err *err)
{
	struct feed_iface *iface;
	size_t n_gone = 0;
	int r = 0;

	pthread_mutex_lock(&f->lock);
	memcpy(f->agent_name, hello->agent_name, sizeof(f->agent_name));
	for (size_t i = 0; r == 0 && i < hello->n_ifaces; i++) {
		n_gone += hello->ifaces[i].gone;
		r = describe_locked(f, &hello->ifaces[i], &iface, err);
		for (int d = 0; r == 0 && adopt && d < 2; d++) {
			iface->side[d].committed = hello->ifaces[i].committed[d];
			iface->side[d].blind = iface->side[d].committed.packets > 0;
		}
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

void feed_tally(struct feed *f, struct feed_iface *iface, const struct packet *p)
{
	struct ledger_count *t = &iface->side[p->direction - 1].tally;

	t->packets++;
	t->bytes += p->len;
	if (!iface->tallied) {
		iface->tallied = true;
		iface->next_tallied = f->tallied;
		f->tallied = iface;
	}
}

void feed_settle(struct feed *f, enum feed_outcome outcome, size_t partial)
{
	pthread_mutex_lock(&f->lock);
	while (f->tallied) {
		struct feed_iface *iface = f->tallied;

		for (int d = 0; d < 2; d++) {
			struct feed_side *s = &iface->side[d];

			if (outcome == FEED_WRITTEN)
				count_add(&s->committed, &s->tally);
			else if (outcome == FEED_UNSUPPORTED)
				count_add(&s->lost_output, &s->tally);
			s->tally = (struct ledger_count){};
		}
		iface->tallied = false;
		f->tallied = iface->next_tallied;
	}
	if (outcome != FEED_FORGET)
		f->partial = partial;
	pthread_mutex_unlock(&f->lock);
}

void feed_advance(struct feed *f, uint64_t next)
{
	pthread_mutex_lock(&f->lock);
	f->next_seq = next;
	f->partial = 0;
	pthread_mutex_unlock(&f->lock);
}

/*
 * The side that STATS or GAP speaks of. Both may name an interface that HELLO left out
 * because it was gone by then; one that was folded here has its counts in the sum.
 */
static int side_of(struct feed *f, uint32_t id, uint8_t direction, struct feed_side **ret,
		   struct err *err)
{
	struct feed_iface *iface;
	int r;

	*ret = NULL;
	if (!lookup(f, id) && f->any_folded)
		return 0;
	r = obtain(f, id, &iface, err);
	if (r == 0)
		*ret = &iface->side[direction - 1];
	return r;
}

int feed_stats(struct feed *f, const struct stream_stats *stats, struct err *err)
{
	struct feed_side *s;
	int r = 0;

	pthread_mutex_lock(&f->lock);
	for (size_t i = 0; r == 0 && i < stats->n_parts; i++) {
		const struct stream_stats_part *p = &stats->parts[i];

		r = side_of(f, p->iface, p->direction, &s, err);
		if (r == 0 && s) {
			s->stats = p->counts;
			s->blind = false;
		}
	}
	pthread_mutex_unlock(&f->lock);
	return r;
}

int feed_gap(struct feed *f, const struct stream_gap *gap, struct err *err)
{
	struct feed_side *s;
	int r = 0;

	pthread_mutex_lock(&f->lock);
	for (size_t i = 0; r == 0 && i < gap->n_parts; i++) {
		const struct stream_gap_part *p = &gap->parts[i];

		r = side_of(f, p->iface, p->direction, &s, err);
		if (r == 0 && s)
			count_add(&s->gap, &p->lost);
	}
	pthread_mutex_unlock(&f->lock);
	return r;
}
