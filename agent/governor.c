// SPDX-License-Identifier: Apache-2.0
#include "governor.h"

#include <errno.h>
#include <stdio.h>
#include <sys/timerfd.h>
#include <time.h>

#include "budget.h"
#include "log.h"
#include "note.h"
#include "util.h"

#define TICK (100 * NSEC_PER_MSEC)
/* Of the steps in quick succession only the last is told. */
#define TELL_EVERY NSEC_PER_SEC

struct governor {
	struct governor_config config;
	struct budget budget;
	struct degrade now; /* in force */
	nsec_t cpu;         /* of the other threads */
	int timer_fd;
	unsigned int told_step;
	bool told_limit;
	nsec_t told;
};

struct governor *governor_free(struct governor *g)
{
	if (!g)
		return NULL;
	if (g->timer_fd >= 0)
		close(g->timer_fd);
	free(g);
	return NULL;
}

int governor_fd(const struct governor *g)
{
	return g->timer_fd;
}

static void set_timer(struct governor *g, bool starting)
{
	struct itimerspec every = {};

	if (budget_active(&g->budget)) {
		every.it_interval.tv_nsec = TICK;
		every.it_value = every.it_interval;
		/* What it takes to start and to connect is over then. */
		every.it_value.tv_sec = starting;
	}
	timerfd_settime(g->timer_fd, 0, &every, NULL);
}

static nsec_t cpu_time(clockid_t clock)
{
	struct timespec ts = {};

	clock_gettime(clock, &ts);
	return (nsec_t)ts.tv_sec * NSEC_PER_SEC + (nsec_t)ts.tv_nsec;
}

static void take_sample(struct governor *g, struct budget_sample *ret)
{
	struct reader_totals totals = reader_totals(g->config.reader);
	nsec_t loop = cpu_time(CLOCK_THREAD_CPUTIME_ID);
	struct work work;

	/* Not at the same moment, so the difference may seem to go back. */
	g->cpu = MAX(g->cpu, cpu_time(CLOCK_PROCESS_CPUTIME_ID) - loop);
	g->config.ops->work(g->config.capture, &work);
	*ret = (struct budget_sample){
		.now = clock_monotonic(),
		.cpu = g->cpu,
		.other_cpu = loop + work.timed_ns * WORK_EVERY,
		.packets = totals.packets,
		.kept = totals.kept,
		.whole = totals.whole,
		.refused = work.refused,
		.produced = g->config.queue ? queue_pushed(g->config.queue) : 0,
	};
}

/* One line in the log, and the same in the stream. */
static void tell(struct governor *g)
{
	const struct budget *b = &g->budget;
	const char *above = budget_limits(b) ? ", and what is above the budget is left out" : "";
	char step[64], text[256], demand[64] = "";

	budget_step_text(b->step, step, sizeof(step));
	/* Below 1 it is not why. */
	if (b->demand > 1)
		snprintf(demand, sizeof(demand), "; the demand is %.1f times the budget",
			 b->demand);
	snprintf(text, sizeof(text), "%s (step %u of %u)%s%s", step, b->step, BUDGET_STEPS, above,
		 demand);
	if (b->step > g->told_step || *above)
		log_warn("to stay inside the budget, captured from now on: %s", text);
	else
		log_info("the budget allows more, captured from now on: %s", text);
	if (note_push(g->config.queue, STREAM_NOTE_DEGRADE, NULL, "%s", text) < 0)
		log_warn("the collector is not told of the budget's step");
	g->told_step = b->step;
	g->told_limit = budget_limits(b);
	g->told = clock_monotonic();
}

static void consider_telling(struct governor *g)
{
	if (g->budget.step == g->told_step && budget_limits(&g->budget) == g->told_limit)
		return;
	if (!g->told || clock_monotonic() - g->told >= TELL_EVERY)
		tell(g);
}

static void decide(struct governor *g, const struct budget_sample *sample)
{
	struct degrade degrade;

	budget_decide(&g->budget, sample, &degrade);
	if (memcmp(&degrade, &g->now, sizeof(degrade)) != 0)
		g->config.ops->degrade(g->config.capture, &degrade);
	g->now = degrade;
}

void governor_tick(struct governor *g)
{
	struct budget_sample sample;

	event_clear(g->timer_fd);
	take_sample(g, &sample);
	decide(g, &sample);
	consider_telling(g);
}

static void use(struct governor *g, const struct config *config, bool starting)
{
	struct budget_config budget = {
		.cpu_percent = config->cpu_budget,
		.bits_per_s = config->bandwidth_budget,
		.queue_bytes = g->config.queue ? queue_capacity(g->config.queue) : 0,
	};

	if (memcmp(&budget, &g->budget.config, sizeof(budget)) == 0)
		return;
	budget_change(&g->budget, &budget);
	if (g->config.uplink)
		uplink_pace(g->config.uplink, config->bandwidth_budget);
	set_timer(g, starting);
	decide(g, NULL);
}

void governor_use(struct governor *g, const struct config *config)
{
	use(g, config, false);
}

int governor_new(const struct governor_config *config, const struct config *budgets,
		 struct governor **ret, struct err *err)
{
	const struct budget_config none = {};
	struct governor *g = calloc(1, sizeof(*g));

	if (!g)
		return err_set(err, -ENOMEM, "out of memory");
	g->config = *config;
	budget_init(&g->budget, &none);
	g->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (g->timer_fd < 0) {
		governor_free(g);
		return err_sys(err, -errno, "cannot make a timer for the budget");
	}
	use(g, budgets, true);
	*ret = g;
	return 0;
}
