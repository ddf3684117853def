/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does a server answer? Looked up and connected to in a thread of its own, so that neither a
 * slow name server nor a silent network holds up whoever asks. One connection, without a word,
 * closed at once.
 */
#ifndef PS_PROBE_H
#define PS_PROBE_H

#include "net.h"

struct probe;

/* @host outlives it. @on_socket: as in net_connect(), called from the probe's thread. */
int probe_start(const char *host, uint16_t port, int timeout_ms, net_socket_fn *on_socket,
		void *ctx, struct probe **ret, struct err *err);
/* Readable once the answer is there. */
int probe_fd(const struct probe *p);
/* -EAGAIN: not yet; 0: it answers; -errno. */
int probe_result(const struct probe *p);
/* Gives up if there is no answer yet. @p may be NULL. */
struct probe *probe_free(struct probe *p);

#endif
