/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader thread: rings -> batch -> gzip -> queue, and to the local file when the
 * configuration has one. Sleeps while the rings are empty.
 */
#ifndef PS_READER_H
#define PS_READER_H

#include "book.h"
#include "capture.h"
#include "output.h"
#include "queue.h"
#include "wallclock.h"

struct reader;

struct reader_config {
	const struct capture_ops *ops;
	struct capture *capture;
	struct wallclock *wallclock;
	struct book *book;
	struct queue *queue;   /* NULL: no collector, the file is all */
	struct output *output; /* NULL: no file */
	size_t block_bytes;
	uint32_t snaplen;
	nsec_t gather_max_wait;
};

int reader_new(const struct reader_config *config, struct reader **ret, struct err *err);
int reader_start(struct reader *r, struct err *err);
/*
 * With every hook quiet: take what is left in the rings, send it off, end the thread. An
 * output that is stuck for @patience is given up, and what it did not take booked as lost.
 */
void reader_stop(struct reader *r, nsec_t patience);
struct reader *reader_free(struct reader *r);

/* What came out of the rings so far. For any thread. */
struct reader_totals {
	uint64_t packets, kept; /* bytes of them that were kept */
	uint64_t whole;         /* that the snap length alone would have kept */
};
struct reader_totals reader_totals(struct reader *r);

#endif
