/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bandwidthBudget at the socket: how many bytes of the stream may be handed to it now. In any
 * second what leaves, with all headers down to Ethernet's, is at most the budget: PACE_SHARE of
 * it is the rate, and PACE_BURST of that may come at once.
 */
#ifndef PS_PACE_H
#define PS_PACE_H

#include <stddef.h>

#include "clock.h"

#define PACE_SHARE  0.9
#define PACE_BURST  (100 * NSEC_PER_MSEC)
#define PACE_RECORD 100 /* headers of a TLS record and the segment it begins: Ethernet, IP, TCP */

struct pace {
	uint64_t bits_per_s; /* 0: no limit */
	nsec_t at;           /* what was sent is paid for then */
};

/* Bytes of the stream per second that fit a budget, when they come in large pieces. */
double pace_rate(uint64_t bits_per_s);

void pace_set(struct pace *p, uint64_t bits_per_s);
/* Of @size bytes, how many may be sent at @now; 0: none before *ret_at. */
size_t pace_allow(struct pace *p, nsec_t now, size_t size, nsec_t *ret_at);
void pace_charge(struct pace *p, nsec_t now, size_t size);

#endif
