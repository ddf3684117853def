/* SPDX-License-Identifier: Apache-2.0 */
#include "ledger.h"

#include <inttypes.h>
#include <stdio.h>

#include "text.h"
#include "util.h"

static const char *const names[LEDGER_COUNTERS] = {
	[LEDGER_SEEN] = "seen",
	[LEDGER_RULED_OUT] = "ruled_out",
	[LEDGER_EXPRESSION_OUT] = "expression_out",
	[LEDGER_SAMPLED_OUT] = "sampled_out",
	[LEDGER_CAPTURED] = "captured",
	[LEDGER_LOST_RING] = "lost_ring",
	[LEDGER_LOST_ERROR] = "lost_error",
	[LEDGER_LOST_QUEUE] = "lost_queue",
	[LEDGER_LOST_SPOOL] = "lost_spool",
	[LEDGER_LOST_OUTPUT] = "lost_output",
	[LEDGER_COMMITTED] = "committed",
	[LEDGER_DUPLICATES] = "duplicates",
	[LEDGER_RATE_LIMITED] = "rate_limited",
	[LEDGER_SLICED] = "sliced",
};

/* What becomes of a packet that was seen; and of one that was captured. */
static const enum ledger_counter of_seen[] = {LEDGER_RULED_OUT,   LEDGER_EXPRESSION_OUT,
					      LEDGER_SAMPLED_OUT, LEDGER_CAPTURED,
					      LEDGER_LOST_RING,   LEDGER_LOST_ERROR};
static const enum ledger_counter of_captured[] = {LEDGER_COMMITTED, LEDGER_LOST_QUEUE,
						  LEDGER_LOST_SPOOL, LEDGER_LOST_OUTPUT};
const enum ledger_counter ledger_losses[LEDGER_LOSSES] = {LEDGER_LOST_RING, LEDGER_LOST_ERROR,
							  LEDGER_LOST_QUEUE, LEDGER_LOST_SPOOL,
							  LEDGER_LOST_OUTPUT};

static struct ledger_count sum(const struct ledger *l, const enum ledger_counter *which, size_t n)
{
	struct ledger_count s = {};

	for (size_t i = 0; i < n; i++) {
		s.packets += l->c[which[i]].packets;
		s.bytes += l->c[which[i]].bytes;
	}
	return s;
}

const char *ledger_counter_name(enum ledger_counter c)
{
	return c < LEDGER_COUNTERS ? names[c] : NULL;
}

const char *ledger_verdict_name(enum ledger_verdict v)
{
	static const char *const verdicts[] = {
		[VERDICT_COMPLETE] = "complete",
		[VERDICT_INCOMPLETE] = "incomplete",
		[VERDICT_UNKNOWN] = "unknown",
	};

	return verdicts[v];
}

struct ledger_count ledger_in_flight(const struct ledger *l)
{
	struct ledger_count settled = sum(l, of_captured, ARRAY_SIZE(of_captured));
	const struct ledger_count *captured = &l->c[LEDGER_CAPTURED];

	return (struct ledger_count){
		.packets = captured->packets - MIN(captured->packets, settled.packets),
		.bytes = captured->bytes - MIN(captured->bytes, settled.bytes),
	};
}

struct ledger_count ledger_excess(const struct ledger *l)
{
	struct ledger_count settled = sum(l, of_captured, ARRAY_SIZE(of_captured));
	const struct ledger_count *captured = &l->c[LEDGER_CAPTURED];

	return (struct ledger_count){
		.packets = settled.packets - MIN(captured->packets, settled.packets),
		.bytes = settled.bytes - MIN(captured->bytes, settled.bytes),
	};
}

struct ledger_count ledger_lost(const struct ledger *l)
{
	return sum(l, ledger_losses, LEDGER_LOSSES);
}

void ledger_span_add(struct ledger_span *s, uint64_t from, uint64_t to)
{
	if (!to)
		return;
	s->from = s->to ? MIN(s->from, from) : from;
	s->to = MAX(s->to, to);
}

void ledger_add(struct ledger *to, const struct ledger *l)
{
	for (size_t i = 0; i < LEDGER_COUNTERS; i++) {
		to->c[i].packets += l->c[i].packets;
		to->c[i].bytes += l->c[i].bytes;
	}
}

bool ledger_equal(const struct ledger *a, const struct ledger *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

uint64_t ledger_skew(const struct ledger *l)
{
	struct ledger_count parts = sum(l, of_seen, ARRAY_SIZE(of_seen));
	const struct ledger_count *seen = &l->c[LEDGER_SEEN];

	if (parts.packets == seen->packets)
		return parts.bytes != seen->bytes;
	return MAX(parts.packets, seen->packets) - MIN(parts.packets, seen->packets);
}

bool ledger_adds_up(const struct ledger *l)
{
	struct ledger_count settled = sum(l, of_captured, ARRAY_SIZE(of_captured));

	return !ledger_skew(l) && settled.packets <= l->c[LEDGER_CAPTURED].packets &&
	       settled.bytes <= l->c[LEDGER_CAPTURED].bytes;
}

/* Bytes of one string. LEDGER_JSON_MAX has room for five such, and all numbers at their widest. */
#define VALUE_MAX 512

static void put_string(struct text *j, const char *key, const char *value)
{
	text_json_string(j, key, value, VALUE_MAX);
}

static void put_count(struct text *j, const char *name, const struct ledger_count *c)
{
	text_put(j, ",\"%s\":%" PRIu64 ",\"%s_bytes\":%" PRIu64, name, c->packets, name, c->bytes);
}

static void put_losses(struct text *j, const struct ledger *l, const struct ledger_span *spans)
{
	const char *separator = "";

	text_put(j, ",\"losses\":[");
	for (size_t i = 0; i < LEDGER_LOSSES; i++) {
		const struct ledger_count *c = &l->c[ledger_losses[i]];

		if (!c->packets)
			continue;
		text_put(j,
			 "%s{\"stage\":\"%s\",\"packets\":%" PRIu64 ",\"from\":%" PRIu64
			 ",\"to\":%" PRIu64 "}",
			 separator, names[ledger_losses[i]], c->packets, spans[i].from,
			 spans[i].to);
		separator = ",";
	}
	text_put(j, "]");
}

size_t ledger_json(const struct ledger *l, const struct ledger_subject *who,
		   enum ledger_verdict verdict, char *out, size_t size)
{
	struct ledger_count in_flight = ledger_in_flight(l);
	struct text j = {.out = out, .size = size};

	text_put(&j, "{");
	put_string(&j, "agent", who->agent);
	put_string(&j, "agent_id", who->agent_id);
	text_put(&j, ",\"epoch\":%" PRIu64, who->epoch);
	put_string(&j, "interface", who->interface);
	if (who->netns && *who->netns)
		put_string(&j, "netns", who->netns);
	put_string(&j, "direction", who->direction);
	for (size_t i = 0; i < LEDGER_COUNTERS; i++)
		put_count(&j, names[i], &l->c[i]);
	put_count(&j, "in_flight", &in_flight);
	if (who->spans)
		put_losses(&j, l, who->spans);
	if (who->file)
		put_string(&j, "file", who->file);
	put_string(&j, "verdict", ledger_verdict_name(verdict));
	if (verdict == VERDICT_UNKNOWN && who->unknown_after)
		text_put(&j, ",\"unknown_after\":%" PRIu64, who->unknown_after);
	text_put(&j, "}");
	return j.len;
}

size_t ledger_file_json(const struct ledger_file *f, char *out, size_t size)
{
	struct text j = {.out = out, .size = size};

	text_put(&j, "{");
	put_string(&j, "file", f->file);
	text_put(&j, ",\"agents\":%" PRIu64 ",\"streams\":%" PRIu64, f->agents, f->streams);
	text_put(&j, ",\"packets\":%" PRIu64 ",\"bytes\":%" PRIu64, f->written.packets,
		 f->written.bytes);
	text_put(&j, ",\"first\":%" PRIu64 ",\"last\":%" PRIu64 ",\"lost\":%" PRIu64,
		 f->packets.from, f->packets.to, f->lost);
	put_string(&j, "verdict", ledger_verdict_name(f->verdict));
	text_put(&j, "}");
	return j.len;
}

size_t ledger_clock_json(const struct ledger_clock *c, char *out, size_t size)
{
	struct text j = {.out = out, .size = size};

	text_put(&j, "{");
	put_string(&j, "agent", c->agent);
	put_string(&j, "agent_id", c->agent_id);
	text_put(&j, ",\"offset_ns\":%" PRId64 ",\"rtt_ns\":%" PRIu64, c->offset_ns, c->rtt_ns);
	text_put(&j, ",\"synchronized\":%s,\"error_ns\":%" PRIu64 "}",
		 c->synchronized ? "true" : "false", c->error_ns);
	return j.len;
}
