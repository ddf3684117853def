/* SPDX-License-Identifier: Apache-2.0 */
/* TCP sockets: listen, accept, resolve and connect, names of peers. */
#ifndef PS_NET_H
#define PS_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "err.h"

#define NET_ADDR_TEXT 64 /* "[IPv6%scope]:port" fits */

/*
 * A non-blocking listening socket on @address (an IP address or a name; "::" takes
 * IPv4 too) and @port. Returns the descriptor or -errno.
 */
int net_listen(const char *address, uint16_t port, struct err *err);

/*
 * Could net_listen() work? Takes the port for a moment, but no connection. 0; -EADDRINUSE:
 * somebody listens there; -errno.
 */
int net_listen_check(const char *address, uint16_t port, struct err *err);

/* True when every address that @address stands for is loopback. */
bool net_is_loopback(const char *address);

/*
 * Called on each new socket twice: before it connects, with where @to; and when that is under
 * way, or has failed, with NULL.
 */
typedef void net_socket_fn(void *ctx, int fd, const struct sockaddr *to);

/*
 * Resolve @host and try all its addresses, IPv6 and IPv4 in turn; resolving and each try may take
 * @timeout_ms. Returns a connected non-blocking socket (TCP_NODELAY, keep-alive),
 * -ECANCELED as soon as @stop_fd becomes readable (-1: none), or -errno of the last
 * try that got an answer.
 */
int net_connect(const char *host, uint16_t port, int timeout_ms, int stop_fd,
		net_socket_fn *on_socket, void *ctx, struct err *err);

/* "192.0.2.1:8081", "[2001:db8::1]:8081". */
void net_peer_name(int fd, char out[NET_ADDR_TEXT]);
void net_local_name(int fd, char out[NET_ADDR_TEXT]);

#endif
