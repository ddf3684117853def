/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Five threads: this one (the loop: signals, interfaces, the second's tick), the
 * reader (rings to queue), with a spool the mover (queue to disk), the uplink (queue and disk
 * to collector), the pulse (for the hooks). The loop alone touches hooks and interfaces.
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
#include "clock_news.h"
#include "filters.h"
#include "governor.h"
#include "identity.h"
#include "iface.h"
#include "log.h"
#include "netns_list.h"
#include "note.h"
#include "notify.h"
#include "output.h"
#include "places.h"
#include "pulse.h"
#include "queue.h"
#include "reader.h"
#include "reload.h"
#include "rights.h"
#include "rtnl.h"
#include "rules.h"
#include "uplink.h"
#include "util.h"
#include "wallclock.h"

/* Look at the files of the credentials every so many ticks. */
#define CREDENTIALS_TICKS 5

struct agent {
	const struct config *config;
	struct config *reloaded; /* whose filters are in use instead; NULL: none */
	struct identity identity;
	const struct capture_ops *ops;
	struct capture *capture;
	struct err report; /* why it is not a better back end */
	struct rules *rules;
	struct filters *filters;
	struct ifaces *ifaces;
	struct places *places;
	struct book *book;
	struct account account;
	struct spool *spool;     /* NULL: none */
	struct queue *queue;     /* NULL: no collector */
	struct backlog *backlog; /* as queue */
	struct output *output;
	struct tls_store *tls;
	struct wallclock *wallclock;
	struct clock_news clock_news;
	struct pulse *pulse;
	struct reader *reader;
	struct uplink *uplink;
	struct governor *governor;
	int epoll_fd, signal_fd, timer_fd;
	unsigned int ticks;
	bool stopping;
};

int agent_open_capture(const struct config *config, struct rules **ret_rules,
		       const struct capture_ops **ret_ops, struct capture **ret, struct err *report,
		       struct err *err)
{
	struct capture_config capture = {
		.snaplen = (uint32_t)config->snaplen,
		.ring_bytes = config->ring_bytes,
		.xdp = config->backend == BACKEND_XDP,
		.xdp_mode = (enum xdp_mode)config->xdp_mode,
		.taps = (const char *const *)config->taps.v,
		.ntaps = (unsigned int)config->taps.n,
		.tap_drop = config->tap_unmatched == TAP_DROP,
		.limit = {config->selection.packets_per_s, config->selection.bits_per_s},
		.dedup_window = config->dedup_window,
		.other_netns = netns_list_others(&config->netns),
	};

	*ret_rules = rules_new(config);
	if (!*ret_rules)
		return err_set(err, -ENOMEM, "out of memory for the capture rules");
	capture.port_masks = rules_port_masks(*ret_rules);
	capture.need_ports = capture.port_masks != NULL;
	return backend_open(config, &capture, ret_ops, ret, report, err);
}

static int open_capture(struct agent *a, struct err *err)
{
	int r = agent_open_capture(a->config, &a->rules, &a->ops, &a->capture, &a->report, err);

	if (r == 0 && a->report.text[0])
		log_warn("capturing by %s, because a better way does not work here: %s",
			 a->ops->name, a->report.text);
	if (r == 0 && a->ops != &capture_pcap && backend_bpf_doubt())
		log_warn("%s; `backend: pcap` does without them", backend_bpf_doubt());
	if (r == 0)
		r = filters_new(a->config, a->ops, a->capture, &a->filters, err);
	return r;
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
		.filters = a->filters,
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
		.block_bytes = config_block_bytes(a->config),
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
	struct governor_config governor = {.ops = a->ops, .capture = a->capture, .queue = a->queue};
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
	r = wallclock_new(NULL, NULL, &a->wallclock, err);
	reader.wallclock = a->wallclock;
	a->clock_news = (struct clock_news){.wallclock = a->wallclock, .queue = a->queue};
	if (r == 0)
		r = reader_new(&reader, &a->reader, err);
	if (r == 0 && a->backlog)
		r = uplink_new(&uplink, &a->uplink, err);
	governor.reader = a->reader;
	governor.uplink = a->uplink;
	return r < 0 ? r : governor_new(&governor, a->config, &a->governor, err);
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
		r = places_new(a->config, a->ifaces, a->epoll_fd, &a->places, err);
	if (r == 0)
		r = watch(a, governor_fd(a->governor), err);
	if (r == 0)
		r = watch(a, wallclock_fd(a->wallclock), err);
	return r;
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

static void on_clock(struct agent *a)
{
	event_clear(wallclock_fd(a->wallclock));
	wallclock_look(a->wallclock, NULL);
	clock_news_tell(&a->clock_news, clock_monotonic());
}

/* Packets passed that nobody counted: no ledger of those interfaces is complete. */
static void tell_of_gap(struct agent *a)
{
	static const char text[] = "this process stood still for more than %llu s, in which the "
				   "hooks let packets pass unseen";
	const unsigned long long limit = HEARTBEAT_STALE_NS / NSEC_PER_SEC;
	nsec_t since;

	if (!pulse_missed(a->pulse, &since))
		return;
	log_warn(text, limit);
	book_all_unseen(a->book, since, clock_realtime());
	if (note_push(a->queue, STREAM_NOTE_OTHER, NULL, text, limit) < 0)
		log_warn("the collector is told of this by the ledger only");
}

static void on_tick(struct agent *a)
{
	event_clear(a->timer_fd);
	tell_of_gap(a);
	if (ifaces_tend(a->ifaces))
		places_list(a->places);
	places_tick(a->places);
	ifaces_count(a->ifaces);
	account_tick(&a->account);
	clock_news_tell(&a->clock_news, clock_monotonic());
	if (++a->ticks % CREDENTIALS_TICKS == 0)
		refresh_credentials(a, false);
}

static void tell_change(void *ctx, const char *key)
{
	(void)ctx;
	log_warn("\"%s\" has changed in the configuration, which takes a restart", key);
}

static void read_config_again(struct agent *a)
{
	struct config *config;

	if (!a->config->path)
		return;
	if (reload(a->config->path, a->filters, a->ifaces, &config) < 0) {
		log_error("the former configuration stays in use");
		return;
	}
	config_changes(a->config, config, tell_change, NULL);
	config_free(a->reloaded);
	a->reloaded = config;
	governor_use(a->governor, config);
	/* What could not be captured may be by now. */
	places_list(a->places);
	log_info("the configuration was read again");
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
			refresh_credentials(a, true);
			read_config_again(a);
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
			else if (events[i].data.fd == governor_fd(a->governor))
				governor_tick(a->governor);
			else if (events[i].data.fd == wallclock_fd(a->wallclock))
				on_clock(a);
			else
				places_event(a->places, events[i].data.fd);
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
	int r = a->backlog ? backlog_start(a->backlog, err) : 0;

	if (r == 0)
		r = pulse_new(a->ops, a->capture, &a->pulse, err);
	if (r < 0)
		return r;
	/* Attaching to hundreds of interfaces takes seconds, in which rings must not fill. */
	r = reader_start(a->reader, err);
	if (r < 0)
		return r;
	/*
	 * The connection after the hooks: these learn which packets are its own from what
	 * it sends, and must not see an answer first.
	 */
	if (note_push(a->queue, STREAM_NOTE_BACKEND, NULL, "%s%s%s", a->ops->describe(a->capture),
		      a->report.text[0] ? ", because: " : "", a->report.text) < 0)
		log_warn("the collector is not told what captures");
	places_list(a->places);
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
	clock_news_tell(&a->clock_news, UINT64_MAX);
	tell_of_gap(a);
	account_last(&a->account);
	if (!uplink_stop(a->uplink, end - MIN(end, clock_monotonic())))
		store_rest(a);
	account_print(&a->account, true);
}

static void release(struct agent *a)
{
	/* Running still when the start failed half way. */
	reader_stop(a->reader, 0);
	governor_free(a->governor);
	uplink_free(a->uplink);
	pulse_free(a->pulse);
	reader_free(a->reader);
	wallclock_free(a->wallclock);
	ifaces_free(a->ifaces);
	if (a->capture)
		a->ops->close(a->capture);
	filters_free(a->filters);
	config_free(a->reloaded);
	places_free(a->places);
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

static void clean_hooks(void *ctx, const struct rtnl_link *link)
{
	const struct agent *a = ctx;

	if (config_wants_interface(a->config, link->name, link->loopback))
		hook_clean(link->ifindex);
}

/* Before the threads are made; what takes more rights than what follows comes first. */
static void give_up_rights(struct agent *a)
{
	struct rtnl *rtnl = NULL;
	struct err err;
	int r = rtnl_new(-1, &rtnl, &err);

	if (r == 0)
		r = rtnl_list(rtnl, clean_hooks, a, &err);
	if (r < 0)
		log_warn("what an earlier run left on interfaces stays there: %s", err.text);
	rtnl_free(rtnl);
	rights_give_up(a->config, a->ops == &capture_pcap);
}

int agent_run(const struct config *config, struct err *err)
{
	struct agent a = {.config = config, .epoll_fd = -1, .signal_fd = -1, .timer_fd = -1};
	sigset_t signals;
	int r;

	rights_raise_fd_limit();
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
	if (r == 0) {
		give_up_rights(&a);
		r = start(&a, err);
	}
	if (r == 0) {
		loop(&a);
		stop(&a);
	}
	release(&a);
	return r;
}
