/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbered messages in memory: from the moment they get their seq until they are
 * acknowledged or on disk (backlog.h). One ring of bytes, reserved once; a message that
 * does not fit is refused, nothing is ever pushed out. DATA leaves room for the control
 * messages that tell what was lost. Thread-safe, and never waits for anything but its own
 * lock.
 */
#ifndef PS_QUEUE_H
#define PS_QUEUE_H

#include <stddef.h>
#include <stdint.h>

#include "stream.h"
#include "tally.h"

struct queue;

struct queue_message {
	uint64_t seq;
	uint32_t size;       /* of the wire bytes: header and payload */
	uint32_t tally_size; /* bytes of @tally that are stored; 0: no packets in it */
	const uint8_t *wire;
	const struct tally *tally;
};

/* Room for @bytes of messages; memory is touched only as it is used. */
struct queue *queue_new(size_t bytes);
struct queue *queue_free(struct queue *q);

/*
 * Append a message, numbered with the next seq. @header's type, raw_len and
 * payload_crc are used; the payload is @head then @body. @tally may be NULL.
 * -ENOBUFS when it does not fit.
 */
int queue_push(struct queue *q, const struct stream_header *header, const void *head,
	       size_t head_len, const void *body, size_t body_len, const struct tally *tally);
/* A control message: payload only. */
int queue_push_control(struct queue *q, uint8_t type, const void *payload, size_t n);

/* The first message whose seq is >= @seq; false when there is none (yet). */
bool queue_next(struct queue *q, uint64_t seq, struct queue_message *ret);

/* Forget all up to @seq; @fn is called for each that held packets. */
typedef void queue_acked_fn(void *ctx, const struct tally *tally);
void queue_ack(struct queue *q, uint64_t seq, queue_acked_fn *fn, void *ctx);

uint64_t queue_first_seq(struct queue *q); /* of the oldest, or the next to come */
uint64_t queue_next_seq(struct queue *q);
size_t queue_bytes(struct queue *q); /* in use */
bool queue_half_full(struct queue *q);
/* Readable (eventfd) after a push; the uplink reads it away. */
int queue_fd(const struct queue *q);

#endif
