/* SPDX-License-Identifier: Apache-2.0 */
#include "ledger.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

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
};

/* What becomes of a packet that was seen; and of one that was captured. */
static const enum ledger_counter of_seen[] = {LEDGER_RULED_OUT, LEDGER_EXPRESSION_OUT,
					      LEDGER_SAMPLED_OUT, LEDGER_CAPTURED,
					      LEDGER_LOST_RING, LEDGER_LOST_ERROR};
static const enum ledger_counter of_captured[] = {LEDGER_COMMITTED, LEDGER_LOST_QUEUE,
						  LEDGER_LOST_SPOOL, LEDGER_LOST_OUTPUT};
static const enum ledger_counter lost[] = {LEDGER_LOST_RING, LEDGER_LOST_ERROR, LEDGER_LOST_QUEUE,
					   LEDGER_LOST_SPOOL, LEDGER_LOST_OUTPUT};

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

struct ledger_count ledger_lost(const struct ledger *l)
{
	return sum(l, lost, ARRAY_SIZE(lost));
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

bool ledger_adds_up(const struct ledger *l)
{
	struct ledger_count seen = sum(l, of_seen, ARRAY_SIZE(of_seen));
	struct ledger_count settled = sum(l, of_captured, ARRAY_SIZE(of_captured));

	return seen.packets == l->c[LEDGER_SEEN].packets && seen.bytes == l->c[LEDGER_SEEN].bytes &&
	       settled.packets <= l->c[LEDGER_CAPTURED].packets &&
	       settled.bytes <= l->c[LEDGER_CAPTURED].bytes;
}

struct json {
	char *out;
	size_t len, size;
};

__attribute__((format(printf, 2, 3))) static void put(struct json *j, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(j->out + j->len, j->size - j->len, fmt, ap);
	va_end(ap);
	if (n > 0)
		j->len = MIN(j->len + (size_t)n, j->size - 1);
}

static void put_string(struct json *j, const char *key, const char *value)
{
	put(j, "%s\"%s\":\"", j->len > 1 ? "," : "", key);
	for (; *value; value++) {
		unsigned char c = (unsigned char)*value;

		if (c == '"' || c == '\\')
			put(j, "\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			put(j, "\\u%04x", c);
		else
			put(j, "%c", c);
	}
	put(j, "\"");
}

static void put_count(struct json *j, const char *name, const struct ledger_count *c)
{
	put(j, ",\"%s\":%" PRIu64 ",\"%s_bytes\":%" PRIu64, name, c->packets, name, c->bytes);
}

size_t ledger_json(const struct ledger *l, const struct ledger_subject *who,
		   enum ledger_verdict verdict, char *out, size_t size)
{
	struct ledger_count in_flight = ledger_in_flight(l);
	struct json j = {.out = out, .size = size};

	put(&j, "{");
	put_string(&j, "agent", who->agent);
	put_string(&j, "agent_id", who->agent_id);
	put(&j, ",\"epoch\":%" PRIu64, who->epoch);
	put_string(&j, "interface", who->interface);
	put_string(&j, "direction", who->direction);
	for (size_t i = 0; i < LEDGER_COUNTERS; i++)
		put_count(&j, names[i], &l->c[i]);
	put_count(&j, "in_flight", &in_flight);
	if (who->file)
		put_string(&j, "file", who->file);
	put_string(&j, "verdict", ledger_verdict_name(verdict));
	put(&j, "}");
	return j.len;
}
