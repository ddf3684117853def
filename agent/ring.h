/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reading end of one BPF ring buffer (BPF_MAP_TYPE_RINGBUF), record by record,
 * so that the caller can merge several. One thread.
 */
#ifndef PS_RING_H
#define PS_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

struct ring {
	int fd;
	size_t size;
	uint64_t pos;  /* read up to here */
	uint64_t seen; /* the producer was here when last asked */
	uint64_t published;
	uint64_t floor;     /* for who merges: no record to come is stamped earlier */
	uint64_t *consumer; /* mapped, ours to write */
	const uint64_t *producer;
	const uint8_t *data; /* mapped twice in a row: no record wraps */
};

/* Map the ring of @size bytes behind map @fd, which the ring owns from here on. */
int ring_open(struct ring *r, int fd, size_t size, struct err *err);
/* Takes a ring of zeros (fd 0 counts as none) and one that failed to open. */
void ring_close(struct ring *r);

/*
 * The oldest record and its length, or NULL when there is none that is complete.
 * It stays where it is until the space is given back.
 */
const void *ring_peek(struct ring *r, uint32_t *ret_len);
/* After a NULL: is there a record that is being written? */
bool ring_busy(const struct ring *r);
/* Step over the record that ring_peek() returned. */
void ring_advance(struct ring *r);
/* Bytes stepped over whose space the kernel does not have back yet. */
size_t ring_unpublished(const struct ring *r);
/* Give the space of all that was stepped over back to the kernel. */
void ring_publish(struct ring *r);
/*
 * Is there anything behind what was published, complete or not? With a full
 * barrier since ring_publish(), false means that the next record wakes the reader.
 */
bool ring_pending(const struct ring *r);

#endif
