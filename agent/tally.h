/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a batch holds of each interface and direction. It travels with the frame,
 * so that whatever becomes of the frame is booked to the packet.
 */
#ifndef PS_TALLY_H
#define PS_TALLY_H

#include <stdbool.h>
#include <stdint.h>

#include "ledger.h"

#define TALLY_PARTS 32u

struct tally_part {
	uint32_t iface;
	uint32_t direction;
	struct ledger_count count;
};

struct tally {
	uint32_t n;
	uint32_t last; /* the part that was added to last: packets come in runs */
	struct tally_part parts[TALLY_PARTS];
};

/* False when there is no part left for a new interface: the batch is to be closed. */
static inline bool tally_add(struct tally *t, uint32_t iface, uint32_t direction, uint32_t bytes)
{
	uint32_t i = t->last;

	if (i >= t->n || t->parts[i].iface != iface || t->parts[i].direction != direction) {
		for (i = 0; i < t->n; i++)
			if (t->parts[i].iface == iface && t->parts[i].direction == direction)
				break;
		if (i == TALLY_PARTS)
			return false;
		if (i == t->n) {
			t->parts[i] = (struct tally_part){.iface = iface, .direction = direction};
			t->n++;
		}
		t->last = i;
	}
	t->parts[i].count.packets++;
	t->parts[i].count.bytes += bytes;
	return true;
}

/* Take @part, which was counted in @t as well, out of it again. */
static inline void tally_subtract(struct tally *t, const struct tally *part)
{
	for (uint32_t i = 0; i < t->n; i++) {
		for (uint32_t j = 0; j < part->n; j++) {
			if (t->parts[i].iface != part->parts[j].iface ||
			    t->parts[i].direction != part->parts[j].direction)
				continue;
			t->parts[i].count.packets -= part->parts[j].count.packets;
			t->parts[i].count.bytes -= part->parts[j].count.bytes;
		}
	}
}

#endif
