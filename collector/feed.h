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
#define FEED_DROPPED_MAX  32u

/* Files that a feed's packets go to: Ethernet, raw IP, and what is in none of them. */
#define FEED_FILES 3

struct feed_side {
	struct ledger stats;           /* the agent's latest STATS */
	struct ledger_span unseen;     /* as it says there: packets passed that nobody counted */
	bool blind;                    /* it had packets elsewhere, and no STATS came here since */
	bool warned;                   /* that its counts do not add up */
	uint8_t skewed;                /* so many STATS in a row did not */
	struct ledger_count committed; /* written here, or acknowledged before HELLO */
	struct ledger_count lost_output;        /* could not be written */
	struct ledger_count gap;                /* lost according to GAPs */
	struct ledger_span packets;             /* time stamps of what was written here */
	struct ledger_span lost[LEDGER_LOSSES]; /* when packets were lost */
	struct {
		struct ledger_count count;
		struct ledger_span span;
	} tally; /* of the group in hand */
};

struct feed_iface {
	struct stream_iface meta;
	bool described; /* by HELLO or META, so that DATA may name it; of a sum: it is one */
	bool unsupported_told;
	uint64_t gone_order;      /* rises with each that is told to be gone */
	struct feed_side side[2]; /* by direction - 1 */
	bool tallied;
	struct feed_iface *next_tallied;
	unsigned int changed; /* what feed_save() has to tell, FEED_CHANGED_ */
	struct feed_iface *next_changed;
};

/*
 * ENDED: the agent said that this was all. LOST: its connection was, and it may come back.
 * BROKEN: it said that the epoch ended without a stop, and nobody knows what else there was.
 */
enum feed_state { FEED_CONNECTED, FEED_ENDED, FEED_LOST, FEED_BROKEN };

/* The agent's clock against ours, one measurement. */
struct feed_clock_sample {
	int64_t offset;
	nsec_t rtt;
	nsec_t when; /* ours; 0: none */
};
#define FEED_CLOCK_SAMPLES 8u

struct registry_owner;

typedef void feed_line_fn(void *ctx, enum log_level level, const char *line);

/* Lines that agents can cause, by ending streams for example: so many at once and per second. */
#define FEED_LINES_MAX        20000u
#define FEED_LINES_PER_SECOND 200u

/* What all feeds share: so many interfaces together, and where warnings go. */
struct feed_room {
	atomic_size_t used;
	size_t max;
	feed_line_fn *line;
	void *ctx;
	pthread_mutex_t lock; /* guards what follows */
	nsec_t counted;       /* when `lines` was */
	uint64_t lines;       /* that may still be written */
	uint64_t left_out;
};

struct feed {
	char identity[FEED_IDENTITY_MAX];
	uint8_t agent_id[16];
	char agent_id_text[37];
	uint64_t epoch;
	uint64_t number; /* its name in the journal; never used again */
	struct feed_room *room;

	/*
	 * The last number that is committed (commit.h): survives us, and is acknowledged. A new
	 * feed's is the one before next_seq; then the committer raises it with feed_commit(), and
	 * also has what is behind it. While `commits` is not 0 the committer refers to the feed: it
	 * is neither evicted nor freed, also when no session has it.
	 */
	_Atomic uint64_t committed_seq;
	atomic_uint commits;
	struct feed *next_dirty;
	bool dirty;

	/* The registry's, under its lock. */
	struct feed *next, *next_by_number;
	struct registry_owner *owner; /* the session that feeds it now */
	unsigned int refs;            /* sessions that hold it, superseded ones too */
	bool loaded;                  /* from the journal, and nobody came for it since */

	/*
	 * Held for a whole message, the write included: the session that is replaced
	 * is done with its last one when the next begins.
	 */
	pthread_mutex_t turn;

	/* Guards the rest. Only the holder of the turn changes it, and reads it freely. */
	pthread_mutex_t lock;
	char agent_name[STREAM_NAME_MAX + 1];
	enum feed_state state;
	nsec_t ended;         /* when it left FEED_CONNECTED */
	nsec_t unknown_after; /* LOST, BROKEN: the agent's time */
	uint64_t session_id;
	uint64_t next_seq;
	size_t partial; /* bytes of the inflated message next_seq that are written already */
	struct feed_iface **ifaces; /* by rising id */
	size_t n_ifaces, n_gone;
	uint64_t last_gone_order;
	uint32_t highest_id;   /* of an interface that was ever here */
	uint64_t folded_order; /* of the interface that was summed up last; 0: none was */
	struct feed_iface folded[FEED_FILES]; /* the sums of interfaces long gone */
	struct feed_iface *tallied;
	nsec_t stats_time, stats_before; /* of the last STATS and the one before, the agent's */
	struct ledger_span uncounted;    /* packets were lost then, and nobody knows how many */
	bool uncounted_open;             /* it goes on to the next STATS */
	unsigned int warnings;
	struct feed_clock_sample clock[FEED_CLOCK_SAMPLES]; /* a ring */
	unsigned int clock_next;
	struct {
		nsec_t until; /* at one line per FEED_TELL_EACH the last one would end then */
		uint64_t left_out;
	} telling;
	uint8_t clock_state; /* as HELLO said */
	nsec_t clock_error;

	/* For feed_save(). */
	bool saved;   /* the journal knows the number */
	bool changed; /* what is the feed's own, but for next_seq and partial */
	struct feed_iface *changed_ifaces;
	uint32_t dropped[FEED_DROPPED_MAX]; /* interfaces that were summed up since */
	unsigned int n_dropped;
	bool save_all; /* they were more than that */
};

/* What feeds, or those packets of theirs that go to one file, add up to. */
struct feed_sum {
	struct ledger ledger;
	uint64_t missing; /* packets of streams that are over, captured and never seen again */
	struct ledger_span packets, lost[LEDGER_LOSSES];
	enum ledger_verdict verdict;
	nsec_t unknown_after, unknown_until; /* 0: not known */
	uint64_t feeds;
};

/* The agents of a file, each once. */
struct feed_agents {
	uint64_t *v; /* rising */
	size_t n;
};

/* Everything of one feed, or of all. */
struct feed_total {
	struct feed_sum all, file[FEED_FILES];
	struct feed_agents agents[FEED_FILES];
};

/* May @n lines be written that an agent has caused? Says how many were not, later. Thread-safe. */
bool feed_may_say(struct feed_room *room, size_t n);

/*
 * May a line be written at @now (monotonic) that the agent has worded? When it may, *ret_left_out
 * is how many of this feed were left out since the last one. For the holder of the turn.
 */
#define FEED_TELL_BURST 100u
#define FEED_TELL_EACH  NSEC_PER_SEC
bool feed_may_tell(struct feed *f, nsec_t now, uint64_t *ret_left_out);

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
 * TLVs that registry_load() reads. Nobody writes messages meanwhile (commit_enter()). See
 * registry_save() for what to do when the journal does not take it.
 */
void feed_save(struct feed *f, bool all, struct buf *out);

/* All up to @seq is in the journal (or taken elsewhere). */
static inline void feed_commit(struct feed *f, uint64_t seq)
{
	uint64_t now = atomic_load(&f->committed_seq);

	while (now < seq && !atomic_compare_exchange_weak(&f->committed_seq, &now, seq))
		;
}

/* How far the agent's clock is ahead of ours, from a PING of ours and its answer. */
void feed_clock(struct feed *f, nsec_t sent, nsec_t answered, nsec_t now);

/* The message is done; @next is the number after it. */
void feed_advance(struct feed *f, uint64_t next);

int feed_stats(struct feed *f, const struct stream_stats *stats, struct err *err);
int feed_gap(struct feed *f, const struct stream_gap *gap, struct err *err);

/* What an agent does not come back to. */
static inline bool feed_is_over(const struct feed *f)
{
	return f->state == FEED_ENDED || f->state == FEED_BROKEN;
}
/* The session is over (registry_detach()). */
void feed_rest(struct feed *f, enum feed_state state, nsec_t unknown_after);

/*
 * One `ledger ` line per interface and direction, and one for the agent, to the room's line();
 * nothing with @quiet. Added to @total. @final: warn about ledgers that do not add up.
 */
struct feed_report_how {
	bool quiet, final;
};
void feed_report(struct feed *f, struct output *output, struct feed_report_how how,
		 struct feed_total *total);
/* The `clock ` line; nothing without a measurement. */
void feed_report_clock(struct feed *f);
/* When the best of the latest clock measurements was made; 0: there is none. */
nsec_t feed_clock_best(struct feed *f, struct feed_clock_sample *ret);

/* "incomplete: 3 of 120 packets lost at lost_ring between ... and ..." and the like. */
#define FEED_TEXT_MAX 1536
size_t feed_verdict_text(const struct feed_sum *sum, char *out, size_t size);

/*
 * Add up totals. Agents beyond FEED_AGENTS_MAX of a file, or those that there is no memory for, are
 * not counted.
 */
#define FEED_AGENTS_MAX 65536u
void feed_sum_add(struct feed_sum *to, const struct feed_sum *from);
void feed_agents_add(struct feed_agents *to, uint64_t id);
void feed_total_add(struct feed_total *to, const struct feed_total *from);
void feed_total_free(struct feed_total *t);

#endif
