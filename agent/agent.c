/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three threads: this one (the loop: signals, interfaces, the second's tick), the
 * reader (rings to queue), the uplink (queue to collector). The loop alone touches
 * hooks and interfaces.
 *
 * Stop, in this order: hooks off and quiet, rings drained, last STATS queued, queue
 * sent and acknowledged, ledger printed. After the first step nothing new comes, so
 * every later step sees all there is.
 */
#include "agent.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

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

/* Interfaces that are gone and settled stay in the ledger up to this many. */
#define GONE_KEPT 1024u

/* Messages; each tells of BOOK_CHANGES_MAX ledgers at most. */
#define STATS_PER_TICK 8

struct agent {
	const struct config *config;
	struct identity identity;
	const struct capture_ops *ops;
	struct capture *capture;
	struct rules *rules;
	struct rtnl *rtnl;
	struct ifaces *ifaces;
	struct book *book;
	struct queue *queue;
	struct output *output;
	struct tls_context *tls;
	struct reader *reader;
	struct uplink *uplink;
	int epoll_fd, signal_fd, timer_fd;
	bool list_again; /* what is known of the interfaces may be incomplete */
	bool stopping;
};

static int open_capture(struct agent *a, struct err *err)
{
	struct capture_config capture = {
		.snaplen = (uint32_t)a->config->snaplen,
		.ring_bytes = a->config->ring_bytes,
	};

	a->rules = rules_new(a->config);
	if (!a->rules)
		return err_set(err, -ENOMEM, "out of memory for the capture rules");
	capture.port_masks = rules_port_masks(a->rules);
	capture.need_ports = capture.port_masks != NULL;
	a->ops = &capture_ringbuf;
	return a->ops->open(&capture, &a->capture, err);
}

static int open_destination(struct agent *a, struct err *err)
{
	struct tls_config tls = config_tls(a->config);
	struct output_config output = {.path = a->config->file_path, .micro = a->config->micro};
	int r;

	a->book = book_new();
	if (!a->book)
		return err_set(err, -ENOMEM, "out of memory");
	if (a->config->file_path) {
		r = output_new(&output, &a->output, err);
		if (r < 0)
			return r;
	}
	if (!a->config->server_host)
		return 0;
	a->queue = queue_new(a->config->queue_bytes);
	if (!a->queue)
		return err_set(err, -ENOMEM, "out of memory for a queue of %llu bytes",
			       (unsigned long long)a->config->queue_bytes);
	return tls_context_new(TLS_AGENT, &tls, &a->tls, err);
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
		.host = a->config->server_host,
		.port = (uint16_t)a->config->server_port,
		.server_name = a->config->tls_server_name ? a->config->tls_server_name
							  : a->config->server_host,
		.tls = a->tls,
		.queue = a->queue,
		.book = a->book,
		.ops = a->ops,
		.capture = a->capture,
		.agent_name = a->config->agent_name,
		.epoch = a->identity.epoch,
	};
	int r;

	memcpy(uplink.agent_id, a->identity.agent_id, sizeof(uplink.agent_id));
	memcpy(uplink.boot_id, a->identity.boot_id, sizeof(uplink.boot_id));
	a->ifaces = ifaces_new(&ifaces);
	if (!a->ifaces)
		return err_set(err, -ENOMEM, "out of memory");
	r = rtnl_new(&a->rtnl, err);
	if (r == 0)
		r = reader_new(&reader, &a->reader, err);
	if (r == 0 && a->queue)
		r = uplink_new(&uplink, &a->uplink, err);
	return r;
}

static int watch(struct agent *a, int fd, struct err *err)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

	if (epoll_ctl(a->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return err_sys(err, -errno, "cannot set up the event loop");
	return 0;
}

static int make_loop(struct agent *a, struct err *err)
{
	struct itimerspec second = {.it_interval.tv_sec = 1, .it_value.tv_sec = 1};
	sigset_t signals;
	int r;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGUSR1);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGPIPE);
	/* Before any thread is made, so that none takes them. */
	sigprocmask(SIG_BLOCK, &signals, NULL);
	sigdelset(&signals, SIGPIPE);
	a->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	a->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
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

/* False when there is no more to say, or no room to say it. */
static bool push_stats(struct agent *a)
{
	_cleanup_free_ struct stream_stats_part *parts = NULL;
	_cleanup_(buf_free) struct buf payload = {};
	struct stream_stats stats = {.time = clock_realtime()};
	long n = book_changes(a->book, &parts);

	/* Without a collector nobody waits for them; settled interfaces can be forgotten. */
	if (n <= 0 || !a->queue)
		return n > 0;
	stats.parts = parts;
	stats.n_parts = (size_t)n;
	stream_stats_encode(&payload, &stats);
	if (buf_failed(&payload) ||
	    queue_push_control(a->queue, STREAM_STATS, payload.data, payload.len) < 0) {
		log_warn("the queue has no room for the loss counters");
		return false;
	}
	return true;
}

struct ledger_total {
	struct agent *agent;
	bool final;
	struct ledger sum;
	bool flying;
};

static enum ledger_verdict verdict(const struct ledger *l, bool final)
{
	if (ledger_lost(l).packets)
		return VERDICT_INCOMPLETE;
	return final && ledger_in_flight(l).packets ? VERDICT_UNKNOWN : VERDICT_COMPLETE;
}

static void ledger_line(void *ctx, const struct stream_iface *info, enum direction direction,
			const struct ledger *l)
{
	struct ledger_total *total = ctx;
	struct agent *a = total->agent;
	char json[LEDGER_JSON_MAX];
	struct ledger_subject who = {
		.agent = a->config->agent_name,
		.agent_id = a->identity.agent_id_text,
		.epoch = a->identity.epoch,
		.interface = info->name,
		.direction = direction == DIRECTION_INGRESS ? "ingress" : "egress",
		.file = a->output ? output_path(a->output, info->link_type) : NULL,
	};

	ledger_json(l, &who, verdict(l, total->final), json, sizeof(json));
	log_info("ledger %s", json);
	if (total->final && !ledger_adds_up(l))
		log_warn("the counters of \"%s\" %s do not add up", info->name, who.direction);
	ledger_add(&total->sum, l);
}

static void print_ledger(struct agent *a, bool final)
{
	struct ledger_total total = {.agent = a, .final = final};
	struct ledger_count flying;

	ifaces_count(a->ifaces);
	book_for_each(a->book, ledger_line, &total);
	flying = ledger_in_flight(&total.sum);
	log_info("%s: %llu packets seen, %llu captured, %llu committed, %llu lost, %llu in flight",
		 ledger_verdict_name(verdict(&total.sum, final)),
		 (unsigned long long)total.sum.c[LEDGER_SEEN].packets,
		 (unsigned long long)total.sum.c[LEDGER_CAPTURED].packets,
		 (unsigned long long)total.sum.c[LEDGER_COMMITTED].packets,
		 (unsigned long long)ledger_lost(&total.sum).packets,
		 (unsigned long long)flying.packets);
}

static void on_tick(struct agent *a)
{
	struct ledger_total gone = {.agent = a, .final = true};

	event_clear(a->timer_fd);
	if (!a->ops->beat(a->capture))
		log_warn("this process stood still for more than %llu s, in which the hooks let "
			 "packets pass unseen",
			 HEARTBEAT_STALE_NS / NSEC_PER_SEC);
	if (ifaces_tend(a->ifaces) || a->list_again)
		list_interfaces(a);
	ifaces_count(a->ifaces);
	/* A queue that a long outage has filled is no place for one more set every second. */
	for (int i = 0; i < STATS_PER_TICK; i++)
		if ((a->queue && queue_half_full(a->queue)) || !push_stats(a))
			break;
	book_prune(a->book, GONE_KEPT, ledger_line, &gone);
}

static void on_signal(struct agent *a)
{
	struct signalfd_siginfo info;

	while (read(a->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		switch (info.ssi_signo) {
		case SIGUSR1:
			print_ledger(a, false);
			break;
		case SIGHUP:
			log_info("SIGHUP: the configuration is read at start only, ignoring");
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
	book_report_again(a->book);
	while (push_stats(a))
		;
	if (!uplink_stop(a->uplink, end - MIN(end, clock_monotonic())))
		log_warn("the collector has not acknowledged everything");
	print_ledger(a, true);
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
	queue_free(a->queue);
	output_free(a->output);
	book_free(a->book);
	tls_context_free(a->tls);
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
	int r;

	r = identity_get(config->agent_name, &a.identity, err);
	if (r == 0)
		r = open_destination(&a, err);
	if (r == 0)
		r = open_capture(&a, err);
	if (r == 0)
		r = make_parts(&a, err);
	if (r == 0)
		r = make_loop(&a, err);
	if (r == 0)
		r = start(&a, err);
	if (r == 0) {
		loop(&a);
		stop(&a);
	}
	release(&a);
	return r;
}

/* A line of the preflight's table. */
static void report(const char *what, int r, const char *text)
{
	printf("%-12s %-6s %s\n", what, r < 0 ? "FAILED" : "ok", text);
}

struct wanted {
	const struct config *config;
	char names[256];
	size_t n;
};

static void note_wanted(void *ctx, const struct rtnl_link *link)
{
	struct wanted *w = ctx;
	size_t len = strlen(w->names);

	if (!link->up || !iface_link_type(link->type) ||
	    !config_wants_interface(w->config, link->name, link->loopback))
		return;
	w->n++;
	snprintf(w->names + len, sizeof(w->names) - len, " %s", link->name);
}

int agent_check(const struct config *config)
{
	struct agent a = {.config = config, .epoll_fd = -1, .signal_fd = -1, .timer_fd = -1};
	struct wanted wanted = {.config = config};
	struct err err = {};
	int r, result = 0;

	report("config", 0, "read and consistent");

	r = open_capture(&a, &err);
	report("capture", r, r < 0 ? err.text : a.ops->describe(a.capture));
	result = MIN(result, r);

	r = rtnl_new(&a.rtnl, &err);
	if (r == 0)
		r = rtnl_list(a.rtnl, note_wanted, &wanted, &err);
	if (r < 0)
		report("interfaces", r, err.text);
	else
		report("interfaces", 0, wanted.n ? wanted.names + 1 : "none is up and wanted now");
	result = MIN(result, r);

	if (config->server_host) {
		struct tls_config tls = config_tls(config);

		r = tls_context_new(TLS_AGENT, &tls, &a.tls, &err);
		report("tls", r,
		       r < 0         ? err.text
		       : !tls.enable ? "off: plain text"
		       : tls.psk     ? "shared key"
				     : "certificates");
		result = MIN(result, r);
	}
	release(&a);
	return result;
}
