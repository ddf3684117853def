/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queue and spool as one. The uplink thread reads and acknowledges; the mover, a thread of
 * its own, takes the oldest message out of the queue, appends it to the spool, and only then
 * releases it from the queue: at every moment it is in one of them at least.
 *
 * `lock` makes that last step one: while a message is being moved (`moving`), an
 * acknowledgement forgets only what comes before it, and the mover does the rest afterwards, so
 * that its packets are booked once. It is held for moments and never around a write; the
 * order is lock, spool, queue, book. Numbers: settled < moving, settled <= acked < next.
 */
#include <errno.h>
#include <sys/timex.h>

#include "backlog_internal.h"
#include "log.h"
#include "util.h"

/* What the kernel says of CLOCK_REALTIME. */
static void put_clock(struct stream_hello *h)
{
	struct timex t = {};

	h->realtime_ns = clock_realtime();
	h->boottime_ns = clock_boottime();
	if (adjtimex(&t) < 0)
		return;
	h->clock_state = t.status & STA_UNSYNC ? STREAM_CLOCK_FREE : STREAM_CLOCK_SYNCED;
	h->clock_error_ns = (uint64_t)t.maxerror * NSEC_PER_USEC;
}

static int make_hello(struct backlog *b, uint64_t first_unacked, struct stream_hello *ret)
{
	struct stream_hello h = b->config.hello;
	long n = book_interfaces(b->config.book, &h.ifaces);

	if (n < 0)
		return (int)n;
	if (n > STREAM_INTERFACES_MAX)
		log_warn("%ld interfaces have packets under way, at most %u can be announced", n,
			 STREAM_INTERFACES_MAX);
	h.n_ifaces = MIN((size_t)n, STREAM_INTERFACES_MAX);
	h.first_unacked = first_unacked;
	h.next_seq = queue_next_seq(b->config.queue);
	put_clock(&h);
	*ret = h;
	return 0;
}

static void encode_hello(void *ctx, uint64_t first_unacked, struct buf *out)
{
	struct backlog *b = ctx;
	struct stream_hello h;

	if (make_hello(b, first_unacked, &h) < 0) {
		out->failed = true;
		return;
	}
	stream_hello_encode(out, &h);
	stream_hello_free(&h);
}

static void settle(void *ctx, const struct tally *t, enum ledger_counter counter)
{
	struct backlog *b = ctx;

	book_settle(b->config.book, t, counter);
	for (uint32_t i = 0; counter == LEDGER_LOST_SPOOL && i < t->n; i++)
		atomic_fetch_add(&b->evicted, t->parts[i].count.packets);
}

static void settle_committed(void *ctx, const struct tally *t)
{
	struct backlog *b = ctx;

	book_settle(b->config.book, t, LEDGER_COMMITTED);
}

/* Forget what is acknowledged, but for the message that is on its way. With the lock held. */
static void trim(struct backlog *b)
{
	uint64_t seq = b->moving ? MIN(b->acked, b->moving - 1) : b->acked;

	if (seq <= b->settled)
		return;
	if (b->epoch)
		spool_ack(b->epoch, seq);
	queue_ack(b->config.queue, seq, settle_committed, b);
	b->settled = seq;
}

int backlog_move(struct backlog *b, struct err *err)
{
	struct queue *q = b->config.queue;
	struct backlog_message m;
	struct tally tally;
	int r;

	pthread_mutex_lock(&b->lock);
	r = queue_read(q, queue_first_seq(q), &b->wire, &m, &tally);
	b->moving = r > 0 ? m.seq : 0;
	pthread_mutex_unlock(&b->lock);
	if (r <= 0)
		return r == 0 ? 0 : err_set(err, r, "out of memory");

	r = spool_append(b->epoch, &m, b->wire.data, tally.n ? &tally : NULL, err);

	pthread_mutex_lock(&b->lock);
	b->moving = 0;
	if (r == 0) {
		queue_release(q, m.seq);
		/* Nobody can read it from memory any more, so this is the last word. */
		spool_sent(b->epoch, MIN(atomic_load(&b->sent), m.seq));
	}
	trim(b);
	pthread_mutex_unlock(&b->lock);
	return r < 0 ? r : 1;
}

static struct backlog *make(void)
{
	struct backlog *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	pthread_mutex_init(&b->lock, NULL);
	b->wake_fd = -1;
	return b;
}

int backlog_new(const struct backlog_config *config, struct backlog **ret, struct err *err)
{
	struct backlog *b = make();
	int r = 0;

	if (!b)
		return err_set(err, -ENOMEM, "out of memory");
	b->config = *config;
	if (config->spool) {
		b->epoch = spool_begin(config->spool, config->hello.epoch, encode_hello, settle, b);
		if (!b->epoch)
			r = err_set(err, -ENOMEM, "out of memory for the spool");
	}
	if (r < 0)
		backlog_free(b);
	else
		*ret = b;
	return r;
}

struct backlog *backlog_recovered(struct spool *spool, struct spool_epoch *epoch)
{
	struct backlog *b = make();

	if (!b)
		return NULL;
	b->config.spool = spool;
	b->epoch = epoch;
	b->recovered = true;
	return b;
}

struct backlog *backlog_free(struct backlog *b)
{
	if (!b)
		return NULL;
	backlog_stop_mover(b);
	if (b->wake_fd >= 0)
		close(b->wake_fd);
	buf_free(&b->wire);
	pthread_mutex_destroy(&b->lock);
	free(b);
	return NULL;
}

static int store_end(struct backlog *b, struct err *err)
{
	_cleanup_(buf_free) struct buf hello = {}, bye_payload = {};
	struct stream_bye bye = backlog_bye(b);

	encode_hello(b, backlog_first_seq(b), &hello);
	stream_bye_encode(&bye_payload, &bye);
	if (buf_failed(&hello) || buf_failed(&bye_payload))
		return err_set(err, -ENOMEM, "out of memory");
	return spool_end(b->epoch, &hello, &bye_payload, err);
}

bool backlog_store(struct backlog *b)
{
	struct err err;
	int r;

	backlog_stop_mover(b);
	if (!b->epoch)
		return backlog_empty(b);
	if (backlog_next_seq(b) == 1)
		return true;
	do
		r = backlog_move(b, &err);
	while (r > 0);
	if (r == 0)
		r = store_end(b, &err);
	if (r < 0)
		log_error("%s; what waits in memory is lost", err.text);
	return r == 0;
}

void backlog_connected(struct backlog *b, bool connected)
{
	if (!b->started)
		return;
	if (connected)
		atomic_store(&b->offline_since, 0);
	else if (!atomic_load(&b->offline_since))
		atomic_store(&b->offline_since, clock_monotonic());
	event_signal(b->wake_fd);
}

int backlog_read(struct backlog *b, uint64_t seq, struct buf *wire, struct backlog_message *ret,
		 struct err *err)
{
	int r;

	if (b->recovered)
		return spool_read(b->epoch, seq, wire, ret, err);
	if (seq >= queue_next_seq(b->config.queue))
		return 0;
	/* Before it is read, so that the mover knows when it takes it away. */
	if (seq > atomic_load(&b->sent))
		atomic_store(&b->sent, seq);
	r = queue_read(b->config.queue, seq, wire, ret, NULL);
	if (r < 0)
		return err_set(err, r, "out of memory");
	if (r == 0 && !b->epoch)
		return err_set(err, -ENOENT, "message %llu is not here any more",
			       (unsigned long long)seq);
	/* It was there and is not: it was moved. */
	return r > 0 ? r : spool_read(b->epoch, seq, wire, ret, err);
}

void backlog_ack(struct backlog *b, uint64_t seq)
{
	if (b->recovered) {
		spool_ack(b->epoch, seq);
		return;
	}
	seq = MIN(seq, queue_next_seq(b->config.queue) - 1);
	pthread_mutex_lock(&b->lock);
	b->acked = MAX(b->acked, seq);
	trim(b);
	pthread_mutex_unlock(&b->lock);
}

uint64_t backlog_first_seq(struct backlog *b)
{
	uint64_t seq;

	if (b->recovered)
		return spool_first_seq(b->epoch);
	pthread_mutex_lock(&b->lock);
	seq = b->acked + 1;
	pthread_mutex_unlock(&b->lock);
	return seq;
}

uint64_t backlog_next_seq(struct backlog *b)
{
	return b->recovered ? spool_next_seq(b->epoch) : queue_next_seq(b->config.queue);
}

int backlog_fd(const struct backlog *b)
{
	return b->recovered ? -1 : queue_fd(b->config.queue);
}

void backlog_clear(struct backlog *b)
{
	if (!b->recovered)
		event_clear(queue_fd(b->config.queue));
}

int backlog_hello(struct backlog *b, struct stream_hello *ret, struct err *err)
{
	int r;

	if (b->recovered)
		return spool_hello(b->epoch, ret, err);
	/* What is told as committed must be what comes before the first number. */
	pthread_mutex_lock(&b->lock);
	r = make_hello(b, b->settled + 1, ret);
	pthread_mutex_unlock(&b->lock);
	return r < 0 ? err_set(err, r, "out of memory") : 0;
}

struct stream_bye backlog_bye(struct backlog *b)
{
	if (b->recovered)
		return spool_bye(b->epoch);
	return (struct stream_bye){
		.reason = STREAM_BYE_STOP,
		.last_seq = queue_next_seq(b->config.queue) - 1,
	};
}

bool backlog_is_recovered(const struct backlog *b)
{
	return b->recovered;
}
