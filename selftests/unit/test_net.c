/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets over loopback: listen, connect, names, time limits, the way out. */
#include "net.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/un.h>

#include <cmocka.h>

#include "clock.h"
#include "util.h"

static uint16_t port_of(int fd)
{
	struct sockaddr_storage sa = {0};
	socklen_t len = sizeof(sa);

	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	return ntohs(sa.ss_family == AF_INET ? ((struct sockaddr_in *)&sa)->sin_port
					     : ((struct sockaddr_in6 *)&sa)->sin6_port);
}

static int get_int(int fd, int level, int option)
{
	int value = -1;
	socklen_t len = sizeof(value);

	assert_int_equal(getsockopt(fd, level, option, &value, &len), 0);
	return value;
}

static int must_listen(const char *address)
{
	struct err err = {""};
	int fd = net_listen(address, 0, &err);

	if (fd < 0)
		fail_msg("%s", err.text);
	return fd;
}

static int must_accept(int listener)
{
	struct pollfd pfd = {.fd = listener, .events = POLLIN};

	assert_int_equal(poll(&pfd, 1, 5000), 1);
	return accept4(listener, NULL, NULL, SOCK_CLOEXEC);
}

static bool have_ipv6(void)
{
	_cleanup_close_ int fd = socket(AF_INET6, SOCK_STREAM, 0);
	struct sockaddr_in6 sa = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};

	return fd >= 0 && !bind(fd, (struct sockaddr *)&sa, sizeof(sa));
}

static void count_socket(void *ctx, int fd, const struct sockaddr *to)
{
	struct sockaddr_storage sa = {0};
	socklen_t len = sizeof(sa);

	if (!to) {
		/* Under way: the kernel has chosen our end. */
		assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
		assert_int_not_equal(((struct sockaddr_in *)&sa)->sin_port, 0);
		*(int *)ctx += 10;
		return;
	}
	assert_int_equal(to->sa_family, AF_INET);
	/* Not connected yet: whatever is set here holds for the first packet. */
	assert_int_equal(getpeername(fd, (struct sockaddr *)&sa, &len), -1);
	++*(int *)ctx;
}

static void connects_to_a_listener_and_names_both_ends(void **state)
{
	_cleanup_close_ int listener = must_listen("127.0.0.1");
	_cleanup_close_ int client = -1, server = -1;
	char name[NET_ADDR_TEXT], expected[NET_ADDR_TEXT];
	struct err err = {""};
	int sockets = 0;

	(void)state;
	client =
		net_connect("127.0.0.1", port_of(listener), 5000, -1, count_socket, &sockets, &err);
	assert_true(client >= 0);
	assert_int_equal(sockets, 11);
	assert_string_equal(err.text, "");
	server = must_accept(listener);
	assert_true(server >= 0);

	snprintf(expected, sizeof(expected), "127.0.0.1:%u", port_of(listener));
	net_peer_name(client, name);
	assert_string_equal(name, expected);
	net_local_name(server, name);
	assert_string_equal(name, expected);
}

static void sockets_notice_a_dead_peer_and_do_not_wait_for_more(void **state)
{
	_cleanup_close_ int listener = must_listen("127.0.0.1");
	_cleanup_close_ int client = -1, server = -1;

	(void)state;
	client = net_connect("127.0.0.1", port_of(listener), 5000, -1, NULL, NULL, NULL);
	assert_true(client >= 0);
	server = must_accept(listener);
	assert_true(fcntl(client, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(client, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(listener, F_GETFL) & O_NONBLOCK);

	for (int i = 0; i < 2; i++) {
		int fd = i ? server : client;

		assert_int_equal(get_int(fd, IPPROTO_TCP, TCP_NODELAY), 1);
		assert_int_equal(get_int(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
		assert_int_equal(get_int(fd, IPPROTO_TCP, TCP_KEEPIDLE), 30);
		assert_int_equal(get_int(fd, IPPROTO_TCP, TCP_KEEPCNT), 3);
		assert_int_equal(get_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 30000);
	}
}

static void any_ipv6_address_takes_ipv4_too(void **state)
{
	_cleanup_close_ int listener = must_listen("::");
	_cleanup_close_ int four = -1, six = -1, server = -1;
	char name[NET_ADDR_TEXT];

	(void)state;
	four = net_connect("127.0.0.1", port_of(listener), 5000, -1, NULL, NULL, NULL);
	assert_true(four >= 0);
	server = must_accept(listener);
	net_peer_name(server, name);
	assert_memory_equal(name, "127.0.0.1:", 10);
	if (!have_ipv6())
		skip();
	six = net_connect("::1", port_of(listener), 5000, -1, NULL, NULL, NULL);
	assert_true(six >= 0);
	net_peer_name(six, name);
	assert_memory_equal(name, "[::1]:", 6);
}

static void one_ipv6_address_leaves_ipv4_alone(void **state)
{
	_cleanup_close_ int six = -1, four = -1;

	(void)state;
	if (!have_ipv6())
		skip();
	six = must_listen("::1");
	four = net_connect("127.0.0.1", port_of(six), 5000, -1, NULL, NULL, NULL);
	assert_int_equal(four, -ECONNREFUSED);
}

static void names_are_resolved_on_both_sides(void **state)
{
	_cleanup_close_ int listener = must_listen("localhost");
	_cleanup_close_ int client = -1;
	struct err err = {""};

	(void)state;
	client = net_connect("localhost", port_of(listener), 5000, -1, NULL, NULL, &err);
	if (client < 0)
		fail_msg("%s", err.text);
}

/*
 * In front of the C library's: "mixed" stands for two addresses of IPv6 and then three of
 * IPv4. As there, an entry and its address are one piece of memory.
 */
static struct addrinfo *made_up(int family, struct addrinfo *next)
{
	socklen_t len =
		family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
	struct addrinfo *ai = calloc(1, sizeof(*ai) + len);

	assert_non_null(ai);
	ai->ai_family = family;
	ai->ai_socktype = SOCK_STREAM;
	ai->ai_addrlen = len;
	ai->ai_addr = (struct sockaddr *)(ai + 1);
	ai->ai_addr->sa_family = (sa_family_t)family;
	if (family == AF_INET)
		((struct sockaddr_in *)ai->ai_addr)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	else
		((struct sockaddr_in6 *)ai->ai_addr)->sin6_addr = in6addr_loopback;
	ai->ai_next = next;
	return ai;
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
		struct addrinfo **ret)
{
	static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
	static const int families[] = {AF_INET6, AF_INET6, AF_INET, AF_INET, AF_INET};

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
	if (!node || strcmp(node, "mixed") != 0)
		return real(node, service, hints, ret);
	if (hints->ai_flags & AI_NUMERICHOST)
		return EAI_NONAME;
	*ret = NULL;
	for (size_t i = ARRAY_SIZE(families); i > 0; i--)
		*ret = made_up(families[i - 1], *ret);
	return 0;
}

static void note_family(void *ctx, int fd, const struct sockaddr *to)
{
	char *families = ctx;

	if (!to)
		return;
	families[strlen(families)] = get_int(fd, SOL_SOCKET, SO_DOMAIN) == AF_INET6 ? '6' : '4';
}

static void all_addresses_are_tried_with_the_families_in_turn(void **state)
{
	_cleanup_close_ int listener = must_listen("127.0.0.1");
	uint16_t port = port_of(listener);
	char families[16] = "";
	_cleanup_close_ int client = -1;

	(void)state;
	if (!have_ipv6())
		skip();
	client = net_connect("mixed", port, 5000, -1, note_family, families, NULL);
	assert_true(client >= 0);
	assert_string_equal(families, "64");
	close(take_fd(&listener));
	memset(families, 0, sizeof(families));
	assert_int_equal(net_connect("mixed", port, 5000, -1, note_family, families, NULL),
			 -ECONNREFUSED);
	assert_string_equal(families, "64644");
}

static void a_refused_connection_says_who_and_why(void **state)
{
	_cleanup_close_ int listener = must_listen("127.0.0.1");
	uint16_t port = port_of(listener);
	struct err err = {""};
	char expected[128];

	(void)state;
	close(take_fd(&listener));
	assert_int_equal(net_connect("127.0.0.1", port, 5000, -1, NULL, NULL, &err), -ECONNREFUSED);
	snprintf(expected, sizeof(expected),
		 "cannot connect to \"127.0.0.1\" (127.0.0.1:%u): Connection refused", port);
	assert_string_equal(err.text, expected);
}

static void a_port_in_use_says_so(void **state)
{
	_cleanup_close_ int listener = must_listen("127.0.0.1");
	uint16_t port = port_of(listener);
	struct err err = {""};
	char expected[128];

	(void)state;
	assert_int_equal(net_listen_check("127.0.0.1", port, &err), -EADDRINUSE);
	assert_int_equal(net_listen_check("127.0.0.1", 0, &err), 0);
	assert_int_equal(net_listen("127.0.0.1", port, &err), -EADDRINUSE);
	snprintf(expected, sizeof(expected),
		 "cannot listen on \"127.0.0.1\" (127.0.0.1:%u): Address already in use", port);
	assert_string_equal(err.text, expected);
}

static void an_impossible_name_says_so(void **state)
{
	struct err err = {""};
	char longname[2000];

	(void)state;
	assert_true(net_connect("no such host", 1, 5000, -1, NULL, NULL, &err) < 0);
	assert_non_null(strstr(err.text, "cannot resolve \"no such host\": "));
	assert_true(net_listen("no such host", 1, &err) < 0);
	assert_non_null(strstr(err.text, "cannot listen on \"no such host\": "));

	memset(longname, 'a', sizeof(longname) - 1);
	longname[sizeof(longname) - 1] = '\0';
	assert_int_equal(net_connect(longname, 1, 5000, -1, NULL, NULL, &err), -EINVAL);
}

/* A listener whose queue is full leaves the next connection without an answer. */
static int full_listener(int clients[], size_t n)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sa);

	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 0), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	for (size_t i = 0; i < n; i++) {
		clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (connect(clients[i], (struct sockaddr *)&sa, sizeof(sa)) < 0)
			assert_int_equal(errno, EINPROGRESS);
	}
	return fd;
}

static void a_silent_peer_ends_the_try_in_time(void **state)
{
	int clients[4];
	_cleanup_close_ int listener = full_listener(clients, ARRAY_SIZE(clients));
	nsec_t start = clock_monotonic();
	struct err err = {""};

	(void)state;
	assert_int_equal(net_connect("127.0.0.1", port_of(listener), 100, -1, NULL, NULL, &err),
			 -ETIMEDOUT);
	assert_true(clock_monotonic() - start >= 100 * NSEC_PER_MSEC);
	assert_true(clock_monotonic() - start < 5 * NSEC_PER_SEC);
	assert_non_null(strstr(err.text, "timed out"));
	for (size_t i = 0; i < ARRAY_SIZE(clients); i++)
		close(clients[i]);
}

static void the_stop_descriptor_ends_the_try_at_once(void **state)
{
	int clients[4];
	_cleanup_close_ int listener = full_listener(clients, ARRAY_SIZE(clients));
	_cleanup_close_ int stop = eventfd(1, EFD_CLOEXEC);
	struct err err = {""};

	(void)state;
	assert_int_equal(net_connect("127.0.0.1", port_of(listener), 60000, stop, NULL, NULL, &err),
			 -ECANCELED);
	assert_non_null(strstr(err.text, "cancelled"));
	/* Names go through a thread, which must not hold anybody up either. */
	assert_int_equal(net_connect("localhost", port_of(listener), 60000, stop, NULL, NULL, &err),
			 -ECANCELED);
	for (size_t i = 0; i < ARRAY_SIZE(clients); i++)
		close(clients[i]);
}

static void loopback_is_told_from_the_rest(void **state)
{
	static const struct {
		const char *address;
		bool loopback;
	} table[] = {
		{"127.0.0.1", true},     {"127.255.1.2", true},
		{"::1", true},           {"::ffff:127.0.0.1", true},
		{"localhost", true},     {"0.0.0.0", false},
		{"::", false},           {"192.0.2.1", false},
		{"2001:db8::1", false},  {"::ffff:192.0.2.1", false},
		{"128.0.0.1", false},    {"::2", false},
		{"no such host", false}, {"", false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (net_is_loopback(table[i].address) != table[i].loopback)
			fail_msg("\"%s\"", table[i].address);
}

static void sockets_without_an_address_have_a_name_too(void **state)
{
	char name[NET_ADDR_TEXT];
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	net_peer_name(pair[0], name);
	assert_string_equal(name, "local");
	close(pair[0]);
	close(pair[1]);
	net_peer_name(-1, name);
	assert_string_equal(name, "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(connects_to_a_listener_and_names_both_ends),
		cmocka_unit_test(sockets_notice_a_dead_peer_and_do_not_wait_for_more),
		cmocka_unit_test(any_ipv6_address_takes_ipv4_too),
		cmocka_unit_test(one_ipv6_address_leaves_ipv4_alone),
		cmocka_unit_test(names_are_resolved_on_both_sides),
		cmocka_unit_test(all_addresses_are_tried_with_the_families_in_turn),
		cmocka_unit_test(a_refused_connection_says_who_and_why),
		cmocka_unit_test(a_port_in_use_says_so),
		cmocka_unit_test(an_impossible_name_says_so),
		cmocka_unit_test(a_silent_peer_ends_the_try_in_time),
		cmocka_unit_test(the_stop_descriptor_ends_the_try_at_once),
		cmocka_unit_test(loopback_is_told_from_the_rest),
		cmocka_unit_test(sockets_without_an_address_have_a_name_too),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
