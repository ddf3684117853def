/* SPDX-License-Identifier: Apache-2.0 */
#include "clock.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>

/*
 * In a time namespace CLOCK_BOOTTIME is ahead of that of the machine, which BPF stamps with. By
 * how much is fixed once a process runs there.
 */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static nsec_t boot_ahead;

static void read_boot_ahead(void)
{
	FILE *f = fopen("/proc/self/timens_offsets", "re");
	int64_t sec, nsec;
	char line[80];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "boottime %" SCNd64 " %" SCNd64, &sec, &nsec) == 2)
			boot_ahead = (nsec_t)sec * NSEC_PER_SEC + (nsec_t)nsec;
	if (f)
		fclose(f);
}

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
	pthread_once(&once, read_boot_ahead);
	return now(CLOCK_BOOTTIME) - boot_ahead;
}

nsec_t clock_monotonic(void)
{
	return now(CLOCK_MONOTONIC);
}

void clock_read_bracket(struct clock_bracket *ret)
{
	ret->boot_before = clock_boottime();
	ret->real = clock_realtime();
	ret->boot_after = clock_boottime();
}
