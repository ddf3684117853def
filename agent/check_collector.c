/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each collector as the uplink would meet it: its name, TCP, TLS with both sides verified. No
 * session is opened: after the handshake we say goodbye and hear whether the collector had
 * anything against us, for in TLS 1.3 a client is done before it has been judged.
 *
 * Some threads work through the list, for a network that swallows packets costs seconds. A timer
 * ends them all: a list of dead collectors must not take minutes.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/timerfd.h>

#include "check_internal.h"
#include "net.h"
#include "net_resolve.h"
#include "stream.h"
#include "util.h"

#define STEP_TIMEOUT  (3 * NSEC_PER_SEC) /* a name, an address, a handshake */
#define TOTAL_SECONDS 12
#define THREADS       8u    /* at work; names have at most 16 look-ups at a time */
#define ANSWER_MAX    4096u /* an ERROR is shorter */

enum step { STEP_NAME, STEP_TCP, STEP_TLS, STEP_DONE };

struct trial {
	enum step step; /* the one that failed */
	int r;
	struct err err;
	char peer[NET_ADDR_TEXT];
};

struct trials {
	const struct config *config;
	struct tls_context *tls;
	int stop_fd; /* timerfd */
	struct trial *v;
	atomic_size_t next;
};

/* What it said after our goodbye: nothing, or why it would not have us. */
static int hear(struct tls *tls, int fd, int stop_fd, struct err *err)
{
	nsec_t deadline = clock_monotonic() + STEP_TIMEOUT;
	uint8_t answer[ANSWER_MAX];
	struct stream_header header;
	struct stream_error e;
	size_t len = 0;

	while (len < sizeof(answer)) {
		ssize_t n = tls_recv(tls, answer + len, sizeof(answer) - len, err);
		int r = 0;

		if (n == 0)
			break;
		if (n == -EAGAIN && !tls_pending(tls))
			r = net_wait(fd, tls_events(tls), deadline, stop_fd);
		if (r < 0)
			return err_set(err, r, "the collector does not answer after the handshake");
		if (n < 0 && n != -EAGAIN)
			return (int)n;
		len += (size_t)MAX(n, 0);
	}
	if (len < STREAM_HEADER_SIZE || stream_header_decode(answer, &header, NULL) < 0 ||
	    header.type != STREAM_ERROR || len - STREAM_HEADER_SIZE < header.payload_len ||
	    stream_error_decode(answer + STREAM_HEADER_SIZE, header.payload_len, &e, NULL) < 0 ||
	    e.code != STREAM_E_AUTH)
		return 0;
	return err_set(err, -EACCES, "the collector says: %s", e.text);
}

static int shake_hands(const struct trials *all, const char *host, int fd, struct err *err)
{
	const char *name = all->config->tls_server_name ? all->config->tls_server_name : host;
	nsec_t deadline = clock_monotonic() + STEP_TIMEOUT;
	struct tls *tls = NULL;
	int r = tls_new(all->tls, fd, name, &tls, err);

	while (r == 0) {
		r = tls_handshake(tls, err);
		if (r != -EAGAIN)
			break;
		r = net_wait(fd, tls_events(tls), deadline, all->stop_fd);
		if (r < 0)
			err_set(err, r, "it takes connections, but there is no TLS handshake");
	}
	if (r > 0) {
		tls_goodbye(tls);
		r = hear(tls, fd, all->stop_fd, err);
	}
	tls_free(tls);
	return r;
}

static void try_one(const struct trials *all, const struct yaml_server *server, struct trial *t)
{
	_cleanup_close_ int fd = -1;
	struct addrinfo *list = NULL;

	t->step = STEP_NAME;
	t->r = net_resolve(server->host, clock_monotonic() + STEP_TIMEOUT, all->stop_fd, &list,
			   &t->err);
	if (t->r < 0)
		return;
	freeaddrinfo(list);
	t->step = STEP_TCP;
	fd = net_connect(server->host, server->port, (int)(STEP_TIMEOUT / NSEC_PER_MSEC),
			 all->stop_fd, NULL, NULL, &t->err);
	if (fd < 0) {
		t->r = fd;
		return;
	}
	net_peer_name(fd, t->peer);
	t->step = STEP_TLS;
	if (all->tls && all->config->tls_enable)
		t->r = shake_hands(all, server->host, fd, &t->err);
	if (t->r == 0)
		t->step = STEP_DONE;
}

static void *work(void *arg)
{
	struct trials *all = arg;
	size_t i;

	while ((i = atomic_fetch_add(&all->next, 1)) < all->config->servers.n)
		try_one(all, &all->config->servers.v[i], &all->v[i]);
	return NULL;
}

static const char *hint(const struct trial *t)
{
	if (t->step == STEP_NAME)
		return "mend the name in output.server or output.servers, or the resolver "
		       "(/etc/hosts, /etc/resolv.conf)";
	switch (t->r) {
	case -ECONNREFUSED:
		return "nobody listens there: start ps-collector, or mend address and port (and "
		       "its input.address)";
	case -ETIMEDOUT:
	case -ECANCELED:
		return t->step == STEP_TCP ? "a firewall on the way drops the packets, or there is "
					     "no such host"
					   : "is it a ps-collector that listens there?";
	case -ENETUNREACH:
	case -EHOSTUNREACH:
		return "there is no route to it: see `ip route get`";
	case -EKEYEXPIRED:
		return "renew the certificate of the collector; or this host's clock is wrong";
	case -EKEYREJECTED:
		return "tls.cafile must have the authority that signed the collector's "
		       "certificate, and the certificate the name in output.server or "
		       "tls.serverName";
	case -EACCES:
		return "the log of the collector says more; tls and auth must be the same on both "
		       "sides";
	case -EPROTO:
		return "tls and auth must be the same on both sides, and a ps-collector must "
		       "listen there";
	default:
		return "see the log of the collector, if it is one that listens there";
	}
}

static void report(struct check *c, const struct trials *all, size_t i, bool others)
{
	const struct yaml_server *server = &c->config->servers.v[i];
	const struct trial *t = &all->v[i];
	bool ipv6 = strchr(server->host, ':');
	char subject[300];

	snprintf(subject, sizeof(subject), "%s%s%s:%u", ipv6 ? "[" : "", server->host,
		 ipv6 ? "]" : "", server->port);
	if (t->step == STEP_DONE && !c->tls)
		check_row(c, CHECK_WARN, "collector", subject, "see the row tls",
			  "takes connections at %s; who it is cannot be verified", t->peer);
	else if (t->step == STEP_DONE)
		check_row(c, CHECK_OK, "collector", subject, NULL, "%s at %s",
			  c->config->tls_enable ? "verified, and takes us in,"
						: "takes connections, in plain text,",
			  t->peer);
	else
		/* With others to go to, one that is away now is no reason not to start. */
		check_row(c, others && t->step < STEP_TLS ? CHECK_WARN : CHECK_FAILED, "collector",
			  subject, hint(t), "%s", t->err.text);
}

static int run_trials(struct trials *all, struct err *err)
{
	struct itimerspec end = {.it_value.tv_sec = TOTAL_SECONDS};
	size_t n = MIN(THREADS, all->config->servers.n);
	pthread_t threads[THREADS];
	int e = 0;

	all->stop_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (all->stop_fd < 0 || timerfd_settime(all->stop_fd, 0, &end, NULL) < 0)
		return err_sys(err, -errno, "cannot set a timer");
	for (size_t i = 0; i < n; i++) {
		e = pthread_create(&threads[i], NULL, work, all);
		if (e)
			n = i;
	}
	for (size_t i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	return n ? 0 : err_sys(err, -e, "cannot start a thread");
}

void check_collectors(struct check *c)
{
	size_t n = c->config->servers.n;
	struct trials all = {.config = c->config, .tls = c->tls, .stop_fd = -1};
	bool others = false;
	struct err err;
	int r;

	if (!n)
		return;
	all.v = calloc(n, sizeof(*all.v));
	r = all.v ? run_trials(&all, &err) : err_set(&err, -ENOMEM, "out of memory");
	if (r < 0)
		check_row(c, CHECK_FAILED, "collector", NULL, NULL, "%s", err.text);
	for (size_t i = 0; r == 0 && i < n; i++)
		others |= all.v[i].step == STEP_DONE;
	for (size_t i = 0; r == 0 && i < n; i++)
		report(c, &all, i, others);
	if (all.stop_fd >= 0)
		close(all.stop_fd);
	free(all.v);
}
