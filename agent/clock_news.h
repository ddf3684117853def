/* SPDX-License-Identifier: Apache-2.0 */
/* That the wall clock was set, in the log and in the stream; not more often than is useful. */
#ifndef PS_CLOCK_NEWS_H
#define PS_CLOCK_NEWS_H

#include "queue.h"
#include "wallclock.h"

/* Who sets the clock all the time is told of in sums, once in so long. */
#define CLOCK_NEWS_AGAIN (10 * NSEC_PER_SEC)

struct clock_news {
	struct wallclock *wallclock;
	struct queue *queue; /* NULL: no collector to tell */
	nsec_t told;         /* last; CLOCK_MONOTONIC, 0: never */
};

/* @now (CLOCK_MONOTONIC); UINT64_MAX: there will be no other time. True: told. */
bool clock_news_tell(struct clock_news *n, nsec_t now);

#endif
