/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loss ledger: per interface and direction, cumulative since the epoch
 * began, in packets and in bytes on the wire.
 *
 *	seen     = ruled_out + expression_out + sampled_out + captured + lost_ring + lost_error
 *	captured = committed + in_flight + lost_queue + lost_spool + lost_output
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
/* All lost_ counters together. */
struct ledger_count ledger_lost(const struct ledger *l);
void ledger_add(struct ledger *to, const struct ledger *l);
bool ledger_equal(const struct ledger *a, const struct ledger *b);
/* Both identities hold, in packets and bytes, with in_flight as computed. */
bool ledger_adds_up(const struct ledger *l);

/* Who a line is about; @file NULL when there is none. */
struct ledger_subject {
	const char *agent;    /* name */
	const char *agent_id; /* UUID as text */
	uint64_t epoch;
	const char *interface;
	const char *direction; /* "ingress", "egress" */
	const char *file;
};

/*
 * The JSON object of a `ledger ` line (DESIGN section 9): subject, every counter
 * as NAME and NAME_bytes, in_flight, verdict. Returns its length; @size is enough
 * at LEDGER_JSON_MAX.
 */
#define LEDGER_JSON_MAX 4096
size_t ledger_json(const struct ledger *l, const struct ledger_subject *who,
		   enum ledger_verdict verdict, char *out, size_t size);

#endif
