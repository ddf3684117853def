/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The uplink thread: one connection after another, each a session of
 * uplink_session.c, with a back-off between them; until a stop, and then until all is
 * acknowledged or the time has run out.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/random.h>

#include "log.h"
#include "net.h"
#include "uplink_internal.h"
#include "util.h"

#define CONNECT_TIMEOUT_MS 5000
#define BACKOFF_STOP_MS    1000u /* while stopping: there is no other time to wait for */
#define BACKOFF_RESET      (30 * NSEC_PER_SEC) /* a session this long starts it anew */
#define REPEAT_LOG         (60 * NSEC_PER_SEC)

int uplink_new(const struct uplink_config *config, struct uplink **ret, struct err *err)
{
	struct uplink *u = calloc(1, sizeof(*u));

	if (!u)
		return err_set(err, -ENOMEM, "out of memory");
	u->config = *config;
	u->fd = -1;
	u->backoff_ms = UPLINK_BACKOFF_MIN_MS;
	u->in = malloc(UPLINK_RECEIVE_BUFFER);
	u->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!u->in || u->stop_fd < 0) {
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
	buf_free(&u->control);
	free(u->in);
	free(u);
	return NULL;
}

static bool overdue(const struct uplink *u)
{
	return atomic_load(&u->stopping) && clock_monotonic() >= atomic_load(&u->stop_deadline);
}

static void tell_capture(void *ctx, int fd)
{
	struct uplink *u = ctx;
	struct err err;

	if (u->config.ops && u->config.ops->own_socket(u->config.capture, fd, &err) < 0)
		log_warn("the agent's own stream may be captured: %s", err.text);
}

static int connect_timeout_ms(const struct uplink *u)
{
	nsec_t now = clock_monotonic(), deadline = atomic_load(&u->stop_deadline);

	if (!atomic_load(&u->stopping) || deadline > now + CONNECT_TIMEOUT_MS * NSEC_PER_MSEC)
		return CONNECT_TIMEOUT_MS;
	return deadline > now ? (int)((deadline - now) / NSEC_PER_MSEC) + 1 : 1;
}

static int session(struct uplink *u, struct err *err)
{
	int r;

	u->in_len = u->control_at = 0;
	buf_reset(&u->control);
	u->sending.size = 0;
	u->bye_sent = u->bye_heard = false;
	u->fd = net_connect(u->config.host, u->config.port, connect_timeout_ms(u),
			    atomic_load(&u->stopping) ? -1 : u->stop_fd, tell_capture, u, err);
	if (u->fd < 0)
		return u->fd;
	r = tls_new(u->config.tls, u->fd, u->config.server_name, &u->tls, err);
	if (r == 0)
		r = uplink_introduce(u, err);
	if (r == 0) {
		char peer[NET_ADDR_TEXT];

		net_peer_name(u->fd, peer);
		log_info("connected to the collector \"%s\" (%s)%s", u->config.host, peer,
			 u->failures ? " again" : "");
		u->failures = 0;
		u->last_error[0] = '\0';
		r = uplink_converse(u, err);
	}
	u->tls = tls_free(u->tls);
	close(u->fd);
	u->fd = -1;
	return r;
}

/* The same trouble is told once, then once a minute. */
static void log_failure(struct uplink *u, const struct err *err)
{
	nsec_t now = clock_monotonic();

	u->failures++;
	if (strcmp(u->last_error, err->text) == 0 && now - u->last_logged < REPEAT_LOG)
		return;
	snprintf(u->last_error, sizeof(u->last_error), "%s", err->text);
	u->last_logged = now;
	log_warn("no connection to the collector \"%s\" port %u: %s; trying again", u->config.host,
		 u->config.port, err->text);
}

/* Full jitter: anything from nothing to the current back-off, so that agents spread. */
static nsec_t next_delay(struct uplink *u)
{
	uint32_t random = 0, ms;

	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
		random = (uint32_t)clock_monotonic();
	ms = UPLINK_BACKOFF_MIN_MS / 2 + random % u->backoff_ms;
	u->backoff_ms = MIN(2 * u->backoff_ms, UPLINK_BACKOFF_MAX_MS);
	if (atomic_load(&u->stopping))
		ms = MIN(ms, BACKOFF_STOP_MS);
	ms = MAX(ms, u->retry_after_ms);
	u->retry_after_ms = 0;
	return (nsec_t)ms * NSEC_PER_MSEC;
}

static void *run(void *arg)
{
	struct uplink *u = arg;

	while (!overdue(u)) {
		nsec_t began = clock_monotonic();
		struct err err = {}, ignored;
		int r = session(u, &err);

		if (r == 0) {
			u->drained = true;
			break;
		}
		if (r == -ECANCELED)
			continue;
		log_failure(u, &err);
		if (clock_monotonic() - began > BACKOFF_RESET)
			u->backoff_ms = UPLINK_BACKOFF_MIN_MS;
		if (atomic_load(&u->stopping) && !queue_bytes(u->config.queue))
			break;
		uplink_wait(u, 0, false, next_delay(u), &ignored);
	}
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

bool uplink_stop(struct uplink *u, nsec_t timeout)
{
	if (!u || !u->started)
		return true;
	atomic_store(&u->stop_deadline, clock_monotonic() + timeout);
	atomic_store(&u->stopping, true);
	event_signal(u->stop_fd);
	pthread_join(u->thread, NULL);
	u->started = false;
	return u->drained;
}
