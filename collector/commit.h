/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Group commit: what makes a message that was written survive. Workers write messages between
 * commit_enter() and commit_leave(); a thread of its own, a moment after the first of them or
 * after so many bytes, then
 *
 *	1. keeps workers out, and copies how far every file and every changed feed is,
 *	2. makes the files durable (ack: durable),
 *	3. appends that to the journal, durable too,
 *	4. says in each of those feeds how far it is committed, and wakes the workers, which
 *	   acknowledge it.
 *
 * So nothing is acknowledged that is not in the journal, and the journal speaks of no byte that
 * is not in a file. After a crash, commit_open() replays the journal: files are cut back and
 * feeds are what they were then. A disk that is full delays 3 and 4; workers go on.
 *
 * An output without files (stdout) has no journal: messages are committed when they are
 * written.
 */
#ifndef PS_COLLECTOR_COMMIT_H
#define PS_COLLECTOR_COMMIT_H

#include "config.h"
#include "output.h"
#include "registry.h"

struct commit;

struct commit_config {
	const char *path; /* of the output */
	bool micro;
	bool durable; /* ack: durable */
	nsec_t wait;  /* from the first message of a group to its commit */
	/* All workers: acknowledgements may be due. Called by the thread. */
	void (*wake)(void *ctx);
	/* The disk lost what it had taken: the collector must end, and start from the journal. */
	void (*fatal)(void *ctx, const struct err *err);
	void *ctx;
};

/*
 * Open the journal and the output at the point that they agree on, and put the journal's feeds
 * into @registry. Starts no thread yet.
 */
int commit_open(const struct commit_config *config, struct registry *registry,
		struct output **ret_output, struct commit **ret, struct err *err);
int commit_start(struct commit *c, struct err *err);
/* A last commit, when nobody writes any more; the thread is gone then. */
int commit_stop(struct commit *c, struct err *err);
struct commit *commit_free(struct commit *c);

/* What an ACK says that lets the agent forget. */
enum stream_ack_mode commit_ack_mode(const struct commit *c);

/*
 * Around everything that changes output and feed together. commit_enter() waits while the
 * thread copies, which is a moment. @bytes: written to the output.
 */
void commit_enter(struct commit *c);
void commit_leave(struct commit *c, struct feed *f, size_t bytes);
/*
 * Between the two: @f is changed now, in a way that it may be gone after (registry_detach()).
 * Then commit_leave() gets NULL.
 */
void commit_touch(struct commit *c, struct feed *f);
/*
 * Between the two, before packets of @link_type are written: does the journal name their file? 0;
 * -EAGAIN: it does after the next commit, come back then; else as output_write(). After a crash
 * nobody would know of packets in a file that no commit names.
 */
int commit_file(struct commit *c, uint32_t link_type, struct err *err);

/* Commit at once. Returns the number of the commit that has all that was left so far. */
uint64_t commit_hurry(struct commit *c);
/* Is the commit with that number done? */
bool commit_is_done(const struct commit *c, uint64_t number);

#endif
