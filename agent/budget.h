/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps the agent inside cpuBudget and bandwidthBudget by deciding how much is captured. Pure: it
 * is told what was used, several times a second, and says what the hooks are to do (struct
 *degrade):
 *
 *	the ladder	full -> slices of 128 bytes -> headers -> headers of one flow in 2, 4 ...
 *			1024: as far down as it takes, by what each step is expected to save, and up
 *			one step at a time after some quiet seconds
 *	the limit	a token bucket in the kernel, for what the ladder has not answered yet and
 *			for what it cannot: a single flow that is too much
 *
 * What is used beyond a budget is a debt, which is paid back by using less.
 */
#ifndef PS_BUDGET_H
#define PS_BUDGET_H

#include <stdbool.h>
#include <stddef.h>

#include "abi.h"
#include "clock.h"

#define BUDGET_STEPS 12u /* of the ladder, below "full", which is 0 */

struct budget_config {
	uint64_t cpu_percent; /* of one CPU; 0: any */
	uint64_t bits_per_s;  /* sent to the collector; 0: any */
	uint64_t queue_bytes; /* frames that may wait for that */
};

/* All cumulative. */
struct budget_sample {
	nsec_t now;
	nsec_t cpu;             /* of the threads that packets go through */
	nsec_t other_cpu;       /* the rest: of the loop, of the programs in the kernel */
	uint64_t packets, kept; /* captured, and bytes of them */
	uint64_t whole;         /* bytes of them that there are without any slice */
	uint64_t refused;       /* packets, by the limit */
	uint64_t produced;      /* bytes of messages for the collector */
};

enum budget_resource { BUDGET_CPU, BUDGET_BANDWIDTH, BUDGET_RESOURCES };

struct budget_use {
	double rate;         /* allowed per second: ns, bytes; 0: any */
	double debt;         /* at most BUDGET_DEBT seconds of it */
	double fixed, moved; /* recent use: whatever is captured, and with it */
	double cost;         /* of a unit: a byte kept, or one of DEGRADE_PACKET for a packet */
	bool limited;
};

struct budget {
	struct budget_config config;
	struct budget_use use[BUDGET_RESOURCES];
	struct budget_sample last;

	/* Of the recent past: sums that decay. */
	double seconds, packets, refused, units;
	double whole;  /* mean length of a packet, unsliced */
	double share;  /* that is left of it without the ladder: by the rules' slices */
	double demand; /* what there is, in budgets */

	unsigned int step;
	unsigned int lowest; /* a step below has nothing left, it was found */
	nsec_t lowest_until;
	bool probing;    /* has the last step down left anything? */
	nsec_t settled;  /* the last change shows then */
	nsec_t calm;     /* since then a step up would be fine; 0: it would not */
	nsec_t patience; /* how long it has to be */
	nsec_t quiet;    /* since then nothing is owed or refused; 0: something is */
	nsec_t trial;    /* how long it has to be for a trial */
	bool trying;     /* the last step up is one, and it is not known yet how it turns out */
	nsec_t raised;   /* the last step up; 0: none that counts */
	nsec_t refusing; /* the limit refused something then */
};

void budget_init(struct budget *b, const struct budget_config *config);
/* Other numbers: what was learned stays, what is owed is forgotten. */
void budget_change(struct budget *b, const struct budget_config *config);
static inline bool budget_active(const struct budget *b)
{
	return b->config.cpu_percent || b->config.bits_per_s;
}
/*
 * After some 100 ms: look at what happened since the last time, and decide. @s NULL: begin anew,
 * with the next sample.
 */
void budget_decide(struct budget *b, const struct budget_sample *s, struct degrade *ret);
/* Is the limit in the way of packets, or could be any moment? */
static inline bool budget_limits(const struct budget *b)
{
	return b->use[BUDGET_CPU].limited || b->use[BUDGET_BANDWIDTH].limited;
}
/* "slices of 128 bytes", "headers of one flow in 4" */
void budget_step_text(unsigned int step, char *to, size_t size);

#endif
