/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's book: every interface of the epoch and its ledger, both directions.
 * Ids count up and are never reused. Thread-safe.
 */
#ifndef PS_BOOK_H
#define PS_BOOK_H

#include "abi.h"
#include "stream.h"
#include "tally.h"

struct book;

struct book *book_new(void);
struct book *book_free(struct book *b);

/* Enter an interface: fills in @info->id. -ENOMEM. */
int book_add(struct book *b, struct stream_iface *info);
/* Take an interface out again that nobody was told of. */
void book_remove(struct book *b, uint32_t id);
/* It is captured no more; its last counts have been booked. */
void book_gone(struct book *b, uint32_t id);

/* The kernel's counters so far, cumulative. */
void book_counts(struct book *b, uint32_t id, enum direction direction,
		 const struct capture_counts *counts);
/*
 * From @from to @to (CLOCK_REALTIME) packets of the interface passed that nobody counted; of all
 * that are captured now.
 */
void book_unseen(struct book *b, uint32_t id, uint64_t from, uint64_t to);
void book_all_unseen(struct book *b, uint64_t from, uint64_t to);
/* Something became of the packets of @t: LEDGER_COMMITTED or one of LEDGER_LOST_. */
void book_settle(struct book *b, const struct tally *t, enum ledger_counter counter);

/* The link type of an interface, 0 when it is unknown. */
uint32_t book_link_type(struct book *b, uint32_t id);

/*
 * The interfaces for HELLO: alive, or with packets in flight. *ret is malloc'ed.
 * Returns their number or -ENOMEM.
 */
long book_interfaces(struct book *b, struct stream_iface **ret);

/*
 * The ledgers that changed since the last call, for STATS, up to so many that any queue
 * has room for the message; then there are more. *ret is malloc'ed. Returns their number
 * (0: nothing to say) or -ENOMEM.
 */
#define BOOK_CHANGES_MAX 512
long book_changes(struct book *b, struct stream_stats_part **ret);
/* Whoever heard the changes so far may have forgotten them: report everything again. */
void book_report_again(struct book *b);

/* Called for each interface and direction with the book locked: must not call back. */
typedef void book_line_fn(void *ctx, const struct stream_iface *info, enum direction direction,
			  const struct ledger *l, const struct ledger_span *unseen);
void book_for_each(struct book *b, book_line_fn *fn, void *ctx);
/* Forget the interfaces that are gone and settled, but for the newest @keep; @fn sees them last. */
void book_prune(struct book *b, size_t keep, book_line_fn *fn, void *ctx);

#endif
