/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines that strangers can cause: a bounded number of them per second, the rest counted.
 * Thread-safe.
 */
#ifndef PS_COLLECTOR_NOISE_H
#define PS_COLLECTOR_NOISE_H

#include <pthread.h>
#include <stdbool.h>

#include "clock.h"

#define NOISE_LINES_PER_SECOND 10u
#define NOISE_INFOS_PER_SECOND 200u  /* many agents may connect at once, and all do well */
#define NOISE_LINE_MAX         4160u /* bytes; the rest is cut off */
#define NOISE_REPEAT           (60 * NSEC_PER_SEC)
#define NOISE_REMEMBERED       64u

struct noise {
	pthread_mutex_t lock;
	nsec_t second; /* the one that is being counted */
	unsigned int lines, infos, suppressed;
	/* What was told of whom, by hash; a newer one with the same place replaces it. */
	struct {
		uint64_t hash;
		nsec_t told;
	} remembered[NOISE_REMEMBERED];
};

void noise_init(struct noise *n);
void noise_destroy(struct noise *n);

/*
 * May a line be written at @now (monotonic)? When it may, *ret_suppressed is how many
 * were refused since the last one.
 */
bool noise_allow(struct noise *n, nsec_t now, unsigned int *ret_suppressed);

/*
 * Was it said less than NOISE_REPEAT ago that @why happened to @name (may be empty) at @peer,
 * "ADDRESS:PORT"? Agents that cannot get in try again for ever, each time from another port.
 */
bool noise_repeats(struct noise *n, nsec_t now, const char *peer, const char *name,
		   const char *why);

/* log_warn() and log_info(), within those bounds. */
__attribute__((format(printf, 2, 3))) void noise_warn(struct noise *n, const char *fmt, ...);
__attribute__((format(printf, 2, 3))) void noise_info(struct noise *n, const char *fmt, ...);

#endif
