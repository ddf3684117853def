/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The numbered messages of one epoch, from the moment they get their seq until they are
 * acknowledged: first in memory (queue.h), then, with a spool, on disk. The oldest are always
 * on disk, the newest in memory. A thread of its own moves them, so that whoever pushes never
 * waits for a disk:
 *
 *	overflow   when the queue is half full, or has had no connection for two seconds, and
 *	           at a stop
 *	always     at once
 *
 * An epoch of an earlier run is a backlog that has only the disk part.
 */
#ifndef PS_BACKLOG_H
#define PS_BACKLOG_H

#include "book.h"
#include "config.h"
#include "queue.h"
#include "spool.h"

struct backlog;

struct backlog_config {
	struct queue *queue;
	struct spool *spool; /* NULL: memory only */
	enum spool_mode mode;
	struct book *book; /* told what became of packets */
	/* Who we are; the table of interfaces and the numbers are filled in. */
	struct stream_hello hello;
};

/* The live epoch. */
int backlog_new(const struct backlog_config *config, struct backlog **ret, struct err *err);
/* Before anything is pushed: with a spool, start the thread that moves messages there. */
int backlog_start(struct backlog *b, struct err *err);
/* One of an earlier run. */
struct backlog *backlog_recovered(struct spool *spool, struct spool_epoch *epoch);
/* What is in memory only is lost then. @b may be NULL. */
struct backlog *backlog_free(struct backlog *b);

/*
 * The end of an epoch of this run: nothing is pushed any more, and the uplink has ended. Put
 * what is not acknowledged on disk, with the end mark, for the next run. Returns true when
 * nothing is in memory only.
 */
bool backlog_store(struct backlog *b);

/* Is there a connection? Without one, messages move to the disk after a while. */
void backlog_connected(struct backlog *b, bool connected);

/*
 * Copy the message @seq into @wire: 1, or 0: there is none yet. For the uplink thread, as are
 * all that follow.
 */
int backlog_read(struct backlog *b, uint64_t seq, struct buf *wire, struct backlog_message *ret,
		 struct err *err);
/* Acknowledged: forget all up to @seq, and book their packets as committed. */
void backlog_ack(struct backlog *b, uint64_t seq);

uint64_t backlog_first_seq(struct backlog *b); /* of the oldest, or the next to come */
uint64_t backlog_next_seq(struct backlog *b);
static inline bool backlog_empty(struct backlog *b)
{
	return backlog_first_seq(b) == backlog_next_seq(b);
}
/* Readable after a push; -1 for a recovered one. backlog_clear() reads it away. */
int backlog_fd(const struct backlog *b);
void backlog_clear(struct backlog *b);

/* HELLO for a session that begins now; stream_hello_free() it. */
int backlog_hello(struct backlog *b, struct stream_hello *ret, struct err *err);
/* How it ends, once it is empty (recovered) or was stopped (live). */
struct stream_bye backlog_bye(struct backlog *b);
bool backlog_is_recovered(const struct backlog *b);

#endif
