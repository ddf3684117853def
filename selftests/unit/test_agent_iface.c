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
#include "tap_guard.h"
#include "util.h"

/* In the place of agent/tap_guard.c. */
static int guard_result;

int tap_guard(uint32_t ifindex, struct err *err)
{
	(void)ifindex;
	return guard_result ? err_set(err, guard_result, "a use") : 0;
}

/* In the place of agent/rtnl.c. */
static const char *name_now; /* NULL: as told */

bool rtnl_name_holds(int netns_fd, const struct rtnl_link *link)
{
	(void)netns_fd;
	return !name_now || strcmp(name_now, link->name) == 0;
}

/* A capture that does nothing but remember. */
struct capture {
	int room_result, attach_result;
	unsigned int tries, attached, detached;
	uint32_t last_id;
	bool intact;
	int set_rules_until_one_fails;
	uint32_t asks[16]; /* of the rule in force, by ifindex */
	const struct expression *expressions[EXPRESSIONS];
};

static int fake_room(struct capture *c, const struct capture_iface *iface, struct err *err)
{
	(void)iface;
	return c->room_result ? err_set(err, c->room_result, "a reason") : 0;
}

static int fake_attach(struct capture *c, const struct capture_iface *iface, struct err *err)
{
	c->tries++;
	if (c->attach_result)
		return err_set(err, c->attach_result, "a reason");
	c->attached++;
	c->asks[iface->ifindex % 16] = iface->rule.asks;
	c->last_id = iface->rule.id;
	return 0;
}

static int fake_intact(struct capture *c, uint64_t key, struct err *err)
{
	(void)key;
	(void)err;
	return c->intact;
}

static void fake_detach(struct capture *c, uint64_t key)
{
	(void)key;
	c->detached++;
}

static int fake_set_rule(struct capture *c, const struct capture_iface *iface, struct err *err)
{
	if (c->set_rules_until_one_fails && !--c->set_rules_until_one_fails)
		return err_set(err, -ENOMEM, "a reason");
	c->asks[iface->ifindex % 16] = iface->rule.asks;
	return 0;
}

static int fake_set_expression(struct capture *c, uint32_t slot, const struct expression *e,
			       struct err *err)
{
	(void)err;
	c->expressions[slot] = e;
	return 0;
}

static void fake_quiesce(struct capture *c)
{
	(void)c;
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

static const char *fake_describe(const struct capture *c)
{
	(void)c;
	return "xdp generic (the driver has no native one)";
}

static const struct capture_ops fake_ops = {
	.describe = fake_describe,
	.user_space = true,
	.room = fake_room,
	.attach = fake_attach,
	.set_rule = fake_set_rule,
	.set_expression = fake_set_expression,
	.intact = fake_intact,
	.detach = fake_detach,
	.quiesce = fake_quiesce,
	.counts = fake_counts,
	.reset = fake_reset,
};

static const struct rtnl_link eth0 = {
	.ifindex = 7, .name = "eth0", .type = ARPHRD_ETHER, .up = true};

static const struct place here = {.fd = -1};

struct fixture {
	struct capture capture;
	struct config *config;
	struct rules *rules;
	struct filters *filters;
	struct book *book;
	struct queue *queue;
	struct ifaces *ifaces;
};

static int set_up_with(void **state, const char *text)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct ifaces_config config = {.ops = &fake_ops};

	assert_non_null(f);
	assert_int_equal(config_parse("f", text, strlen(text), &f->config, stderr), 0);
	f->capture.intact = true;
	config.config = f->config;
	config.capture = &f->capture;
	config.rules = f->rules = rules_new(f->config);
	assert_int_equal(filters_new(f->config, &fake_ops, &f->capture, &f->filters, NULL), 0);
	config.filters = f->filters;
	config.book = f->book = book_new();
	config.queue = f->queue = queue_new(1 << 20);
	f->ifaces = ifaces_new(&config);
	assert_true(f->rules && f->book && f->queue && f->ifaces);
	guard_result = 0;
	name_now = NULL;
	*state = f;
	return 0;
}

static int setup(void **state)
{
	return set_up_with(state, "output: {file: {path: stdout}}\n");
}

static int setup_tap(void **state)
{
	return set_up_with(state, "output: {file: {path: stdout}}\ntaps: [eth0]\n");
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	ifaces_free(f->ifaces);
	queue_free(f->queue);
	book_free(f->book);
	rules_free(f->rules);
	filters_free(f->filters);
	config_free(f->config);
	free(f);
	return 0;
}

static void list(struct fixture *f)
{
	ifaces_list_begin(f->ifaces, &here);
	ifaces_link(f->ifaces, &here, &eth0);
	ifaces_list_end(f->ifaces, &here);
}

/* As the loop does, for @seconds. */
static void seconds_pass(struct fixture *f, int seconds)
{
	while (seconds-- > 0)
		if (ifaces_tend(f->ifaces))
			list(f);
}

static void add_unseen(void *ctx, const struct stream_iface *info, enum direction direction,
		       const struct ledger *l, const struct ledger_span *unseen)
{
	(void)info;
	(void)direction;
	(void)l;
	ledger_span_add(ctx, unseen->from, unseen->to);
}

static struct ledger_span unseen(struct fixture *f)
{
	struct ledger_span sum = {};

	book_for_each(f->book, add_unseen, &sum);
	return sum;
}

static void hooks_that_are_gone_at_the_end_are_told_of(void **state)
{
	struct fixture *f = *state;

	list(f);
	f->capture.intact = false;
	ifaces_stop(f->ifaces);
	assert_true(unseen(f).to);
}

static void hooks_that_were_removed_are_attached_again_under_a_new_id(void **state)
{
	struct fixture *f = *state;
	uint32_t id;

	list(f);
	seconds_pass(f, 30);
	assert_int_equal(f->capture.attached, 1);
	id = f->capture.last_id;
	assert_int_equal(unseen(f).to, 0);
	f->capture.intact = false;
	assert_true(ifaces_tend(f->ifaces));
	assert_true(unseen(f).from && unseen(f).from <= unseen(f).to);
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
	seconds_pass(f, 45);
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
	ifaces_link(f->ifaces, &here, &gone);
	ifaces_link(f->ifaces, &here, &eth0);
	assert_int_equal(f->capture.attached, 1);
}

static struct stream_meta announced(struct fixture *f, uint64_t seq)
{
	struct backlog_message m;
	struct stream_meta meta;
	struct buf wire = {};

	assert_int_equal(queue_read(f->queue, seq, &wire, &m, NULL), 1);
	assert_int_equal(m.type, STREAM_META);
	assert_int_equal(stream_meta_decode(wire.data + STREAM_HEADER_SIZE,
					    wire.len - STREAM_HEADER_SIZE, &meta, NULL),
			 0);
	buf_free(&wire);
	return meta;
}

static void meta_says_what_captures_and_then_that_it_is_over(void **state)
{
	struct fixture *f = *state;
	struct stream_meta meta;

	list(f);
	meta = announced(f, 1);
	assert_string_equal(meta.iface.name, "eth0");
	assert_string_equal(meta.hook, "xdp generic");
	assert_string_equal(meta.netns_name, "");
	assert_string_equal(meta.filter, "");
	ifaces_list_begin(f->ifaces, &here);
	ifaces_list_end(f->ifaces, &here);
	meta = announced(f, 2);
	assert_true(meta.iface.gone);
	assert_string_equal(meta.hook, "");
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
	ifaces_link(f->ifaces, &here, &eth0);
	assert_int_equal(ifaces_number(f->ifaces), 1);
}

/* Whoever makes interfaces that cannot be captured takes no more than so much memory and log. */
static void what_is_told_of_a_former_name_comes_too_late(void **state)
{
	struct fixture *f = *state;
	struct rtnl_link former = eth0;

	name_now = "eth1";
	list(f);
	assert_int_equal(f->capture.tries, 0);
	assert_int_equal(ifaces_number(f->ifaces), 0);
	name_now = "eth0";
	list(f);
	assert_int_equal(f->capture.attached, 1);
	former.name[3] = '1';
	ifaces_link(f->ifaces, &here, &former);
	assert_int_equal(f->capture.detached, 0);
	name_now = "eth1";
	ifaces_link(f->ifaces, &here, &former);
	assert_int_equal(f->capture.detached, 1);
	assert_int_equal(f->capture.attached, 2);
}

static void of_those_that_cannot_be_captured_so_many_are_remembered(void **state)
{
	struct fixture *f = *state;
	struct rtnl_link link = eth0;

	f->capture.attach_result = -EEXIST;
	for (link.ifindex = 100; link.ifindex < 100 + 1025; link.ifindex++)
		ifaces_link(f->ifaces, &here, &link);
	f->capture.attach_result = 0;
	/* The first of them is one that is not tried again, the last one is another. */
	link.ifindex = 100;
	ifaces_link(f->ifaces, &here, &link);
	assert_int_equal(f->capture.attached, 0);
	link.ifindex = 100 + 1024;
	ifaces_link(f->ifaces, &here, &link);
	assert_int_equal(f->capture.attached, 1);
}

static void what_the_capture_has_no_room_for_is_announced_once_it_has(void **state)
{
	struct fixture *f = *state;

	f->capture.room_result = -ENOSPC;
	list(f);
	seconds_pass(f, 60);
	assert_int_equal(queue_next_seq(f->queue), 1);
	f->capture.room_result = 0;
	seconds_pass(f, 15);
	assert_int_equal(f->capture.attached, 1);
	assert_int_equal(queue_next_seq(f->queue), 2);
}

static void a_tap_whose_queues_are_busy_is_captured_once_they_are_not(void **state)
{
	struct fixture *f = *state;

	f->capture.attach_result = -EBUSY;
	list(f);
	f->capture.attach_result = 0;
	seconds_pass(f, 15);
	assert_int_equal(f->capture.attached, 1);
}

static void note_in(struct fixture *f, uint64_t seq, const char *text)
{
	struct backlog_message m;
	struct stream_note note;
	struct buf wire = {};

	assert_int_equal(queue_read(f->queue, seq, &wire, &m, NULL), 1);
	assert_int_equal(m.type, STREAM_NOTE);
	assert_int_equal(stream_note_decode(wire.data + STREAM_HEADER_SIZE,
					    wire.len - STREAM_HEADER_SIZE, &note, NULL),
			 0);
	assert_string_equal(note.text, text);
	buf_free(&wire);
}

static void a_tap_that_the_host_comes_to_use_is_given_back(void **state)
{
	struct fixture *f = *state;

	list(f);
	seconds_pass(f, 30);
	assert_int_equal(f->capture.detached, 0);
	/* That it cannot be told is no reason. */
	guard_result = -EINTR;
	seconds_pass(f, 30);
	assert_int_equal(f->capture.detached, 0);
	guard_result = -EADDRINUSE;
	seconds_pass(f, 10);
	assert_int_equal(f->capture.detached, 1);
	assert_int_equal(ifaces_number(f->ifaces), 0);
	note_in(f, 2, "the capture ends: a use");
	/* It comes, the end of it is told, it goes: and no try is told of. */
	seconds_pass(f, 60);
	assert_int_equal(f->capture.attached, 1);
	assert_int_equal(queue_next_seq(f->queue), 4);
	guard_result = 0;
	seconds_pass(f, 80);
	assert_int_equal(f->capture.attached, 2);
	assert_int_equal(f->capture.detached, 1);
}

/* A try may change the interface, and netlink tells of that. */
static void what_cannot_be_captured_yet_is_not_tried_for_what_netlink_tells(void **state)
{
	struct fixture *f = *state;

	f->capture.attach_result = -EBUSY;
	list(f);
	for (int i = 0; i < 50; i++)
		ifaces_link(f->ifaces, &here, &eth0);
	assert_int_equal(f->capture.tries, 1);
	f->capture.attach_result = 0;
	seconds_pass(f, 9);
	list(f);
	assert_int_equal(f->capture.tries, 1);
	seconds_pass(f, 1);
	assert_int_equal(f->capture.attached, 1);
}

static void what_comes_up_is_tried_once(void **state)
{
	struct fixture *f = *state;
	struct rtnl_link down = eth0;

	down.up = false;
	f->capture.attach_result = -EBUSY;
	list(f);
	ifaces_link(f->ifaces, &here, &down);
	ifaces_link(f->ifaces, &here, &eth0);
	assert_int_equal(f->capture.tries, 2);
	ifaces_link(f->ifaces, &here, &eth0);
	assert_int_equal(f->capture.tries, 2);
	/* What becomes due meanwhile waits for it to be up. */
	ifaces_link(f->ifaces, &here, &down);
	for (int i = 0; i < 20; i++)
		ifaces_tend(f->ifaces);
	ifaces_link(f->ifaces, &here, &down);
	assert_int_equal(f->capture.tries, 2);
	ifaces_link(f->ifaces, &here, &eth0);
	ifaces_link(f->ifaces, &here, &eth0);
	assert_int_equal(f->capture.tries, 3);
}

static void tries_become_rare(void **state)
{
	struct fixture *f = *state;

	f->capture.attach_result = -EBUSY;
	list(f);
	seconds_pass(f, 10 + 20 + 40);
	assert_int_equal(f->capture.tries, 4);
	seconds_pass(f, 80 + 160 + 320);
	assert_int_equal(f->capture.tries, 7);
	seconds_pass(f, 6000);
	assert_int_equal(f->capture.tries, 17);
	f->capture.attach_result = 0;
	seconds_pass(f, 600);
	assert_int_equal(f->capture.attached, 1);
}

/* The resolver may be asked in vain for long, so not at once. */
static void a_name_that_cannot_be_looked_up_is_tried_again_after_a_minute(void **state)
{
	struct fixture *f = *state;

	f->capture.room_result = -ENOENT;
	list(f);
	f->capture.room_result = 0;
	seconds_pass(f, 59);
	assert_int_equal(f->capture.attached, 0);
	seconds_pass(f, 1);
	assert_int_equal(f->capture.attached, 1);
}

static void others_that_cannot_be_captured_do_not_make_a_tap_be_forgotten(void **state)
{
	struct fixture *f = *state;
	struct rtnl_link link = eth0;

	f->capture.attach_result = -EBUSY;
	snprintf(link.name, sizeof(link.name), "other");
	for (link.ifindex = 100; link.ifindex < 100 + 1024; link.ifindex++)
		ifaces_link(f->ifaces, &here, &link);
	f->capture.tries = 0;
	for (int i = 0; i < 5; i++)
		ifaces_link(f->ifaces, &here, &eth0);
	assert_int_equal(f->capture.tries, 1);
}

static struct config *configuration(const char *rest)
{
	struct config *config;
	char text[512];

	snprintf(text, sizeof(text), "output: {file: {path: stdout}}\n%s", rest);
	assert_int_equal(config_parse("f", text, strlen(text), &config, stderr), 0);
	return config;
}

static int refresh(struct fixture *f, const struct config *config)
{
	struct sets *sets = NULL;
	struct err err;
	int r;

	assert_int_equal(filters_prepare(f->filters, config, &sets, &err), 0);
	r = ifaces_refresh(f->ifaces, &err);
	if (r < 0)
		filters_abort(f->filters);
	else
		filters_commit(f->filters);
	return r;
}

static size_t expressions(const struct fixture *f)
{
	size_t n = 0;

	for (size_t i = 0; i < EXPRESSIONS; i++)
		n += f->capture.expressions[i] != NULL;
	return n;
}

static void another_configuration_makes_the_waits_begin_anew(void **state)
{
	struct fixture *f = *state;

	f->capture.attach_result = -EBUSY;
	list(f);
	seconds_pass(f, 600);
	f->capture.tries = 0;
	assert_int_equal(refresh(f, f->config), 0);
	list(f);
	list(f);
	assert_int_equal(f->capture.tries, 1);
	seconds_pass(f, 10 + 20);
	assert_int_equal(f->capture.tries, 3);
}

static void a_refresh_that_fails_halfway_needs_no_file_to_go_back(void **state)
{
	struct fixture *f = *state;
	struct rtnl_link eth1 = eth0;
	char path[] = "/tmp/ps-iface-XXXXXX", rest[128];
	int fd = mkstemp(path);
	struct config *was, *is;
	uint32_t asks;

	assert_true(fd >= 0);
	close(fd);
	eth1.ifindex = 8;
	snprintf(eth1.name, sizeof(eth1.name), "eth1");
	list(f);
	ifaces_link(f->ifaces, &here, &eth1);
	snprintf(rest, sizeof(rest), "filter: host @x\nsets: {x: {file: %s}}\n", path);
	was = configuration(rest);
	assert_int_equal(refresh(f, was), 0);
	asks = f->capture.asks[7];
	assert_true(asks & RULE_EXPRESSION);

	unlink(path);
	is = configuration("filter: host @y\nsets: {y: {addresses: [10.0.0.1]}}\n");
	f->capture.set_rules_until_one_fails = 2;
	assert_int_equal(refresh(f, is), -ENOMEM);
	config_free(is);
	assert_int_equal(f->capture.asks[7], asks);
	assert_int_equal(f->capture.asks[8], asks);
	assert_int_equal(expressions(f), 1);
	assert_non_null(f->capture.expressions[asks & RULE_EXPRESSION]);
	assert_string_equal(filters_text(f->filters, "eth1"), "host @x");
	/* What is attached now has the former filter too. */
	eth1.ifindex = 9;
	ifaces_link(f->ifaces, &here, &eth1);
	assert_int_equal(f->capture.asks[9], asks);
	assert_int_equal(refresh(f, f->config), 0);
	assert_int_equal(expressions(f), 0);
	assert_int_equal(f->capture.asks[8], 0);
	config_free(was);
}

/* So many filters that look into a set, which has one address. */
static struct config *many_filters(unsigned int n, const char *address)
{
	struct config *config;
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	assert_non_null(out);
	fprintf(out, "output: {file: {path: stdout}}\nsets: {x: {addresses: [%s]}}\n", address);
	fprintf(out, "perInterface:\n");
	for (unsigned int i = 0; i < n; i++)
		fprintf(out, "  v%u: {filter: host @x and port %u}\n", i, 1000 + i);
	fclose(out);
	assert_int_equal(config_parse("f", text, size, &config, stderr), 0);
	free(text);
	return config;
}

static void link_many(struct fixture *f, unsigned int n)
{
	struct rtnl_link link = eth0;

	for (unsigned int i = 0; i < n; i++) {
		link.ifindex = 100 + i;
		snprintf(link.name, sizeof(link.name), "v%u", i);
		ifaces_link(f->ifaces, &here, &link);
	}
}

static void a_reload_has_room_for_filters_old_and_new(void **state)
{
	struct fixture *f = *state;
	struct config *old = many_filters(128, "10.0.0.1"), *new = many_filters(128, "10.0.0.2");
	struct sets *sets = NULL;
	struct err err;

	assert_int_equal(refresh(f, old), 0);
	link_many(f, 127);
	assert_int_equal(expressions(f), 127);
	assert_int_equal(refresh(f, new), 0);
	assert_int_equal(expressions(f), 127);
	assert_int_equal(refresh(f, old), 0);
	link_many(f, 128);
	assert_int_equal(filters_prepare(f->filters, new, &sets, &err), 0);
	assert_int_equal(ifaces_refresh(f->ifaces, &err), -ENOSPC);
	filters_abort(f->filters);
	assert_non_null(strstr(err.text, "255 different filters at a time, old and new together"));
	assert_int_equal(expressions(f), 128);
	assert_int_equal(refresh(f, f->config), 0);
	config_free(old);
	config_free(new);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define TAP(f)  cmocka_unit_test_setup_teardown(f, setup_tap, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(hooks_that_are_gone_at_the_end_are_told_of),
		TEST(hooks_that_were_removed_are_attached_again_under_a_new_id),
		TEST(what_the_queue_had_no_room_for_is_captured_once_it_has),
		TEST(what_the_kernel_refuses_is_not_tried_again),
		TEST(meta_says_what_captures_and_then_that_it_is_over),
		TEST(an_attachment_with_a_reservation_is_one),
		TEST(one_that_was_gone_before_it_was_attached_may_come_back),
		TEST(what_is_told_of_a_former_name_comes_too_late),
		TEST(of_those_that_cannot_be_captured_so_many_are_remembered),
		TEST(what_the_capture_has_no_room_for_is_announced_once_it_has),
		TAP(a_tap_whose_queues_are_busy_is_captured_once_they_are_not),
		TAP(what_cannot_be_captured_yet_is_not_tried_for_what_netlink_tells),
		TAP(what_comes_up_is_tried_once),
		TAP(tries_become_rare),
		TEST(a_name_that_cannot_be_looked_up_is_tried_again_after_a_minute),
		TAP(others_that_cannot_be_captured_do_not_make_a_tap_be_forgotten),
		TAP(another_configuration_makes_the_waits_begin_anew),
		TAP(a_tap_that_the_host_comes_to_use_is_given_back),
		TEST(a_refresh_that_fails_halfway_needs_no_file_to_go_back),
		TEST(a_reload_has_room_for_filters_old_and_new),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("agent_iface", tests, NULL, NULL);
}
