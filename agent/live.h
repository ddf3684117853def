/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One direction of one interface, captured by libpcap. Nothing is lost or seen twice at its
 * beginning and end: live_open() returns with the filter in force, live_stop() is followed by
 * reading what is left. One thread at a time.
 */
#ifndef PS_LIVE_H
#define PS_LIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "abi.h"
#include "clock.h"
#include "coarse.h"
#include "err.h"

/* A packet shows up in its ring this late at most, unless the kernel's timers are. */
#define LIVE_DELAY (120 * NSEC_PER_MSEC)
/*
 * What the kernel allocates rings in, and the fewest of these that make a useful ring. A block is
 * used up after 50 ms with any packet in it: four of them outlast a reader that is late by 200 ms.
 */
#define LIVE_BLOCK      (256u << 10)
#define LIVE_BLOCKS_MIN 4
/* Together they are at most so many times as long as they are meant to be. */
#define LIVE_RINGS_MAX 4

struct live {
	struct pcap *pcap;
	int fd; /* readable when packets wait; the pcap's own */
	uint32_t ifindex;
	uint32_t strip;          /* bytes that libpcap puts before the packet */
	uint32_t handed, booked; /* packets read; drops that live_drops() told of */
	bool stopped;
};

struct live_config {
	const char *name;
	uint32_t ifindex;
	bool raw_ip;
	uint32_t ring_bytes; /* a multiple of LIVE_BLOCK */
	const struct coarse *filter;
};

typedef void live_packet_fn(void *ctx, const uint8_t *data, uint32_t caplen, uint32_t len,
			    nsec_t time);

/* -EPERM, -ENODEV (gone, or down), -ENOTSUP: another link type than expected, -errno. */
int live_open(struct live *l, const struct live_config *config, struct err *err);
/* Takes one that failed to open, and zeros. */
void live_close(struct live *l);

/* Hand over the next packet. 1, 0: none now, < 0: the capture is broken. */
int live_next(struct live *l, live_packet_fn *fn, void *ctx);
/* Packets that the ring had no room for, since the last call. */
uint32_t live_drops(struct live *l);

/* Take nothing new, from soon after (an RCU grace period) on. */
void live_stop(struct live *l);
/* Packets that were put into the ring and not read yet, those not visible yet too. */
uint32_t live_left(struct live *l);

/* Can it be done at all? */
int live_probe(struct err *err);
/* "libpcap version 1.10.3 (with TPACKET_V3)" */
const char *live_version(void);

#endif
