// SPDX-License-Identifier: Apache-2.0
/* What the kernel answers to questions about the network. */
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "nl.h"
#include "rtnl.h"

#define NOBODY 0x7ffffff0u /* no interface has this index */

static int count(const struct nlmsghdr *nlh, void *data)
{
	(void)nlh;
	++*(unsigned int *)data;
	return MNL_CB_OK;
}

static int dump(uint16_t type, uint8_t family, uint32_t ifindex, unsigned int *ret_n)
{
	const struct nl_query query = {type, family, ifindex};
	struct err err;

	*ret_n = 0;
	return nl_dump(-1, &query, count, ret_n, &err);
}

static void what_is_there_is_told(void **state)
{
	unsigned int n;

	(void)state;
	assert_int_equal(dump(RTM_GETLINK, AF_UNSPEC, 0, &n), 0);
	assert_int_not_equal(n, 0);
	assert_int_equal(dump(RTM_GETADDR, AF_UNSPEC, 0, &n), 0);
	assert_int_equal(dump(RTM_GETROUTE, AF_INET, 0, &n), 0);
}

static void what_goes_wrong_during_a_dump_is_no_empty_answer(void **state)
{
	unsigned int lo = if_nametoindex("lo"), n;

	(void)state;
	/* Kernels before 4.20 do not mind the index. */
	if (!lo || (dump(RTM_GETADDR, AF_UNSPEC, NOBODY, &n) == 0 && n))
		skip();
	assert_int_equal(dump(RTM_GETADDR, AF_UNSPEC, NOBODY, &n), -ENODEV);
	assert_int_equal(dump(RTM_GETROUTE, AF_INET, NOBODY, &n), -ENODEV);
	assert_int_equal(dump(RTM_GETROUTE, AF_INET, lo, &n), 0);
}

static void a_name_holds_as_long_as_the_kernel_says_so(void **state)
{
	struct rtnl_link link = {.ifindex = if_nametoindex("lo"), .name = "lo"};

	(void)state;
	if (!link.ifindex)
		skip();
	assert_true(rtnl_name_holds(-1, &link));
	link.name[1] = 'x';
	assert_false(rtnl_name_holds(-1, &link));
	link.name[1] = 'o';
	link.ifindex = NOBODY;
	assert_false(rtnl_name_holds(-1, &link));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_there_is_told),
		cmocka_unit_test(what_goes_wrong_during_a_dump_is_no_empty_answer),
		cmocka_unit_test(a_name_holds_as_long_as_the_kernel_says_so),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("agent_nl", tests, NULL, NULL);
}
