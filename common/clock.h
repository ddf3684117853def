/* SPDX-License-Identifier: Apache-2.0 */
/* Clocks. All times in the product are unsigned 64-bit nanoseconds. */
#ifndef PS_CLOCK_H
#define PS_CLOCK_H

#include <stdint.h>

typedef uint64_t nsec_t;

#define NSEC_PER_SEC  1000000000ull
#define NSEC_PER_MSEC 1000000ull
#define NSEC_PER_USEC 1000ull

nsec_t clock_realtime(void);  /* since 1970, UTC */
nsec_t clock_boottime(void);  /* since boot, suspend included: what BPF stamps with */
nsec_t clock_monotonic(void); /* for timeouts */

/*
 * What to add to a boot-time stamp to get wall-clock time. Samples the pair
 * several times and takes the tightest, so the error is well below 1 us.
 */
nsec_t clock_boot_to_real(void);

#endif
