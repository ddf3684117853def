/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loss ledger: per interface and direction, cumulative since the epoch
 * began, in packets and in bytes on the wire.
 *
 *	seen     = ruled_out + expression_out + sampled_out + captured + lost_ring + lost_error
 *	captured = committed + in_flight + lost_queue + lost_spool + lost_output
 *
 * duplicates (suppressed copies of a packet) are a part of ruled_out, rate_limited (above a limit)
 *of sampled_out, sliced (cut below the configured snap length by a rule or the budget) of captured.
 *
 * lost_output is what the collector (or an agent that writes files) could not
 * write: a link type that its stdout cannot carry, for example.
 */
#ifndef PS_LEDGER_H
#define PS_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The numbers go over the wire: append, never renumber. */
enum ledger_counter {
	LEDGER_SEEN,
	LEDGER_RULED_OUT,
	LEDGER_EXPRESSION_OUT,
	LEDGER_SAMPLED_OUT,
	LEDGER_CAPTURED,
	LEDGER_LOST_RING,
	LEDGER_LOST_ERROR,
	LEDGER_LOST_QUEUE,
	LEDGER_LOST_SPOOL,
	LEDGER_LOST_OUTPUT,
	LEDGER_COMMITTED,
	/* For information, in no identity: a part of ruled_out, of sampled_out, of captured. */
	LEDGER_DUPLICATES,
	LEDGER_RATE_LIMITED,
	LEDGER_SLICED,
	LEDGER_COUNTERS,
};

struct ledger_count {
	uint64_t packets, bytes;
};

struct ledger {
	struct ledger_count c[LEDGER_COUNTERS];
};

enum ledger_verdict { VERDICT_COMPLETE, VERDICT_INCOMPLETE, VERDICT_UNKNOWN };

const char *ledger_counter_name(enum ledger_counter c);
const char *ledger_verdict_name(enum ledger_verdict v);

/* captured minus all that happened to it since; 0 when counters disagree for a moment. */
struct ledger_count ledger_in_flight(const struct ledger *l);
/* What happened to more packets than were captured; 0 unless counters are of different times. */
struct ledger_count ledger_excess(const struct ledger *l);
/* All lost_ counters together. */
struct ledger_count ledger_lost(const struct ledger *l);
void ledger_add(struct ledger *to, const struct ledger *l);
bool ledger_equal(const struct ledger *a, const struct ledger *b);
/* By how many packets `seen` and what became of them differ; 1 when only bytes do. */
uint64_t ledger_skew(const struct ledger *l);
/* Both identities hold, in packets and bytes, with in_flight as computed. */
bool ledger_adds_up(const struct ledger *l);

/* When something happened; not at all when `to` is 0. */
struct ledger_span {
	uint64_t from, to; /* CLOCK_REALTIME, ns */
};
void ledger_span_add(struct ledger_span *s, uint64_t from, uint64_t to);

/* The lost_ counters; spans of them have the same order. */
#define LEDGER_LOSSES 5
extern const enum ledger_counter ledger_losses[LEDGER_LOSSES];

/* Who a line is about, and when; @file and @spans NULL when there are none. */
struct ledger_subject {
	const char *agent;    /* name */
	const char *agent_id; /* UUID as text */
	uint64_t epoch;
	const char *interface;
	const char *netns;     /* name of its network namespace; NULL or empty: the agent's own */
	const char *direction; /* "ingress", "egress" */
	const char *file;
	const struct ledger_span *spans; /* LEDGER_LOSSES: when packets were lost */
	uint64_t unknown_after;          /* with VERDICT_UNKNOWN; 0: no time is known */
};

/*
 * The JSON object of a `ledger ` line (DESIGN section 9): subject, every counter
 * as NAME and NAME_bytes, in_flight, with spans `losses` (an array of stage, packets, from,
 * to), verdict, unknown_after. Returns its length; @size is enough at LEDGER_JSON_MAX.
 */
#define LEDGER_JSON_MAX 5184
size_t ledger_json(const struct ledger *l, const struct ledger_subject *who,
		   enum ledger_verdict verdict, char *out, size_t size);

/* What is in an output file; the object of a `file ` line. */
struct ledger_file {
	const char *file;
	uint64_t agents, streams;
	struct ledger_count written;
	struct ledger_span packets; /* their time stamps */
	uint64_t lost;              /* packets that should be in it */
	enum ledger_verdict verdict;
};
size_t ledger_file_json(const struct ledger_file *f, char *out, size_t size);

/* How an agent's clock stands to the collector's; the object of a `clock ` line. */
struct ledger_clock {
	const char *agent, *agent_id;
	int64_t offset_ns; /* how far it is ahead, with an error of half of rtt_ns */
	uint64_t rtt_ns;
	bool synchronized; /* what its kernel says, */
	uint64_t error_ns; /* and how wrong it may be at most */
};
size_t ledger_clock_json(const struct ledger_clock *c, char *out, size_t size);

#endif
