// SPDX-License-Identifier: Apache-2.0
/* Whether the host uses an interface, with a kernel made up here. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>

#include "nl.h"
#include "tap_guard.h"

#define TAP 7u

/* In the place of agent/nl.c. */
static unsigned int interruptions; /* of the next dumps of addresses, before there is anything */
static struct {
	int family;
	uint32_t flags;
	uint8_t maker; /* 0: it is not told */
} address;
static uint8_t route_maker; /* of an IPv6 route; 0: there is none */

static void put_address(struct nlmsghdr *nlh)
{
	struct ifaddrmsg *message = mnl_nlmsg_put_extra_header(nlh, sizeof(*message));

	nlh->nlmsg_type = RTM_NEWADDR;
	message->ifa_family = (uint8_t)address.family;
	message->ifa_index = TAP;
	message->ifa_flags = (uint8_t)address.flags;
	if (address.family == AF_INET)
		mnl_attr_put(nlh, IFA_LOCAL, 4, (uint8_t[]){192, 0, 2, 1});
	else
		mnl_attr_put(nlh, IFA_ADDRESS, 16, (uint8_t[16]){0x20, 1, 0xd, 0xb8, [15] = 1});
	mnl_attr_put_u32(nlh, IFA_FLAGS, address.flags);
	if (address.maker)
		mnl_attr_put_u8(nlh, IFA_PROTO, address.maker);
}

static void put_route(struct nlmsghdr *nlh)
{
	struct rtmsg *message = mnl_nlmsg_put_extra_header(nlh, sizeof(*message));

	nlh->nlmsg_type = RTM_NEWROUTE;
	message->rtm_family = AF_INET6;
	message->rtm_type = RTN_UNICAST;
	message->rtm_protocol = route_maker;
	mnl_attr_put_u32(nlh, RTA_OIF, TAP);
}

int nl_dump(int netns_fd, const struct nl_query *query, mnl_cb_t fn, void *ctx, struct err *err)
{
	uint8_t buffer[256] __attribute__((aligned(8)));
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buffer);

	assert_int_equal(netns_fd, -1);
	if (query->type == RTM_GETADDR && interruptions) {
		interruptions--;
		return err_set(err, -EINTR, "interrupted");
	}
	if (query->type == RTM_GETADDR && address.family)
		put_address(nlh);
	else if (query->type == RTM_GETROUTE && query->family == AF_INET6 && route_maker)
		put_route(nlh);
	else
		return 0;
	fn(nlh, ctx);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	interruptions = 0;
	address.family = AF_INET;
	address.flags = IFA_F_PERMANENT;
	address.maker = 0;
	route_maker = 0;
	return 0;
}

static void an_address_is_a_use(void **state)
{
	struct err err;

	(void)state;
	assert_int_equal(tap_guard(TAP, &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, "it has the address 192.0.2.1"));
	assert_int_equal(tap_guard(TAP + 1, &err), 0);
}

static int guard_of_ipv6(uint32_t flags, uint8_t maker)
{
	struct err err;

	address.family = AF_INET6;
	address.flags = flags;
	address.maker = maker;
	return tap_guard(TAP, &err);
}

static void an_address_that_the_kernel_made_of_an_advertisement_is_no_use(void **state)
{
	(void)state;
	assert_int_equal(guard_of_ipv6(IFA_F_MANAGETEMPADDR, IFAPROT_KERNEL_RA), 0);
	assert_int_equal(guard_of_ipv6(IFA_F_MANAGETEMPADDR, 0), 0);
	assert_int_equal(guard_of_ipv6(IFA_F_TEMPORARY, 0), 0);
	assert_int_equal(guard_of_ipv6(0, IFAPROT_KERNEL_RA), 0);
	/* Somebody's own, for ever or for some time. */
	assert_int_equal(guard_of_ipv6(IFA_F_PERMANENT, 0), -EADDRINUSE);
	assert_int_equal(guard_of_ipv6(IFA_F_NOPREFIXROUTE, 0), -EADDRINUSE);
}

static void a_route_that_the_kernel_made_of_an_advertisement_is_no_use(void **state)
{
	struct err err;

	(void)state;
	address.family = 0;
	route_maker = RTPROT_RA;
	assert_int_equal(tap_guard(TAP, &err), 0);
	route_maker = RTPROT_KERNEL;
	assert_int_equal(tap_guard(TAP, &err), 0);
	route_maker = RTPROT_BOOT;
	assert_int_equal(tap_guard(TAP, &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, "the default route leads out of it"));
}

static void what_an_interrupted_answer_lacks_is_asked_for_again(void **state)
{
	struct err err;

	(void)state;
	interruptions = 3;
	assert_int_equal(tap_guard(TAP, &err), -EADDRINUSE);
	assert_int_equal(interruptions, 0);
}

static void without_a_whole_answer_the_interface_is_refused(void **state)
{
	struct err err;

	(void)state;
	interruptions = 1000;
	assert_int_equal(tap_guard(TAP + 1, &err), -EINTR);
	assert_non_null(strstr(err.text, "cannot tell whether the host uses it"));
	assert_in_range(1000 - interruptions, 2, 20);
}

#define TEST(f) cmocka_unit_test_setup(f, setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(an_address_is_a_use),
		TEST(an_address_that_the_kernel_made_of_an_advertisement_is_no_use),
		TEST(a_route_that_the_kernel_made_of_an_advertisement_is_no_use),
		TEST(what_an_interrupted_answer_lacks_is_asked_for_again),
		TEST(without_a_whole_answer_the_interface_is_refused),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("agent_tap_guard", tests, NULL, NULL);
}
