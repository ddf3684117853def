/* SPDX-License-Identifier: Apache-2.0 */
/* When a rate limit takes effect on an interface and when it ends, told at most once a minute. */
#ifndef PS_LIMIT_WATCH_H
#define PS_LIMIT_WATCH_H

#include <stdbool.h>

#include "clock.h"

#define LIMIT_WATCH_QUIET (10 * NSEC_PER_SEC) /* without a packet left out: it has ended */
#define LIMIT_WATCH_EVERY (60 * NSEC_PER_SEC)

/* Begins as all zeros. */
struct limit_watch {
	uint64_t count; /* packets left out so far */
	uint64_t first; /* that many before it took effect */
	nsec_t last;    /* when that grew */
	nsec_t told;    /* when it took effect last; 0: never */
	bool in_force;
};

enum limit_news { LIMIT_NO_NEWS, LIMIT_BEGINS, LIMIT_ENDS };

/* @count: packets above the limit so far; @now CLOCK_MONOTONIC. */
enum limit_news limit_watch(struct limit_watch *w, uint64_t count, nsec_t now);

#endif
