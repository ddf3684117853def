/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Four threads: this one (the loop: signals, interfaces, the second's tick), the
 * reader (rings to queue), with a spool the mover (queue to disk), the uplink (queue and disk
 * to collector). The loop alone touches hooks and interfaces.
 *
 * Stop, in this order: hooks off and quiet, rings drained, last STATS queued, queue
 * sent and acknowledged, what is left put in the spool, ledger printed. After the first step
 * nothing new comes, so every later step sees all there is.
 */
#include "agent.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#include "account.h"
#include "backlog.h"
#include "book.h"
#include "capture.h"
#include "identity.h"
#include "iface.h"
#include "log.h"
#include "notify.h"
#include "output.h"
#include "queue.h"
#include "reader.h"
#include "rtnl.h"
#include "rules.h"
#include "uplink.h"
#include "util.h"

/* Look at the files of the credentials every so many ticks. */
#define CREDENTIALS_TICKS 5

struct agent {
	const struct config *config;
	struct identity identity;
	const struct capture_ops *ops;
	struct capture *capture;
	struct rules *rules;
	struct rtnl *rtnl;
	struct ifaces *ifaces;
	struct book *book;
	struct account account;
	struct spool *spool;     /* NULL: none */
	struct queue *queue;     /* NULL: no collector */
	struct backlog *backlog; /* as queue */
	struct output *output;
	struct tls_store *tls;
	struct reader *reader;
	struct uplink *uplink;
	int epoll_fd, signal_fd, timer_fd;
	bool list_again; /* what is known of the interfaces may be incomplete */
	unsigned int ticks;
	bool stopping;
};

int agent_open_capture(const struct config *config, struct rules **ret_rules, struct capture **ret,
		       struct err *err)
{
	struct capture_config capture = {
		.snaplen = (uint32_t)config->snaplen,
		.ring_bytes = config->ring_bytes,
	};

	*ret_rules = rules_new(config);
	if (!*ret_rules)
		return err_set(err, -ENOMEM, "out of memory for the capture rules");
	capture.port_masks = rules_port_masks(*ret_rules);
	capture.need_ports = capture.port_masks != NULL;
	return capture_ringbuf.open(&capture, ret, err);
}

static int open_capture(struct agent *a, struct err *err)
{
	a->ops = &capture_ringbuf;
	return agent_open_capture(a->config, &a->rules, &a->capture, err);
}

/* The spool knows who we are better than the machine does. */
static int open_spool(struct agent *a, struct err *err)
{
	struct spool_config spool = {
		.path = a->config->spool_path,
		.max_bytes = a->config->spool_max_bytes,
		.max_age = a->config->spool_max_age,
		.min_free = a->config->spool_min_free,
		.segment_bytes = a->config->spool_segment_bytes,
	};
	uint8_t agent_id[16];
	int r;

	if (a->config->spool_mode == SPOOL_OFF)
		return 0;
	memcpy(agent_id, a->identity.agent_id, sizeof(agent_id));
	r = spool_open(&spool, agent_id, &a->spool, err);
	if (r < 0)
		return r;
	identity_set_agent_id(&a->identity, agent_id);
	/* The clock may have been set back since the last run. */
	a->identity.epoch = MAX(a->identity.epoch, spool_newest(a->spool) + 1);
	return 0;
}

static int open_backlog(struct agent *a, struct err *err)
{
	struct backlog_config backlog = {
		.spool = a->spool,
		.mode = (enum spool_mode)a->config->spool_mode,
		.book = a->book,
		.hello = {.epoch = a->identity.epoch, .version = PS_VERSION},
	};
	struct stream_hello *h = &backlog.hello;

	a->queue = queue_new(a->config->queue_bytes);
	if (!a->queue)
		return err_set(err, -ENOMEM, "out of memory for a queue of %llu bytes",
			       (unsigned long long)a->config->queue_bytes);
	backlog.queue = a->queue;
	memcpy(h->agent_id, a->identity.agent_id, sizeof(h->agent_id));
	memcpy(h->boot_id, a->identity.boot_id, sizeof(h->boot_id));
	snprintf(h->agent_name, sizeof(h->agent_name), "%s", a->config->agent_name);
	if (a->spool)
		log_info("frames that wait for a collector are kept in memory up to %llu bytes, "
			 "then in \"%s\" up to %llu bytes",
			 (unsigned long long)a->config->queue_bytes, a->config->spool_path,
			 (unsigned long long)a->config->spool_max_bytes);
	else
		log_info("frames that wait for a collector are kept in memory only, up to %llu "
			 "bytes",
			 (unsigned long long)a->config->queue_bytes);
	return backlog_new(&backlog, &a->backlog, err);
}

static int open_destination(struct agent *a, struct err *err)
{
	struct tls_config tls = config_tls(a->config);
	struct output_config output = {.path = a->config->file_path, .micro = a->config->micro};
	int r = 0;

	a->book = book_new();
	if (!a->book)
		return err_set(err, -ENOMEM, "out of memory");
	if (a->config->file_path)
		r = output_new(&output, &a->output, err);
	if (r < 0 || !a->config->servers.n)
		return r;
	r = tls_store_new(TLS_AGENT, &tls, &a->tls, err);
	if (r == 0)
		r = open_spool(a, err);
	return r < 0 ? r : open_backlog(a, err);
}

static int make_parts(struct agent *a, struct err *err)
{
	struct ifaces_config ifaces = {
		.config = a->config,
		.rules = a->rules,
		.ops = a->ops,
		.capture = a->capture,
		.book = a->book,
		.queue = a->queue,
	};
	struct reader_config reader = {
		.ops = a->ops,
		.capture = a->capture,
		.book = a->book,
		.queue = a->queue,
		.output = a->output,
		.block_bytes = a->config->block_bytes,
		.snaplen = (uint32_t)a->config->snaplen,
		.gather_max_wait = a->config->gather_max_wait,
	};
	struct uplink_config uplink = {
		.servers = &a->config->servers,
		.server_name = a->config->tls_server_name,
		.tls = a->tls,
		.live = a->backlog,
		.spool = a->spool,
		.book = a->book,
		.ops = a->ops,
		.capture = a->capture,
	};
	int r;

	a->account = (struct account){
		.agent = a->config->agent_name,
		.identity = &a->identity,
		.book = a->book,
		.queue = a->queue,
		.has_spool = a->spool != NULL,
		.output = a->output,
	};
	memcpy(uplink.agent_id, a->identity.agent_id, sizeof(uplink.agent_id));
	a->ifaces = ifaces_new(&ifaces);
	if (!a->ifaces)
		return err_set(err, -ENOMEM, "out of memory");
	r = rtnl_new(&a->rtnl, err);
	if (r == 0)
		r = reader_new(&reader, &a->reader, err);
	if (r == 0 && a->backlog)
		r = uplink_new(&uplink, &a->uplink, err);
	return r;
}

/* Before any thread is made, so that none takes them. */
static void block_signals(sigset_t *ret)
{
	sigemptyset(ret);
	sigaddset(ret, SIGTERM);
	sigaddset(ret, SIGINT);
	sigaddset(ret, SIGUSR1);
	sigaddset(ret, SIGHUP);
	sigaddset(ret, SIGPIPE);
	sigaddset(ret, SIGXFSZ);
	sigprocmask(SIG_BLOCK, ret, NULL);
	sigdelset(ret, SIGPIPE);
	sigdelset(ret, SIGXFSZ);
}

static int watch(struct agent *a, int fd, struct err *err)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

	if (epoll_ctl(a->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return err_sys(err, -errno, "cannot set up the event loop");
	return 0;
}

static int make_loop(struct agent *a, const sigset_t *signals, struct err *err)
{
	struct itimerspec second = {.it_interval.tv_sec = 1, .it_value.tv_sec = 1};
	int r;

	a->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	a->signal_fd = signalfd(-1, signals, SFD_CLOEXEC | SFD_NONBLOCK);
	a->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (a->epoll_fd < 0 || a->signal_fd < 0 || a->timer_fd < 0 ||
	    timerfd_settime(a->timer_fd, 0, &second, NULL) < 0)
		return err_sys(err, -errno, "cannot set up the event loop");
	r = watch(a, a->signal_fd, err);
	if (r == 0)
		r = watch(a, a->timer_fd, err);
	if (r == 0)
		r = watch(a, rtnl_fd(a->rtnl), err);
	return r;
}

/* One that fails is tried again with the next tick. */
static void list_interfaces(struct agent *a)
{
	struct err err;
	int r;

	ifaces_list_begin(a->ifaces);
	r = rtnl_list(a->rtnl, ifaces_link, a->ifaces, &err);
	a->list_again = r < 0;
	if (r == 0) {
		ifaces_list_end(a->ifaces);
		return;
	}
	ifaces_settle(a->ifaces);
	/* Interrupted: there were changes meanwhile. That is no trouble. */
	if (r != -EINTR)
		log_error("%s", err.text);
}

static void on_netlink(struct agent *a)
{
	struct err err;
	int r = rtnl_read(a->rtnl, ifaces_link, a->ifaces, &err);

	ifaces_settle(a->ifaces);
	if (r == -ENOBUFS) {
		list_interfaces(a);
	} else if (r < 0) {
		log_error("%s", err.text);
		a->list_again = true;
	}
}

/* 1: new ones are in use; 0: nothing to do. */
static int refresh_credentials(struct agent *a, bool force)
{
	struct err err;
	int r;

	if (!a->tls)
		return 0;
	r = tls_store_refresh(a->tls, force, &err);
	if (r < 0)
		log_error("%s; the former credentials stay in use", err.text);
	if (r <= 0)
		return r;
	log_info("the credentials were read again and are in use");
	uplink_credentials_changed(a->uplink);
	return r;
}

static void on_tick(struct agent *a)
{
	event_clear(a->timer_fd);
	if (!a->ops->beat(a->capture))
		log_warn("this process stood still for more than %llu s, in which the hooks let "
			 "packets pass unseen",
			 HEARTBEAT_STALE_NS / NSEC_PER_SEC);
	if (ifaces_tend(a->ifaces) || a->list_again)
		list_interfaces(a);
	ifaces_count(a->ifaces);
	account_tick(&a->account);
	if (++a->ticks % CREDENTIALS_TICKS == 0)
		refresh_credentials(a, false);
}

static void on_signal(struct agent *a)
{
	struct signalfd_siginfo info;

	while (read(a->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		switch (info.ssi_signo) {
		case SIGUSR1:
			ifaces_count(a->ifaces);
			account_print(&a->account, false);
			break;
		case SIGHUP:
			if (refresh_credentials(a, true) == 0)
				log_info("SIGHUP: there are no files of credentials to read again");
			break;
		default:
			log_info("stopping");
			a->stopping = true;
		}
	}
}

static void loop(struct agent *a)
{
	struct epoll_event events[8];

	while (!a->stopping) {
		int n = epoll_wait(a->epoll_fd, events, ARRAY_SIZE(events), -1);

		for (int i = 0; i < n; i++) {
			if (events[i].data.fd == a->signal_fd)
				on_signal(a);
			else if (events[i].data.fd == a->timer_fd)
				on_tick(a);
			else
				on_netlink(a);
		}
	}
}

static void tell_manager(const char *state)
{
	struct err err;

	if (notify(state, &err) < 0)
		log_warn("%s", err.text);
}

static int start(struct agent *a, struct err *err)
{
	int r;

	a->ops->beat(a->capture);
	/* Attaching to hundreds of interfaces takes seconds, in which rings must not fill. */
	r = reader_start(a->reader, err);
	if (r < 0)
		return r;
	/*
	 * The connection after the hooks: these learn which packets are its own from what
	 * it sends, and must not see an answer first.
	 */
	list_interfaces(a);
	if (a->uplink)
		r = uplink_start(a->uplink, err);
	if (r < 0)
		return r;
	if (!ifaces_number(a->ifaces))
		log_warn("no interface to capture yet");
	log_info("ready: capturing %zu interfaces by %s", ifaces_number(a->ifaces),
		 a->ops->describe(a->capture));
	tell_manager("READY=1");
	return 0;
}

/* The collector has not acknowledged everything. */
static void store_rest(struct agent *a)
{
	uint64_t left = backlog_next_seq(a->backlog) - backlog_first_seq(a->backlog);

	if (!a->spool || !backlog_store(a->backlog))
		log_warn("the collector has not acknowledged everything");
	else if (left)
		log_warn("the collector has not acknowledged everything: %llu messages wait in "
			 "\"%s\" for the next start",
			 (unsigned long long)left, a->config->spool_path);
	else
		log_info(
			"the collector has everything, but not our goodbye: the next start says it "
			"again");
}

static void stop(struct agent *a)
{
	nsec_t timeout = a->config->shutdown_timeout, end;
	struct err err;

	tell_manager("STOPPING=1");
	ifaces_stop(a->ifaces);
	end = clock_monotonic() + timeout;
	reader_stop(a->reader, a->queue ? timeout / 2 : timeout);
	if (a->output && output_finish(a->output, &err) < 0)
		log_error("%s", err.text);
	account_last(&a->account);
	if (!uplink_stop(a->uplink, end - MIN(end, clock_monotonic())))
		store_rest(a);
	account_print(&a->account, true);
}

static void release(struct agent *a)
{
	/* Running still when the start failed half way. */
	reader_stop(a->reader, 0);
	uplink_free(a->uplink);
	reader_free(a->reader);
	ifaces_free(a->ifaces);
	rtnl_free(a->rtnl);
	if (a->capture)
		a->ops->close(a->capture);
	rules_free(a->rules);
	backlog_free(a->backlog);
	spool_close(a->spool);
	queue_free(a->queue);
	output_free(a->output);
	book_free(a->book);
	tls_store_free(a->tls);
	if (a->timer_fd >= 0)
		close(a->timer_fd);
	if (a->signal_fd >= 0)
		close(a->signal_fd);
	if (a->epoll_fd >= 0)
		close(a->epoll_fd);
}

int agent_run(const struct config *config, struct err *err)
{
	struct agent a = {.config = config, .epoll_fd = -1, .signal_fd = -1, .timer_fd = -1};
	sigset_t signals;
	int r;

	block_signals(&signals);
	r = identity_get(config->agent_name, &a.identity, err);
	if (r == 0)
		r = open_destination(&a, err);
	if (r == 0)
		r = open_capture(&a, err);
	if (r == 0)
		r = make_parts(&a, err);
	if (r == 0)
		r = make_loop(&a, &signals, err);
	if (r == 0)
		r = start(&a, err);
	if (r == 0) {
		loop(&a);
		stop(&a);
	}
	release(&a);
	return r;
}
