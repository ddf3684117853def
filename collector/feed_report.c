/* SPDX-License-Identifier: Apache-2.0 */
/* A feed's ledgers and verdicts, as JSON for programs and in words for people. */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "feed.h"
#include "util.h"

/* The agent's latest counters, and what became of the packets here. */
static struct ledger side_ledger(const struct feed_side *s)
{
	struct ledger l = s->stats;
	struct ledger_count *spool = &l.c[LEDGER_LOST_SPOOL];

	l.c[LEDGER_COMMITTED] = s->committed;
	l.c[LEDGER_LOST_OUTPUT] = s->lost_output;
	/* A GAP says at once what the next STATS will repeat. */
	spool->packets = MAX(spool->packets, s->gap.packets);
	spool->bytes = MAX(spool->bytes, s->gap.bytes);
	return l;
}

static enum ledger_verdict verdict_of(enum feed_state state, const struct feed_side *s,
				      const struct ledger *l)
{
	if (state == FEED_LOST || s->blind)
		return VERDICT_UNKNOWN;
	if (ledger_lost(l).packets)
		return VERDICT_INCOMPLETE;
	if (state == FEED_ENDED && ledger_in_flight(l).packets)
		return VERDICT_INCOMPLETE;
	return VERDICT_COMPLETE;
}

static enum ledger_verdict worse(enum ledger_verdict a, enum ledger_verdict b)
{
	return a > b ? a : b; /* the enum rises from complete to unknown */
}

size_t feed_verdict_text(const struct ledger *sum, enum ledger_verdict verdict, char *out,
			 size_t size)
{
	static const enum ledger_counter losses[] = {LEDGER_LOST_RING, LEDGER_LOST_ERROR,
						     LEDGER_LOST_QUEUE, LEDGER_LOST_SPOOL,
						     LEDGER_LOST_OUTPUT};
	struct ledger_count lost = ledger_lost(sum), in_flight = ledger_in_flight(sum);
	int n = snprintf(out, size, "%s: %" PRIu64 " packets (%" PRIu64 " bytes) written, ",
			 ledger_verdict_name(verdict), sum->c[LEDGER_COMMITTED].packets,
			 sum->c[LEDGER_COMMITTED].bytes);
	size_t len = (size_t)n;
	const char *separator = " (";

	len += (size_t)snprintf(out + len, size - len, "%" PRIu64 " lost", lost.packets);
	for (size_t i = 0; i < ARRAY_SIZE(losses); i++) {
		const struct ledger_count *c = &sum->c[losses[i]];

		if (!c->packets)
			continue;
		len += (size_t)snprintf(out + len, size - len, "%s%s %" PRIu64, separator,
					ledger_counter_name(losses[i]), c->packets);
		separator = ", ";
	}
	if (lost.packets)
		len += (size_t)snprintf(out + len, size - len, ")");
	if (in_flight.packets)
		len += (size_t)snprintf(out + len, size - len, ", %" PRIu64 " under way",
					in_flight.packets);
	return len;
}

struct report {
	const struct feed *f;
	struct output *output;
	bool final;
	feed_line_fn *line;
	void *ctx;
	struct feed_total total;
};

static void report_iface(struct report *rep, const struct feed_iface *iface)
{
	static const char prefix[] = "ledger ";
	static const char *const directions[] = {"ingress", "egress"};
	const struct feed *f = rep->f;
	char line[sizeof(prefix) + LEDGER_JSON_MAX];

	memcpy(line, prefix, sizeof(prefix));
	for (int d = 0; d < 2; d++) {
		struct ledger l = side_ledger(&iface->side[d]);
		enum ledger_verdict verdict = verdict_of(f->state, &iface->side[d], &l);
		const struct ledger_subject who = {
			.agent = f->agent_name,
			.agent_id = f->agent_id_text,
			.epoch = f->epoch,
			.interface = iface->meta.name,
			.direction = directions[d],
			.file = output_path(rep->output, iface->meta.link_type),
		};

		ledger_json(&l, &who, verdict, line + sizeof(prefix) - 1, LEDGER_JSON_MAX);
		rep->line(rep->ctx, LOG_LEVEL_INFO, line);
		if (rep->final && !ledger_adds_up(&l)) {
			snprintf(line, sizeof(line),
				 "the ledger of agent \"%s\", interface \"%s\", %s does not add up",
				 f->agent_name, iface->meta.name, directions[d]);
			rep->line(rep->ctx, LOG_LEVEL_WARN, line);
			memcpy(line, prefix, sizeof(prefix));
		}
		ledger_add(&rep->total.sum, &l);
		rep->total.verdict = worse(rep->total.verdict, verdict);
	}
}

static void report_agent(struct report *rep)
{
	const struct feed *f = rep->f;
	char text[1024], when[48] = "";
	time_t ended = (time_t)(f->ended / NSEC_PER_SEC);
	struct tm tm;
	int n;

	if (f->state == FEED_LOST && gmtime_r(&ended, &tm))
		strftime(when, sizeof(when), "unknown after %Y-%m-%dT%H:%M:%SZ, ", &tm);
	n = snprintf(text, sizeof(text), "agent \"%s\" (%s), epoch %" PRIu64 ": %s", f->agent_name,
		     f->agent_id_text, f->epoch, when);
	feed_verdict_text(&rep->total.sum, rep->total.verdict, text + n, sizeof(text) - (size_t)n);
	rep->line(rep->ctx, LOG_LEVEL_INFO, text);
}

void feed_report(struct feed *f, struct output *output, bool final, feed_line_fn *line, void *ctx,
		 struct feed_total *total)
{
	struct report rep = {
		.f = f,
		.output = output,
		.line = line,
		.ctx = ctx,
		.total = {.verdict = VERDICT_COMPLETE},
	};

	pthread_mutex_lock(&f->lock);
	rep.final = final && f->state == FEED_ENDED;
	if (f->state == FEED_LOST)
		rep.total.verdict = VERDICT_UNKNOWN;
	for (size_t i = 0; i < f->n_ifaces; i++)
		report_iface(&rep, f->ifaces[i]);
	if (f->any_folded)
		report_iface(&rep, &f->folded);
	report_agent(&rep);
	pthread_mutex_unlock(&f->lock);

	ledger_add(&total->sum, &rep.total.sum);
	total->verdict = worse(total->verdict, rep.total.verdict);
	total->feeds++;
}
