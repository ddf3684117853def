// SPDX-License-Identifier: Apache-2.0
/*
 * Reading a BPF ring buffer (Documentation/bpf/ringbuf.rst, kernel/bpf/ringbuf.c).
 *
 * The kernel shares three things: a page with the consumer's position, which we
 * write; a page with the producer's position; the data, mapped twice in a row.
 * Positions count bytes for ever. A record is an 8-byte header (length, with a busy
 * and a discarded bit; page offset), then the bytes, rounded up to 8.
 *
 * Ordering: the producer's position and a record's length are load-acquired, for
 * the bytes before them were written first; our position is store-released, for
 * the bytes before it must have been read. A record is busy while a CPU fills it,
 * and hides the ones after it. The kernel wakes us for a record exactly when our
 * position has reached it, so after publishing, and a full barrier, whoever sees no
 * pending record may sleep.
 */
#include "ring.h"

#include <errno.h>
#include <linux/bpf.h>
#include <sys/mman.h>
#include <unistd.h>

#include "util.h"

static size_t page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

int ring_open(struct ring *r, int fd, size_t size, struct err *err)
{
	uint8_t *shared;
	void *own;

	*r = (struct ring){.fd = fd, .size = size};
	own = mmap(NULL, page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (own == MAP_FAILED)
		return err_sys(err, -errno, "cannot map a ring buffer of %zu bytes", size);
	r->consumer = own;
	shared = mmap(NULL, page_size() + 2 * size, PROT_READ, MAP_SHARED, fd, (off_t)page_size());
	if (shared == MAP_FAILED)
		return err_sys(err, -errno, "cannot map a ring buffer of %zu bytes", size);
	r->producer = (const uint64_t *)(const void *)shared;
	r->data = shared + page_size();
	r->pos = r->published = __atomic_load_n(r->consumer, __ATOMIC_RELAXED);
	return 0;
}

void ring_close(struct ring *r)
{
	if (r->producer)
		munmap((void *)(uintptr_t)r->producer, page_size() + 2 * r->size);
	if (r->consumer)
		munmap(r->consumer, page_size());
	if (r->fd > 0)
		close(r->fd);
	*r = (struct ring){};
}

/* The header of the record at our position. */
static const uint32_t *record(const struct ring *r)
{
	return (const uint32_t *)(const void *)(r->data + (r->pos & (r->size - 1)));
}

static uint64_t record_size(uint32_t header)
{
	uint32_t len = header & ~(BPF_RINGBUF_BUSY_BIT | BPF_RINGBUF_DISCARD_BIT);

	return ((uint64_t)len + BPF_RINGBUF_HDR_SZ + 7) & ~7ull;
}

const void *ring_peek(struct ring *r, uint32_t *ret_len)
{
	for (;;) {
		uint32_t header;

		if (r->pos == r->seen)
			r->seen = __atomic_load_n(r->producer, __ATOMIC_ACQUIRE);
		if (r->pos == r->seen)
			return NULL;
		header = __atomic_load_n(record(r), __ATOMIC_ACQUIRE);
		if (header & BPF_RINGBUF_BUSY_BIT)
			return NULL;
		if (!(header & BPF_RINGBUF_DISCARD_BIT)) {
			*ret_len = header;
			return (const uint8_t *)record(r) + BPF_RINGBUF_HDR_SZ;
		}
		r->pos += record_size(header);
	}
}

bool ring_busy(const struct ring *r)
{
	return r->pos != r->seen;
}

void ring_advance(struct ring *r)
{
	r->pos += record_size(*record(r));
}

size_t ring_unpublished(const struct ring *r)
{
	return r->pos - r->published;
}

void ring_publish(struct ring *r)
{
	if (r->published == r->pos)
		return;
	__atomic_store_n(r->consumer, r->pos, __ATOMIC_RELEASE);
	r->published = r->pos;
}

bool ring_pending(const struct ring *r)
{
	return __atomic_load_n(r->producer, __ATOMIC_ACQUIRE) != r->published;
}
