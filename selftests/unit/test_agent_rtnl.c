// SPDX-License-Identifier: Apache-2.0
/* What is done when the kernel has more to say of interfaces than the socket holds. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "nl.h"
#include "rtnl.h"
#include "util.h"

/* In the place of agent/nl.c. */
static const ssize_t *script; /* what is received; the last of it for ever */
static size_t left, received;
static int dump_result;

int nl_open(int netns_fd, int flags, struct err *err)
{
	(void)netns_fd;
	(void)err;
	return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | flags, 0);
}

ssize_t nl_receive(int fd, void *buffer, size_t size)
{
	(void)fd;
	memset(buffer, 0, size);
	received++;
	if (left > 1) {
		left--;
		return *script++;
	}
	return *script;
}

int nl_dump(int netns_fd, const struct nl_query *query, mnl_cb_t fn, void *ctx, struct err *err)
{
	(void)netns_fd;
	(void)query;
	(void)fn;
	(void)ctx;
	return err_set(err, dump_result, "a reason");
}

static void on_link(void *ctx, const struct rtnl_link *link)
{
	(void)ctx;
	(void)link;
	fail();
}

static int read_all(const ssize_t *messages, size_t n)
{
	struct rtnl *r;
	struct err err;
	int e;

	assert_int_equal(rtnl_new(-1, &r, &err), 0);
	script = messages;
	left = n;
	received = 0;
	e = rtnl_read(r, on_link, NULL, &err);
	rtnl_free(r);
	return e;
}

static void after_an_overflow_all_that_waits_is_thrown_away(void **state)
{
	static const ssize_t messages[] = {-ENOBUFS, 0,         -EMSGSIZE, 0,
					   -EINTR,   -EMSGSIZE, -ENOBUFS,  -EAGAIN};

	(void)state;
	assert_int_equal(read_all(messages, ARRAY_SIZE(messages)), -ENOBUFS);
	assert_int_equal(received, ARRAY_SIZE(messages));
}

static void what_does_not_end_is_given_up_and_not_taken_for_thrown_away(void **state)
{
	static const ssize_t messages[] = {-ENOBUFS, 0};

	(void)state;
	assert_int_equal(read_all(messages, ARRAY_SIZE(messages)), -EBUSY);
	assert_in_range(received, 10000, 100000);
}

static void a_name_holds_when_the_kernel_cannot_be_asked(void **state)
{
	const struct rtnl_link link = {.ifindex = 7, .name = "eth0"};

	(void)state;
	dump_result = -EMFILE;
	assert_true(rtnl_name_holds(-1, &link));
	dump_result = -ENODEV;
	assert_false(rtnl_name_holds(-1, &link));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(after_an_overflow_all_that_waits_is_thrown_away),
		cmocka_unit_test(what_does_not_end_is_given_up_and_not_taken_for_thrown_away),
		cmocka_unit_test(a_name_holds_when_the_kernel_cannot_be_asked),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("agent_rtnl", tests, NULL, NULL);
}
