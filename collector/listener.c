/* SPDX-License-Identifier: Apache-2.0 */
#include "listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "log.h"
#include "util.h"

int listener_open(struct listener *l, const char *address, uint16_t port, uint64_t max_sessions,
		  struct err *err)
{
	int fd = net_listen(address, port, err);

	if (fd < 0)
		return fd;
	*l = (struct listener){.fd = fd, .max_sessions = max_sessions};
	net_local_name(fd, l->name);
	return 0;
}

void listener_close(struct listener *l)
{
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
}

/* One line a second at most, whoever knocks. */
static bool may_tell(struct listener *l)
{
	nsec_t now = clock_monotonic(), told = atomic_load(&l->told);

	return now - told >= NSEC_PER_SEC && atomic_compare_exchange_strong(&l->told, &told, now);
}

static void refuse(struct listener *l, int fd, const char *peer)
{
	listener_done(l);
	close(fd);
	atomic_fetch_add(&l->refused, 1);
	if (may_tell(l))
		log_warn("%lu connections refused, the last from %s: there are %llu sessions "
			 "already (maxSessions)",
			 atomic_exchange(&l->refused, 0), peer,
			 (unsigned long long)l->max_sessions);
}

/* Errors of the connection that was to be accepted, not of the listener: accept(2). */
static bool passing(int e)
{
	switch (e) {
	case EINTR:
	case ECONNABORTED:
	case ENETDOWN:
	case EPROTO:
	case ENOPROTOOPT:
	case EHOSTDOWN:
	case ENONET:
	case EHOSTUNREACH:
	case EOPNOTSUPP:
	case ENETUNREACH:
	case EPERM: /* a firewall rule */
		return true;
	default:
		return false;
	}
}

int listener_accept(struct listener *l, char peer[NET_ADDR_TEXT])
{
	const int on = 1;
	int fd, r;

	do {
		fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	} while (fd < 0 && passing(errno));
	if (fd < 0) {
		r = -errno;
		if (r != -EAGAIN && may_tell(l))
			log_warn("cannot accept a connection now: %s", strerror(-r));
		return r;
	}
	net_peer_name(fd, peer);
	if (atomic_fetch_add(&l->sessions, 1) >= l->max_sessions) {
		refuse(l, fd, peer);
		return -EBUSY;
	}
	/* An acknowledgement must not wait for the next one; where it fails it only costs time. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

void listener_done(struct listener *l)
{
	atomic_fetch_sub(&l->sessions, 1);
}
