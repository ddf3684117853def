// SPDX-License-Identifier: Apache-2.0
/*
 * The agent's own stream is never captured, in either direction, while what else
 * goes the same way is: over loopback, and over a veth into another namespace.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "bpfenv.h"
#include "util.h"

#define PORT 9861

static const struct capture_ops *const ops = &capture_ringbuf;
static const struct iface_rule rule = {.id = 1, .invert = 1};

static int listen_on(const char *address)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(PORT)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	inet_pton(AF_INET, address, &a.sin_addr);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
	    bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 8))
		return -1;
	return fd;
}

/* One connection after the other gets its bytes back. */
static void echo(int listener)
{
	char buf[4096];

	for (;;) {
		int fd = accept(listener, NULL, NULL);
		ssize_t n;

		while ((n = read(fd, buf, sizeof(buf))) > 0)
			if (write(fd, buf, (size_t)n) != n)
				break;
		close(fd);
	}
}

/*
 * A child that echoes on @address; with @peer it does so in a namespace of its own,
 * into which the interface @peer is moved.
 */
static pid_t start_echo(const char *address, const char *peer)
{
	int ready[2], go[2];
	char c = 0, text[16];
	pid_t pid;

	assert_int_equal(pipe2(ready, O_CLOEXEC), 0);
	assert_int_equal(pipe2(go, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		int fd;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (peer && unshare(CLONE_NEWNET))
			_exit(1);
		if (write(ready[1], &c, 1) != 1 || read(go[0], &c, 1) != 1)
			_exit(1);
		if (peer) {
			env_run("ip", "addr", "add", "10.9.8.2/24", "dev", peer, NULL);
			env_run("ip", "link", "set", peer, "up", NULL);
		}
		fd = listen_on(address);
		if (fd < 0 || write(ready[1], &c, 1) != 1)
			_exit(1);
		echo(fd);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	if (peer) {
		snprintf(text, sizeof(text), "%d", (int)pid);
		env_run("ip", "link", "set", peer, "netns", text, NULL);
	}
	assert_int_equal(write(go[1], &c, 1), 1);
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	close(go[0]);
	close(go[1]);
	return pid;
}

static void stop(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static int new_socket(struct env *e, bool own)
{
	struct timeval limit = {.tv_sec = 5};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct err err;

	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
	if (own)
		assert_int_equal(ops->own_socket(e->capture, fd, NULL, &err), 0);
	return fd;
}

/* Returns our port. */
static uint16_t connect_to(int fd, const char *address)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(PORT)};
	socklen_t size = sizeof(a);

	inet_pton(AF_INET, address, &a.sin_addr);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &size), 0);
	return ntohs(a.sin_port);
}

/* Send and get it back. */
static void exchange(int fd)
{
	char data[1000] = {}, back[1000];

	for (int i = 0; i < 20; i++) {
		assert_int_equal(send(fd, data, sizeof(data), MSG_NOSIGNAL), sizeof(data));
		assert_int_equal(recv(fd, back, sizeof(back), MSG_WAITALL), sizeof(back));
	}
}

/* Hang up and see the other side do so. */
static void hang_up(int fd)
{
	char byte;

	shutdown(fd, SHUT_WR);
	assert_int_equal(recv(fd, &byte, 1, 0), 0);
	close(fd);
}

/* All of that. Returns our port. */
static uint16_t talk(int fd, const char *address)
{
	uint16_t port = connect_to(fd, address);

	exchange(fd);
	hang_up(fd);
	return port;
}

/* The client's port in a captured packet of these connections, else 0. */
static uint16_t client_port(const struct env_block *b)
{
	const uint8_t *p = b->rest;
	uint16_t src, dst;

	if (b->header.caplen < 38 || p[12] != 0x08 || p[13] || p[14] != 0x45 || p[23] != 6)
		return 0;
	src = (uint16_t)(p[34] << 8 | p[35]);
	dst = (uint16_t)(p[36] << 8 | p[37]);
	return src == PORT ? dst : dst == PORT ? src : 0;
}

static uint64_t ruled_out(struct env *e)
{
	return env_counts(e, 0, DIRECTION_INGRESS).packets[CAPTURE_RULED_OUT] +
	       env_counts(e, 0, DIRECTION_EGRESS).packets[CAPTURE_RULED_OUT];
}

/* Own, not own, own again after reconnects: only what is not is captured. */
static void check_streams(struct env *e, const char *address)
{
	enum { reconnects = 2 * OWN_COOKIES }; /* there are places for fewer */
	unsigned int foreign = 0;
	uint16_t port;

	env_drain(e);
	talk(new_socket(e, true), address);
	port = talk(new_socket(e, false), address);
	for (int i = 0; i < reconnects; i++)
		talk(new_socket(e, true), address);
	env_drain(e);
	for (size_t i = 0; i < e->nblocks; i++) {
		if (!client_port(&e->blocks[i]))
			continue;
		assert_int_equal(client_port(&e->blocks[i]), port);
		foreign++;
	}
	/* Twenty messages there and twenty back. */
	assert_true(foreign > 40);
	assert_true(ruled_out(e) > (reconnects + 1) * 40);
}

/* A stream goes on while its agent looks, again and again, whether another server answers. */
static void check_long_stream(struct env *e, const char *address)
{
	int fd = new_socket(e, true);
	struct err err;

	connect_to(fd, address);
	exchange(fd);
	for (int i = 0; i < OWN_GENERATIONS + OWN_COOKIES; i++) {
		close(new_socket(e, true));
		/* As the uplink does after each: else the hooks would forget it. */
		assert_int_equal(ops->own_socket(e->capture, fd, NULL, &err), 0);
	}
	env_drain(e);
	exchange(fd);
	hang_up(fd);
	env_drain(e);
	for (size_t i = 0; i < e->nblocks; i++)
		assert_int_equal(client_port(&e->blocks[i]), 0);
}

static void over_loopback(void **state)
{
	struct capture_config config = {.snaplen = 65535, .ring_bytes = 8 << 20};
	struct capture_iface lo = {.ifindex = LO, .name = "lo", .loopback = true, .rule = rule};
	struct err err = {};
	pid_t pid;

	(void)state;
	ENV_SKIP();
	env_run("ip", "link", "set", "lo", "up", NULL);
	pid = start_echo("127.0.0.1", NULL);
	for (config.hook_mode = HOOK_AUTO; config.hook_mode <= HOOK_CLSACT; config.hook_mode += 2) {
		struct env e;

		env_open(&e, &config);
		assert_int_equal(ops->attach(e.capture, &lo, &err), 0);
		check_streams(&e, "127.0.0.1");
		check_long_stream(&e, "127.0.0.1");
		assert_int_equal(env_counts(&e, 0, DIRECTION_EGRESS).packets[CAPTURE_SEEN], 0);
		env_close(&e);
	}
	stop(pid);
}

static void over_a_veth(void **state)
{
	struct capture_config config = {.snaplen = 65535, .ring_bytes = 8 << 20};
	struct env e;
	pid_t pid;

	(void)state;
	ENV_SKIP();
	env_run("ip", "link", "add", "psa", "type", "veth", "peer", "name", "psb", NULL);
	env_run("ip", "addr", "add", "10.9.8.1/24", "dev", "psa", NULL);
	env_run("ip", "link", "set", "psa", "up", NULL);
	env_run("ip", "neigh", "replace", "10.9.8.2", "lladdr", "02:00:00:00:00:0b", "dev", "psa",
		NULL);
	env_run("ip", "link", "set", "psb", "address", "02:00:00:00:00:0b", NULL);
	pid = start_echo("10.9.8.2", "psb");
	env_open(&e, &config);
	env_attach(&e, "psa", &rule);
	check_streams(&e, "10.9.8.2");
	check_long_stream(&e, "10.9.8.2");
	env_close(&e);
	env_run("ip", "link", "del", "psa", NULL);
	stop(pid);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(over_loopback),
		cmocka_unit_test(over_a_veth),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	env_enter();
	return cmocka_run_group_tests_name("the agent's own stream", tests, NULL, NULL);
}
