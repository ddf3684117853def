/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring holds records one after another, 8-byte aligned:
 *
 *	struct record | used part of struct tally | header and payload
 *
 * A record never wraps: when it does not fit before the end, the rest is skipped
 * (a record of size 0 marks it). When the ring runs empty it starts again at its
 * front, so an agent whose collector keeps up touches only a few pages.
 */
#include "queue.h"

#include <errno.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "gzip.h"
#include "util.h"

#define CONTROL_RESERVE (256u << 10)

struct record {
	uint64_t seq;
	uint32_t size; /* whole record, aligned; 0: go on at the front */
	uint32_t tally_size;
	uint32_t wire_size;
	uint32_t type; /* enum stream_type */
};

struct queue {
	pthread_mutex_t lock;
	uint8_t *ring;
	size_t size;
	size_t head, tail, used; /* oldest record, free space, bytes between */
	uint64_t next_seq, pushed;
	int fd;
	int watch_fd; /* -1: none */
	size_t watch_level;
	/* Where the uplink is, so that walking the queue is not searching it. */
	size_t cursor;
	uint64_t cursor_seq; /* seq of the record at cursor; 0: start at head */
};

static size_t align8(size_t n)
{
	return (n + 7) & ~(size_t)7;
}

struct queue *queue_new(size_t bytes)
{
	struct queue *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	pthread_mutex_init(&q->lock, NULL);
	q->size = align8(bytes);
	q->next_seq = 1;
	q->watch_fd = -1;
	q->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	q->ring = mmap(NULL, q->size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (q->ring == MAP_FAILED)
		q->ring = NULL;
	if (q->fd < 0 || !q->ring)
		return queue_free(q);
	return q;
}

struct queue *queue_free(struct queue *q)
{
	if (!q)
		return NULL;
	if (q->ring)
		munmap(q->ring, q->size);
	if (q->fd >= 0)
		close(q->fd);
	pthread_mutex_destroy(&q->lock);
	free(q);
	return NULL;
}

static struct record *at(const struct queue *q, size_t offset)
{
	return (struct record *)(void *)(q->ring + offset);
}

/* The record that begins at @offset, or at the front when there is only a mark or the end. */
static size_t skip_mark(const struct queue *q, size_t offset)
{
	if (q->size - offset < sizeof(struct record) || !at(q, offset)->size)
		return 0;
	return offset;
}

/* Contiguous room for @n bytes at the tail; SIZE_MAX when there is none. */
static size_t reserve(struct queue *q, size_t n)
{
	size_t left = q->size - q->tail;

	if (!q->used)
		q->head = q->tail = 0;
	else if (q->tail < q->head || q->used == q->size)
		return q->size - q->used >= n ? q->tail : SIZE_MAX;
	left = q->size - q->tail;
	if (left >= n)
		return q->tail;
	if (q->head < n)
		return SIZE_MAX;
	if (left >= sizeof(struct record))
		at(q, q->tail)->size = 0;
	q->used += left;
	q->tail = 0;
	return 0;
}

int queue_push(struct queue *q, const struct stream_header *header, const void *head,
	       size_t head_len, const void *body, size_t body_len, const struct tally *tally)
{
	size_t tally_size =
		tally ? offsetof(struct tally, parts) + tally->n * sizeof(struct tally_part) : 0;
	size_t wire_size = STREAM_HEADER_SIZE + head_len + body_len;
	size_t size = align8(sizeof(struct record) + tally_size + wire_size);
	struct stream_header h = *header;
	struct record *rec;
	uint8_t *p;
	size_t offset, before;
	int watch_fd = -1;

	pthread_mutex_lock(&q->lock);
	before = q->used;
	offset = SIZE_MAX;
	if (header->type != STREAM_DATA || q->size - q->used >= size + CONTROL_RESERVE)
		offset = reserve(q, size);
	if (offset == SIZE_MAX) {
		pthread_mutex_unlock(&q->lock);
		return -ENOBUFS;
	}
	h.seq = q->next_seq++;
	h.payload_len = (uint32_t)(head_len + body_len);
	rec = at(q, offset);
	*rec = (struct record){
		.seq = h.seq,
		.size = (uint32_t)size,
		.tally_size = (uint32_t)tally_size,
		.wire_size = (uint32_t)wire_size,
		.type = h.type,
	};
	p = (uint8_t *)(rec + 1);
	if (tally_size)
		memcpy(p, tally, tally_size);
	p += tally_size;
	stream_header_encode(p, &h);
	p += STREAM_HEADER_SIZE;
	if (head_len)
		memcpy(p, head, head_len);
	if (body_len)
		memcpy(p + head_len, body, body_len);
	q->tail = offset + size;
	q->used += size;
	q->pushed += wire_size;
	if (before <= q->watch_level && q->used > q->watch_level)
		watch_fd = q->watch_fd;
	pthread_mutex_unlock(&q->lock);

	event_signal(q->fd);
	if (watch_fd >= 0)
		event_signal(watch_fd);
	return 0;
}

int queue_push_control(struct queue *q, uint8_t type, const void *payload, size_t n)
{
	struct stream_header h = {.type = type, .payload_crc = gzip_crc32(0, payload, n)};

	return queue_push(q, &h, payload, n, NULL, 0, NULL);
}

/* The record of @seq, which is here. Whoever reads at the front leaves the cursor alone. */
static const struct record *find(struct queue *q, uint64_t seq)
{
	const struct record *rec = at(q, skip_mark(q, q->head));

	if (rec->seq == seq)
		return rec;
	if (!q->cursor_seq || q->cursor_seq > seq)
		q->cursor = q->head;
	q->cursor = skip_mark(q, q->cursor);
	rec = at(q, q->cursor);
	while (rec->seq < seq) {
		q->cursor = skip_mark(q, q->cursor + rec->size);
		rec = at(q, q->cursor);
	}
	q->cursor_seq = rec->seq;
	return rec;
}

static uint64_t first_seq(const struct queue *q)
{
	return q->used ? at(q, skip_mark(q, q->head))->seq : q->next_seq;
}

int queue_read(struct queue *q, uint64_t seq, struct buf *wire, struct backlog_message *ret,
	       struct tally *tally)
{
	const struct record *rec;
	const uint8_t *p;
	int r = 0;

	buf_reset(wire);
	pthread_mutex_lock(&q->lock);
	if (seq < first_seq(q) || seq >= q->next_seq)
		goto out;
	rec = find(q, seq);
	p = (const uint8_t *)(rec + 1);
	buf_put(wire, p + rec->tally_size, rec->wire_size);
	if (buf_failed(wire)) {
		r = -ENOMEM;
		goto out;
	}
	if (tally) {
		tally->n = 0;
		memcpy(tally, p, rec->tally_size);
	}
	*ret = (struct backlog_message){
		.seq = seq,
		.last_seq = seq,
		.type = (uint8_t)rec->type,
		.size = rec->wire_size,
	};
	r = 1;
out:
	pthread_mutex_unlock(&q->lock);
	return r;
}

static void forget(struct queue *q, uint64_t seq, queue_acked_fn *fn, void *ctx)
{
	pthread_mutex_lock(&q->lock);
	while (q->used) {
		size_t offset = skip_mark(q, q->head);
		const struct record *rec = at(q, offset);
		struct tally tally;

		if (offset != q->head) {
			q->used -= q->size - q->head;
			q->head = 0;
		}
		if (rec->seq > seq)
			break;
		if (fn && rec->tally_size) {
			memcpy(&tally, rec + 1, rec->tally_size);
			fn(ctx, &tally);
		}
		if (q->cursor_seq <= rec->seq)
			q->cursor_seq = 0;
		q->head += rec->size;
		q->used -= rec->size;
	}
	pthread_mutex_unlock(&q->lock);
}

void queue_ack(struct queue *q, uint64_t seq, queue_acked_fn *fn, void *ctx)
{
	forget(q, seq, fn, ctx);
}

void queue_release(struct queue *q, uint64_t seq)
{
	forget(q, seq, NULL, NULL);
}

uint64_t queue_first_seq(struct queue *q)
{
	uint64_t seq;

	pthread_mutex_lock(&q->lock);
	seq = first_seq(q);
	pthread_mutex_unlock(&q->lock);
	return seq;
}

uint64_t queue_next_seq(struct queue *q)
{
	uint64_t seq;

	pthread_mutex_lock(&q->lock);
	seq = q->next_seq;
	pthread_mutex_unlock(&q->lock);
	return seq;
}

size_t queue_bytes(struct queue *q)
{
	size_t used;

	pthread_mutex_lock(&q->lock);
	used = q->used;
	pthread_mutex_unlock(&q->lock);
	return used;
}

size_t queue_capacity(const struct queue *q)
{
	return q->size;
}

uint64_t queue_pushed(struct queue *q)
{
	uint64_t pushed;

	pthread_mutex_lock(&q->lock);
	pushed = q->pushed;
	pthread_mutex_unlock(&q->lock);
	return pushed;
}

bool queue_half_full(struct queue *q)
{
	return queue_bytes(q) > q->size / 2;
}

int queue_fd(const struct queue *q)
{
	return q->fd;
}

void queue_watch(struct queue *q, int fd, size_t level)
{
	pthread_mutex_lock(&q->lock);
	q->watch_fd = fd;
	q->watch_level = level;
	pthread_mutex_unlock(&q->lock);
}
