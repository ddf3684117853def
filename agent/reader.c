/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread takes the blocks out of all rings in order of time, packs and
 * compresses them. The kernel wakes it when a packet comes to rings that it had
 * emptied; it then lingers for LINGER_MS, so that at any rate it runs at most a
 * hundred times a second, or earlier when a ring fills up.
 *
 * A block younger than SETTLE is left in its ring, so that what another CPU has just
 * reserved and stamped is in sight (agent/merge.c has the rest of the argument).
 *
 * What cannot be delivered is booked as lost here, to the packet: the queue is full
 * (lost_queue), the file cannot be written and there is no collector (lost_output).
 */
#include "reader.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/eventfd.h>

#include "batch.h"
#include "gzip.h"
#include "log.h"
#include "util.h"

#define LINGER_MS  10
#define SETTLE     (100 * NSEC_PER_USEC)
#define TELL_AGAIN (60 * NSEC_PER_SEC)

struct reader {
	struct reader_config config;
	pthread_t thread;
	bool started;
	atomic_bool stopping;
	int done_fd; /* eventfd: readable when the thread has done its work */

	struct batch batch;
	nsec_t batch_due;     /* CLOCK_BOOTTIME */
	nsec_t now;           /* ... before the last look at the clocks */
	struct wall_map wall; /* what that said */
	struct gzip *gzip;
	uint8_t *packed;
	bool output_failing;
	nsec_t told_output; /* when that was said last */
	bool queue_full;    /* said so already */
	struct reader_totals totals;
	_Atomic uint64_t packets, kept, whole; /* of totals, after each drain */
};

int reader_new(const struct reader_config *config, struct reader **ret, struct err *err)
{
	struct reader *r = calloc(1, sizeof(*r));

	if (!r)
		return err_set(err, -ENOMEM, "out of memory");
	r->config = *config;
	r->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r->gzip = gzip_new();
	if (batch_init(&r->batch, config->block_bytes, config->snaplen) == 0)
		r->packed = malloc(gzip_bound(r->batch.cap));
	if (!r->gzip || !r->packed || r->done_fd < 0) {
		reader_free(r);
		return err_set(err, -ENOMEM, "out of memory for a batch of %zu bytes",
			       config->block_bytes);
	}
	*ret = r;
	return 0;
}

struct reader *reader_free(struct reader *r)
{
	if (!r)
		return NULL;
	if (r->done_fd >= 0)
		close(r->done_fd);
	batch_done(&r->batch);
	gzip_free(r->gzip);
	free(r->packed);
	free(r);
	return NULL;
}

/* The end of the run of blocks at @start that share a link type. */
static size_t run_end(struct reader *r, size_t start, uint32_t *ret_link_type)
{
	const uint8_t *raw = r->batch.raw;
	size_t end = start;

	*ret_link_type = 0;
	while (end < r->batch.len) {
		uint32_t type = book_link_type(r->config.book, get_le32(raw + end + 8));

		if (end == start)
			*ret_link_type = type;
		else if (type != *ret_link_type)
			break;
		end += get_le32(raw + end + 4);
	}
	return end;
}

/* Say that the file cannot be written, or can again; not every second, if that alternates. */
static void tell_of_output(struct reader *r, const struct err *failure)
{
	nsec_t now = clock_monotonic();

	if (!failure == !r->output_failing)
		return;
	r->output_failing = failure != NULL;
	if (failure && (!r->told_output || now - r->told_output >= TELL_AGAIN)) {
		log_error("%s; %s", failure->text,
			  r->config.queue ? "packets are missing in the file and go to the "
					    "collector only"
					  : "packets are being lost and counted");
		r->told_output = now;
	} else if (!failure && r->told_output) {
		log_info("the output file can be written again");
	}
}

/* What could not be written is counted in @lost. */
static void write_file(struct reader *r, struct tally *lost)
{
	bool failed = false;
	struct err err;

	for (size_t start = 0, end; start < r->batch.len; start = end) {
		uint32_t link_type;

		end = run_end(r, start, &link_type);
		if (output_write(r->config.output, link_type, r->batch.raw + start, end - start,
				 &err) == 0)
			continue;
		batch_tally(&r->batch, start, end, lost);
		failed = true;
	}
	tell_of_output(r, failed ? &err : NULL);
}

static bool enqueue(struct reader *r)
{
	uint8_t head[STREAM_DATA_HEAD];
	struct stream_header h = {.type = STREAM_DATA, .raw_len = (uint32_t)r->batch.len};
	size_t n = gzip_compress(r->gzip, r->batch.raw, r->batch.len, r->packed);

	stream_data_encode(head, &r->batch.head);
	h.payload_crc = gzip_crc32(gzip_crc32(0, head, sizeof(head)), r->packed, n);
	if (queue_push(r->config.queue, &h, head, sizeof(head), r->packed, n, &r->batch.tally) <
	    0) {
		if (!r->queue_full)
			log_warn(
				"the queue is full (%zu bytes wait for the collector): packets are "
				"being lost and counted as lost_queue",
				queue_bytes(r->config.queue));
		r->queue_full = true;
		return false;
	}
	/* A small message may still fit now and then: that is no news. */
	r->queue_full = r->queue_full && queue_half_full(r->config.queue);
	return true;
}

static void deliver(struct reader *r)
{
	struct tally lost = {};

	if (batch_empty(&r->batch))
		return;
	if (r->config.output)
		write_file(r, &lost);
	if (!r->config.queue) {
		tally_subtract(&r->batch.tally, &lost);
		book_settle(r->config.book, &r->batch.tally, LEDGER_COMMITTED);
		book_settle(r->config.book, &lost, LEDGER_LOST_OUTPUT);
	}
	if (r->config.queue && !enqueue(r))
		book_settle(r->config.book, &r->batch.tally, LEDGER_LOST_QUEUE);
	batch_reset(&r->batch);
}

static int take(void *ctx, const struct epb_header *header, const void *rest)
{
	struct reader *r = ctx;

	if (!batch_add(&r->batch, header, rest)) {
		deliver(r);
		batch_add(&r->batch, header, rest);
	}
	r->totals.packets++;
	r->totals.kept += header->caplen;
	r->totals.whole += MIN(header->len, r->config.snaplen);
	/* That of a former era comes out wrong, but in the past. */
	if (r->batch.head.packets == 1)
		r->batch_due = MIN(r->batch.head.first - wall_offset(&r->wall), r->now) +
			       r->config.gather_max_wait;
	return 0;
}

static void publish_totals(struct reader *r)
{
	atomic_store_explicit(&r->packets, r->totals.packets, memory_order_relaxed);
	atomic_store_explicit(&r->kept, r->totals.kept, memory_order_relaxed);
	atomic_store_explicit(&r->whole, r->totals.whole, memory_order_relaxed);
}

struct reader_totals reader_totals(struct reader *r)
{
	return (struct reader_totals){
		.packets = atomic_load_explicit(&r->packets, memory_order_relaxed),
		.kept = atomic_load_explicit(&r->kept, memory_order_relaxed),
		.whole = atomic_load_explicit(&r->whole, memory_order_relaxed),
	};
}

static void drain(struct reader *r, nsec_t settle, bool *ret_left)
{
	/* In this order: what is stamped up to now is of no later era than the newest. */
	r->now = clock_boottime();
	wallclock_look(r->config.wallclock, &r->wall);
	r->config.ops->drain(r->config.capture, settle ? r->now - settle : UINT64_MAX, &r->wall,
			     take, r, ret_left);
}

static int ms_until(nsec_t due, nsec_t now)
{
	return due <= now ? 0 : (int)MIN((due - now) / NSEC_PER_MSEC + 1, 1000);
}

static void *run(void *arg)
{
	const struct capture_ops *ops;
	struct reader *r = arg;
	struct capture *c = r->config.capture;
	bool left = false;

	ops = r->config.ops;
	while (!atomic_load(&r->stopping)) {
		int timeout = left                     ? LINGER_MS
			      : batch_empty(&r->batch) ? -1
						       : ms_until(r->batch_due, clock_boottime());

		if (ops->wait(c, timeout) > 0 && !atomic_load(&r->stopping))
			ops->wait(c, LINGER_MS);
		drain(r, SETTLE, &left);
		publish_totals(r);
		if (!batch_empty(&r->batch) && r->now >= r->batch_due)
			deliver(r);
	}

	drain(r, 0, &left);
	deliver(r);
	event_signal(r->done_fd);
	return NULL;
}

static bool wait_readable(int fd, nsec_t patience)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, (int)MIN(patience / NSEC_PER_MSEC, INT32_MAX)) > 0;
}

int reader_start(struct reader *r, struct err *err)
{
	int e = pthread_create(&r->thread, NULL, run, r);

	if (e)
		return err_sys(err, -e, "cannot start the reader thread");
	r->started = true;
	return 0;
}

void reader_stop(struct reader *r, nsec_t patience)
{
	if (!r || !r->started)
		return;
	atomic_store(&r->stopping, true);
	r->config.ops->wake(r->config.capture);
	/* Only who reads our standard output or FIFO, and does not, can be in the way. */
	if (r->config.output && !wait_readable(r->done_fd, patience))
		output_cancel(r->config.output);
	pthread_join(r->thread, NULL);
	r->started = false;
}
