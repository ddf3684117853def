// SPDX-License-Identifier: Apache-2.0
/* The interfaces that the preflight finds, on a node where they change all the time. */
#include <errno.h>
#include <linux/if_arp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "check_internal.h"

static unsigned int rows_failed;

/* In the place of agent/check.c. */
void check_row(struct check *c, enum check_status status, const char *what, const char *subject,
	       const char *hint, const char *fmt, ...)
{
	(void)c;
	(void)what;
	(void)subject;
	(void)hint;
	(void)fmt;
	rows_failed += status == CHECK_FAILED;
}

/* In the place of agent/rtnl.c. */
static unsigned int interruptions; /* of the next lists, after the first interface */

int rtnl_new(int netns_fd, struct rtnl **ret, struct err *err)
{
	(void)netns_fd;
	(void)err;
	*ret = (struct rtnl *)&interruptions;
	return 0;
}

struct rtnl *rtnl_free(struct rtnl *r)
{
	(void)r;
	return NULL;
}

int rtnl_list(struct rtnl *r, rtnl_link_fn *fn, void *ctx, struct err *err)
{
	struct rtnl_link link = {.ifindex = 2, .name = "eth0", .type = ARPHRD_ETHER, .up = true};

	(void)r;
	fn(ctx, &link);
	if (interruptions) {
		interruptions--;
		return err_set(err, -EINTR, "interrupted");
	}
	link.ifindex = 3;
	snprintf(link.name, sizeof(link.name), "eth1");
	fn(ctx, &link);
	return 0;
}

static size_t find(void)
{
	static const char text[] = "output: {file: {path: stdout}}\n";
	struct check_places places = {};
	struct config *config;
	struct check c = {};
	size_t n;

	assert_int_equal(config_parse("f", text, strlen(text), &config, stderr), 0);
	c.config = config;
	rows_failed = 0;
	check_places_find(&c, &places);
	n = places.n ? places.v[0].n : 0;
	check_places_free(&places);
	config_free(config);
	return n;
}

static void an_interrupted_list_is_asked_for_again_from_the_start(void **state)
{
	(void)state;
	interruptions = 5;
	assert_int_equal(find(), 2);
	assert_int_equal(rows_failed, 0);
	assert_int_equal(interruptions, 0);
}

static void what_is_never_listed_whole_fails(void **state)
{
	(void)state;
	interruptions = 1000;
	assert_int_equal(find(), 0);
	assert_int_equal(rows_failed, 1);
	assert_int_equal(1000 - interruptions, 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_interrupted_list_is_asked_for_again_from_the_start),
		cmocka_unit_test(what_is_never_listed_whole_fails),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("agent_check_places", tests, NULL, NULL);
}
