/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP sockets. Nothing here keeps state: a socket is made, set up and handed to
 * the caller, who owns it from then on. Any thread may call any function.
 *
 * A dead peer is noticed by keep-alive when nothing is under way and by
 * TCP_USER_TIMEOUT when something is. Accepted sockets inherit both, and
 * TCP_NODELAY, from the listening one.
 */
#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>

#include "clock.h"
#include "net_resolve.h"
#include "util.h"

#define KEEPALIVE_IDLE_SEC     30
#define KEEPALIVE_INTERVAL_SEC 10
#define KEEPALIVE_PROBES       3
#define USER_TIMEOUT_MSEC      30000u

static void freeaddrinfop(struct addrinfo **list)
{
	if (*list)
		freeaddrinfo(*list);
}

static void format_addr(const struct sockaddr *sa, socklen_t len, char out[NET_ADDR_TEXT])
{
	char host[NI_MAXHOST];
	char port[NI_MAXSERV];
	struct sockaddr_in mapped = {.sin_family = AF_INET};
	struct sockaddr_in6 in6;

	if (sa->sa_family == AF_INET6 && len >= sizeof(in6)) {
		memcpy(&in6, sa, sizeof(in6));
		if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr)) {
			mapped.sin_port = in6.sin6_port;
			memcpy(&mapped.sin_addr, &in6.sin6_addr.s6_addr[12], 4);
			sa = (const struct sockaddr *)&mapped;
			len = sizeof(mapped);
		}
	}
	if (sa->sa_family == AF_UNIX)
		snprintf(out, NET_ADDR_TEXT, "local");
	else if (getnameinfo(sa, len, host, sizeof(host), port, sizeof(port),
			     NI_NUMERICHOST | NI_NUMERICSERV))
		snprintf(out, NET_ADDR_TEXT, "unknown");
	else
		snprintf(out, NET_ADDR_TEXT,
			 sa->sa_family == AF_INET6 ? "[%.55s]:%.5s" : "%.55s:%.5s", host, port);
}

static int set_int(int fd, int level, int option, int value)
{
	return setsockopt(fd, level, option, &value, sizeof(value)) < 0 ? -errno : 0;
}

static int set_tcp_options(int fd)
{
	int r = set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);

	r = r ? r : set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	r = r ? r : set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_SEC);
	r = r ? r : set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SEC);
	r = r ? r : set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
	return r ? r : set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MSEC);
}

static struct addrinfo tcp_hints(int flags)
{
	return (struct addrinfo){
		.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = flags,
	};
}

/* A socket bound to one address, or -errno. */
static int bind_one(const struct addrinfo *ai)
{
	_cleanup_close_ int fd = -1;
	bool any = false;
	int r;

	fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	r = set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (!r && ai->ai_family == AF_INET6) {
		struct sockaddr_in6 in6;

		memcpy(&in6, ai->ai_addr, sizeof(in6));
		any = IN6_IS_ADDR_UNSPECIFIED(&in6.sin6_addr);
		r = set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, !any);
	}
	r = r ? r : set_tcp_options(fd);
	if (r)
		return r;
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0)
		return -errno;
	return take_fd(&fd);
}

static int listen_one(const struct addrinfo *ai)
{
	_cleanup_close_ int fd = bind_one(ai);

	if (fd >= 0 && listen(fd, SOMAXCONN) < 0)
		return -errno;
	return take_fd(&fd);
}

/* The first address of @address that @make can make a socket for. */
static int open_first(const char *address, uint16_t port, int (*make)(const struct addrinfo *ai),
		      struct err *err)
{
	_cleanup_(freeaddrinfop) struct addrinfo *list = NULL;
	struct addrinfo hints = tcp_hints(AI_PASSIVE | AI_NUMERICSERV);
	char service[8], where[NET_ADDR_TEXT];
	int rc, fd = -EADDRNOTAVAIL;

	snprintf(service, sizeof(service), "%u", port);
	rc = getaddrinfo(address, service, &hints, &list);
	if (rc)
		return err_set(err, net_resolve_code(rc, errno), "cannot listen on \"%s\": %s",
			       address, net_resolve_text(rc, errno));

	for (const struct addrinfo *ai = list; ai; ai = ai->ai_next) {
		fd = make(ai);
		if (fd >= 0)
			return fd;
		format_addr(ai->ai_addr, ai->ai_addrlen, where);
	}
	/* "::" means every address; on a kernel without IPv6 those are the IPv4 ones. */
	if (fd == -EAFNOSUPPORT && !strcmp(address, "::"))
		return open_first("0.0.0.0", port, make, err);
	return err_sys(err, fd, "cannot listen on \"%s\" (%s)", address, where);
}

int net_listen(const char *address, uint16_t port, struct err *err)
{
	return open_first(address, port, listen_one, err);
}

int net_listen_check(const char *address, uint16_t port, struct err *err)
{
	_cleanup_close_ int fd = open_first(address, port, bind_one, err);

	return MIN(fd, 0);
}

static bool addr_is_loopback(const struct sockaddr *sa)
{
	if (sa->sa_family == AF_INET) {
		struct sockaddr_in in;

		memcpy(&in, sa, sizeof(in));
		return ntohl(in.sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	}
	if (sa->sa_family == AF_INET6) {
		struct sockaddr_in6 in6;

		memcpy(&in6, sa, sizeof(in6));
		return IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr) ||
		       (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr) &&
			in6.sin6_addr.s6_addr[12] == IN_LOOPBACKNET);
	}
	return false;
}

bool net_is_loopback(const char *address)
{
	_cleanup_(freeaddrinfop) struct addrinfo *list = NULL;
	struct addrinfo hints = tcp_hints(0);

	if (getaddrinfo(address, NULL, &hints, &list))
		return false;
	for (const struct addrinfo *ai = list; ai; ai = ai->ai_next)
		if (!addr_is_loopback(ai->ai_addr))
			return false;
	return list != NULL;
}

/*
 * A loopback connection to a port of the ephemeral range that nobody listens on
 * can meet itself (simultaneous open) and look connected.
 */
static bool is_connected_to_itself(int fd)
{
	struct sockaddr_storage local = {0}, peer = {0};
	socklen_t local_len = sizeof(local), peer_len = sizeof(peer);

	return !getsockname(fd, (struct sockaddr *)&local, &local_len) &&
	       !getpeername(fd, (struct sockaddr *)&peer, &peer_len) && local_len == peer_len &&
	       !memcmp(&local, &peer, local_len);
}

/* Connect to one address; a descriptor or -errno. */
static int connect_one(const struct sockaddr *sa, socklen_t len, int timeout_ms, int stop_fd,
		       net_socket_fn *on_socket, void *ctx)
{
	_cleanup_close_ int fd = -1;
	nsec_t deadline = clock_monotonic() + (nsec_t)MAX(timeout_ms, 0) * NSEC_PER_MSEC;
	int r = 0, so_error = 0;
	socklen_t so_len = sizeof(so_error);

	fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	r = set_tcp_options(fd);
	if (r)
		return r;
	if (on_socket)
		on_socket(ctx, fd, sa);
	/* EINTR leaves the connection under way, as EINPROGRESS does. */
	if (connect(fd, sa, len) < 0 && errno != EINPROGRESS && errno != EINTR)
		r = -errno;
	if (on_socket)
		on_socket(ctx, fd, NULL);
	if (r)
		return r;
	r = net_wait(fd, POLLOUT, deadline, stop_fd);
	if (r)
		return r;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &so_error, &so_len) < 0)
		return -errno;
	if (so_error)
		return -so_error;
	return is_connected_to_itself(fd) ? -ECONNREFUSED : take_fd(&fd);
}

/* @port in an address of either family. */
static void set_port(struct sockaddr_storage *sa, uint16_t port)
{
	if (sa->ss_family == AF_INET)
		((struct sockaddr_in *)sa)->sin_port = htons(port);
	else
		((struct sockaddr_in6 *)sa)->sin6_port = htons(port);
}

/*
 * The addresses of @list with the families in turn, beginning with that of the first: when one
 * of them leads nowhere, the other does not have to wait for all of it. Returns their number,
 * or -ENOMEM.
 */
static int alternate(const struct addrinfo *list, const struct addrinfo ***ret)
{
	const struct addrinfo **v, *next[2] = {list, list};
	bool other = false;
	int n = 0;

	for (const struct addrinfo *ai = list; ai; ai = ai->ai_next)
		n++;
	v = calloc((size_t)n + 1, sizeof(struct addrinfo *));
	if (!v)
		return -ENOMEM;
	n = 0;
	while (next[0] || next[1]) {
		const struct addrinfo **at = &next[other];

		while (*at && ((*at)->ai_family != list->ai_family) != other)
			*at = (*at)->ai_next;
		if (*at) {
			v[n++] = *at;
			*at = (*at)->ai_next;
		}
		other = !other;
	}
	*ret = v;
	return n;
}

int net_connect(const char *host, uint16_t port, int timeout_ms, int stop_fd,
		net_socket_fn *on_socket, void *ctx, struct err *err)
{
	_cleanup_(freeaddrinfop) struct addrinfo *list = NULL;
	_cleanup_free_ const struct addrinfo **order = NULL;
	nsec_t deadline = clock_monotonic() + (nsec_t)MAX(timeout_ms, 0) * NSEC_PER_MSEC;
	int fd, n, r;

	r = net_resolve(host, deadline, stop_fd, &list, err);
	if (r)
		return r;
	n = alternate(list, &order);
	if (n < 0)
		return err_sys(err, n, "cannot connect to \"%s\"", host);
	for (int i = 0; i < n; i++) {
		const struct addrinfo *ai = order[i];
		struct sockaddr_storage sa = {0};
		char where[NET_ADDR_TEXT];

		if (ai->ai_family != AF_INET && ai->ai_family != AF_INET6)
			continue;
		memcpy(&sa, ai->ai_addr, MIN(ai->ai_addrlen, sizeof(sa)));
		set_port(&sa, port);
		format_addr((struct sockaddr *)&sa, ai->ai_addrlen, where);
		fd = connect_one((struct sockaddr *)&sa, ai->ai_addrlen, timeout_ms, stop_fd,
				 on_socket, ctx);
		if (fd >= 0)
			return fd;
		if (fd == -ECANCELED)
			return err_set(err, fd, "connecting to \"%s\" (%s) was cancelled", host,
				       where);
		/* That IPv6 leads nowhere from here says less than what IPv4 answered. */
		if (r && (fd == -ENETUNREACH || fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL))
			continue;
		r = err_sys(err, fd, "cannot connect to \"%s\" (%s)", host, where);
	}
	return r ? r : err_set(err, -ENOENT, "cannot connect to \"%s\": it has no address", host);
}

void net_peer_name(int fd, char out[NET_ADDR_TEXT])
{
	struct sockaddr_storage sa = {0};
	socklen_t len = sizeof(sa);

	if (getpeername(fd, (struct sockaddr *)&sa, &len) < 0)
		snprintf(out, NET_ADDR_TEXT, "unknown");
	else
		format_addr((struct sockaddr *)&sa, len, out);
}

void net_local_name(int fd, char out[NET_ADDR_TEXT])
{
	struct sockaddr_storage sa = {0};
	socklen_t len = sizeof(sa);

	if (getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
		snprintf(out, NET_ADDR_TEXT, "unknown");
	else
		format_addr((struct sockaddr *)&sa, len, out);
}
