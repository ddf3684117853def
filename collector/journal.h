/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal of an output: beside `dump.pcap` lies `dump.pcap.journal`. It is a series of
 * commits, each of which takes effect as a whole or not at all, and says what the journal's
 * user (commit.c) makes of it. A commit on disk:
 *
 *	offset size
 *	     0    4  magic "PSJ1"
 *	     4    4  length n of the body
 *	     8    8  number of the commit: 1, 2, 3 ...
 *	    16    4  CRC-32 of the body
 *	    20    4  CRC-32 of the bytes 0 to 19
 *	    24    n  body
 *
 * The first commit of a file says everything there is to say, those after it what has
 * changed. When these have become much more than the first one, journal_rewrite() makes a new
 * file with one commit and renames it over the old one.
 *
 * Not thread-safe: the committer has it.
 */
#ifndef PS_COLLECTOR_JOURNAL_H
#define PS_COLLECTOR_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "err.h"

#define JOURNAL_BODY_MAX (1u << 30)

struct journal;

/*
 * A commit, in order. < 0: this one and all that follow are not to be used.
 * -ENOMEM: journal_open() fails with that, and the file stays as it is.
 */
typedef int journal_replay_fn(void *ctx, const uint8_t *body, size_t n);

/*
 * Open the journal of the output @path, or make it (mode 0600), and replay it up to the first
 * commit that is torn or damaged; a torn end is cut off. A file with no commit of use is moved
 * out of the way, to `.bad`, over one that is there.
 *
 * @warning is a sentence when more than the torn end of a crash is lost: commits that were
 * durable. What was replayed is then older than the files that it speaks of, so these had better
 * not be cut back to it. The journal stays as it is, and takes nothing but a journal_rewrite().
 * Empty otherwise.
 *
 * -EBUSY: another process has the journal (flock(2), until journal_free()); -errno.
 */
int journal_open(const char *path, journal_replay_fn *fn, void *ctx, struct journal **ret,
		 struct err *warning, struct err *err);
struct journal *journal_free(struct journal *j);

/*
 * Append a commit; with @sync it is durable on return, and those before it too. On failure
 * (-ENOSPC, -EDQUOT, -ENOMEM ...) the journal is as before; -ENOSPC also when it is damaged and
 * needs a journal_rewrite(). After -EIO that is not known, and
 * the journal is not to be used any more.
 */
int journal_append(struct journal *j, const struct buf *body, bool sync, struct err *err);

/*
 * Is it time for journal_rewrite()? More than 4 MiB and more than 4 times the first commit; after
 * a rewrite that failed not before another MiB.
 */
bool journal_is_long(const struct journal *j);
/* Replace everything by one commit, durably, with the number 1. Fails as journal_append() does. */
int journal_rewrite(struct journal *j, const struct buf *body, struct err *err);

#endif
