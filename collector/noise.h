/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Warnings that strangers can cause: a bounded number of lines per second, the rest
 * counted. Thread-safe.
 */
#ifndef PS_COLLECTOR_NOISE_H
#define PS_COLLECTOR_NOISE_H

#include <pthread.h>
#include <stdbool.h>

#include "clock.h"

#define NOISE_LINES_PER_SECOND 10u

struct noise {
	pthread_mutex_t lock;
	nsec_t second; /* the one that is being counted */
	unsigned int lines, suppressed;
};

void noise_init(struct noise *n);
void noise_destroy(struct noise *n);

/*
 * May a line be written at @now (monotonic)? When it may, *ret_suppressed is how many
 * were refused since the last one.
 */
bool noise_allow(struct noise *n, nsec_t now, unsigned int *ret_suppressed);

/* log_warn(), within those bounds. */
__attribute__((format(printf, 2, 3))) void noise_warn(struct noise *n, const char *fmt, ...);

#endif
