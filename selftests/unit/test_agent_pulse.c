// SPDX-License-Identifier: Apache-2.0
/* The thread that shows the hooks that the agent is alive. */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pulse.h"
#include "util.h"

struct capture {
	atomic_uint beats;
	atomic_bool late;
};

static bool fake_beat(struct capture *c)
{
	c->beats++;
	return !atomic_exchange(&c->late, false);
}

static const struct capture_ops fake_ops = {.beat = fake_beat};

static void wait_beats(const struct capture *c, unsigned int n)
{
	nsec_t end = clock_monotonic() + 30 * NSEC_PER_SEC;

	while (atomic_load(&c->beats) < n && clock_monotonic() < end)
		poll(NULL, 0, 10);
	assert_true(atomic_load(&c->beats) >= n);
}

static void it_beats_while_this_thread_does_something_else(void **state)
{
	struct capture c = {};
	struct pulse *p;
	nsec_t since;

	(void)state;
	assert_int_equal(pulse_new(&fake_ops, &c, &p, NULL), 0);
	wait_beats(&c, 3);
	assert_false(pulse_missed(p, &since));
	assert_null(pulse_free(p));
	assert_null(pulse_free(NULL));
}

static void a_gap_is_told_of_once_with_the_last_beat_before_it(void **state)
{
	struct capture c = {.late = true};
	nsec_t since, began = clock_realtime(), before;
	struct pulse *p;

	(void)state;
	/* Before the first beat nothing was captured. */
	assert_int_equal(pulse_new(&fake_ops, &c, &p, NULL), 0);
	assert_false(pulse_missed(p, &since));
	before = clock_realtime();
	c.late = true;
	wait_beats(&c, atomic_load(&c.beats) + 2);
	assert_true(pulse_missed(p, &since));
	assert_true(since >= began && since <= before + NSEC_PER_SEC);
	assert_false(pulse_missed(p, &since));
	pulse_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_beats_while_this_thread_does_something_else),
		cmocka_unit_test(a_gap_is_told_of_once_with_the_last_beat_before_it),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("agent_pulse", tests, NULL, NULL);
}
