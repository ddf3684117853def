/* SPDX-License-Identifier: Apache-2.0 */
/* How many BPF ring buffers there are, how large, and making them. One thread. */
#ifndef PS_RINGS_H
#define PS_RINGS_H

#include "merge.h"

/*
 * Lower m->nrings from the number of CPUs that there may be to that of the rings, for @bytes
 * together. Returns the size of each.
 */
size_t rings_plan(struct merge *m, uint64_t bytes, uint32_t snaplen);
/* Make them, let @epoll watch them (edge-triggered, no data), and put them into the map @map. */
int rings_open(struct merge *m, size_t size, int epoll, int map, struct err *err);

#endif
