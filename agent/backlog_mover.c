/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The thread that moves messages from the queue to the spool when it is time to, makes what
 * was written durable, and tends the spool. Begun when the queue is half full, it goes on until
 * a quarter is left, so that it does not start and stop all the time.
 *
 * While there is room in memory nothing is evicted: a disk that is full may be so for a moment
 * only. A write that fails is tried again every second. Meanwhile messages stay in the queue, and
 * what does not fit there is booked as lost by whoever pushes.
 */
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "backlog_internal.h"
#include "log.h"
#include "util.h"

#define OFFLINE_AFTER (2 * NSEC_PER_SEC)
#define SYNC_EVERY    (500 * NSEC_PER_MSEC)
#define TEND_EVERY    NSEC_PER_SEC
#define RETRY_AFTER   NSEC_PER_SEC
#define TELL_AGAIN    (60 * NSEC_PER_SEC)

/* Say that the disk takes nothing, or does again; not every second, if that alternates. */
static void tell_of_disk(struct backlog *b, const struct err *failure, nsec_t now)
{
	if (failure && !b->failing && (!b->told_failing || now - b->told_failing >= TELL_AGAIN)) {
		log_error("%s; frames wait in memory, it is tried again every second",
			  failure->text);
		b->told_failing = now;
		b->failing = true;
	} else if (!failure && b->failing) {
		log_info("the spool can be written again");
		b->failing = false;
	}
}

static void tell_of_evictions(struct backlog *b, nsec_t now)
{
	uint64_t evicted = atomic_load(&b->evicted);

	if (evicted == b->evicted_told || (b->told_evicted && now - b->told_evicted < TELL_AGAIN))
		return;
	log_warn("the spool has no room: %llu packets, the oldest, are lost by now and counted as "
		 "lost_spool",
		 (unsigned long long)evicted);
	b->evicted_told = evicted;
	b->told_evicted = now;
}

static bool is_time_to_move(struct backlog *b, nsec_t now)
{
	nsec_t since = atomic_load(&b->offline_since);
	bool eager = b->config.mode == SPOOL_ALWAYS || (since && now >= since + OFFLINE_AFTER);
	/*
	 * A push is told of when it crosses the level. While a write waits to be tried again the
	 * queue is not empty, so that none would cross 0.
	 */
	size_t level = eager && now >= b->retry_due ? 0 : b->high, used;

	/* First this, so that no push from now on goes unnoticed. */
	if (level != b->watched)
		queue_watch(b->config.queue, b->wake_fd, level);
	b->watched = level;
	used = queue_bytes(b->config.queue);
	if (used > b->high ? !b->overflowing : b->overflowing && used <= b->low) {
		b->overflowing = !b->overflowing;
		spool_hold(b->config.spool, !b->overflowing);
		b->retry_due = 0;
	}
	return used && now >= b->retry_due && (eager || b->overflowing);
}

static bool move_if_time(struct backlog *b, nsec_t now)
{
	struct err err;
	int r;

	if (!is_time_to_move(b, now))
		return false;
	r = backlog_move(b, &err);
	if (r < 0) {
		/* On hold it may only be that nothing is to be evicted yet. */
		if (b->overflowing || r != -ENOSPC)
			tell_of_disk(b, &err, now);
		b->retry_due = now + RETRY_AFTER;
	}
	if (r <= 0)
		return false;
	tell_of_disk(b, NULL, now);
	if (!b->unsynced)
		b->sync_due = now + SYNC_EVERY;
	b->unsynced = true;
	return true;
}

static void sync_spool(struct backlog *b)
{
	struct err err;
	int r = spool_sync(b->epoch, &err);
	nsec_t now = clock_monotonic();

	if (r < 0)
		tell_of_disk(b, &err, now);
	b->unsynced = r < 0;
	b->sync_due = now + RETRY_AFTER;
}

static void tend(struct backlog *b)
{
	nsec_t now;

	spool_tend(b->config.spool);
	now = clock_monotonic();
	tell_of_evictions(b, now);
	b->tend_due = now + TEND_EVERY;
}

static void rest(struct backlog *b, nsec_t now)
{
	nsec_t until = b->unsynced ? MIN(b->sync_due, b->tend_due) : b->tend_due;
	nsec_t since = atomic_load(&b->offline_since);
	struct pollfd p = {.fd = b->wake_fd, .events = POLLIN};

	if (since && since + OFFLINE_AFTER > now)
		until = MIN(until, since + OFFLINE_AFTER);
	if (until > now)
		poll(&p, 1, (int)((until - now) / NSEC_PER_MSEC) + 1);
	event_clear(b->wake_fd);
}

static void *run(void *arg)
{
	struct backlog *b = arg;

	while (!atomic_load(&b->stopping)) {
		nsec_t now = clock_monotonic();
		bool moved = move_if_time(b, now);

		if (b->unsynced && now >= b->sync_due)
			sync_spool(b);
		if (now >= b->tend_due)
			tend(b);
		if (!moved)
			rest(b, now);
	}
	return NULL;
}

void backlog_stop_mover(struct backlog *b)
{
	if (!b->started)
		return;
	atomic_store(&b->stopping, true);
	event_signal(b->wake_fd);
	pthread_join(b->thread, NULL);
	b->started = false;
	spool_hold(b->config.spool, false);
	queue_watch(b->config.queue, -1, 0);
}

int backlog_start(struct backlog *b, struct err *err)
{
	size_t capacity = queue_capacity(b->config.queue);
	int e;

	if (!b->config.spool)
		return 0;
	b->high = capacity / 2;
	b->low = capacity / 4;
	b->watched = SIZE_MAX;
	atomic_store(&b->offline_since, clock_monotonic());
	spool_hold(b->config.spool, true);
	b->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (b->wake_fd < 0)
		return err_sys(err, -errno, "cannot set up the spool's thread");
	e = pthread_create(&b->thread, NULL, run, b);
	if (e)
		return err_sys(err, -e, "cannot start the spool's thread");
	b->started = true;
	return 0;
}
