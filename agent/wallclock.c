// SPDX-License-Identifier: Apache-2.0
/*
 * A reading of the wall clock between two readings of the other gives an interval that the
 * distance is in. All readings of an era have the true distance in common, so their
 * intersection only gets narrower, and a reading that does not touch it proves a step,
 * however small, without a threshold to choose.
 *
 * Converted times must not go back by corrections of the measurement: the value is
 * taken once, from the narrowest of many readings, and moved only when the intersection leaves
 * it behind; what is stamped after that is held at the time that was reached.
 */
#include "wallclock.h"

#include <errno.h>
#include <pthread.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "util.h"

#define ENOUGH_WIDTH 300u        /* ns: three readings without interruption take less */
#define READINGS     8           /* at most, until one is enough */
#define READINGS_NEW 64          /* for a new era */
#define SLACK        100         /* ns between the counters of two processors */
#define STEP_MIN     1000        /* ns; less is our measurement, not somebody's step */
#define FOREVER      (1ll << 40) /* seconds */

struct wallclock {
	void (*read)(void *ctx, struct clock_bracket *ret);
	void *ctx;
	int fd;

	pthread_mutex_t lock;
	struct wall_map map;
	int64_t low, high; /* where the distance of the newest era is */
	unsigned int steps;
	int64_t sum;
};

static void read_machine(void *ctx, struct clock_bracket *ret)
{
	(void)ctx;
	clock_read_bracket(ret);
}

static nsec_t width(const struct clock_bracket *b)
{
	return b->boot_after - b->boot_before;
}

/* A thread may lose its processor between two readings: then once more. */
static struct clock_bracket narrowest(struct wallclock *w, int readings, nsec_t enough)
{
	struct clock_bracket best, b;

	w->read(w->ctx, &best);
	while (width(&best) > enough && --readings > 0) {
		w->read(w->ctx, &b);
		if (width(&b) < width(&best))
			best = b;
	}
	return best;
}

static int64_t bracket_low(const struct clock_bracket *b)
{
	return (int64_t)(b->real - b->boot_after) - SLACK;
}

static int64_t bracket_high(const struct clock_bracket *b)
{
	return (int64_t)(b->real - b->boot_before) + SLACK;
}

/* @set: the distance is another one; else it only is known better. */
static void open_era(struct wallclock *w, nsec_t since, bool set)
{
	int64_t offset = w->low + (w->high - w->low) / 2, step;
	struct wall_map *m = &w->map;
	struct wall_era era = {.since = since, .offset = (nsec_t)offset};

	if (m->n) {
		step = offset - (int64_t)wall_offset(m);
		if (set && (step <= -STEP_MIN || step >= STEP_MIN)) {
			w->steps++;
			w->sum += step;
		} else {
			era.floor = since + wall_offset(m);
		}
	}
	m->n = MIN(m->n + 1, WALL_ERAS);
	memmove(&m->eras[1], &m->eras[0], (m->n - 1) * sizeof(m->eras[0]));
	m->eras[0] = era;
}

static void look(struct wallclock *w)
{
	struct clock_bracket b = narrowest(w, READINGS, ENOUGH_WIDTH);
	nsec_t since = b.boot_before;
	int64_t offset;

	if (!w->map.n || bracket_low(&b) > w->high || bracket_high(&b) < w->low) {
		b = narrowest(w, READINGS_NEW, 0);
		w->low = bracket_low(&b);
		w->high = bracket_high(&b);
		open_era(w, since, true);
		return;
	}
	w->low = MAX(w->low, bracket_low(&b));
	w->high = MIN(w->high, bracket_high(&b));
	offset = (int64_t)wall_offset(&w->map);
	if (offset < w->low || offset > w->high)
		open_era(w, since, false);
}

/* A timer of the wall clock that never ends, but is cancelled when that is set. */
static int watch_steps(void)
{
	struct itimerspec never = {.it_value.tv_sec = FOREVER};
	int fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	int r;

	if (fd < 0)
		return -errno;
	if (timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL) == 0)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

int wallclock_new(void (*read)(void *ctx, struct clock_bracket *ret), void *ctx,
		  struct wallclock **ret, struct err *err)
{
	struct wallclock *w = calloc(1, sizeof(*w));

	if (!w)
		return err_set(err, -ENOMEM, "out of memory");
	w->read = read ? read : read_machine;
	w->ctx = ctx;
	w->fd = watch_steps();
	if (w->fd < 0) {
		int r = err_sys(err, w->fd, "cannot watch the wall clock");

		free(w);
		return r;
	}
	pthread_mutex_init(&w->lock, NULL);
	look(w);
	*ret = w;
	return 0;
}

struct wallclock *wallclock_free(struct wallclock *w)
{
	if (!w)
		return NULL;
	close(w->fd);
	pthread_mutex_destroy(&w->lock);
	free(w);
	return NULL;
}

int wallclock_fd(const struct wallclock *w)
{
	return w->fd;
}

void wallclock_look(struct wallclock *w, struct wall_map *ret)
{
	/* Read under the lock: a stamp of before the look is of before all later eras, too. */
	pthread_mutex_lock(&w->lock);
	look(w);
	if (ret)
		*ret = w->map;
	pthread_mutex_unlock(&w->lock);
}

nsec_t wallclock_error(struct wallclock *w)
{
	nsec_t error;

	pthread_mutex_lock(&w->lock);
	error = (nsec_t)(w->high - w->low + 1) / 2;
	pthread_mutex_unlock(&w->lock);
	return error;
}

unsigned int wallclock_steps(struct wallclock *w, int64_t *ret_sum)
{
	unsigned int steps;

	pthread_mutex_lock(&w->lock);
	steps = w->steps;
	*ret_sum = w->sum;
	w->steps = 0;
	w->sum = 0;
	pthread_mutex_unlock(&w->lock);
	return steps;
}
