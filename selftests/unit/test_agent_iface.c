/* SPDX-License-Identifier: Apache-2.0 */
/* Which interfaces are attached, and what is done when the kernel or the queue says no. */
#include <errno.h>
#include <linux/if_arp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "iface.h"
#include "util.h"

/* A capture that does nothing but remember. */
struct capture {
	int attach_result;
	unsigned int attached, detached;
	uint32_t last_id;
	bool intact;
};

static int fake_attach(struct capture *c, const struct capture_iface *iface, struct err *err)
{
	if (c->attach_result)
		return err_set(err, c->attach_result, "a reason");
	c->attached++;
	c->last_id = iface->rule.id;
	return 0;
}

static bool fake_intact(struct capture *c, uint32_t ifindex)
{
	(void)ifindex;
	return c->intact;
}

static void fake_detach(struct capture *c, uint32_t ifindex)
{
	(void)ifindex;
	c->detached++;
}

static void fake_quiesce(struct capture *c)
{
	(void)c;
}

static bool fake_beat(struct capture *c)
{
	(void)c;
	return true;
}

static int fake_counts(struct capture *c, uint32_t slot, enum direction direction,
		       struct capture_counts *ret)
{
	(void)c;
	(void)slot;
	(void)direction;
	*ret = (struct capture_counts){};
	return 0;
}

static int fake_reset(struct capture *c, uint32_t slot)
{
	(void)c;
	(void)slot;
	return 0;
}

static const struct capture_ops fake_ops = {
	.attach = fake_attach,
	.intact = fake_intact,
	.detach = fake_detach,
	.quiesce = fake_quiesce,
	.counts = fake_counts,
	.reset = fake_reset,
	.beat = fake_beat,
};

static const struct rtnl_link eth0 = {
	.ifindex = 7, .name = "eth0", .type = ARPHRD_ETHER, .up = true};

struct fixture {
	struct capture capture;
	struct config *config;
	struct rules *rules;
	struct book *book;
	struct queue *queue;
	struct ifaces *ifaces;
};

static int setup(void **state)
{
	static const char text[] = "output: {file: {path: stdout}}\n";
	struct fixture *f = calloc(1, sizeof(*f));
	struct ifaces_config config = {.ops = &fake_ops};

	assert_non_null(f);
	assert_int_equal(config_parse("f", text, strlen(text), &f->config, stderr), 0);
	f->capture.intact = true;
	config.config = f->config;
	config.capture = &f->capture;
	config.rules = f->rules = rules_new(f->config);
	config.book = f->book = book_new();
	config.queue = f->queue = queue_new(1 << 20);
	f->ifaces = ifaces_new(&config);
	assert_true(f->rules && f->book && f->queue && f->ifaces);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	ifaces_free(f->ifaces);
	queue_free(f->queue);
	book_free(f->book);
	rules_free(f->rules);
	config_free(f->config);
	free(f);
	return 0;
}

static void list(struct fixture *f)
{
	ifaces_list_begin(f->ifaces);
	ifaces_link(f->ifaces, &eth0);
	ifaces_list_end(f->ifaces);
}

/* As the loop does, for @seconds. */
static void seconds_pass(struct fixture *f, int seconds)
{
	while (seconds-- > 0)
		if (ifaces_tend(f->ifaces))
			list(f);
}

static void hooks_that_were_removed_are_attached_again_under_a_new_id(void **state)
{
	struct fixture *f = *state;
	uint32_t id;

	list(f);
	seconds_pass(f, 30);
	assert_int_equal(f->capture.attached, 1);
	id = f->capture.last_id;
	f->capture.intact = false;
	assert_true(ifaces_tend(f->ifaces));
	assert_int_equal(f->capture.detached, 1);
	assert_int_equal(ifaces_number(f->ifaces), 0);
	f->capture.intact = true;
	list(f);
	assert_int_equal(f->capture.attached, 2);
	assert_true(f->capture.last_id > id);
	assert_false(ifaces_tend(f->ifaces));
	assert_int_equal(ifaces_number(f->ifaces), 1);
}

static void what_the_queue_had_no_room_for_is_captured_once_it_has(void **state)
{
	struct fixture *f = *state;
	static uint8_t filler[1000];
	struct stream_iface *announced;

	while (queue_push_control(f->queue, STREAM_META, filler, sizeof(filler)) == 0)
		;
	while (queue_push_control(f->queue, STREAM_META, filler, 10) == 0)
		;
	list(f);
	seconds_pass(f, 30);
	assert_int_equal(f->capture.attached, 0);
	assert_int_equal(book_interfaces(f->book, &announced), 0);
	free(announced);
	queue_ack(f->queue, queue_next_seq(f->queue) - 1, NULL, NULL);
	seconds_pass(f, 15);
	assert_int_equal(f->capture.attached, 1);
	assert_int_equal(ifaces_number(f->ifaces), 1);
}

static void what_the_kernel_refuses_is_not_tried_again(void **state)
{
	struct fixture *f = *state;
	struct rtnl_link gone = eth0;

	f->capture.attach_result = -EEXIST;
	list(f);
	f->capture.attach_result = 0;
	seconds_pass(f, 30);
	list(f);
	assert_int_equal(f->capture.attached, 0);
	gone.deleted = true;
	ifaces_link(f->ifaces, &gone);
	ifaces_link(f->ifaces, &eth0);
	assert_int_equal(f->capture.attached, 1);
}

static void an_attachment_with_a_reservation_is_one(void **state)
{
	struct fixture *f = *state;

	f->capture.attach_result = 1;
	list(f);
	assert_int_equal(ifaces_number(f->ifaces), 1);
	f->capture.attach_result = -EEXIST;
	list(f);
	assert_int_equal(ifaces_number(f->ifaces), 1);
}

static void one_that_was_gone_before_it_was_attached_may_come_back(void **state)
{
	struct fixture *f = *state;

	f->capture.attach_result = -ENODEV;
	list(f);
	assert_int_equal(ifaces_number(f->ifaces), 0);
	f->capture.attach_result = 0;
	ifaces_link(f->ifaces, &eth0);
	assert_int_equal(ifaces_number(f->ifaces), 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(hooks_that_were_removed_are_attached_again_under_a_new_id),
		TEST(what_the_queue_had_no_room_for_is_captured_once_it_has),
		TEST(what_the_kernel_refuses_is_not_tried_again),
		TEST(an_attachment_with_a_reservation_is_one),
		TEST(one_that_was_gone_before_it_was_attached_may_come_back),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("agent_iface", tests, NULL, NULL);
}
