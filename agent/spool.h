/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages on disk. A spool is a folder that belongs to one agent, for many of its epochs:
 *
 *	PATH/agent.id              the agent's UUID as text, made once
 *	PATH/lock                  flock(2): one agent at a time
 *	PATH/EPOCH/                16 hexadecimal digits
 *	PATH/EPOCH/FIRST.seg       a segment; FIRST: its first seq, 16 hexadecimal digits
 *	PATH/EPOCH/end             the epoch was stopped: HELLO and BYE
 *
 * A segment is a series of ps-stream messages: HELLO with the interfaces as they were when it
 * was begun and first_unacked = FIRST, then the numbered messages with the bytes that go over
 * the wire. Before each DATA stands a TALLY (stream.h) with the counts of that DATA. A TALLY
 * whose messages do not follow is a hole: they are lost, and these are their counts. It is
 * read back as a GAP.
 *
 * Eviction (bytes, age, free space) takes the oldest segment and leaves its holes in its
 * place: a new file with TALLYs only is made durable and renamed over the segment. Messages
 * that were surely never sent share one TALLY, and adjacent holes one file; those that may have
 * been sent keep a TALLY each, because the collector may have taken any first part of them.
 *
 * Thread-safe: one lock, held during reads and writes but not during syncs.
 */
#ifndef PS_SPOOL_H
#define PS_SPOOL_H

#include "backlog_message.h"
#include "clock.h"
#include "err.h"
#include "tally.h"

struct spool;       /* the folder */
struct spool_epoch; /* the messages of one epoch */

/*
 * What became of packets in the spool: LEDGER_LOST_SPOOL when they surely will not arrive,
 * LEDGER_COMMITTED when they were acknowledged. Called with the spool locked.
 */
typedef void spool_settle_fn(void *ctx, const struct tally *t, enum ledger_counter counter);
/* Append a HELLO payload as of now, with @first_unacked, to @out. Called with the lock held. */
typedef void spool_hello_fn(void *ctx, uint64_t first_unacked, struct buf *out);

struct spool_config {
	const char *path;
	uint64_t max_bytes;     /* of all segments, all epochs */
	nsec_t max_age;         /* of a segment's last write; 0: any */
	uint64_t min_free;      /* bytes that stay free in the file system */
	uint64_t segment_bytes; /* a segment is closed when it has so many */
};

/*
 * Open or make the folder, take its lock, read what is there: segments are checked, a torn
 * end is cut off, what is damaged becomes a hole. @agent_id: what to write into agent.id when
 * there is none; set to what is there. -EBUSY: another process has the lock; -EROFS, -EACCES,
 * -ENOSPC ...
 */
int spool_open(const struct spool_config *config, uint8_t agent_id[16], struct spool **ret,
	       struct err *err);
/* What was appended is durable then. */
struct spool *spool_close(struct spool *s);

/* The newest epoch that is there: the one of this run has to be above it. 0: none. */
uint64_t spool_newest(struct spool *s);
/* The oldest epoch of an earlier run that has messages or an end to tell of; NULL: none. */
struct spool_epoch *spool_oldest(struct spool *s);
/*
 * Start the epoch of this run. Nothing is made on disk before the first spool_append(). NULL: no
 * memory, or an earlier run had the same number.
 */
struct spool_epoch *spool_begin(struct spool *s, uint64_t epoch, spool_hello_fn *hello,
				spool_settle_fn *settle, void *ctx);
/* Everything of an epoch of an earlier run is acknowledged: remove it. @e is gone then. */
void spool_remove(struct spool *s, struct spool_epoch *e);

/*
 * Append a message, whose seq is the one after the last. Evicts to make room. 0; -ENOSPC,
 * -EDQUOT, -EIO ...: not appended, try again later, the segment is as it was.
 */
int spool_append(struct spool_epoch *e, const struct backlog_message *m, const uint8_t *wire,
		 const struct tally *tally, struct err *err);
/*
 * With @hold, a spool without room is not made room in by spool_append(): it is -ENOSPC, for
 * whoever can keep the message elsewhere for a while. Age and spool_tend() evict all the same.
 */
void spool_hold(struct spool *s, bool hold);
/* fdatasync what was appended. */
int spool_sync(struct spool_epoch *e, struct err *err);
/*
 * The epoch was stopped, @hello and @bye are payloads: all that is left to send is in the
 * spool. Durable on return.
 */
int spool_end(struct spool_epoch *e, const struct buf *hello, const struct buf *bye,
	      struct err *err);

/*
 * Copy the message with the seq @seq into @wire (reset first), which counts as sent then; for a
 * hole a GAP that begins with @seq. 1; 0: the epoch ends before @seq; -errno: it cannot be read
 * now. Damage found now is a hole from now on. @seq is not below spool_first_seq().
 */
int spool_read(struct spool_epoch *e, uint64_t seq, struct buf *wire, struct backlog_message *ret,
	       struct err *err);
/*
 * All up to @seq may have been sent from memory, before they were appended: they count as sent.
 * Called after spool_append(), before the next call that may evict.
 */
void spool_sent(struct spool_epoch *e, uint64_t seq);
/* Forget all up to @seq. It may be above what was appended: the next to append comes after it. */
void spool_ack(struct spool_epoch *e, uint64_t seq);

uint64_t spool_first_seq(const struct spool_epoch *e); /* oldest, hole or not; else next */
uint64_t spool_next_seq(const struct spool_epoch *e);  /* after the last one; 1: nothing yet */
uint64_t spool_bytes(const struct spool_epoch *e);     /* on disk and not acknowledged */

/*
 * HELLO for an epoch of an earlier run: agent id as kept, `recovered`, and the interfaces that
 * its messages name. stream_hello_free() it.
 */
int spool_hello(struct spool_epoch *e, struct stream_hello *ret, struct err *err);
/*
 * How it ends: STREAM_BYE_STOP for one that was stopped, else STREAM_BYE_UNCLEAN with the time
 * of its last STATS (of its last packet when there is none).
 */
struct stream_bye spool_bye(const struct spool_epoch *e);

/* Every second: evict by age and free space, remove what is acknowledged. */
void spool_tend(struct spool *s);

#endif
