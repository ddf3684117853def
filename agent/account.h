/* SPDX-License-Identifier: Apache-2.0 */
/* What the agent says of its book: STATS to the collector, ledgers to the log. One thread. */
#ifndef PS_ACCOUNT_H
#define PS_ACCOUNT_H

#include "book.h"
#include "identity.h"
#include "output.h"
#include "queue.h"

struct account {
	const char *agent; /* its name */
	const struct identity *identity;
	struct book *book;
	struct queue *queue; /* NULL: no collector to tell */
	bool has_spool;
	struct output *output; /* NULL: no file */
	bool refused;          /* the queue had no room for the last STATS: said so */
};

/* Every second, after the counters were booked: tell what has changed, forget what is over. */
void account_tick(struct account *a);
/* Nothing will change any more: tell all. */
void account_last(struct account *a);
/* A `ledger ` line for each interface and direction, then one of all. */
void account_print(struct account *a, bool final);

#endif
