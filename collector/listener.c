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
static void tell_refused(struct listener *l, const char *peer)
{
	nsec_t now = clock_monotonic(), told = atomic_load(&l->refused_told);
	unsigned long refused = atomic_fetch_add(&l->refused, 1) + 1;

	if (now - told < NSEC_PER_SEC ||
	    !atomic_compare_exchange_strong(&l->refused_told, &told, now))
		return;
	atomic_fetch_sub(&l->refused, refused);
	log_warn("%lu connections refused, the last from %s: there are %llu sessions already "
		 "(maxSessions)",
		 refused, peer, (unsigned long long)l->max_sessions);
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

int listener_accept(struct listener *l, char peer[NET_ADDR_TEXT], struct err *err)
{
	const int on = 1;
	int fd;

	do {
		fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	} while (fd < 0 && passing(errno));
	if (fd < 0)
		return errno == EAGAIN ? -EAGAIN
				       : err_sys(err, -errno, "cannot accept a connection");
	net_peer_name(fd, peer);
	if (atomic_fetch_add(&l->sessions, 1) >= l->max_sessions) {
		listener_done(l);
		close(fd);
		tell_refused(l, peer);
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
