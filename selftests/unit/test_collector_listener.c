/* SPDX-License-Identifier: Apache-2.0 */
/* Who gets one of the places that there are before HELLO, over loopback. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#include "listener.h"
#include "util.h"

#define PLACES 8u
#define MANY   40u

static struct listener listener;
static struct guest guests[MANY];
static int clients[MANY], servers[MANY], wake_fd;
static size_t n;
static nsec_t now;

static int setup(void **state)
{
	struct err err;

	(void)state;
	n = 0;
	now = 1000 * NSEC_PER_SEC;
	wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return listener_open(&listener, "127.0.0.1", 0, PLACES, &err);
}

static void hang_up(size_t i)
{
	if (servers[i] >= 0) {
		listener_leave(&listener, &guests[i]);
		close(servers[i]);
	}
	close(clients[i]);
	clients[i] = servers[i] = -1;
}

static int teardown(void **state)
{
	(void)state;
	for (size_t i = 0; i < n; i++)
		hang_up(i);
	assert_int_equal(listener.guests, 0);
	assert_int_equal(listener.listed, 0);
	assert_null(listener.oldest);
	listener_close(&listener);
	close(wake_fd);
	return 0;
}

static void knock(const char *from)
{
	struct sockaddr_in to = {.sin_family = AF_INET}, own = {.sin_family = AF_INET};
	struct pollfd p = {.fd = listener.fd, .events = POLLIN};
	socklen_t len = sizeof(to);

	assert_int_equal(getsockname(listener.fd, (struct sockaddr *)&to, &len), 0);
	inet_pton(AF_INET, from, &own.sin_addr);
	clients[n] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(clients[n], (struct sockaddr *)&own, sizeof(own)), 0);
	assert_int_equal(connect(clients[n], (struct sockaddr *)&to, sizeof(to)), 0);
	assert_int_equal(poll(&p, 1, 5000), 1);
}

/* From @from: the number of the guest, or -errno. */
static int visit(const char *from)
{
	char peer[NET_ADDR_TEXT];

	assert_true(n < MANY);
	knock(from);
	servers[n] = listener_accept(&listener, &guests[n], wake_fd, now, peer);
	n++;
	return servers[n - 1] < 0 ? servers[n - 1] : (int)n - 1;
}

static bool is_evicted(int guest)
{
	return atomic_load(&guests[guest].evicted);
}

static void one_address_gets_a_quarter(void **state)
{
	uint64_t woken;

	(void)state;
	assert_int_equal(visit("127.0.0.2"), 0);
	assert_int_equal(visit("127.0.0.2"), 1);
	/* They may just be slow, or we are. */
	assert_int_equal(visit("127.0.0.2"), -EBUSY);
	now += NSEC_PER_SEC;
	assert_int_equal(visit("127.0.0.2"), 3);
	assert_true(is_evicted(0));
	assert_false(is_evicted(1));
	assert_int_equal(read(wake_fd, &woken, sizeof(woken)), sizeof(woken));
	/* Others are not concerned. */
	assert_int_equal(visit("127.0.0.3"), 4);
	assert_false(is_evicted(1));
	/* It counts until it is closed. */
	assert_int_equal(listener.guests, 4);
	assert_int_equal(listener.listed, 3);
}

static void oldest_makes_room_when_all_is_full(void **state)
{
	char from[16];

	(void)state;
	for (unsigned int i = 0; i < PLACES; i++) {
		snprintf(from, sizeof(from), "127.0.1.%u", i + 1);
		assert_int_equal(visit(from), i);
		now += NSEC_PER_SEC / 10;
	}
	assert_int_equal(visit("127.0.2.1"), PLACES);
	assert_true(is_evicted(0));
	assert_false(is_evicted(1));
	/* One that is introduced is no guest any more. */
	listener_leave(&listener, &guests[3]);
	listener_leave(&listener, &guests[3]);
	assert_int_equal(visit("127.0.2.2"), PLACES + 1);
	assert_false(is_evicted(1));
}

static void workers_that_do_not_close_bound_it_too(void **state)
{
	char from[16];
	int r = 0;

	(void)state;
	for (unsigned int i = 0; i < 2 * PLACES; i++) {
		snprintf(from, sizeof(from), "127.0.1.%u", i + 1);
		r = visit(from);
		assert_int_equal(r, i);
		now += NSEC_PER_SEC;
	}
	assert_int_equal(visit("127.0.2.1"), -EBUSY);
	for (unsigned int i = 0; i < PLACES; i++)
		assert_true(is_evicted((int)i));
}

static void no_descriptors_is_no_standstill(void **state)
{
	struct rlimit before, small;
	char peer[NET_ADDR_TEXT];
	uint8_t byte;
	int top, r;

	(void)state;
	assert_int_equal(visit("127.0.0.2"), 0);
	now += NSEC_PER_SEC;
	knock("127.0.0.3");
	getrlimit(RLIMIT_NOFILE, &before);
	/* All below the limit are taken. */
	top = dup(0);
	small = (struct rlimit){(rlim_t)top, before.rlim_max};
	close(top);
	setrlimit(RLIMIT_NOFILE, &small);
	r = listener_accept(&listener, &guests[n], wake_fd, now, peer);
	setrlimit(RLIMIT_NOFILE, &before);
	servers[n++] = -1;
	assert_int_equal(r, -EBUSY);
	/* It was closed, and one that did nothing makes room. */
	assert_true(recv(clients[1], &byte, 1, 0) <= 0);
	assert_true(is_evicted(0));
	assert_true(listener.spare_fd >= 0);
	assert_int_equal(listener_accept(&listener, &guests[n], wake_fd, now, peer), -EAGAIN);
	assert_int_equal(visit("127.0.0.3"), 2);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(one_address_gets_a_quarter),
		TEST(oldest_makes_room_when_all_is_full),
		TEST(workers_that_do_not_close_bound_it_too),
		TEST(no_descriptors_is_no_standstill),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
