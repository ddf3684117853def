/* SPDX-License-Identifier: Apache-2.0 */
#include "clock.h"

#include <time.h>

static nsec_t now(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (nsec_t)ts.tv_sec * NSEC_PER_SEC + (nsec_t)ts.tv_nsec;
}

nsec_t clock_realtime(void)
{
	return now(CLOCK_REALTIME);
}

nsec_t clock_boottime(void)
{
	return now(CLOCK_BOOTTIME);
}

nsec_t clock_monotonic(void)
{
	return now(CLOCK_MONOTONIC);
}

nsec_t clock_boot_to_real(void)
{
	nsec_t best = UINT64_MAX, offset = 0;

	for (int i = 0; i < 5; i++) {
		nsec_t before = clock_boottime();
		nsec_t real = clock_realtime();
		nsec_t after = clock_boottime();

		if (after - before < best) {
			best = after - before;
			offset = real - (before + best / 2);
		}
	}
	return offset;
}
