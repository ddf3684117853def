/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A feed lives in the registry's table from the first HELLO of its stream, or from the
 * journal, until it is evicted there. It is changed by the one session that has the turn, on
 * that session's worker thread, and read by whoever reports or saves, so every change is
 * made under `lock`; the holder of the turn reads without it. The tally belongs to that
 * holder alone.
 *
 * Invariants: a packet is counted in committed or in lost_output exactly when the bytes
 * of its group went to (or were refused by) the output, together with `partial`, so
 * that a message repeated on another session goes on where this one stopped. Whatever changes
 * a count marks it for feed_save().
 */
#include "feed.h"

#include <inttypes.h>
#include <stdio.h>

#include "feed_internal.h"
#include "util.h"

/* So many warnings of one feed; its ledgers tell the rest. */
#define WARNINGS_MAX 16u
/*
 * The agent reads counters that packets change meanwhile: a few that are counted in one place
 * and not yet in the other are no error, unless it stays so.
 */
#define SKEW_PACKETS 64
#define SKEW_MANY    2u
#define SKEW_FEW     8u
/* Epochs of our agents are the time of their start; any other is no time after 2001. */
#define EPOCH_IS_TIME 1000000000000000000ull

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
	static const uint32_t link_types[FEED_FILES] = {LINK_ETHERNET, LINK_RAW, UINT32_MAX};
	struct feed *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	snprintf(f->identity, sizeof(f->identity), "%s", identity);
	memcpy(f->agent_id, hello->agent_id, sizeof(f->agent_id));
	uuid_text(f->agent_id, f->agent_id_text);
	f->epoch = hello->epoch;
	f->room = room;
	f->next_seq = hello->first_unacked;
	atomic_init(&f->committed_seq, f->next_seq - 1);
	memcpy(f->agent_name, hello->agent_name, sizeof(f->agent_name));
	for (unsigned int i = 0; i < FEED_FILES; i++) {
		f->folded[i].meta.id = i;
		f->folded[i].meta.link_type = link_types[i];
		snprintf(f->folded[i].meta.name, sizeof(f->folded[i].meta.name), "(gone)");
	}
	f->changed = true;
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

void feed_tally(struct feed *f, struct feed_iface *iface, const struct packet *p)
{
	struct feed_side *s = &iface->side[p->direction - 1];

	if (!iface->tallied) {
		iface->tallied = true;
		iface->next_tallied = f->tallied;
		f->tallied = iface;
		iface->side[0].tally.span.from = iface->side[1].tally.span.from = UINT64_MAX;
		iface->side[0].tally.span.to = iface->side[1].tally.span.to = 0;
	}
	s->tally.count.packets++;
	s->tally.count.bytes += p->len;
	s->tally.span.from = MIN(s->tally.span.from, p->time);
	s->tally.span.to = MAX(s->tally.span.to, p->time);
}

static struct ledger_span *lost_span(struct feed_side *s, enum ledger_counter which)
{
	size_t i = 0;

	while (ledger_losses[i] != which)
		i++;
	return &s->lost[i];
}

static void settle_side(struct feed *f, struct feed_iface *iface, int d, enum feed_outcome outcome)
{
	struct feed_side *s = &iface->side[d];
	const struct ledger_span *span = &s->tally.span;

	if (s->tally.count.packets && outcome == FEED_WRITTEN) {
		feed_count_add(&s->committed, &s->tally.count);
		ledger_span_add(&s->packets, span->from, span->to);
		feed_mark(f, iface, FEED_CHANGED_WRITTEN(d));
	} else if (s->tally.count.packets && outcome == FEED_UNSUPPORTED) {
		feed_count_add(&s->lost_output, &s->tally.count);
		ledger_span_add(lost_span(s, LEDGER_LOST_OUTPUT), span->from, span->to);
		feed_mark(f, iface, FEED_CHANGED_WRITTEN(d) | FEED_CHANGED_STATS(d));
	}
	s->tally.count = (struct ledger_count){};
}

void feed_settle(struct feed *f, enum feed_outcome outcome, size_t partial)
{
	pthread_mutex_lock(&f->lock);
	while (f->tallied) {
		struct feed_iface *iface = f->tallied;

		for (int d = 0; d < 2; d++)
			settle_side(f, iface, d, outcome);
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
 * The interface that STATS or GAP speaks of. Both may name one that HELLO left out because it was
 * gone by then, or whose META is lost in a GAP; our agents' ids rise, so that is told from one that
 * was folded here, which has its counts in the sum.
 */
static int iface_of(struct feed *f, uint32_t id, struct feed_iface **ret, struct err *err)
{
	*ret = NULL;
	if (!feed_lookup(f, id) && f->folded_order && id <= f->highest_id)
		return 0;
	return feed_obtain(f, id, ret, err);
}

bool feed_may_tell(struct feed *f, nsec_t now, uint64_t *ret_left_out)
{
	if (f->telling.until > now + (FEED_TELL_BURST - 1) * FEED_TELL_EACH) {
		f->telling.left_out++;
		return false;
	}
	f->telling.until = MAX(f->telling.until, now) + FEED_TELL_EACH;
	*ret_left_out = f->telling.left_out;
	f->telling.left_out = 0;
	return true;
}

/* Where the time between the last two STATS begins. */
static nsec_t window_start(const struct feed *f)
{
	if (f->stats_before)
		return f->stats_before;
	return f->epoch >= EPOCH_IS_TIME ? MIN(f->epoch, f->stats_time) : f->stats_time;
}

static void check_counts(struct feed *f, struct feed_iface *iface, int d)
{
	struct feed_side *s = &iface->side[d];
	uint64_t skew = ledger_skew(&s->stats);
	char text[256];

	s->skewed = skew ? MIN(s->skewed + 1u, SKEW_FEW) : 0;
	if (s->skewed < (skew >= SKEW_PACKETS ? SKEW_MANY : SKEW_FEW) || s->warned ||
	    f->warnings >= WARNINGS_MAX)
		return;
	s->warned = true;
	f->warnings++;
	if (!feed_may_say(f->room, 1))
		return;
	snprintf(text, sizeof(text),
		 "the counters of agent \"%s\", interface \"%s\", %s do not add up: %" PRIu64
		 " packets",
		 f->agent_name, iface->meta.name, d ? "egress" : "ingress", skew);
	f->room->line(f->room->ctx, LOG_LEVEL_WARN, text);
}

/* The spans in which losses grew: since the STATS before. */
static void note_losses(const struct feed *f, struct feed_side *s, const struct ledger *now)
{
	for (size_t i = 0; i < LEDGER_LOSSES; i++) {
		enum ledger_counter c = ledger_losses[i];
		uint64_t known = s->stats.c[c].packets;

		/* Ours to count. */
		if (c == LEDGER_LOST_OUTPUT)
			continue;
		/* GAPs told when that was. */
		if (c == LEDGER_LOST_SPOOL)
			known = MAX(known, s->gap.packets);
		if (now->c[c].packets > known)
			ledger_span_add(&s->lost[i], window_start(f), f->stats_time);
	}
}

int feed_stats(struct feed *f, const struct stream_stats *stats, struct err *err)
{
	struct feed_iface *iface;
	int r = 0;

	pthread_mutex_lock(&f->lock);
	/* A long one may come in several messages. */
	if (stats->time != f->stats_time) {
		f->stats_before = f->stats_time;
		f->stats_time = stats->time;
	}
	if (f->uncounted_open)
		ledger_span_add(&f->uncounted, f->uncounted.from, stats->time);
	f->uncounted_open = false;
	f->changed = true;
	for (size_t i = 0; r == 0 && i < stats->n_parts; i++) {
		const struct stream_stats_part *p = &stats->parts[i];
		int d = p->direction - 1;

		r = iface_of(f, p->iface, &iface, err);
		if (r < 0 || !iface)
			continue;
		note_losses(f, &iface->side[d], &p->counts);
		iface->side[d].stats = p->counts;
		iface->side[d].unseen = p->unseen;
		iface->side[d].blind = false;
		check_counts(f, iface, d);
		feed_mark(f, iface, FEED_CHANGED_STATS(d));
	}
	pthread_mutex_unlock(&f->lock);
	return r;
}

/* The last time of the agent's that we know of; 0: none. */
static nsec_t last_time(const struct feed *f)
{
	nsec_t last = 0;

	if (f->stats_time)
		return f->stats_time;
	for (size_t i = 0; i < f->n_ifaces; i++)
		for (int d = 0; d < 2; d++)
			last = MAX(last, f->ifaces[i]->side[d].packets.to);
	return last;
}

int feed_gap(struct feed *f, const struct stream_gap *gap, struct err *err)
{
	struct feed_iface *iface;
	int r = 0;

	pthread_mutex_lock(&f->lock);
	/* One that is refused comes again: nothing is added up before there is room for all of it.
	 */
	for (size_t i = 0; r == 0 && i < gap->n_parts; i++)
		r = iface_of(f, gap->parts[i].iface, &iface, err);
	for (size_t i = 0; r == 0 && i < gap->n_parts; i++) {
		const struct stream_gap_part *p = &gap->parts[i];
		int d = p->direction - 1;

		r = iface_of(f, p->iface, &iface, err);
		if (r < 0)
			continue;
		if (!iface)
			iface = feed_sum_of_gone(f, 0);
		feed_count_add(&iface->side[d].gap, &p->lost);
		ledger_span_add(lost_span(&iface->side[d], LEDGER_LOST_SPOOL), p->first, p->last);
		feed_mark(f, iface, FEED_CHANGED_WRITTEN(d) | FEED_CHANGED_STATS(d));
	}
	if (r == 0 && gap->reason == STREAM_GAP_CORRUPT && !gap->n_parts) {
		nsec_t from = last_time(f);

		if (!from)
			from = f->epoch >= EPOCH_IS_TIME ? f->epoch : 1;
		ledger_span_add(&f->uncounted, from, from);
		f->uncounted_open = true;
		f->changed = true;
	}
	pthread_mutex_unlock(&f->lock);
	return r;
}

void feed_clock(struct feed *f, nsec_t sent, nsec_t answered, nsec_t now)
{
	nsec_t rtt = now - sent;

	/* Our clock was set back meanwhile. */
	if (sent > now)
		return;
	pthread_mutex_lock(&f->lock);
	f->clock[f->clock_next++ % FEED_CLOCK_SAMPLES] = (struct feed_clock_sample){
		.offset = (int64_t)(answered - (sent + rtt / 2)),
		.rtt = rtt,
		.when = now,
	};
	f->changed = true;
	pthread_mutex_unlock(&f->lock);
}

nsec_t feed_clock_best(struct feed *f, struct feed_clock_sample *ret)
{
	struct feed_clock_sample best = {};

	for (unsigned int i = 0; i < FEED_CLOCK_SAMPLES; i++)
		if (f->clock[i].when && (!best.when || f->clock[i].rtt < best.rtt))
			best = f->clock[i];
	*ret = best;
	return best.when;
}

void feed_rest_locked(struct feed *f, enum feed_state state, nsec_t unknown_after)
{
	f->state = state;
	f->ended = clock_realtime();
	f->unknown_after = 0;
	if (state == FEED_LOST || state == FEED_BROKEN) {
		f->unknown_after = unknown_after ? unknown_after : last_time(f);
		if (!f->unknown_after)
			f->unknown_after = f->ended;
	}
	f->changed = true;
}

void feed_rest(struct feed *f, enum feed_state state, nsec_t unknown_after)
{
	pthread_mutex_lock(&f->lock);
	feed_rest_locked(f, state, unknown_after);
	pthread_mutex_unlock(&f->lock);
}
