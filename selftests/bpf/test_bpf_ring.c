// SPDX-License-Identifier: Apache-2.0
/*
 * From a picked packet to the block that the reader gets: the record byte for byte,
 * full rings, the order across rings, sleeping and waking.
 */
#include <bpf/bpf.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "bpfenv.h"
#include "util.h"

static const struct iface_rule all = {.id = 5, .invert = 1};
static struct env env;

static int setup(void **state)
{
	struct capture_config config = {.snaplen = 65535, .ring_bytes = 4 << 20};

	(void)state;
	if (!env_skip_reason)
		env_open(&env, &config);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (!env_skip_reason)
		env_close(&env);
	return 0;
}

static void reopen(const struct capture_config *config)
{
	env_close(&env);
	env_open(&env, config);
}

static void record_is_the_documented_block_at_every_length(void **state)
{
	enum { most = 3000 };
	uint8_t data[most];

	(void)state;
	ENV_SKIP();
	for (size_t i = 0; i < most; i++)
		data[i] = (uint8_t)(i * 7 + 1);
	env_rule(&env, LO, &all);
	for (size_t len = 15; len <= most; len += len < 1700 ? 1 : 13) {
		enum direction d = len % 2 ? DIRECTION_INGRESS : DIRECTION_EGRESS;
		nsec_t before = clock_boottime(), stamp;

		assert_int_equal(env_packet(&env, d, data, len), CAPTURE_CAPTURED);
		assert_int_equal(env_drain(&env), 1);
		env_check_block(&env.blocks[0], all.id, data, len, len, d);
		stamp = (nsec_t)env.blocks[0].header.ts_high << 32 | env.blocks[0].header.ts_low;
		assert_in_range(stamp, before, clock_boottime());
	}
}

static void snap_length_cuts_but_keeps_the_true_length(void **state)
{
	static const uint32_t snaps[] = {1, 2, 3, 4, 14, 60, 64, 65, 67, 68, 96, 128, 1000};
	uint8_t data[600];

	(void)state;
	ENV_SKIP();
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i + 1);
	for (size_t i = 0; i < ARRAY_SIZE(snaps); i++) {
		struct capture_config config = {.snaplen = snaps[i], .ring_bytes = 1 << 20};

		reopen(&config);
		env_rule(&env, LO, &all);
		for (size_t len = 15; len <= sizeof(data); len += 65) {
			assert_int_equal(env_packet(&env, DIRECTION_INGRESS, data, len),
					 CAPTURE_CAPTURED);
			assert_int_equal(env_drain(&env), 1);
			env_check_block(&env.blocks[0], all.id, data, MIN(len, snaps[i]), len,
					DIRECTION_INGRESS);
		}
	}
}

static void a_full_ring_is_counted_and_recovers(void **state)
{
	struct capture_config config = {.snaplen = 65535, .ring_bytes = 1 << 20};
	struct capture_counts counts;
	uint8_t data[1000] = {1};
	size_t captured = 0;

	(void)state;
	ENV_SKIP();
	reopen(&config);
	env_rule(&env, LO, &all);
	while (env_packet(&env, DIRECTION_INGRESS, data, sizeof(data)) == CAPTURE_CAPTURED)
		captured++;
	assert_in_range(captured, 900, 1100);
	counts = env_counts(&env, 0, DIRECTION_INGRESS);
	assert_int_equal(counts.packets[CAPTURE_LOST_RING], 1);
	assert_int_equal(counts.bytes[CAPTURE_LOST_RING], sizeof(data));
	assert_int_equal(env_drain(&env), captured);
	assert_int_equal(env_packet(&env, DIRECTION_INGRESS, data, sizeof(data)), CAPTURE_CAPTURED);
	assert_int_equal(env_drain(&env), 1);
}

static void a_stale_heartbeat_makes_a_filter_inert(void **state)
{
	struct capture_config config = {
		.snaplen = 65535, .ring_bytes = 1 << 20, .hook_mode = HOOK_CLSACT};
	struct heartbeat old = {.boottime_ns = 1};
	uint8_t data[100] = {};
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = data, .data_size_in = sizeof(data),
		    .repeat = 1);
	uint32_t zero = 0;

	(void)state;
	ENV_SKIP();
	if (clock_boottime() < 2 * HEARTBEAT_STALE_NS)
		skip();
	reopen(&config);
	env_rule(&env, LO, &all);
	assert_int_equal(env_packet(&env, DIRECTION_INGRESS, data, sizeof(data)), CAPTURE_CAPTURED);
	assert_int_equal(bpf_map_update_elem(env.heartbeat, &zero, &old, BPF_ANY), 0);
	assert_int_equal(bpf_prog_test_run_opts(env.ingress, &run), 0);
	assert_int_equal((int)run.retval, -1);
	assert_int_equal(env_counts(&env, 0, DIRECTION_INGRESS).packets[CAPTURE_SEEN], 1);
	assert_false(capture_ringbuf.beat(env.capture));
	assert_true(capture_ringbuf.beat(env.capture));
	assert_int_equal(env_packet(&env, DIRECTION_INGRESS, data, sizeof(data)), CAPTURE_CAPTURED);
}

static void run_on_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		skip();
}

static int count_only(void *ctx, const struct epb_header *header, const void *rest)
{
	(void)header;
	(void)rest;
	return ++*(int *)ctx == 3;
}

static void rings_merge_in_order_of_time_up_to_the_horizon(void **state)
{
	uint8_t data[100] = {};
	nsec_t last = 0, half = 0;
	cpu_set_t before;
	int seen = 0;
	bool left;

	(void)state;
	ENV_SKIP();
	sched_getaffinity(0, sizeof(before), &before);
	if (CPU_COUNT(&before) < 2)
		skip();
	env_rule(&env, LO, &all);
	for (int i = 0; i < 40; i++) {
		if (i == 20)
			half = clock_boottime();
		run_on_cpu((i * 5 / 3) % 2);
		env_packet(&env, DIRECTION_INGRESS, data, sizeof(data));
	}
	sched_setaffinity(0, sizeof(before), &before);
	/* The callback stops after its third block, the horizon after the twentieth. */
	assert_int_equal(
		capture_ringbuf.drain(env.capture, half, &env_no_wall, count_only, &seen, &left),
		3);
	assert_true(left);
	seen = 10;
	assert_int_equal(
		capture_ringbuf.drain(env.capture, half, &env_no_wall, count_only, &seen, &left),
		17);
	assert_true(left);
	assert_int_equal(env_drain(&env), 20);
	for (size_t i = 0; i < env.nblocks; i++) {
		const struct epb_header *h = &env.blocks[i].header;
		nsec_t stamp = (nsec_t)h->ts_high << 32 | h->ts_low;

		assert_true(stamp > half && stamp >= last);
		last = stamp;
	}
}

static void the_reader_sleeps_until_there_is_a_packet_or_a_wake(void **state)
{
	uint8_t data[100] = {};

	(void)state;
	ENV_SKIP();
	env_rule(&env, LO, &all);
	assert_int_equal(capture_ringbuf.wait(env.capture, 0), 0);
	capture_ringbuf.wake(env.capture);
	capture_ringbuf.wake(env.capture);
	assert_int_equal(capture_ringbuf.wait(env.capture, 5000), 0);
	assert_int_equal(capture_ringbuf.wait(env.capture, 0), 0);
	for (int i = 0; i < 1000; i++) {
		env_packet(&env, DIRECTION_INGRESS, data, sizeof(data));
		assert_true(capture_ringbuf.wait(env.capture, 5000) > 0);
		assert_int_equal(env_drain(&env), 1);
		assert_int_equal(capture_ringbuf.wait(env.capture, 0), 0);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(record_is_the_documented_block_at_every_length),
		TEST(snap_length_cuts_but_keeps_the_true_length),
		TEST(a_full_ring_is_counted_and_recovers),
		TEST(a_stale_heartbeat_makes_a_filter_inert),
		TEST(rings_merge_in_order_of_time_up_to_the_horizon),
		TEST(the_reader_sleeps_until_there_is_a_packet_or_a_wake),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	env_enter();
	return cmocka_run_group_tests_name("bpf_ring", tests, NULL, NULL);
}
