/* SPDX-License-Identifier: Apache-2.0 */
/* Sums over feeds, and what they say in words. */
#include <inttypes.h>
#include <stdio.h>

#include "feed.h"
#include "text.h"
#include "util.h"

static void add_unknown(struct feed_sum *to, const struct feed_sum *from)
{
	if (from->verdict != VERDICT_UNKNOWN)
		return;
	if (to->verdict != VERDICT_UNKNOWN) {
		to->unknown_after = from->unknown_after;
		to->unknown_until = from->unknown_until;
		return;
	}
	to->unknown_after = MIN(to->unknown_after, from->unknown_after);
	to->unknown_until = to->unknown_until && from->unknown_until
				    ? MAX(to->unknown_until, from->unknown_until)
				    : 0;
}

void feed_sum_add(struct feed_sum *to, const struct feed_sum *from)
{
	ledger_add(&to->ledger, &from->ledger);
	to->missing += from->missing;
	ledger_span_add(&to->packets, from->packets.from, from->packets.to);
	for (size_t i = 0; i < LEDGER_LOSSES; i++)
		ledger_span_add(&to->lost[i], from->lost[i].from, from->lost[i].to);
	add_unknown(to, from);
	to->verdict = MAX(to->verdict, from->verdict); /* rises from complete to unknown */
	to->feeds += from->feeds;
}

void feed_agents_add(struct feed_agents *to, uint64_t id)
{
	size_t low = 0, high = to->n;
	uint64_t *v;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (to->v[middle] < id)
			low = middle + 1;
		else
			high = middle;
	}
	if ((low < to->n && to->v[low] == id) || to->n >= FEED_AGENTS_MAX)
		return;
	v = reallocarray(to->v, to->n + 1, sizeof(*v));
	if (!v)
		return;
	memmove(&v[low + 1], &v[low], (to->n - low) * sizeof(*v));
	v[low] = id;
	to->v = v;
	to->n++;
}

void feed_total_add(struct feed_total *to, const struct feed_total *from)
{
	feed_sum_add(&to->all, &from->all);
	for (unsigned int i = 0; i < FEED_FILES; i++) {
		feed_sum_add(&to->file[i], &from->file[i]);
		for (size_t k = 0; k < from->agents[i].n; k++)
			feed_agents_add(&to->agents[i], from->agents[i].v[k]);
	}
}

void feed_total_free(struct feed_total *t)
{
	for (unsigned int i = 0; i < FEED_FILES; i++)
		free(t->agents[i].v);
	memset(t->agents, 0, sizeof(t->agents));
}

static void put_span(struct text *t, const struct ledger_span *s)
{
	if (!s->to)
		return;
	text_put(t, " between ");
	text_time(t, s->from);
	text_put(t, " and ");
	text_time(t, s->to);
}

static void put_losses(struct text *t, const struct feed_sum *sum)
{
	const struct ledger_count *c = sum->ledger.c;
	uint64_t lost = ledger_lost(&sum->ledger).packets;
	uint64_t meant = c[LEDGER_CAPTURED].packets + c[LEDGER_LOST_RING].packets +
			 c[LEDGER_LOST_ERROR].packets;
	unsigned int stages = sum->missing > 0;
	const char *separator = ": ";

	if (!lost && !sum->missing)
		return;
	for (size_t i = 0; i < LEDGER_LOSSES; i++)
		stages += c[ledger_losses[i]].packets > 0;
	text_put(t, "%" PRIu64 " of %" PRIu64 " packets lost", lost + sum->missing,
		 MAX(meant, lost + sum->missing + c[LEDGER_COMMITTED].packets));
	for (size_t i = 0; i < LEDGER_LOSSES; i++) {
		if (!c[ledger_losses[i]].packets)
			continue;
		if (stages > 1)
			text_put(t, "%s%" PRIu64, separator, c[ledger_losses[i]].packets);
		text_put(t, " at %s", ledger_counter_name(ledger_losses[i]));
		put_span(t, &sum->lost[i]);
		separator = ", ";
	}
	if (sum->missing)
		text_put(t, "%s%" PRIu64 " did not arrive", separator, sum->missing);
	text_put(t, "; ");
}

size_t feed_verdict_text(const struct feed_sum *sum, char *out, size_t size)
{
	const struct ledger_count *written = &sum->ledger.c[LEDGER_COMMITTED];
	uint64_t flying = ledger_in_flight(&sum->ledger).packets;
	struct text t = {.out = out, .size = size};

	text_put(&t, "%s", ledger_verdict_name(sum->verdict));
	if (sum->verdict == VERDICT_UNKNOWN && sum->unknown_until) {
		put_span(&t, &(struct ledger_span){sum->unknown_after, sum->unknown_until});
	} else if (sum->verdict == VERDICT_UNKNOWN && sum->unknown_after) {
		text_put(&t, " after ");
		text_time(&t, sum->unknown_after);
	}
	text_put(&t, ": ");
	put_losses(&t, sum);
	text_put(&t, "%" PRIu64 " packets (%" PRIu64 " bytes) written", written->packets,
		 written->bytes);
	if (!ledger_lost(&sum->ledger).packets && !sum->missing)
		text_put(&t, ", 0 lost");
	if (flying > sum->missing)
		text_put(&t, ", %" PRIu64 " under way", flying - sum->missing);
	return t.len;
}
