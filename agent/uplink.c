/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The uplink thread: one connection after another, until a stop, and then until all is
 * acknowledged or the time has run out. Here it is decided what the next session carries (an
 * epoch of an earlier run, oldest first, else the live one), with which server it is, and how
 * long to wait before.
 *
 * Rounds: a server that cannot be used leads to the next one at once; only when all had their
 * turn comes a pause. Agents must not move as one: every wait has a random part.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/timerfd.h>

#include "log.h"
#include "net.h"
#include "uplink_internal.h"
#include "util.h"

#define BACKOFF_STOP_MS 1000u               /* while stopping: there is no other time to wait for */
#define BACKOFF_RESET   (30 * NSEC_PER_SEC) /* a session this long starts it anew */
#define REPEAT_LOG      (60 * NSEC_PER_SEC)
/* A session that was shorter counts as a server that cannot be used. */
#define SESSION_SHORT (5 * NSEC_PER_SEC)
/* Others lost their connection in the same instant. */
#define LOST_SPREAD  (200 * NSEC_PER_MSEC)
#define DRAIN_SPREAD NSEC_PER_SEC
/* An epoch that is refused so often lets the live one pass. */
#define OLD_REFUSED_MAX 3

int uplink_new(const struct uplink_config *config, struct uplink **ret, struct err *err)
{
	struct uplink *u = calloc(1, sizeof(*u));

	if (!u)
		return err_set(err, -ENOMEM, "out of memory");
	u->config = *config;
	u->fd = -1;
	u->backoff_ms = UPLINK_BACKOFF_MIN_MS;
	u->probe_interval = UPLINK_PROBE_EVERY;
	u->in = malloc(UPLINK_RECEIVE_BUFFER);
	u->known = calloc(config->servers->n, sizeof(*u->known));
	u->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	u->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	u->late_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (servers_init(&u->servers, config->servers, config->agent_id) < 0 || !u->in ||
	    !u->known || u->stop_fd < 0 || u->wake_fd < 0 || u->late_fd < 0) {
		uplink_free(u);
		return err_set(err, -ENOMEM, "out of memory for the uplink");
	}
	*ret = u;
	return 0;
}

struct uplink *uplink_free(struct uplink *u)
{
	if (!u)
		return NULL;
	if (u->stop_fd >= 0)
		close(u->stop_fd);
	if (u->wake_fd >= 0)
		close(u->wake_fd);
	if (u->late_fd >= 0)
		close(u->late_fd);
	servers_done(&u->servers);
	buf_free(&u->control);
	buf_free(&u->wire);
	free(u->known);
	free(u->in);
	free(u);
	return NULL;
}

uint64_t uplink_random(uint64_t limit)
{
	uint64_t random = 0;

	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
		random = clock_monotonic();
	return random % limit;
}

void uplink_pace(struct uplink *u, uint64_t bits_per_s)
{
	atomic_store(&u->budget, bits_per_s);
	event_signal(u->wake_fd);
}

static bool overdue(const struct uplink *u)
{
	return atomic_load(&u->stopping) && clock_monotonic() >= atomic_load(&u->stop_deadline);
}

static struct uplink_server *known(struct uplink *u)
{
	return &u->known[u->servers.current];
}

/* What the next session carries. False: nothing more, in the time that is left. */
static bool choose_backlog(struct uplink *u)
{
	bool refused = u->old_refused >= OLD_REFUSED_MAX;

	u->backlog = u->config.live;
	u->old_refused = refused ? 0 : u->old_refused;
	if (!u->config.spool || refused)
		return true;
	if (!u->old) {
		u->old_epoch = spool_oldest(u->config.spool);
		if (!u->old_epoch)
			return true;
		u->old = backlog_recovered(u->config.spool, u->old_epoch);
		if (!u->old) {
			log_error("out of memory for an epoch of an earlier run: it has to wait");
			return true;
		}
		u->old_first = backlog_first_seq(u->old);
		u->old_gap_seq = u->old_lost_messages = u->old_lost_packets = 0;
	}
	u->backlog = u->old;
	return !atomic_load(&u->stopping);
}

static void old_is_over(struct uplink *u)
{
	uint64_t messages = backlog_next_seq(u->old) - u->old_first;

	if (u->old_lost_messages)
		log_info("epoch %llu of an earlier run is delivered: %llu messages; %llu more with "
			 "%llu packets were lost in the spool",
			 (unsigned long long)u->session.epoch,
			 (unsigned long long)(messages - u->old_lost_messages),
			 (unsigned long long)u->old_lost_messages,
			 (unsigned long long)u->old_lost_packets);
	else
		log_info("epoch %llu of an earlier run is delivered: %llu messages",
			 (unsigned long long)u->session.epoch, (unsigned long long)messages);
	u->old = backlog_free(u->old);
	spool_remove(u->config.spool, u->old_epoch);
	u->old_epoch = NULL;
	u->old_refused = 0;
}

static void connected(struct uplink *u)
{
	const struct yaml_server *server = servers_current(&u->servers), *last = u->last;
	char peer[NET_ADDR_TEXT], instead[300] = "";

	net_peer_name(u->fd, peer);
	if (last && last != server)
		snprintf(instead, sizeof(instead), ", %s \"%s\" port %u",
			 servers_preferred(&u->servers) ? "back from" : "instead of", last->host,
			 last->port);
	log_info("connected to the collector \"%s\" (%s)%s%s", server->host, peer,
		 u->failures ? " again" : "", instead);
	if (servers_preferred(&u->servers))
		u->probe_interval = UPLINK_PROBE_EVERY;
	else if (last != server)
		u->probe_at = uplink_next_probe(u);
	u->last = server;
	u->returning = false;
	u->failures = 0;
	known(u)->last_error[0] = '\0';
}

static int session(struct uplink *u, struct err *err)
{
	int r = uplink_connect(u, err);

	if (r == 0) {
		connected(u);
		backlog_connected(u->config.live, u->backlog == u->config.live);
		r = uplink_converse(u, err);
		backlog_connected(u->config.live, false);
	}
	u->probe = probe_free(u->probe);
	uplink_disconnect(u);
	return r;
}

/* The same trouble is told once, then once a minute. */
static void log_failure(struct uplink *u, const struct err *err)
{
	const struct yaml_server *server = servers_current(&u->servers);
	struct uplink_server *k = known(u);
	nsec_t now = clock_monotonic();

	u->failures++;
	if (strcmp(k->last_error, err->text) == 0 && now - k->last_logged < REPEAT_LOG)
		return;
	snprintf(k->last_error, sizeof(k->last_error), "%s", err->text);
	k->last_logged = now;
	log_warn("no connection to the collector \"%s\" port %u: %s; trying again", server->host,
		 server->port, err->text);
}

static void take_note(struct uplink *u, int r, const struct err *err)
{
	const struct uplink_session *s = &u->session;

	log_failure(u, err);
	if (s->retry_after_ms)
		known(u)->not_before =
			clock_monotonic() + s->retry_after_ms * NSEC_PER_MSEC +
			uplink_random(s->retry_after_ms * NSEC_PER_MSEC / 2 + NSEC_PER_SEC);
	if (u->backlog == u->old && (s->refused || r == -EPROTO || r == -EMSGSIZE))
		u->old_refused++;
	if (u->returning && servers_preferred(&u->servers)) {
		u->probe_interval = MIN(2 * u->probe_interval, UPLINK_PROBE_MOST);
		u->probe_at = uplink_next_probe(u);
	}
	u->returning = false;
}

/*
 * All had their turn. Full jitter: anything from nothing to the current back-off, but not
 * before the first of them wants to be asked again.
 */
static nsec_t pause_before_round(struct uplink *u)
{
	nsec_t now = clock_monotonic(), earliest = UINT64_MAX;
	uint32_t ms = UPLINK_BACKOFF_MIN_MS / 2 + (uint32_t)uplink_random(u->backoff_ms);

	u->backoff_ms = MIN(2 * u->backoff_ms, UPLINK_BACKOFF_MAX_MS);
	if (atomic_load(&u->stopping))
		ms = MIN(ms, BACKOFF_STOP_MS);
	for (size_t i = 0; i < u->servers.n; i++)
		earliest = MIN(earliest, u->known[i].not_before);
	return MAX(ms * NSEC_PER_MSEC, earliest - MIN(earliest, now));
}

/* On to the next server that may be asked. Returns how long to wait before. */
static nsec_t next_server(struct uplink *u)
{
	nsec_t now = clock_monotonic();

	do {
		if (servers_next(&u->servers))
			return pause_before_round(u);
	} while (known(u)->not_before > now);
	return 0;
}

/* A session failed with @r. Which server is next, and after what time? */
static nsec_t after_failure(struct uplink *u, int r)
{
	nsec_t now = clock_monotonic(), lasted = u->session.since ? now - u->session.since : 0;
	nsec_t delay;

	if (lasted > BACKOFF_RESET)
		u->backoff_ms = UPLINK_BACKOFF_MIN_MS;
	if (r == -ESHUTDOWN && lasted > SESSION_SHORT) {
		servers_first(&u->servers);
		return uplink_random(DRAIN_SPREAD);
	}
	/* One that went well for a while may do so again, the preferred one first. */
	if (lasted > SESSION_SHORT) {
		servers_first(&u->servers);
		return uplink_random(LOST_SPREAD);
	}
	delay = next_server(u);
	if (u->session.since)
		delay = MAX(delay, uplink_random(r == -ESHUTDOWN ? DRAIN_SPREAD : LOST_SPREAD));
	return delay;
}

/* At a stop: nothing is lost by going without a goodbye. */
static bool may_end(const struct uplink *u)
{
	return atomic_load(&u->stopping) && backlog_empty(u->config.live);
}

/* One session, or none yet. Returns how long to wait after it; *ret_end: the end of all. */
static nsec_t next_session(struct uplink *u, bool *ret_end)
{
	struct err err = {};
	int r;

	if (known(u)->not_before > clock_monotonic()) {
		*ret_end = may_end(u);
		return *ret_end ? 0 : next_server(u);
	}
	*ret_end = !choose_backlog(u);
	if (*ret_end)
		return 0;
	r = session(u, &err);
	if (r == -ECANCELED)
		return 0;
	if (r < 0 && may_end(u)) {
		*ret_end = true;
		return 0;
	}
	if (r < 0) {
		take_note(u, r, &err);
		return after_failure(u, r);
	}
	if (u->session.leaving)
		servers_first(&u->servers);
	if (r == UPLINK_FINISHED && u->backlog == u->old)
		old_is_over(u);
	else if (r == UPLINK_FINISHED)
		*ret_end = u->told = true;
	return 0;
}

static void *run(void *arg)
{
	struct uplink *u = arg;
	bool end = false;

	while (!end && !overdue(u)) {
		nsec_t delay = next_session(u, &end);
		struct err ignored;

		if (!end && delay)
			uplink_wait(u, 0, false, delay, &ignored);
	}
	/* What is left of it stays in the spool. */
	u->old = backlog_free(u->old);
	return NULL;
}

int uplink_start(struct uplink *u, struct err *err)
{
	int e = pthread_create(&u->thread, NULL, run, u);

	if (e)
		return err_sys(err, -e, "cannot start the uplink thread");
	u->started = true;
	return 0;
}

void uplink_credentials_changed(struct uplink *u)
{
	atomic_store(&u->credentials_changed, true);
	event_signal(u->wake_fd);
}

bool uplink_stop(struct uplink *u, nsec_t timeout)
{
	nsec_t deadline = clock_monotonic() + timeout;
	struct itimerspec late = {.it_value = {.tv_sec = (time_t)(deadline / NSEC_PER_SEC),
					       .tv_nsec = (long)(deadline % NSEC_PER_SEC)}};

	if (!u || !u->started)
		return true;
	timerfd_settime(u->late_fd, TFD_TIMER_ABSTIME, &late, NULL);
	atomic_store(&u->stop_deadline, deadline);
	atomic_store(&u->stopping, true);
	event_signal(u->stop_fd);
	pthread_join(u->thread, NULL);
	u->started = false;
	return backlog_empty(u->config.live) && (u->told || !u->config.spool);
}
