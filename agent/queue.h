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

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backlog_message.h"
#include "tally.h"

struct queue;

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

/*
 * Copy the message @seq into @wire (reset first) and, unless it is NULL, what is in it into
 * @tally (n 0: no packets). 1; 0: it is not here, not yet or not any more; -ENOMEM.
 */
int queue_read(struct queue *q, uint64_t seq, struct buf *wire, struct backlog_message *ret,
	       struct tally *tally);

/* Acknowledged: forget all up to @seq; @fn is called for each that held packets. */
typedef void queue_acked_fn(void *ctx, const struct tally *tally);
void queue_ack(struct queue *q, uint64_t seq, queue_acked_fn *fn, void *ctx);
/* All up to @seq are somewhere else now: forget them here. */
void queue_release(struct queue *q, uint64_t seq);

uint64_t queue_first_seq(struct queue *q); /* of the oldest, or the next to come */
uint64_t queue_next_seq(struct queue *q);
size_t queue_bytes(struct queue *q);          /* in use */
size_t queue_capacity(const struct queue *q); /* of all */
uint64_t queue_pushed(struct queue *q);       /* bytes of all messages so far */
bool queue_half_full(struct queue *q);
/* Readable (eventfd) after a push; the uplink reads it away. */
int queue_fd(const struct queue *q);
/* Make the eventfd @fd readable too, when a push takes what is in use above @level bytes. */
void queue_watch(struct queue *q, int fd, size_t level);

#endif
