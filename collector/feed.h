/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A feed is what the collector knows about one stream, the epoch of an agent: the
 * next number it takes, the interfaces, and the ledger of each. It outlives the
 * sessions that carry it.
 */
#ifndef PS_COLLECTOR_FEED_H
#define PS_COLLECTOR_FEED_H

#include <pthread.h>
#include <stdatomic.h>

#include "clock.h"
#include "log.h"
#include "output.h"
#include "packet.h"
#include "stream.h"

/* Interfaces that are gone and still have ledgers of their own; older ones are summed up. */
#define FEED_GONE_MAX     256u
#define FEED_IDENTITY_MAX 256u

struct feed_side {
	struct ledger stats;           /* the agent's latest STATS */
	bool blind;                    /* it had packets elsewhere, and no STATS came here since */
	struct ledger_count committed; /* written here, or acknowledged before HELLO */
	struct ledger_count lost_output; /* could not be written */
	struct ledger_count gap;         /* lost according to GAPs */
	struct ledger_count tally;       /* of the group in hand */
};

struct feed_iface {
	struct stream_iface meta;
	bool described; /* by HELLO or META, so that DATA may name it */
	bool unsupported_told;
	uint64_t gone_order;      /* rises with each that is told to be gone */
	struct feed_side side[2]; /* by direction - 1 */
	bool tallied;
	struct feed_iface *next_tallied;
};

/*
 * ENDED: the agent said that this was all. LOST: its connection was, and it may come back.
 * BROKEN: it said that the epoch ended without a stop, and nobody knows what else there was.
 */
enum feed_state { FEED_CONNECTED, FEED_ENDED, FEED_LOST, FEED_BROKEN };

struct registry_owner;

/* How many interfaces all feeds may have together. */
struct feed_room {
	atomic_size_t used;
	size_t max;
};

struct feed {
	char identity[FEED_IDENTITY_MAX];
	uint8_t agent_id[16];
	char agent_id_text[37];
	uint64_t epoch;
	struct feed_room *room;

	/*
	 * The last number that is committed (commit.h): survives us, and is acknowledged. A new
	 * feed's is the one before next_seq; then it is set by the committer, which also has what
	 * is behind it. While `commits` is not 0 the committer refers to the feed: it is neither
	 * evicted nor freed, also when no session has it.
	 */
	_Atomic uint64_t committed_seq;
	atomic_uint commits;
	struct feed *next_dirty;
	bool dirty;

	/* The registry's, under its lock. */
	struct feed *next;
	struct registry_owner *owner; /* the session that feeds it now */
	unsigned int refs;            /* sessions that hold it, superseded ones too */

	/*
	 * Held for a whole message, the write included: the session that is replaced
	 * is done with its last one when the next begins.
	 */
	pthread_mutex_t turn;

	/* Guards the rest. Only the holder of the turn changes it, and reads it freely. */
	pthread_mutex_t lock;
	char agent_name[STREAM_NAME_MAX + 1];
	enum feed_state state;
	nsec_t ended; /* when it left FEED_CONNECTED */
	uint64_t session_id;
	uint64_t next_seq;
	size_t partial; /* bytes of the inflated message next_seq that are written already */
	struct feed_iface **ifaces; /* by rising id */
	size_t n_ifaces, n_gone;
	uint64_t last_gone_order;
	struct feed_iface folded; /* the sum of interfaces long gone */
	bool any_folded;
	struct feed_iface *tallied;
};

/* Everything of one feed, or of all. */
struct feed_total {
	struct ledger sum;
	enum ledger_verdict verdict;
	size_t feeds;
};

typedef void feed_line_fn(void *ctx, enum log_level level, const char *line);

/* A feed for the stream of @hello, which is not read further than its head. */
struct feed *feed_new(const char *identity, const struct stream_hello *hello,
		      struct feed_room *room);
struct feed *feed_free(struct feed *f);
bool feed_is(const struct feed *f, const char *identity, const struct stream_hello *hello);

/*
 * HELLO's interfaces; their committed counts become ours when @adopt (the stream, or what
 * it went through last, is new here). Errors as feed_describe().
 */
int feed_introduce(struct feed *f, const struct stream_hello *hello, bool adopt, struct err *err);
/*
 * META. -EPROTO when it contradicts what was said or there are too many interfaces; -ENOMEM
 * when all feeds together have too many.
 */
int feed_describe(struct feed *f, const struct stream_iface *meta, struct err *err);
/* NULL when DATA may not name the interface. */
struct feed_iface *feed_find(struct feed *f, uint32_t id);

/* Packets are tallied one by one, then all committed, given up, or forgotten. */
void feed_tally(struct feed *f, struct feed_iface *iface, const struct packet *p);
enum feed_outcome { FEED_WRITTEN, FEED_UNSUPPORTED, FEED_FORGET };
/* @partial: how far the message in hand is written now. */
void feed_settle(struct feed *f, enum feed_outcome outcome, size_t partial);
/*
 * For the journal: append what has changed since the last call (@all: everything) to @out, as
 * TLVs that registry_load() reads. Nobody changes the feed meanwhile (commit_enter()).
 */
void feed_save(struct feed *f, bool all, struct buf *out);

/* How far the agent's clock is ahead of ours, from a PING of ours and its answer. */
void feed_clock(struct feed *f, nsec_t sent, nsec_t answered, nsec_t now);

/* The message is done; @next is the number after it. */
void feed_advance(struct feed *f, uint64_t next);

int feed_stats(struct feed *f, const struct stream_stats *stats, struct err *err);
int feed_gap(struct feed *f, const struct stream_gap *gap, struct err *err);

/*
 * One `ledger ` line per interface and direction, and one for the agent, to @line;
 * added to @total. @final: warn about ledgers that do not add up.
 */
void feed_report(struct feed *f, struct output *output, bool final, feed_line_fn *line, void *ctx,
		 struct feed_total *total);

/* "incomplete: 3 of 120 packets lost (lost_ring 3)" and the like. */
size_t feed_verdict_text(const struct ledger *sum, enum ledger_verdict verdict, char *out,
			 size_t size);

#endif
