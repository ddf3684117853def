/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A name server that does not answer must not keep a daemon from stopping, and
 * getaddrinfo(3) can neither be cancelled nor given a time limit. So a name is
 * resolved in a detached thread that shares a counted struct lookup with the
 * caller; whoever lets go last frees it. Plain addresses need no thread.
 *
 * The thread writes the answer before it signals done_fd and touches nothing of it
 * afterwards; the caller reads it only after that signal.
 */
#include "net_resolve.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/eventfd.h>

#include "util.h"

/* A name service that never answers at all must not gather threads. */
#define LOOKUPS_MAX 16

static atomic_int lookups; /* threads at work */

struct lookup {
	atomic_int refs;
	int done_fd;   /* eventfd; written once, when the answer is there */
	atomic_int rc; /* of getaddrinfo(); the last to be set and first to be read */
	int sys_errno;
	struct addrinfo *list;
	char host[NI_MAXHOST];
};

int net_resolve_code(int rc, int sys_errno)
{
	switch (rc) {
	case EAI_SYSTEM:
		return sys_errno ? -sys_errno : -EIO;
	case EAI_MEMORY:
		return -ENOMEM;
	case EAI_AGAIN:
		return -EHOSTUNREACH; /* not -EAGAIN, which asks to wait for the socket */
	default:
		return -ENOENT;
	}
}

const char *net_resolve_text(int rc, int sys_errno)
{
	const char *text = rc == EAI_SYSTEM ? strerrordesc_np(sys_errno) : gai_strerror(rc);

	return text ? text : "unknown error";
}

static void lookup_unref(struct lookup *l)
{
	if (atomic_fetch_sub(&l->refs, 1) != 1)
		return;
	if (l->list)
		freeaddrinfo(l->list);
	close(l->done_fd);
	free(l);
}

static void lookup_unrefp(struct lookup **l)
{
	if (*l)
		lookup_unref(*l);
}

static void *lookup_main(void *arg)
{
	struct lookup *l = arg;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	int rc = getaddrinfo(l->host, NULL, &hints, &l->list);

	l->sys_errno = errno;
	l->rc = rc;
	eventfd_write(l->done_fd, 1);
	lookup_unref(l);
	atomic_fetch_sub(&lookups, 1);
	return NULL;
}

static int lookup_start(const char *host, struct lookup **ret, struct err *err)
{
	struct lookup *l;
	pthread_attr_t attr;
	sigset_t all, old;
	pthread_t thread;
	int r;

	if (atomic_load(&lookups) >= LOOKUPS_MAX)
		return err_set(err, -EHOSTUNREACH,
			       "cannot resolve \"%s\": earlier tries have no answer yet", host);
	l = calloc(1, sizeof(*l));
	if (!l)
		return err_sys(err, -ENOMEM, "cannot resolve \"%s\"", host);
	l->refs = 1;
	l->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->done_fd < 0) {
		r = errno;
		free(l);
		return err_sys(err, -r, "cannot resolve \"%s\"", host);
	}
	snprintf(l->host, sizeof(l->host), "%s", host);

	/* Signals are the business of the threads that the daemon knows about. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	l->refs = 2;
	atomic_fetch_add(&lookups, 1);
	r = pthread_create(&thread, &attr, lookup_main, l);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r) {
		atomic_fetch_sub(&lookups, 1);
		l->refs = 1;
		lookup_unref(l);
		return err_sys(err, -r, "cannot resolve \"%s\": no thread for it", host);
	}
	*ret = l;
	return 0;
}

int net_wait(int fd, short events, nsec_t deadline, int stop_fd)
{
	struct pollfd pfd[2] = {{.fd = stop_fd, .events = POLLIN}, {.fd = fd, .events = events}};

	for (;;) {
		nsec_t now = clock_monotonic();
		nsec_t left = deadline > now ? deadline - now : 0;
		struct timespec ts = {.tv_sec = (time_t)(left / NSEC_PER_SEC),
				      .tv_nsec = (long)(left % NSEC_PER_SEC)};
		int n = ppoll(pfd, 2, &ts, NULL);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0 && pfd[0].revents)
			return -ECANCELED;
		if (n > 0)
			return 0;
		if (n == 0 && left == 0)
			return -ETIMEDOUT;
	}
}

int net_resolve(const char *host, nsec_t deadline, int stop_fd, struct addrinfo **ret,
		struct err *err)
{
	_cleanup_(lookup_unrefp) struct lookup *l = NULL;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
	int r, rc;

	if (strlen(host) >= sizeof(l->host))
		return err_set(err, -EINVAL, "cannot resolve \"%.40s...\": the name is too long",
			       host);
	if (!getaddrinfo(host, NULL, &hints, ret))
		return 0;

	r = lookup_start(host, &l, err);
	if (r)
		return r;
	r = net_wait(l->done_fd, POLLIN, deadline, stop_fd);
	if (r == -ETIMEDOUT)
		return err_set(err, r, "cannot resolve \"%s\": no answer in time", host);
	if (r == -ECANCELED)
		return err_set(err, r, "resolving \"%s\" was cancelled", host);
	if (r)
		return err_sys(err, r, "cannot resolve \"%s\"", host);
	rc = l->rc;
	if (rc)
		return err_set(err, net_resolve_code(rc, l->sys_errno), "cannot resolve \"%s\": %s",
			       host, net_resolve_text(rc, l->sys_errno));
	*ret = l->list;
	l->list = NULL;
	return 0;
}
