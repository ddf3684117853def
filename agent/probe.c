/* SPDX-License-Identifier: Apache-2.0 */
#include "probe.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>

#include "util.h"

struct probe {
	pthread_t thread;
	const char *host;
	uint16_t port;
	int timeout_ms;
	net_socket_fn *on_socket;
	void *ctx;
	int stop_fd, done_fd; /* eventfds */
	atomic_int result;
};

static void *run(void *arg)
{
	struct probe *p = arg;
	struct err err;
	int fd = net_connect(p->host, p->port, p->timeout_ms, p->stop_fd, p->on_socket, p->ctx,
			     &err);

	if (fd >= 0)
		close(fd);
	atomic_store(&p->result, MIN(fd, 0));
	event_signal(p->done_fd);
	return NULL;
}

static struct probe *release(struct probe *p)
{
	if (p->stop_fd >= 0)
		close(p->stop_fd);
	if (p->done_fd >= 0)
		close(p->done_fd);
	free(p);
	return NULL;
}

int probe_start(const char *host, uint16_t port, int timeout_ms, net_socket_fn *on_socket,
		void *ctx, struct probe **ret, struct err *err)
{
	struct probe *p = malloc(sizeof(*p));
	int e;

	if (!p)
		return err_set(err, -ENOMEM, "out of memory");
	*p = (struct probe){
		.host = host,
		.port = port,
		.timeout_ms = timeout_ms,
		.on_socket = on_socket,
		.ctx = ctx,
		.stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		.done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		.result = -EAGAIN,
	};
	e = p->stop_fd < 0 || p->done_fd < 0 ? EMFILE : pthread_create(&p->thread, NULL, run, p);
	if (e) {
		release(p);
		return err_sys(err, -e, "cannot look whether \"%s\" answers", host);
	}
	*ret = p;
	return 0;
}

int probe_fd(const struct probe *p)
{
	return p->done_fd;
}

int probe_result(const struct probe *p)
{
	return atomic_load(&p->result);
}

struct probe *probe_free(struct probe *p)
{
	if (!p)
		return NULL;
	event_signal(p->stop_fd);
	pthread_join(p->thread, NULL);
	return release(p);
}
