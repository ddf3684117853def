/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's own stream as user space can tell it from others, where no hook knows which
 * socket a packet came from: by the ends of the connection, and where these were rewritten
 * (NAT, the address of a service), by two marks on the packets. See ownflow.c. Thread-safe.
 */
#ifndef PS_OWNFLOW_H
#define PS_OWNFLOW_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "clock.h"
#include "err.h"

struct ownflow;

struct ownflow *ownflow_new(void);
struct ownflow *ownflow_free(struct ownflow *o);

/* As capture_ops.own_socket. */
int ownflow_socket(struct ownflow *o, int fd, const struct sockaddr *to, struct err *err);

/* A TCP packet. Addresses as in struct addresses of bpf/parse.h, ports in host order. */
struct ownflow_packet {
	uint64_t src[2], dst[2];
	uint16_t sport, dport;
	uint8_t family;     /* 4, 6 */
	uint8_t ttl;        /* or hop limit */
	bool has_timestamp; /* the option of RFC 7323 */
	uint32_t timestamp;
	nsec_t time; /* CLOCK_BOOTTIME, not in the future */
};

/* Is there a stream at all? */
bool ownflow_active(const struct ownflow *o);
/* Is the packet part of it? Waits while a socket of ours is just connecting: microseconds. */
bool ownflow_has(struct ownflow *o, const struct ownflow_packet *p);

#endif
