/* SPDX-License-Identifier: Apache-2.0 */
#include "account.h"

#include "log.h"
#include "util.h"

/* Interfaces that are gone and settled stay in the ledger up to this many. */
#define GONE_KEPT 1024u

/* Messages; each tells of BOOK_CHANGES_MAX ledgers at most. */
#define STATS_PER_TICK 8

/* False when there is no more to say, or no room to say it. */
static bool push_stats(struct account *a)
{
	_cleanup_free_ struct stream_stats_part *parts = NULL;
	_cleanup_(buf_free) struct buf payload = {};
	struct stream_stats stats = {.time = clock_realtime()};
	long n = book_changes(a->book, &parts);

	/* Without a collector nobody waits for them; settled interfaces can be forgotten. */
	if (n <= 0 || !a->queue)
		return n > 0;
	stats.parts = parts;
	stats.n_parts = (size_t)n;
	stream_stats_encode(&payload, &stats);
	if (!buf_failed(&payload) &&
	    queue_push_control(a->queue, STREAM_STATS, payload.data, payload.len) == 0) {
		a->refused = false;
		return true;
	}
	/* The next ones tell everything. */
	book_report_again(a->book);
	if (!a->refused)
		log_warn("the queue has no room for the loss counters");
	a->refused = true;
	return false;
}

/*
 * A queue that a long outage has filled is no place for one more set of counters every second.
 * With a spool it empties again, unless the disk takes nothing either.
 */
static bool is_room(const struct account *a)
{
	if (!a->queue)
		return true;
	return queue_bytes(a->queue) <= queue_capacity(a->queue) / 8 * (a->has_spool ? 7 : 4);
}

struct total {
	const struct account *account;
	bool final;
	struct ledger sum;
	struct ledger_span unseen;
};

static enum ledger_verdict verdict(const struct ledger *l, const struct ledger_span *unseen,
				   bool final)
{
	if (unseen->to)
		return VERDICT_UNKNOWN;
	if (ledger_lost(l).packets)
		return VERDICT_INCOMPLETE;
	return final && ledger_in_flight(l).packets ? VERDICT_UNKNOWN : VERDICT_COMPLETE;
}

static void ledger_line(void *ctx, const struct stream_iface *info, enum direction direction,
			const struct ledger *l, const struct ledger_span *unseen)
{
	struct total *total = ctx;
	const struct account *a = total->account;
	char json[LEDGER_JSON_MAX];
	struct ledger_subject who = {
		.agent = a->agent,
		.agent_id = a->identity->agent_id_text,
		.epoch = a->identity->epoch,
		.interface = info->name,
		.netns = info->netns_name,
		.direction = direction == DIRECTION_INGRESS ? "ingress" : "egress",
		.unknown_after = unseen->from,
		.file = a->output ? output_path(a->output, info->link_type) : NULL,
	};

	ledger_json(l, &who, verdict(l, unseen, total->final), json, sizeof(json));
	log_info("ledger %s", json);
	if (total->final && !ledger_adds_up(l))
		log_warn("the counters of \"%s\" %s do not add up", info->name, who.direction);
	ledger_add(&total->sum, l);
	ledger_span_add(&total->unseen, unseen->from, unseen->to);
}

void account_tick(struct account *a)
{
	struct total gone = {.account = a, .final = true};

	for (int i = 0; i < STATS_PER_TICK; i++)
		if (!is_room(a) || !push_stats(a))
			break;
	book_prune(a->book, GONE_KEPT, ledger_line, &gone);
}

void account_last(struct account *a)
{
	book_report_again(a->book);
	while (push_stats(a))
		;
}

void account_print(struct account *a, bool final)
{
	struct total total = {.account = a, .final = final};
	struct ledger_count flying;

	book_for_each(a->book, ledger_line, &total);
	flying = ledger_in_flight(&total.sum);
	log_info("%s: %llu packets seen, %llu captured, %llu committed, %llu lost, %llu in flight",
		 ledger_verdict_name(verdict(&total.sum, &total.unseen, final)),
		 (unsigned long long)total.sum.c[LEDGER_SEEN].packets,
		 (unsigned long long)total.sum.c[LEDGER_CAPTURED].packets,
		 (unsigned long long)total.sum.c[LEDGER_COMMITTED].packets,
		 (unsigned long long)ledger_lost(&total.sum).packets,
		 (unsigned long long)flying.packets);
}
