/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Guests stand in a list by age. One that is evicted leaves it at once, and its place is taken;
 * its worker closes it when it comes to that. A worker that is held up cannot make their number
 * grow without end: beyond twice the room newcomers are turned away.
 *
 * Nobody is evicted before its time (GRACE): with very many agents at once, after a restart for
 * example, it is we who are slow, and evicting those who wait for us would let none through.
 * Newcomers are turned away then, and come back after a moment.
 */
#include "listener.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "log.h"
#include "util.h"

#define GRACE        (500 * NSEC_PER_MSEC)
#define ADDRESS_PART 4u /* one address gets at most so small a part of the places */

static int open_spare(void)
{
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

int listener_open(struct listener *l, const char *address, uint16_t port, size_t max_guests,
		  struct err *err)
{
	int fd = net_listen(address, port, err);

	if (fd < 0)
		return fd;
	*l = (struct listener){.fd = fd, .max_guests = max_guests, .spare_fd = open_spare()};
	pthread_mutex_init(&l->lock, NULL);
	net_local_name(fd, l->name);
	return 0;
}

void listener_close(struct listener *l)
{
	if (l->fd < 0)
		return;
	close(l->fd);
	if (l->spare_fd >= 0)
		close(l->spare_fd);
	pthread_mutex_destroy(&l->lock);
	l->fd = -1;
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

static int accept_one(struct listener *l, struct sockaddr_storage *ret)
{
	socklen_t len;
	int fd;

	do {
		len = sizeof(*ret);
		fd = accept4(l->fd, (struct sockaddr *)ret, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
	} while (fd < 0 && passing(errno));
	return fd < 0 ? -errno : fd;
}

/* What stands for the sender: an IPv4 address, the network of an IPv6 one. */
static uint64_t address_of(const struct sockaddr_storage *from)
{
	struct sockaddr_in6 in6;
	struct sockaddr_in in4;
	uint64_t network;

	if (from->ss_family == AF_INET) {
		memcpy(&in4, from, sizeof(in4));
		return in4.sin_addr.s_addr;
	}
	if (from->ss_family != AF_INET6)
		return 0;
	memcpy(&in6, from, sizeof(in6));
	if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr))
		return get_le32(&in6.sin6_addr.s6_addr[12]);
	memcpy(&network, &in6.sin6_addr, sizeof(network));
	return network;
}

/* All that follow: with the lock. */
static void unlist(struct listener *l, struct guest *g)
{
	if (g->older)
		g->older->newer = g->newer;
	else
		l->oldest = g->newer;
	if (g->newer)
		g->newer->older = g->older;
	else
		l->newest = g->older;
	g->older = g->newer = NULL;
	g->listed = false;
	l->listed--;
}

static bool evict(struct listener *l, struct guest *g, nsec_t now)
{
	if (!g || now - g->since < GRACE)
		return false;
	unlist(l, g);
	atomic_store(&g->evicted, true);
	event_signal(g->wake_fd);
	l->refused++;
	return true;
}

static bool make_room(struct listener *l, uint64_t address, nsec_t now)
{
	struct guest *first = NULL;
	size_t n = 0;

	if (l->guests >= 2 * l->max_guests)
		return false;
	for (struct guest *g = l->oldest; g; g = g->newer) {
		if (g->address != address)
			continue;
		first = first ? first : g;
		n++;
	}
	if (n >= l->max_guests / ADDRESS_PART)
		return evict(l, first, now);
	return l->listed < l->max_guests || evict(l, l->oldest, now);
}

static void admit(struct listener *l, struct guest *g, uint64_t address, int wake_fd, nsec_t now)
{
	*g = (struct guest){
		.older = l->newest,
		.address = address,
		.since = now,
		.wake_fd = wake_fd,
		.listed = true,
	};
	if (l->newest)
		l->newest->newer = g;
	else
		l->oldest = g;
	l->newest = g;
	l->listed++;
	l->guests++;
}

/* One line a second at most, whoever knocks. */
static void tell(struct listener *l, nsec_t now, const char *why)
{
	if (!l->refused || now - l->told < NSEC_PER_SEC)
		return;
	log_warn("%lu connections were not taken or were closed before their HELLO: %s", l->refused,
		 why);
	l->told = now;
	l->refused = 0;
}

/*
 * No descriptor is left. With the spare one the connection can be taken and closed; else it would
 * stay in the queue, and wake us for ever. A guest makes room for the next one.
 */
static int shed(struct listener *l, nsec_t now, int e)
{
	struct sockaddr_storage from;
	int fd, r = -EBUSY;

	evict(l, l->oldest, now);
	if (l->spare_fd >= 0)
		close(l->spare_fd);
	fd = accept_one(l, &from);
	if (fd >= 0)
		close(fd);
	else
		r = fd;
	l->spare_fd = open_spare();
	l->refused++;
	tell(l, now, strerror(e));
	return r;
}

int listener_accept(struct listener *l, struct guest *g, int wake_fd, nsec_t now,
		    char peer[NET_ADDR_TEXT])
{
	const int on = 1;
	struct sockaddr_storage from;
	int fd = accept_one(l, &from);

	if (fd == -EAGAIN)
		return fd;
	pthread_mutex_lock(&l->lock);
	if (fd == -EMFILE || fd == -ENFILE) {
		fd = shed(l, now, -fd);
	} else if (fd < 0) {
		l->refused++;
		tell(l, now, strerror(-fd));
	} else if (make_room(l, address_of(&from), now)) {
		admit(l, g, address_of(&from), wake_fd, now);
	} else {
		l->refused++;
		close(fd);
		fd = -EBUSY;
	}
	tell(l, now, "too many are there that have not said HELLO yet");
	pthread_mutex_unlock(&l->lock);
	if (fd < 0)
		return fd;
	net_peer_name(fd, peer);
	/* An acknowledgement must not wait for the next one; where it fails it only costs time. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

void listener_leave(struct listener *l, struct guest *g)
{
	if (!g->since)
		return;
	pthread_mutex_lock(&l->lock);
	if (g->listed)
		unlist(l, g);
	l->guests--;
	g->since = 0;
	pthread_mutex_unlock(&l->lock);
}
