/* SPDX-License-Identifier: Apache-2.0 */
/* Clocks. All times in the product are unsigned 64-bit nanoseconds. */
#ifndef PS_CLOCK_H
#define PS_CLOCK_H

#include <stdint.h>

typedef uint64_t nsec_t;

#define NSEC_PER_SEC  1000000000ull
#define NSEC_PER_MSEC 1000000ull
#define NSEC_PER_USEC 1000ull

nsec_t clock_realtime(void); /* since 1970, UTC */
/* Since the machine's boot, suspend included: what BPF stamps with, also in a time namespace. */
nsec_t clock_boottime(void);
nsec_t clock_monotonic(void); /* for timeouts */

/* What clock_realtime() said between two readings of clock_boottime(). */
struct clock_bracket {
	nsec_t boot_before, real, boot_after;
};

void clock_read_bracket(struct clock_bracket *ret);

#endif
