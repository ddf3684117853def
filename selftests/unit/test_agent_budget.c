/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The budget's decisions against a simulated agent: so many packets a second of so many flows,
 * each with its cost, through hooks that do as they are told. And the pace of the uplink.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "budget.h"
#include "limit_watch.h"
#include "pace.h"
#include "util.h"

#define TICK    (100 * NSEC_PER_MSEC)
#define SECONDS 10 /* ticks */
#define TICKS   (400 * SECONDS)

struct world {
	/* What there is. */
	double pps, size;
	unsigned int flows;                          /* all alike */
	double packet_ns, byte_ns, hook_ns, idle_ns; /* idle: per second */
	double ratio;                                /* of what is sent to what is kept */

	struct budget budget;
	struct degrade degrade;
	struct budget_sample now;
	double ahead; /* of the limit's bucket, ns */
	/* By tick. */
	double cpu[TICKS], sent[TICKS], captured[TICKS], offered[TICKS];
	unsigned int step[TICKS], ticks;
};

static struct world world;

static void begin(const struct world *what, const struct budget_config *config)
{
	world = *what;
	world.now.now = NSEC_PER_SEC;
	budget_init(&world.budget, config);
	budget_decide(&world.budget, &world.now, &world.degrade);
}

/* Flow number 0 is in every sample, the next ones come with larger ones. */
static double taken_share(const struct world *w)
{
	unsigned int n = MAX(w->degrade.sample_flows, 1u);

	if (w->flows == 1)
		return n <= 2; /* it is in half of all samples */
	return (double)((w->flows + n - 1) / n) / w->flows;
}

static void tick(void)
{
	struct world *w = &world;
	double seconds = (double)TICK / 1e9, offered = w->pps * seconds, keep = w->size;
	double packets = offered * taken_share(w), cost, used;

	if (w->degrade.slice)
		keep = MIN(keep, w->degrade.slice & SLICE_L4 ? 54 : w->degrade.slice);
	w->ahead = MAX(0, w->ahead - (double)TICK);
	if (w->degrade.ns_per_byte) {
		double room = (double)w->degrade.burst_ns + (double)TICK - w->ahead;

		cost = (keep + DEGRADE_PACKET) * (double)w->degrade.ns_per_byte /
		       (1 << BUCKET_FRACTION);
		/* It empties while they come. */
		if (packets * cost > room) {
			double most = MAX(0, room / cost);

			w->now.refused += (uint64_t)(packets - most);
			packets = most;
		}
		w->ahead += packets * cost;
	}
	used = packets * (w->packet_ns + keep * w->byte_ns) + w->idle_ns * seconds;
	w->now.now += TICK;
	w->now.cpu += (nsec_t)used;
	w->now.other_cpu += (nsec_t)(offered * w->hook_ns);
	w->now.packets += (uint64_t)packets;
	w->now.kept += (uint64_t)(packets * keep);
	w->now.whole += (uint64_t)(packets * w->size);
	w->now.produced += (uint64_t)(packets * (keep + 44) * w->ratio);
	w->cpu[w->ticks] = used + offered * w->hook_ns;
	w->sent[w->ticks] = packets * (keep + 44) * w->ratio;
	w->captured[w->ticks] = packets;
	w->offered[w->ticks] = offered;
	budget_decide(&w->budget, &w->now, &w->degrade);
	w->step[w->ticks++] = w->budget.step;
	assert_in_range(w->budget.step, 0, BUDGET_STEPS);
}

static void run(unsigned int ticks)
{
	while (ticks--)
		tick();
}

static double sum(const double *of, unsigned int from, unsigned int to)
{
	double all = 0;

	for (unsigned int i = from; i < to; i++)
		all += of[i];
	return all;
}

/* The largest of any @n ticks after @from. */
static double most(const double *of, unsigned int from, unsigned int n)
{
	double found = 0;

	for (unsigned int i = from; i + n <= world.ticks; i++)
		found = MAX(found, sum(of, i, i + n));
	return found;
}

static unsigned int changes(unsigned int from)
{
	unsigned int n = 0;

	for (unsigned int i = from + 1; i < world.ticks; i++)
		n += world.step[i] != world.step[i - 1];
	return n;
}

static const struct world busy = {
	.pps = 100000,
	.size = 800,
	.flows = 5000,
	.packet_ns = 1000,
	.byte_ns = 8,
	.hook_ns = 100,
	.idle_ns = 2e6,
	.ratio = 0.7,
};

static void cpu_stays_inside_under_ten_times_the_budget(void **state)
{
	/* 100,000 packets of 7.5 us are 75 % of a CPU. */
	struct budget_config config = {.cpu_percent = 8};

	(void)state;
	begin(&busy, &config);
	run(60 * SECONDS);
	assert_true(sum(world.cpu, 0, world.ticks) < 0.08e9 * 60);
	assert_true(most(world.cpu, SECONDS, 5 * SECONDS) < 0.08e9 * 5);
	/* And makes use of it. */
	assert_true(sum(world.cpu, 0, world.ticks) > 0.03e9 * 60);
	assert_true(world.budget.step > 0);
	assert_true(changes(30 * SECONDS) <= 2);
}

static void the_first_look_stops_a_hundred_times_the_budget(void **state)
{
	struct budget_config config = {.cpu_percent = 1};
	struct world what = busy;

	(void)state;
	what.hook_ns = 10;
	what.idle_ns = 0;
	begin(&what, &config);
	run(30 * SECONDS);
	/* One tick came through; it is paid back. */
	assert_true(sum(world.cpu, 1, SECONDS) < 0.01e9 * 2);
	assert_true(most(world.cpu, 2 * SECONDS, 5 * SECONDS) < 0.01e9 * 5);
}

static void bandwidth_stays_inside_and_the_queue_is_never_full(void **state)
{
	static const uint64_t budgets[] = {1000000, 30000000, 300000000};
	static const uint64_t queues[] = {4 << 20, 64 << 20};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(budgets) * ARRAY_SIZE(queues); i++) {
		struct budget_config config = {
			.bits_per_s = budgets[i / ARRAY_SIZE(queues)],
			.queue_bytes = queues[i % ARRAY_SIZE(queues)],
		};
		double rate = pace_rate(config.bits_per_s), queue = 0, seconds = 120;
		struct world what = busy;

		/* Ten times the budget. */
		what.pps = 10 * rate / (844 * what.ratio);
		begin(&what, &config);
		run((unsigned int)seconds * SECONDS);
		for (unsigned int k = 0; k < world.ticks; k++) {
			queue = MAX(0, queue + world.sent[k] - rate / SECONDS);
			assert_true(queue < (double)config.queue_bytes * 3 / 4);
		}
		assert_true(sum(world.sent, 0, world.ticks) <
			    rate * seconds + (double)config.queue_bytes / 2);
		/* It is worth something: a third of the time at least the line is in use. */
		assert_true(sum(world.sent, 0, world.ticks) > rate * seconds / 3);
		assert_true(world.budget.step > 0);
		assert_true(changes(60 * SECONDS) <= 4);
	}
}

static void a_burst_that_the_queue_takes_changes_nothing(void **state)
{
	struct budget_config config = {.bits_per_s = 8000000, .queue_bytes = 64 << 20};
	struct world what = busy;

	(void)state;
	what.pps = 5000;
	begin(&what, &config);
	run(2);
	world.pps = 0;
	run(10 * SECONDS);
	assert_int_equal(changes(0), 0);
	assert_true(sum(world.captured, 0, world.ticks) == sum(world.offered, 0, world.ticks));
}

static void a_single_flow_is_held_by_the_limit(void **state)
{
	struct budget_config config = {.cpu_percent = 5};
	struct world what = busy;

	(void)state;
	what.flows = 1;
	what.size = 60; /* no slice helps */
	what.hook_ns = 50;
	begin(&what, &config);
	run(120 * SECONDS);
	assert_true(most(world.cpu, SECONDS, 5 * SECONDS) < 0.05e9 * 5);
	/* Not a sample that it is not in. */
	assert_true(sum(world.captured, 20 * SECONDS, world.ticks) >
		    sum(world.offered, 20 * SECONDS, world.ticks) / 20);
}

static void it_climbs_back_when_the_traffic_ends(void **state)
{
	struct budget_config config = {.cpu_percent = 8};

	(void)state;
	begin(&busy, &config);
	run(20 * SECONDS);
	assert_true(world.budget.step > 0);
	world.pps = 100;
	run(60 * SECONDS);
	assert_int_equal(world.budget.step, 0);
	assert_false(budget_limits(&world.budget));
	assert_int_equal(world.degrade.ns_per_byte, 0);
	/* One step at a time. */
	for (unsigned int i = 21 * SECONDS; i < world.ticks; i++)
		assert_true(world.step[i] + 1 >= world.step[i - 1]);
}

/* A burst, then what is well within the budget, though most of it is for no packet captured. */
static void come_back_after_a_burst(const struct world *what, uint64_t percent, unsigned int burst)
{
	struct budget_config config = {.cpu_percent = percent};
	double pps = what->pps;

	begin(what, &config);
	run(5 * SECONDS);
	assert_int_equal(world.budget.step, 0);
	world.pps = busy.pps;
	run(burst * SECONDS);
	assert_true(world.budget.step > 0);
	world.pps = pps;
	run(300 * SECONDS);
	assert_int_equal(world.budget.step, 0);
	assert_true(changes(200 * SECONDS) <= 12);
}

static void costly_hooks_do_not_keep_it_down(void **state)
{
	struct world what = busy;

	(void)state;
	what.pps = 200;
	what.hook_ns = 400000; /* 8 of 10 % */
	begin(&what, &(struct budget_config){.cpu_percent = 10});
	run(5 * SECONDS);
	world.pps = 50000;
	world.hook_ns = 500;
	run(5 * SECONDS);
	assert_true(world.budget.step > 0);
	world.pps = 200;
	world.hook_ns = 400000;
	run(60 * SECONDS);
	assert_int_equal(world.budget.step, 0);
}

static void what_runs_without_packets_does_not_keep_it_down(void **state)
{
	struct world what = busy;

	(void)state;
	/* 0.8 of 2 %, with hardly any packets and with some. */
	what.idle_ns = 8e6;
	what.hook_ns = 10;
	what.pps = 20;
	come_back_after_a_burst(&what, 2, 10);
	what.pps = 500;
	come_back_after_a_burst(&what, 2, 10);
}

static void what_is_steady_and_too_much_is_tried_seldom(void **state)
{
	struct budget_config config = {.cpu_percent = 8};

	(void)state;
	begin(&busy, &config);
	run(TICKS);
	/* After one minute, two more, four more. */
	assert_in_range(changes(20 * SECONDS), 2, 6);
	/* What a trial takes too much is what any burst may, and it is paid back. */
	assert_true(most(world.cpu, SECONDS, 5 * SECONDS) < 0.08e9 * (5 + 0.5));
	assert_true(most(world.cpu, SECONDS, 30 * SECONDS) < 0.08e9 * 30);
}

static void within_the_budget_nothing_is_done(void **state)
{
	struct budget_config config = {
		.cpu_percent = 90, .bits_per_s = 1000000000, .queue_bytes = 64 << 20};

	(void)state;
	begin(&busy, &config);
	run(60 * SECONDS);
	assert_int_equal(changes(0), 0);
	assert_int_equal(world.budget.step, 0);
	assert_true(world.now.refused == 0);
}

static void hooks_that_are_too_much_alone_leave_packets_a_little(void **state)
{
	struct budget_config config = {.cpu_percent = 2};
	struct world what = busy;

	(void)state;
	what.pps = 500000;
	begin(&what, &config);
	run(60 * SECONDS);
	/* They take 5 %: nothing can be done about that, and nothing makes it much more. */
	assert_true(most(world.cpu, SECONDS, 5 * SECONDS) < (0.05e9 + 0.02e9 / 4) * 5);
	assert_true(sum(world.captured, 10 * SECONDS, world.ticks) > 1000);
}

static void another_budget_takes_effect_at_once_and_none_lets_go(void **state)
{
	struct budget_config config = {.cpu_percent = 8}, none = {};

	(void)state;
	begin(&busy, &none);
	run(5 * SECONDS);
	assert_true(world.degrade.ns_per_byte == 0 && world.budget.step == 0);
	budget_change(&world.budget, &config);
	run(5 * SECONDS);
	assert_true(world.budget.step > 0);
	budget_change(&world.budget, &none);
	budget_decide(&world.budget, NULL, &world.degrade);
	assert_true(world.degrade.ns_per_byte == 0 && world.budget.step == 0);
	assert_true(world.degrade.slice == 0 && world.degrade.sample_flows == 0);
}

static void steps_have_names(void **state)
{
	char text[64];

	(void)state;
	budget_step_text(0, text, sizeof(text));
	assert_string_equal(text, "whole packets");
	budget_step_text(1, text, sizeof(text));
	assert_string_equal(text, "slices of 128 bytes");
	budget_step_text(2, text, sizeof(text));
	assert_string_equal(text, "headers");
	budget_step_text(BUDGET_STEPS, text, sizeof(text));
	assert_string_equal(text, "headers of one flow in 1024");
}

/* Bytes on the wire, with what is in front of them, in the worst second. */
static void the_pace_is_kept_in_every_second(void **state)
{
	static const uint64_t budgets[] = {100000, 1000000, 1000000000};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(budgets); i++) {
		static struct {
			nsec_t at;
			double bytes;
		} sent[20000];
		size_t n = 0, oldest = 0, message = 0;
		nsec_t now = NSEC_PER_SEC;
		double second = 0, total = 0;
		struct pace pace = {};

		pace_set(&pace, budgets[i]);
		while (n < ARRAY_SIZE(sent) && now < 60 * NSEC_PER_SEC) {
			nsec_t at = 0;
			size_t size;

			if (!message)
				message = 20 + (n * 7919) % 60000;
			size = pace_allow(&pace, now, message, &at);
			if (!size) {
				assert_true(at > now);
				now = at;
				continue;
			}
			/* A TLS record at most. */
			size = MIN(size, 16384);
			message -= size;
			pace_charge(&pace, now, size);
			sent[n].at = now;
			sent[n].bytes = (double)size + 22 + 66.0 * (double)(size / 1448 + 1);
			second += sent[n].bytes;
			total += sent[n].bytes;
			while (sent[oldest].at + NSEC_PER_SEC <= now)
				second -= sent[oldest++].bytes;
			n++;
			assert_true(second <= (double)budgets[i] / 8);
		}
		assert_true(total * 8 * 1e9 / (double)(now - NSEC_PER_SEC) >
			    0.75 * (double)budgets[i]);
	}
}

static void without_a_budget_nothing_is_paced(void **state)
{
	struct pace pace = {};
	nsec_t at = 0;

	(void)state;
	assert_int_equal(pace_allow(&pace, 1, 1 << 30, &at), 1 << 30);
	pace_charge(&pace, 1, 1 << 30);
	assert_int_equal(pace_allow(&pace, 1, 1 << 30, &at), 1 << 30);
}

static void a_limit_is_told_once_a_minute(void **state)
{
	struct limit_watch w = {};
	unsigned int begun = 0, ended = 0;
	nsec_t now = NSEC_PER_SEC;
	uint64_t count = 0;

	(void)state;
	assert_int_equal(limit_watch(&w, 0, now), LIMIT_NO_NEWS);
	/* An hour: 3 s of refusals, 12 s of none. */
	for (unsigned int s = 0; s < 3600; s++) {
		count += s % 15 < 3 ? 10 : 0;
		now += NSEC_PER_SEC;
		switch (limit_watch(&w, count, now)) {
		case LIMIT_BEGINS:
			assert_int_equal(begun++, ended);
			assert_int_equal(w.first + 10, count);
			break;
		case LIMIT_ENDS:
			assert_int_equal(++ended, begun);
			break;
		case LIMIT_NO_NEWS:
			break;
		}
	}
	assert_in_range(begun, 50, 60);
	assert_int_equal(ended, begun);
	/* One that goes on is no news. */
	for (unsigned int s = 0; s < 300; s++)
		assert_true(limit_watch(&w, ++count, now += NSEC_PER_SEC) != LIMIT_ENDS);
	assert_true(w.in_force);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cpu_stays_inside_under_ten_times_the_budget),
		cmocka_unit_test(the_first_look_stops_a_hundred_times_the_budget),
		cmocka_unit_test(bandwidth_stays_inside_and_the_queue_is_never_full),
		cmocka_unit_test(a_burst_that_the_queue_takes_changes_nothing),
		cmocka_unit_test(a_single_flow_is_held_by_the_limit),
		cmocka_unit_test(it_climbs_back_when_the_traffic_ends),
		cmocka_unit_test(costly_hooks_do_not_keep_it_down),
		cmocka_unit_test(what_runs_without_packets_does_not_keep_it_down),
		cmocka_unit_test(what_is_steady_and_too_much_is_tried_seldom),
		cmocka_unit_test(within_the_budget_nothing_is_done),
		cmocka_unit_test(hooks_that_are_too_much_alone_leave_packets_a_little),
		cmocka_unit_test(another_budget_takes_effect_at_once_and_none_lets_go),
		cmocka_unit_test(steps_have_names),
		cmocka_unit_test(the_pace_is_kept_in_every_second),
		cmocka_unit_test(without_a_budget_nothing_is_paced),
		cmocka_unit_test(a_limit_is_told_once_a_minute),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("agent_budget", tests, NULL, NULL);
}
