/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From CLOCK_BOOTTIME, which BPF stamps packets with, to CLOCK_REALTIME, as that was at the
 * moment of the stamp: also when the wall clock has been set since.
 *
 * The kernel derives both clocks from one counter at one rate: slewing (NTP) moves both alike,
 * suspend adds to both. Their distance only changes when somebody sets the wall clock
 * (clock_settime(), ADJ_SETOFFSET) and at a leap second. So it is measured, kept, and checked;
 * what has changed it opens a new era.
 *
 * Thread-safe: the reader looks before every drain, the loop when wallclock_fd() becomes
 * readable. Between a step and the first look after it the old distance is used, with the loop
 * idle some 100 us.
 */
#ifndef PS_WALLCLOCK_H
#define PS_WALLCLOCK_H

#include <stdbool.h>

#include "clock.h"
#include "err.h"

/* What is stamped before the oldest one is taken to be of that one. */
#define WALL_ERAS 16u

/* From then on (CLOCK_BOOTTIME) the wall clock was so much ahead. */
struct wall_era {
	nsec_t since, offset;
	/* Not below this wall-clock time: where an era only measures better than the one before. */
	nsec_t floor;
};

/* The newest one first; at least one. For who converts, a copy. */
struct wall_map {
	unsigned int n;
	struct wall_era eras[WALL_ERAS];
};

static inline nsec_t wall_offset(const struct wall_map *m)
{
	return m->eras[0].offset;
}

static inline nsec_t wall_time(const struct wall_map *m, nsec_t boot)
{
	const struct wall_era *era = m->eras, *oldest = m->eras + m->n - 1;

	while (era < oldest && boot < era->since)
		era++;
	return boot + era->offset < era->floor ? era->floor : boot + era->offset;
}

struct wallclock;

/* @read: how to read the clocks, with its @ctx; NULL: those of the machine. */
int wallclock_new(void (*read)(void *ctx, struct clock_bracket *ret), void *ctx,
		  struct wallclock **ret, struct err *err);
struct wallclock *wallclock_free(struct wallclock *w);

/* Readable when the wall clock was set: wallclock_look() then. */
int wallclock_fd(const struct wallclock *w);
/* Read the clocks. @ret, unless NULL: what to convert with, up to stamps of this moment. */
void wallclock_look(struct wallclock *w, struct wall_map *ret);
/* Half the interval that the distance is known to be in. */
nsec_t wallclock_error(struct wallclock *w);
/* How often the wall clock was set since the last call, and by how much in all. */
unsigned int wallclock_steps(struct wallclock *w, int64_t *ret_sum);

#endif
