/* SPDX-License-Identifier: Apache-2.0 */
/* Wall-clock time of boot-time stamps: clocks that are set, looked at badly, and real ones. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "clock_news.h"
#include "util.h"

#define YEAR_2026 (1767225600 * NSEC_PER_SEC)

/* A machine: every reading takes some time, and some take long. */
struct machine {
	nsec_t boot, offset;
	nsec_t cost;
	unsigned int readings;
	unsigned int stall_each; /* one reading in so many is interrupted; 0: none */
	nsec_t stall;
	bool step_inside; /* the clock is set by step_by within the next reading */
	nsec_t step_by;
};

static void read_fake(void *ctx, struct clock_bracket *ret)
{
	struct machine *m = ctx;
	bool stalls = m->stall_each && m->readings++ % m->stall_each == 0;

	ret->boot_before = m->boot;
	m->boot += m->cost + (stalls && m->readings & 2 ? m->stall : 0);
	if (m->step_inside)
		m->offset += m->step_by;
	m->step_inside = false;
	ret->real = m->boot + m->offset;
	m->boot += m->cost + (stalls && !(m->readings & 2) ? m->stall : 0);
	ret->boot_after = m->boot;
}

static struct machine machine(void)
{
	return (struct machine){
		.boot = 5 * NSEC_PER_SEC, .offset = YEAR_2026 + 123456789, .cost = 30};
}

static struct wallclock *clock_of(struct machine *m)
{
	struct wallclock *w;

	assert_int_equal(wallclock_new(read_fake, m, &w, NULL), 0);
	return w;
}

static void assert_close(nsec_t got, nsec_t want, nsec_t within)
{
	if (got - want + within > 2 * within)
		fail_msg("%lld ns off", (long long)(got - want));
}

static void distance_is_measured_between_two_readings(void **state)
{
	struct machine m = machine();
	struct wallclock *w = clock_of(&m);
	struct wall_map map;
	int64_t sum;

	(void)state;
	wallclock_look(w, &map);
	assert_int_equal(map.n, 1);
	assert_close(wall_time(&map, m.boot), m.boot + m.offset, 1);
	assert_in_range(wallclock_error(w), 30, 150);
	assert_int_equal(wallclock_steps(w, &sum), 0);
	wallclock_free(w);
}

static void packets_of_before_a_step_keep_their_time(void **state)
{
	static const int64_t steps[] = {
		3600ll * 1000000000, -3600ll * 1000000000, 1000000, -1000000, 5000, -5000,
		-1000000000};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		struct machine m = machine();
		struct wallclock *w = clock_of(&m);
		nsec_t was = m.offset, before, after;
		struct wall_map map;
		int64_t sum;

		before = m.boot += NSEC_PER_SEC;
		m.boot += 1000;
		m.offset += (nsec_t)steps[i];
		wallclock_look(w, &map);
		after = m.boot += 1000;
		assert_int_equal(map.n, 2);
		assert_close(wall_time(&map, before), before + was, 1);
		assert_close(wall_time(&map, after), after + m.offset, 1);
		assert_int_equal(wallclock_steps(w, &sum), 1);
		assert_close((nsec_t)(sum + 1000000), (nsec_t)(steps[i] + 1000000), 2);
		assert_int_equal(wallclock_steps(w, &sum), 0);
		wallclock_free(w);
	}
}

/* Whether the clock is set before or after the wall clock was read is all the same. */
static void step_within_a_reading_is_seen_then_or_with_the_next(void **state)
{
	struct machine m = machine();
	struct wallclock *w = clock_of(&m);
	struct wall_map map;
	int64_t sum;

	(void)state;
	m.step_inside = true;
	m.step_by = NSEC_PER_SEC;
	wallclock_look(w, NULL);
	assert_int_equal(wallclock_steps(w, &sum), 1);
	assert_close((nsec_t)sum, NSEC_PER_SEC, 2);
	wallclock_look(w, &map);
	assert_int_equal(map.n, 2);
	assert_close(wall_time(&map, m.boot), m.boot + m.offset, 1);
	wallclock_free(w);
}

/* From 1970 on, when nobody has set it yet, and before that. */
static void clock_may_be_behind_the_uptime(void **state)
{
	struct machine m = {.boot = 1000 * NSEC_PER_SEC, .offset = -900 * NSEC_PER_SEC, .cost = 30};
	struct wallclock *w = clock_of(&m);
	struct wall_map map;
	nsec_t then = m.boot, was = m.boot + m.offset;
	int64_t sum;

	(void)state;
	assert_in_range(was, 100 * NSEC_PER_SEC, 101 * NSEC_PER_SEC);
	wallclock_look(w, &map);
	assert_close(wall_time(&map, then), was, 1);
	m.boot += NSEC_PER_SEC;
	m.offset = YEAR_2026;
	wallclock_look(w, &map);
	assert_close(wall_time(&map, then), was, 1);
	assert_close(wall_time(&map, m.boot), m.boot + YEAR_2026, 1);
	assert_int_equal(wallclock_steps(w, &sum), 1);
	wallclock_free(w);
}

static void readings_that_are_interrupted_are_no_steps(void **state)
{
	struct machine m = machine();
	struct wallclock *w;
	struct wall_map map;
	int64_t sum;

	(void)state;
	m.stall_each = 3;
	m.stall = 4 * NSEC_PER_MSEC;
	w = clock_of(&m);
	for (int i = 0; i < 10000; i++) {
		m.boot += 12345;
		wallclock_look(w, &map);
		assert_close(wall_time(&map, m.boot), m.boot + m.offset, 150);
	}
	assert_int_equal(map.n, 1);
	assert_int_equal(wallclock_steps(w, &sum), 0);
	wallclock_free(w);
}

/* At start nothing better than 1 ms can be had; what comes later is better, not earlier. */
static void better_measurement_never_puts_a_packet_before_another(void **state)
{
	(void)state;
	for (int late = 0; late < 2; late++) {
		struct machine m = machine();
		nsec_t last = 0, stamp;
		struct wallclock *w;
		struct wall_map map;
		int64_t sum;

		m.readings = late ? 2 : 0;
		m.stall_each = 1;
		m.stall = NSEC_PER_MSEC;
		w = clock_of(&m);
		assert_in_range(wallclock_error(w), NSEC_PER_MSEC / 2, NSEC_PER_MSEC);
		for (int i = 0; i < 2000; i++) {
			nsec_t time;

			m.stall_each = i > 1000;
			stamp = m.boot += 500;
			wallclock_look(w, &map);
			time = wall_time(&map, stamp);
			assert_true(time >= last);
			last = time;
			if (i == 1000)
				m.boot += NSEC_PER_MSEC;
		}
		assert_close(wall_time(&map, m.boot), m.boot + m.offset, 150);
		assert_in_range(wallclock_error(w), 30, 150);
		assert_int_equal(wallclock_steps(w, &sum), 0);
		wallclock_free(w);
	}
}

static void more_steps_than_are_remembered_forget_the_oldest(void **state)
{
	struct machine m = machine();
	struct wallclock *w = clock_of(&m);
	nsec_t stamps[3 * WALL_ERAS], times[3 * WALL_ERAS];
	struct wall_map map;
	int64_t sum;

	(void)state;
	for (unsigned int i = 0; i < ARRAY_SIZE(stamps); i++) {
		m.boot += NSEC_PER_SEC;
		m.offset += (i % 3 ? 7 : -5) * NSEC_PER_SEC;
		wallclock_look(w, &map);
		stamps[i] = m.boot;
		times[i] = m.boot + m.offset;
	}
	assert_int_equal(map.n, WALL_ERAS);
	for (unsigned int i = 2 * WALL_ERAS; i < ARRAY_SIZE(stamps); i++)
		assert_close(wall_time(&map, stamps[i]), times[i], 1);
	assert_close(wall_time(&map, 0), map.eras[WALL_ERAS - 1].offset, 0);
	assert_int_equal(wallclock_steps(w, &sum), ARRAY_SIZE(stamps));
	assert_close((nsec_t)sum, (7 * 32 - 5 * 16) * NSEC_PER_SEC, 200);
	wallclock_free(w);
}

static unsigned int notes(struct queue *q, char *last, size_t size)
{
	unsigned int n = (unsigned int)queue_next_seq(q) - 1;
	struct backlog_message message;
	struct stream_note note;
	struct stream_header h;
	struct buf wire = {};
	struct tally t;

	*last = '\0';
	if (!n)
		return 0;
	assert_int_equal(queue_read(q, n, &wire, &message, &t), 1);
	assert_int_equal(stream_header_decode(wire.data, &h, NULL), 0);
	assert_int_equal(
		stream_note_decode(wire.data + STREAM_HEADER_SIZE, h.payload_len, &note, NULL), 0);
	assert_int_equal(note.kind, STREAM_NOTE_CLOCK);
	snprintf(last, size, "%s", note.text);
	buf_free(&wire);
	return n;
}

static void step_is_told_at_once_and_many_in_sums(void **state)
{
	struct machine m = machine();
	struct wallclock *w = clock_of(&m);
	struct queue *q = queue_new(1 << 20);
	struct clock_news news = {.wallclock = w, .queue = q};
	nsec_t now = 1000;
	char text[STREAM_NOTE_MAX + 1];

	(void)state;
	assert_false(clock_news_tell(&news, now));
	m.offset += 3 * NSEC_PER_SEC;
	wallclock_look(w, NULL);
	assert_true(clock_news_tell(&news, now));
	assert_int_equal(notes(q, text, sizeof(text)), 1);
	assert_string_equal(text, "the wall clock was set by +3000000000 ns");
	for (int i = 0; i < 1000; i++) {
		m.offset -= NSEC_PER_MSEC;
		wallclock_look(w, NULL);
		assert_false(clock_news_tell(&news, now += NSEC_PER_MSEC));
	}
	assert_int_equal(notes(q, text, sizeof(text)), 1);
	assert_true(clock_news_tell(&news, now += CLOCK_NEWS_AGAIN));
	assert_int_equal(notes(q, text, sizeof(text)), 2);
	assert_string_equal(text, "the wall clock was set 1000 times, by -1000000000 ns in all");
	m.offset -= 1;
	m.offset -= NSEC_PER_SEC;
	wallclock_look(w, NULL);
	assert_false(clock_news_tell(&news, now + 1));
	assert_true(clock_news_tell(&news, UINT64_MAX));
	assert_int_equal(notes(q, text, sizeof(text)), 3);
	assert_string_equal(text, "the wall clock was set by -1000000001 ns");
	queue_free(q);
	wallclock_free(w);
}

/* offs_real - offs_boot as the kernel has them: what ktime_get_real() adds to a stamp. */
static bool kernel_distance(int64_t *ret)
{
	FILE *f = fopen("/proc/timer_list", "re");
	long long offset[8] = {};
	unsigned int clock = 0;
	bool found = false;
	char line[256];

	while (f && !found && fgets(line, sizeof(line), f)) {
		if (sscanf(line, " clock %u:", &clock) == 1)
			continue;
		if (clock < ARRAY_SIZE(offset))
			sscanf(line, " .offset: %lld nsecs", &offset[clock]);
		found = clock == 3; /* HRTIMER_BASE_TAI, behind REALTIME and BOOTTIME */
	}
	if (f)
		fclose(f);
	*ret = offset[1] - offset[2];
	return found;
}

static void machine_is_within_a_microsecond_of_the_kernel(void **state)
{
	struct wallclock *w;
	struct wall_map map;
	int64_t kernel, off, worst = 0;
	unsigned int checked = 0;
	nsec_t end;

	(void)state;
	assert_int_equal(wallclock_new(NULL, NULL, &w, NULL), 0);
	wallclock_look(w, &map);
	if (kernel_distance(&kernel)) {
		off = (int64_t)wall_offset(&map) - kernel;
		print_message("# %lld ns from the kernel's own conversion, %llu known\n",
			      (long long)off, (unsigned long long)wallclock_error(w));
		assert_in_range(off + 1000, 0, 2000);
	}
	end = clock_monotonic() + NSEC_PER_SEC / 2;
	while (clock_monotonic() < end) {
		struct clock_bracket b;
		nsec_t low, high;

		wallclock_look(w, &map);
		clock_read_bracket(&b);
		low = wall_time(&map, b.boot_before);
		high = wall_time(&map, b.boot_after);
		/* Outside by more than that it would be wrong whatever came between. */
		assert_true(b.real + 1000 >= low && b.real <= high + 1000);
		if (b.boot_after - b.boot_before > 1000)
			continue;
		off = (int64_t)(low + (high - low) / 2 - b.real);
		worst = MAX(worst, off < 0 ? -off : off);
		checked++;
	}
	print_message("# %u readings, at most %lld ns apart\n", checked, (long long)worst);
	assert_in_range(worst, 0, 1000);
	wallclock_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(distance_is_measured_between_two_readings),
		cmocka_unit_test(packets_of_before_a_step_keep_their_time),
		cmocka_unit_test(step_within_a_reading_is_seen_then_or_with_the_next),
		cmocka_unit_test(clock_may_be_behind_the_uptime),
		cmocka_unit_test(readings_that_are_interrupted_are_no_steps),
		cmocka_unit_test(better_measurement_never_puts_a_packet_before_another),
		cmocka_unit_test(more_steps_than_are_remembered_forget_the_oldest),
		cmocka_unit_test(step_is_told_at_once_and_many_in_sums),
		cmocka_unit_test(machine_is_within_a_microsecond_of_the_kernel),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
