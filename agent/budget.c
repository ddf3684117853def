// SPDX-License-Identifier: Apache-2.0
/*
 * Use is measured per unit of what is captured (a byte kept; a packet counts as DEGRADE_PACKET of
 * them on top), which tells how many units a second the budget is good for: the limit. What the
 * limit refuses tells how much more there is: the demand, in budgets. A step of the ladder is
 * judged by the demand that it would leave.
 *
 * Invariants: a step down only while the budget is owed something and the demand is above 1; a step
 * up when the demand there is expected to be well below 1, or packets are not what is in its way,
 * so that what is steady does not make the two alternate; and each step up that had to be taken
 * back makes the next one wait twice as long.
 *
 * All that the threads of packets use is taken to be for packets, and some of it may be for
 * others, or for none: the demand of a step up is overestimated then. So after a long quiet time a
 * step up is a trial. When it turns out well the next ones come soon; when not, late.
 */
#include "budget.h"

#include <stdio.h>

#include "pace.h"
#include "util.h"

#define MEMORY       0.3 /* seconds after which a measurement counts half */
#define DEBT_MAX     5.0 /* seconds of the budget */
#define SETTLE       (300 * NSEC_PER_MSEC)
#define LOOK         0.15 /* seconds that are enough to judge by */
#define PATIENCE     (3 * NSEC_PER_SEC)
#define PATIENCE_MAX (60 * NSEC_PER_SEC)
#define TAKEN_BACK   (10 * NSEC_PER_SEC) /* a step up that lasts shorter was one too many */
#define LOWEST_FOR   (30 * NSEC_PER_SEC)
#define RELEASE      NSEC_PER_SEC
#define TRIAL        (60 * NSEC_PER_SEC) /* without a reason to go down */
#define TRIAL_MAX    (3600 * NSEC_PER_SEC)

#define DOWN_TO    0.8  /* demand that a step down is to leave */
#define LEAST      0.1  /* of the budget, that packets get in any case */
#define UP_BELOW   0.7  /* that a step up may make */
#define LIMIT_TO   0.95 /* share of the budget while nothing is owed */
#define LIMIT_PAY  0.3  /* less for each second of it that is owed */
#define LIMIT_MIN  0.05
#define MANY       100 /* packets that an average can be taken of */
#define EASE       0.8 /* of what a packet was thought to cost, each time */
#define BURST      (20 * NSEC_PER_MSEC)
#define QUEUE_PART 4 /* of the queue may be filled in a burst, half of that before we act */

#define STEP_SLICE   1u
#define STEP_HEADERS 2u
#define SLICE_BYTES  128u
#define HEADER_BYTES 60.0 /* of a packet, about */

/* What a packet costs beside its bytes, in bytes: of CPU time, and of a block. */
static const double per_packet[BUDGET_RESOURCES] = {[BUDGET_CPU] = 100, [BUDGET_BANDWIDTH] = 44};

static unsigned int flows_of(unsigned int step)
{
	return step > STEP_HEADERS ? 1u << (step - STEP_HEADERS) : 1;
}

void budget_step_text(unsigned int step, char *to, size_t size)
{
	if (step > STEP_HEADERS)
		snprintf(to, size, "headers of one flow in %u", flows_of(step));
	else
		snprintf(to, size, "%s",
			 step == STEP_HEADERS ? "headers"
			 : step == STEP_SLICE ? "slices of 128 bytes"
					      : "whole packets");
}

static void set_rates(struct budget *b, const struct budget_config *config)
{
	b->config = *config;
	b->use[BUDGET_CPU].rate = (double)config->cpu_percent / 100 * (double)NSEC_PER_SEC;
	b->use[BUDGET_BANDWIDTH].rate = pace_rate(config->bits_per_s);
}

void budget_init(struct budget *b, const struct budget_config *config)
{
	*b = (struct budget){
		.share = 1, .lowest = BUDGET_STEPS, .patience = PATIENCE, .trial = TRIAL};
	set_rates(b, config);
	/* Until it is known how well packets compress. */
	b->use[BUDGET_BANDWIDTH].cost = 1;
}

void budget_change(struct budget *b, const struct budget_config *config)
{
	set_rates(b, config);
	for (int r = 0; r < BUDGET_RESOURCES; r++) {
		b->use[r].debt = 0;
		b->use[r].limited = false;
	}
	if (!budget_active(b))
		b->step = 0;
}

/* A burst that is no reason to do anything yet. */
static double tolerance(const struct budget *b, int r)
{
	if (r == BUDGET_CPU)
		return b->use[r].rate / 2;
	return MIN(b->use[r].rate, (double)b->config.queue_bytes / (2 * QUEUE_PART));
}

static void forget(struct budget *b)
{
	b->seconds = b->packets = b->refused = b->units = 0;
	for (int r = 0; r < BUDGET_RESOURCES; r++)
		b->use[r].fixed = b->use[r].moved = 0;
}

static void measure(struct budget_use *u, double keep, double seconds, double fixed, double moved)
{
	u->fixed = u->fixed * keep + fixed;
	u->moved = u->moved * keep + moved;
	u->debt = MAX(0, MIN(u->debt + fixed + moved - u->rate * seconds, DEBT_MAX * u->rate));
}

/* Of the budget, that may be used while something is owed. */
static double share_of(const struct budget_use *u)
{
	return MAX(LIMIT_MIN, LIMIT_TO - LIMIT_PAY * u->debt / u->rate);
}

/*
 * Few packets tell little of what one of many costs: most of what is used then has other reasons.
 * Where the limit leaves so few, it can be raised until they use what they may.
 */
static void learn_cost(const struct budget *b, struct budget_use *u, bool refusing)
{
	if (b->packets >= MANY)
		u->cost = u->moved / b->units;
	else if (u->limited && refusing && u->fixed + u->moved < share_of(u) * u->rate * b->seconds)
		u->cost *= EASE;
}

static void observe(struct budget *b, const struct budget_sample *s, double seconds)
{
	const struct budget_sample *l = &b->last;
	double keep = MEMORY / (MEMORY + seconds);
	double packets = (double)(s->packets - l->packets), kept = (double)(s->kept - l->kept);
	double whole = (double)(s->whole - l->whole);

	measure(&b->use[BUDGET_CPU], keep, seconds, (double)(s->other_cpu - l->other_cpu),
		(double)(s->cpu - l->cpu));
	measure(&b->use[BUDGET_BANDWIDTH], keep, seconds, 0, (double)(s->produced - l->produced));
	b->seconds = b->seconds * keep + seconds;
	b->packets = b->packets * keep + packets;
	b->refused = b->refused * keep + (double)(s->refused - l->refused);
	b->units = b->units * keep + kept + packets * DEGRADE_PACKET;
	if (packets > 0)
		b->whole = whole / packets;
	if (b->step == 0 && s->now >= b->settled && whole > 0)
		b->share = kept / whole;
	for (int r = 0; r < BUDGET_RESOURCES; r++)
		learn_cost(b, &b->use[r], s->refused != l->refused);
	if (s->refused != l->refused)
		b->refusing = s->now;
	b->last = *s;
}

/* Bytes kept of a packet. */
static double length_at(const struct budget *b, unsigned int step)
{
	double length = b->whole * b->share;

	if (step >= STEP_SLICE)
		length = MIN(length, SLICE_BYTES);
	return step >= STEP_HEADERS ? MIN(length, HEADER_BYTES) : length;
}

/* What a packet costs there, relative to other steps. */
static double weight_at(const struct budget *b, int r, unsigned int step)
{
	return (per_packet[r] + length_at(b, step)) / flows_of(step);
}

/* What runs in any case, in budgets. */
static double fixed_of(const struct budget *b, int r)
{
	const struct budget_use *u = &b->use[r];

	return u->rate && b->seconds > 0 ? u->fixed / b->seconds / u->rate : 0;
}

/* What would be used of a resource for packets at a step, in budgets. */
static double moved_of(const struct budget *b, int r, unsigned int step)
{
	const struct budget_use *u = &b->use[r];
	double moved = u->moved;

	if (!u->rate || !b->seconds)
		return 0;
	if (b->packets >= MANY)
		moved *= 1 + b->refused / b->packets;
	else
		moved += u->cost * (length_at(b, b->step) + DEGRADE_PACKET) * b->refused;
	/* What runs without a packet gets no cheaper. */
	if (b->packets + b->refused >= 1)
		moved *= weight_at(b, r, step) / weight_at(b, r, b->step);
	return moved / b->seconds / u->rate;
}

static double demand_at(const struct budget *b, unsigned int step)
{
	double most = 0;

	for (int r = 0; r < BUDGET_RESOURCES; r++)
		most = MAX(most, fixed_of(b, r) + moved_of(b, r, step));
	return most;
}

/*
 * Is there more than @most at a step, and because of packets? Where nearly all is fixed, they cost
 * little whatever is done with them.
 */
static bool too_much_at(const struct budget *b, unsigned int step, double most)
{
	for (int r = 0; r < BUDGET_RESOURCES; r++)
		if (moved_of(b, r, step) > MAX(most - fixed_of(b, r), LEAST))
			return true;
	return false;
}

static void go_to(struct budget *b, unsigned int step, nsec_t now)
{
	b->step = step;
	b->settled = now + SETTLE;
	b->calm = b->quiet = 0;
	forget(b);
}

static void go_down(struct budget *b, nsec_t now)
{
	unsigned int step = b->step + 1;

	while (step < b->lowest && too_much_at(b, step, DOWN_TO))
		step++;
	if (b->raised && now - b->raised < TAKEN_BACK)
		b->patience = MIN(2 * b->patience, PATIENCE_MAX);
	if (b->trying)
		b->trial = MIN(2 * MAX(b->trial, TRIAL), TRIAL_MAX);
	b->trying = false;
	b->raised = 0;
	b->probing = flows_of(step) > 1;
	go_to(b, step, now);
}

/* There are fewer flows than the step divides them by: the limit has to do. */
static void found_nothing(struct budget *b, nsec_t now)
{
	b->lowest = b->step - 1;
	b->lowest_until = now + LOWEST_FOR;
	go_to(b, b->step - 1, now);
	b->probing = flows_of(b->step) > 1;
}

static void go_up(struct budget *b, nsec_t now)
{
	go_to(b, b->step - 1, now);
	b->raised = now;
	b->probing = false;
}

/* Nothing is in the way of a step up that is known by now. */
static void consider_up(struct budget *b, nsec_t now)
{
	if (too_much_at(b, b->step - 1, UP_BELOW))
		b->calm = 0;
	else if (!b->calm)
		b->calm = now;
	if (!b->quiet)
		b->quiet = now;
	if (b->calm && now - b->calm >= b->patience) {
		go_up(b, now);
	} else if (now - b->quiet >= b->trial) {
		go_up(b, now);
		b->trying = true;
	}
}

static void climb(struct budget *b, nsec_t now)
{
	bool owing = false;

	for (int r = 0; r < BUDGET_RESOURCES; r++)
		owing |= b->use[r].debt > tolerance(b, r);
	if (now >= b->lowest_until)
		b->lowest = BUDGET_STEPS;
	/* What is in the rings yet is of before. */
	if (now < b->settled)
		forget(b);
	if (b->seconds < LOOK)
		return;
	b->demand = demand_at(b, b->step);
	if (b->probing && b->packets + b->refused < 1) {
		found_nothing(b, now);
		return;
	}
	b->probing = false;
	if (b->demand > 1 && (owing || budget_limits(b)) && b->step < b->lowest &&
	    too_much_at(b, b->step, DOWN_TO)) {
		go_down(b, now);
		return;
	}
	if (b->trying && b->demand <= DOWN_TO && now - b->raised >= TAKEN_BACK) {
		b->trying = false;
		b->trial = TAKEN_BACK;
	}
	if (!owing && now - b->refusing >= RELEASE && b->step) {
		consider_up(b, now);
		return;
	}
	b->calm = b->quiet = 0;
	/* All is well for a long time: what was learned of steps up is old. */
	if (!b->step && b->raised && now - b->raised > PATIENCE_MAX)
		b->patience = PATIENCE;
}

/* Units per second that a resource is good for; 0: any. */
static double allowance(const struct budget *b, int r)
{
	const struct budget_use *u = &b->use[r];
	double fixed = b->seconds > 0 ? u->fixed / b->seconds : 0;

	return MAX(share_of(u) * u->rate - fixed, LIMIT_MIN * u->rate) / u->cost;
}

static void limit(struct budget *b, nsec_t now, struct degrade *ret)
{
	const struct budget_use *bw = &b->use[BUDGET_BANDWIDTH];
	double units = 0;

	for (int r = 0; r < BUDGET_RESOURCES; r++) {
		struct budget_use *u = &b->use[r];

		if (!u->rate || !u->cost)
			continue;
		/* At its long burst the limit is this one's. */
		if (u->debt > tolerance(b, r) ||
		    (r == BUDGET_BANDWIDTH && b->refusing == now && !budget_limits(b)))
			u->limited = true;
		else if (u->debt < tolerance(b, r) / 4 && now - b->refusing > RELEASE &&
			 now > b->settled + RELEASE)
			u->limited = false;
		if (u->limited && (!units || allowance(b, r) < units))
			units = allowance(b, r);
	}
	ret->burst_ns = BURST;
	/* Whatever comes, it must not fill the queue before we look again. */
	if (!units && bw->rate && bw->cost) {
		units = bw->rate / bw->cost;
		ret->burst_ns = (uint64_t)((double)b->config.queue_bytes / QUEUE_PART / bw->rate *
					   (double)NSEC_PER_SEC);
	}
	if (units)
		ret->ns_per_byte = 1 + (uint64_t)((double)NSEC_PER_SEC / units *
						  (double)(1 << BUCKET_FRACTION));
	else
		ret->burst_ns = 0;
}

void budget_decide(struct budget *b, const struct budget_sample *s, struct degrade *ret)
{
	nsec_t now = s ? s->now : 0;

	if (s && b->last.now && now > b->last.now) {
		observe(b, s, (double)(now - b->last.now) / (double)NSEC_PER_SEC);
		climb(b, now);
	}
	b->last = s ? *s : (struct budget_sample){};
	*ret = (struct degrade){
		.slice = b->step >= STEP_HEADERS ? SLICE_L4
			 : b->step               ? SLICE_BYTES
						 : 0,
		.sample_flows = flows_of(b->step) > 1 ? flows_of(b->step) : 0,
	};
	if (budget_active(b))
		limit(b, now, ret);
}
