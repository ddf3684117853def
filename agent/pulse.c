// SPDX-License-Identifier: Apache-2.0
#include "pulse.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>

#include "util.h"

#define BEAT_EVERY_MS 1000

struct pulse {
	const struct capture_ops *ops;
	struct capture *capture;
	pthread_t thread;
	int stop_fd; /* eventfd */
	bool started;

	pthread_mutex_t lock;
	nsec_t last, missed_since; /* CLOCK_REALTIME; 0: nothing was missed */
};

static void beat_locked(struct pulse *p)
{
	nsec_t now = clock_realtime();

	if (!p->ops->beat(p->capture) && !p->missed_since)
		p->missed_since = p->last;
	p->last = now;
}

static void *run(void *arg)
{
	struct pulse *p = arg;
	struct pollfd stop = {.fd = p->stop_fd, .events = POLLIN};

	while (poll(&stop, 1, BEAT_EVERY_MS) <= 0) {
		pthread_mutex_lock(&p->lock);
		beat_locked(p);
		pthread_mutex_unlock(&p->lock);
	}
	return NULL;
}

int pulse_new(const struct capture_ops *ops, struct capture *capture, struct pulse **ret,
	      struct err *err)
{
	struct pulse *p = calloc(1, sizeof(*p));
	int e;

	if (!p)
		return err_set(err, -ENOMEM, "out of memory");
	p->ops = ops;
	p->capture = capture;
	/* The one before may be from before a long start, in which no hook was there. */
	ops->beat(capture);
	p->last = clock_realtime();
	pthread_mutex_init(&p->lock, NULL);
	p->stop_fd = eventfd(0, EFD_CLOEXEC);
	e = p->stop_fd < 0 ? errno : pthread_create(&p->thread, NULL, run, p);
	p->started = !e;
	if (e) {
		pulse_free(p);
		return err_sys(err, -e, "cannot start the thread that shows the hooks it is alive");
	}
	*ret = p;
	return 0;
}

struct pulse *pulse_free(struct pulse *p)
{
	if (!p)
		return NULL;
	if (p->started) {
		event_signal(p->stop_fd);
		pthread_join(p->thread, NULL);
	}
	if (p->stop_fd >= 0)
		close(p->stop_fd);
	pthread_mutex_destroy(&p->lock);
	free(p);
	return NULL;
}

bool pulse_missed(struct pulse *p, nsec_t *ret_since)
{
	bool missed;

	pthread_mutex_lock(&p->lock);
	/* After a gap nobody knows which thread is the first to run. */
	beat_locked(p);
	missed = p->missed_since != 0;
	*ret_since = p->missed_since;
	p->missed_since = 0;
	pthread_mutex_unlock(&p->lock);
	return missed;
}
