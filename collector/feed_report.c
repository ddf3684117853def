/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A feed's ledgers and verdicts, as JSON for programs and in words for people. Each interface
 * and direction is judged by itself; the verdict of the stream is the worst of them.
 */
#include <inttypes.h>
#include <stdio.h>

#include "feed_internal.h"
#include "util.h"

/* What is here and what is lost was captured, and seen, before the agent could say so. */
static void count_as_captured(struct ledger *l, struct ledger_count of)
{
	static const enum ledger_counter which[] = {LEDGER_SEEN, LEDGER_CAPTURED};

	for (size_t i = 0; i < ARRAY_SIZE(which); i++) {
		l->c[which[i]].packets += of.packets;
		l->c[which[i]].bytes += of.bytes;
	}
}

/* The agent's latest counters, and what became of the packets here. */
static struct ledger side_ledger(const struct feed *f, const struct feed_side *s)
{
	struct ledger l = s->stats;
	struct ledger_count *spool = &l.c[LEDGER_LOST_SPOOL];

	l.c[LEDGER_COMMITTED] = s->committed;
	l.c[LEDGER_LOST_OUTPUT] = s->lost_output;
	/* A GAP says at once what the next STATS will repeat. */
	spool->packets = MAX(spool->packets, s->gap.packets);
	spool->bytes = MAX(spool->bytes, s->gap.bytes);
	/* The counters of a stream that ended are its last, and have to add up as they are. */
	if (f->state != FEED_ENDED)
		count_as_captured(&l, ledger_excess(&l));
	return l;
}

/* What is unknown of all of the feed. */
static void judge_feed(const struct feed *f, struct feed_sum *sum)
{
	sum->verdict = VERDICT_COMPLETE;
	if (f->state == FEED_LOST || f->state == FEED_BROKEN) {
		sum->verdict = VERDICT_UNKNOWN;
		sum->unknown_after = f->unknown_after;
	}
	if (f->uncounted.to)
		feed_sum_add(sum, &(struct feed_sum){
					  .verdict = VERDICT_UNKNOWN,
					  .unknown_after = f->uncounted.from,
					  .unknown_until = f->uncounted_open ? 0 : f->uncounted.to,
				  });
}

static struct feed_sum side_sum(const struct feed *f, const struct feed_side *s)
{
	struct feed_sum sum = {.ledger = side_ledger(f, s), .packets = s->packets};
	uint64_t flying = ledger_in_flight(&sum.ledger).packets;

	memcpy(sum.lost, s->lost, sizeof(sum.lost));
	if (feed_is_over(f))
		sum.missing = flying;
	judge_feed(f, &sum);
	if (s->unseen.to)
		feed_sum_add(&sum, &(struct feed_sum){.verdict = VERDICT_UNKNOWN,
						      .unknown_after = s->unseen.from,
						      .unknown_until = s->unseen.to});
	if (s->blind)
		feed_sum_add(&sum, &(struct feed_sum){.verdict = VERDICT_UNKNOWN,
						      .unknown_after = f->stats_time});
	if (ledger_lost(&sum.ledger).packets || sum.missing)
		sum.verdict = MAX(sum.verdict, VERDICT_INCOMPLETE);
	return sum;
}

bool feed_may_say(struct feed_room *room, size_t n)
{
	const nsec_t each = NSEC_PER_SEC / FEED_LINES_PER_SECOND;
	uint64_t earned, left_out = 0;
	char text[64];
	bool may;

	pthread_mutex_lock(&room->lock);
	earned = (clock_monotonic() - room->counted) / each;
	room->counted += earned * each;
	room->lines = MIN(room->lines + earned, FEED_LINES_MAX);
	may = n <= room->lines;
	if (may) {
		room->lines -= n;
		left_out = room->left_out;
		room->left_out = 0;
	} else {
		room->left_out += n;
	}
	pthread_mutex_unlock(&room->lock);
	if (left_out) {
		snprintf(text, sizeof(text), "%" PRIu64 " lines about streams were left out",
			 left_out);
		room->line(room->ctx, LOG_LEVEL_WARN, text);
	}
	return may;
}

struct report {
	const struct feed *f;
	struct output *output;
	struct feed_report_how how;
	struct feed_total total;
};

static void say(const struct report *rep, enum log_level level, const char *line)
{
	rep->f->room->line(rep->f->room->ctx, level, line);
}

static void report_side(const struct report *rep, const struct feed_iface *iface, int d,
			const struct feed_sum *sum)
{
	static const char prefix[] = "ledger ";
	static const char *const directions[] = {"ingress", "egress"};
	const struct feed *f = rep->f;
	const struct ledger_subject who = {
		.agent = f->agent_name,
		.agent_id = f->agent_id_text,
		.epoch = f->epoch,
		.interface = iface->meta.name,
		.direction = directions[d],
		.file = rep->output ? output_path(rep->output, iface->meta.link_type) : NULL,
		.spans = sum->lost,
		.unknown_after = sum->unknown_after,
	};
	char line[sizeof(prefix) + LEDGER_JSON_MAX];

	memcpy(line, prefix, sizeof(prefix));
	ledger_json(&sum->ledger, &who, sum->verdict, line + sizeof(prefix) - 1, LEDGER_JSON_MAX);
	say(rep, LOG_LEVEL_INFO, line);
	if (!rep->how.final || f->state != FEED_ENDED || iface->side[d].warned ||
	    ledger_adds_up(&sum->ledger))
		return;
	snprintf(line, sizeof(line),
		 "the ledger of agent \"%s\", interface \"%s\", %s does not add up", f->agent_name,
		 iface->meta.name, directions[d]);
	say(rep, LOG_LEVEL_WARN, line);
}

static void report_iface(struct report *rep, const struct feed_iface *iface)
{
	struct feed_sum *file = &rep->total.file[feed_file_of(iface)];

	for (int d = 0; d < 2; d++) {
		const struct feed_sum sum = side_sum(rep->f, &iface->side[d]);

		if (!rep->how.quiet)
			report_side(rep, iface, d, &sum);
		feed_sum_add(file, &sum);
		feed_sum_add(&rep->total.all, &sum);
	}
	file->feeds = 1;
}

static void report_agent(const struct report *rep)
{
	const struct feed *f = rep->f;
	char text[FEED_TEXT_MAX];
	int n;

	n = snprintf(text, sizeof(text), "agent \"%s\" (%s), epoch %" PRIu64 ": ", f->agent_name,
		     f->agent_id_text, f->epoch);
	feed_verdict_text(&rep->total.all, text + n, sizeof(text) - (size_t)n);
	say(rep, LOG_LEVEL_INFO, text);
}

void feed_report(struct feed *f, struct output *output, struct feed_report_how how,
		 struct feed_total *total)
{
	struct report rep = {.f = f, .output = output, .how = how};
	struct feed_total *t = &rep.total;

	pthread_mutex_lock(&f->lock);
	for (size_t i = 0; i < f->n_ifaces; i++)
		report_iface(&rep, f->ifaces[i]);
	for (unsigned int i = 0; i < FEED_FILES; i++)
		if (f->folded[i].described)
			report_iface(&rep, &f->folded[i]);
	t->all.feeds = 1;
	/* What came before the first interface was named is nobody's. */
	if (!f->n_ifaces && !f->folded_order) {
		judge_feed(f, &t->all);
		judge_feed(f, &t->file[0]);
		t->file[0].feeds = 1;
	}
	if (!how.quiet)
		report_agent(&rep);
	pthread_mutex_unlock(&f->lock);

	for (unsigned int i = 0; i < FEED_FILES; i++)
		if (t->file[i].feeds)
			feed_agents_add(&t->agents[i],
					get_le64(f->agent_id) ^ get_le64(f->agent_id + 8));
	feed_total_add(total, t);
	feed_total_free(t);
}

void feed_report_clock(struct feed *f)
{
	static const char prefix[] = "clock ";
	char line[sizeof(prefix) + LEDGER_JSON_MAX];
	struct feed_clock_sample best;

	pthread_mutex_lock(&f->lock);
	if (feed_clock_best(f, &best)) {
		const struct ledger_clock clock = {
			.agent = f->agent_name,
			.agent_id = f->agent_id_text,
			.offset_ns = best.offset,
			.rtt_ns = best.rtt,
			.synchronized = f->clock_state == STREAM_CLOCK_SYNCED,
			.error_ns = f->clock_error,
		};

		memcpy(line, prefix, sizeof(prefix));
		ledger_clock_json(&clock, line + sizeof(prefix) - 1, LEDGER_JSON_MAX);
		f->room->line(f->room->ctx, LOG_LEVEL_INFO, line);
	}
	pthread_mutex_unlock(&f->lock);
}
