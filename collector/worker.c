/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every worker watches the one listening socket with EPOLLEXCLUSIVE, so that the kernel
 * wakes one for a connection, and keeps what it accepts until the end.
 *
 * One rule keeps the loop simple: events, passed deadlines and news only put a session on the
 * run list; sessions are run, and freed, in one place. Deadlines are found by looking at every
 * session, but only when the earliest known one has come.
 *
 * worker_stop() sets a flag and writes to wake_fd. So do those who have news for sessions here:
 * other workers when they supersede or evict one, the committer, who changes the credentials. All
 * else belongs to the thread.
 */
#include "worker.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "log.h"
#include "util.h"

#define EVENTS_MAX     64
#define ACCEPT_BURST   16 /* connections in a row, then sessions have their turn */
#define ACCEPT_BACKOFF (100 * NSEC_PER_MSEC)
#define NEVER          UINT64_MAX

struct connection {
	struct connection *prev, *next;
	struct connection *next_run;
	bool queued, hangup;
	struct session *session;
	struct guest guest; /* until the session is introduced */
	uint32_t events;    /* that epoll watches for */
};

struct worker {
	pthread_t thread;
	struct session_env *env;
	struct listener *listener;
	struct session_scratch scratch; /* has wake_fd */
	int epoll_fd;
	int done_fd; /* eventfd, readable when the thread has come to its end */
	atomic_bool stop;
	bool stopping;
	bool joined; /* the owner's */

	struct connection *connections, *run_list;
	nsec_t deadline; /* no session has an earlier one */
	bool listening;
	nsec_t listen_at; /* when !listening: try again then */
};

static int watch(struct worker *w, int op, int fd, uint32_t events, void *ptr)
{
	struct epoll_event ev = {.events = events, .data.ptr = ptr};

	return epoll_ctl(w->epoll_fd, op, fd, &ev) < 0 ? -errno : 0;
}

static void listen_on(struct worker *w)
{
	w->listening = watch(w, EPOLL_CTL_ADD, w->listener->fd, EPOLLIN | EPOLLEXCLUSIVE,
			     w->listener) == 0;
	w->listen_at = w->listening ? NEVER : clock_monotonic() + ACCEPT_BACKOFF;
}

/* EPOLLEXCLUSIVE does not go with EPOLL_CTL_MOD. */
static void listen_off(struct worker *w, nsec_t again_at)
{
	if (w->listening)
		watch(w, EPOLL_CTL_DEL, w->listener->fd, 0, NULL);
	w->listening = false;
	w->listen_at = again_at;
}

static void enqueue(struct worker *w, struct connection *c)
{
	if (c->queued)
		return;
	c->queued = true;
	c->next_run = w->run_list;
	w->run_list = c;
}

static void drop(struct worker *w, struct connection *c)
{
	if (c->prev)
		c->prev->next = c->next;
	else
		w->connections = c->next;
	if (c->next)
		c->next->prev = c->prev;
	/* Closing the socket takes it out of epoll. */
	session_free(c->session);
	listener_leave(w->listener, &c->guest);
	free(c);
}

/* Is its place given to another? */
static bool is_evicted(const struct connection *c)
{
	return atomic_load(&c->guest.evicted) && !session_is_introduced(c->session);
}

static void run(struct worker *w, struct connection *c, nsec_t now)
{
	enum session_next next = SESSION_OVER;
	uint32_t events;

	if (!is_evicted(c))
		next = session_run(c->session, now, c->hangup);
	if (next == SESSION_OVER) {
		drop(w, c);
		return;
	}
	if (session_is_introduced(c->session))
		listener_leave(w->listener, &c->guest);
	c->hangup = false;
	if (next == SESSION_AGAIN)
		enqueue(w, c);
	w->deadline = MIN(w->deadline, session_deadline(c->session));
	events = session_events(c->session);
	if (events != c->events) {
		watch(w, EPOLL_CTL_MOD, session_fd(c->session), events, c);
		c->events = events;
	}
}

static void run_all(struct worker *w, nsec_t now)
{
	struct connection *list = w->run_list;

	w->run_list = NULL;
	while (list) {
		struct connection *c = list;

		list = c->next_run;
		c->queued = false;
		run(w, c, now);
	}
}

static void adopt(struct worker *w, struct connection *c, int fd, const char *peer, nsec_t now)
{
	struct err err;
	int r = session_new(w->env, &w->scratch, fd, peer, now, &c->session, &err);

	if (r < 0) {
		noise_warn(w->env->noise, "peer %s is refused: %s", peer, err.text);
		listener_leave(w->listener, &c->guest);
		free(c);
		return;
	}
	c->next = w->connections;
	if (c->next)
		c->next->prev = c;
	w->connections = c;
	r = watch(w, EPOLL_CTL_ADD, fd, 0, c);
	if (r < 0) {
		noise_warn(w->env->noise, "peer %s is refused: epoll has no room", peer);
		drop(w, c);
		return;
	}
	enqueue(w, c);
}

static void accept_burst(struct worker *w, nsec_t now)
{
	char peer[NET_ADDR_TEXT];

	for (int i = 0; i < ACCEPT_BURST; i++) {
		struct connection *c = calloc(1, sizeof(*c));
		int fd = c ? listener_accept(w->listener, &c->guest, w->scratch.wake_fd, now, peer)
			   : -ENOMEM;

		if (fd >= 0) {
			adopt(w, c, fd, peer, now);
			continue;
		}
		free(c);
		if (fd == -EAGAIN)
			return;
		if (fd != -EBUSY) {
			listen_off(w, now + ACCEPT_BACKOFF);
			return;
		}
	}
}

static void woken(struct worker *w)
{
	event_clear(w->scratch.wake_fd);
	for (struct connection *c = w->connections; c; c = c->next)
		if (is_evicted(c) || session_has_news(c->session))
			enqueue(w, c);
}

static void begin_stop(struct worker *w, nsec_t now)
{
	w->stopping = true;
	listen_off(w, NEVER);
	for (struct connection *c = w->connections; c; c = c->next) {
		session_stop(c->session, now);
		enqueue(w, c);
	}
}

static void check_deadlines(struct worker *w, nsec_t now)
{
	if (now >= w->listen_at)
		listen_on(w);
	if (now < w->deadline)
		return;
	w->deadline = NEVER;
	for (struct connection *c = w->connections; c; c = c->next) {
		nsec_t deadline = session_deadline(c->session);

		if (deadline <= now)
			enqueue(w, c);
		else
			w->deadline = MIN(w->deadline, deadline);
	}
}

/* In milliseconds, rounded up; -1 for ever. */
static int timeout(const struct worker *w)
{
	nsec_t until = MIN(w->deadline, w->listen_at), now;

	if (w->run_list)
		return 0;
	if (until == NEVER)
		return -1;
	now = clock_monotonic();
	if (until <= now)
		return 0;
	return (int)MIN((until - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC, 60000u);
}

static void loop_once(struct worker *w)
{
	struct epoll_event events[EVENTS_MAX];
	int n = epoll_wait(w->epoll_fd, events, EVENTS_MAX, timeout(w));
	nsec_t now = clock_monotonic();

	for (int i = 0; i < n; i++) {
		void *ptr = events[i].data.ptr;

		if (ptr == w) {
			woken(w);
		} else if (ptr == w->listener) {
			accept_burst(w, now);
		} else {
			struct connection *c = ptr;

			c->hangup |= events[i].events & (EPOLLHUP | EPOLLERR);
			enqueue(w, c);
		}
	}
	if (atomic_load(&w->stop) && !w->stopping)
		begin_stop(w, now);
	check_deadlines(w, now);
	run_all(w, now);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	listen_on(w);
	while (!w->stopping || w->connections)
		loop_once(w);
	event_signal(w->done_fd);
	return NULL;
}

static void release(struct worker *w)
{
	gzip_free(w->scratch.gzip);
	free(w->scratch.raw);
	if (w->scratch.wake_fd >= 0)
		close(w->scratch.wake_fd);
	if (w->epoll_fd >= 0)
		close(w->epoll_fd);
	if (w->done_fd >= 0)
		close(w->done_fd);
	free(w);
}

int worker_new(struct session_env *env, struct listener *listener, unsigned int index,
	       struct worker **ret, struct err *err)
{
	struct worker *w = calloc(1, sizeof(*w));
	char name[16];
	int r;

	if (!w)
		return err_set(err, -ENOMEM, "out of memory");
	w->env = env;
	w->listener = listener;
	w->deadline = NEVER;
	w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	w->scratch.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	w->done_fd = eventfd(0, EFD_CLOEXEC);
	if (w->epoll_fd < 0 || w->scratch.wake_fd < 0 || w->done_fd < 0) {
		r = -errno;
		goto out;
	}
	w->scratch.gzip = gzip_new();
	w->scratch.raw = malloc(STREAM_RAW_MAX);
	r = w->scratch.gzip && w->scratch.raw ? 0 : -ENOMEM;
	if (r == 0)
		r = watch(w, EPOLL_CTL_ADD, w->scratch.wake_fd, EPOLLIN, w);
	if (r == 0)
		r = -pthread_create(&w->thread, NULL, worker_main, w);
	if (r == 0) {
		snprintf(name, sizeof(name), "worker-%u", index);
		pthread_setname_np(w->thread, name);
	}
out:
	if (r < 0) {
		release(w);
		return err_sys(err, r, "cannot start a worker");
	}
	*ret = w;
	return 0;
}

void worker_wake(struct worker *w)
{
	event_signal(w->scratch.wake_fd);
}

void worker_stop(struct worker *w)
{
	atomic_store(&w->stop, true);
	worker_wake(w);
}

bool worker_wait(struct worker *w, nsec_t deadline)
{
	struct pollfd done = {.fd = w->done_fd, .events = POLLIN};

	for (;;) {
		nsec_t now = clock_monotonic();
		int ms = now < deadline ? (int)((deadline - now) / NSEC_PER_MSEC) + 1 : 0;
		int n = poll(&done, 1, ms);

		if (n > 0)
			return true;
		if (n == 0 && !ms)
			return false;
	}
}

void worker_join(struct worker *w)
{
	if (!w->joined)
		pthread_join(w->thread, NULL);
	w->joined = true;
}

struct worker *worker_free(struct worker *w)
{
	if (!w)
		return NULL;
	worker_join(w);
	release(w);
	return NULL;
}
