/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts the parts together and takes them apart in the opposite order. Everything here
 * runs on the main thread, but for fatal(), which workers and the committer call, and wake(), which
 * is the committer's.
 *
 * Stopping: the workers stop accepting, end their sessions and finish; one that hangs
 * in a write to a reader that does not read is freed by output_cancel() after a while.
 * Then nobody writes any more, the ledgers are final, and the last commit is made.
 */
#include "collector.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#include "commit.h"
#include "fs.h"
#include "journal.h"
#include "listener.h"
#include "log.h"
#include "output.h"
#include "registry.h"
#include "sandbox.h"
#include "session.h"
#include "util.h"
#include "worker.h"

#define HELLO_TIMEOUT  (10 * NSEC_PER_SEC)
#define STORAGE_RETRY  (500 * NSEC_PER_MSEC)
#define STOP_TIMEOUT   (3 * NSEC_PER_SEC)
#define FEEDS_AT_REST  4096u        /* streams that are kept in mind after they ended */
#define IFACES_AT_REST (256u << 10) /* of all of them; some 270 MB */
#define IFACES_MAX     (512u << 10) /* of these and of the sessions; some 540 MB */
#define PAYLOAD_PART   2u           /* of the memory of all sessions, for large messages */
#define GUESTS_PART    4u           /* of maxSessions, for those without HELLO */
#define WORKERS_MAX    64u
#define FDS_PER_WORKER 4u
#define FDS_OTHER      64u

/* All that agents can make it remember has to fit into one commit. */
#define FEEDS_MAX (CONFIG_SESSIONS_MAX + FEEDS_AT_REST)
#define SAVED_MAX ((uint64_t)IFACES_MAX * REGISTRY_IFACE_BYTES + FEEDS_MAX * REGISTRY_FEED_BYTES)
_Static_assert(SAVED_MAX < JOURNAL_BODY_MAX - (16u << 20), "JOURNAL_BODY_MAX is too small");

struct collector {
	const struct config *config;
	struct tls_store *tls;
	struct output *output;
	struct commit *commit;
	struct registry *registry;
	struct listener listener;
	struct noise noise;
	struct session_env env;
	struct worker *workers[WORKERS_MAX];
	unsigned int n_workers;
	int failed_fd;
	atomic_bool failed;
};

static void report_line(void *ctx, enum log_level level, const char *line)
{
	(void)ctx;
	log_line(level, "%s", line);
}

static void wake(void *ctx)
{
	struct collector *c = ctx;

	for (unsigned int i = 0; i < c->n_workers; i++)
		worker_wake(c->workers[i]);
}

/* Every worker may come here with the same news. */
static void fatal(void *ctx, const struct err *err)
{
	struct collector *c = ctx;

	if (atomic_exchange(&c->failed, true))
		return;
	log_error("%s, ending", err->text);
	event_signal(c->failed_fd);
}

/* As many descriptors as sessions may need, as far as the hard limit goes. */
static void raise_fd_limit(uint64_t max_sessions, uint64_t max_guests)
{
	rlim_t want = max_sessions + 2 * max_guests + WORKERS_MAX * FDS_PER_WORKER + FDS_OTHER;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= want)
		return;
	limit.rlim_cur = MIN(want, limit.rlim_max);
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < want)
		log_warn("the limit of open files allows fewer than %llu sessions",
			 (unsigned long long)max_sessions);
}

static int start_workers(struct collector *c, struct err *err)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned int n = (unsigned int)MIN(MAX(cores, 1), (long)WORKERS_MAX);

	while (c->n_workers < n) {
		int r = worker_new(&c->env, &c->listener, c->n_workers, &c->workers[c->n_workers],
				   err);

		if (r < 0)
			return r;
		c->n_workers++;
	}
	return 0;
}

static size_t max_guests(const struct config *config)
{
	return MAX((size_t)LISTENER_GUESTS_MIN, config->max_sessions / GUESTS_PART);
}

static int open_parts(struct collector *c, struct err *err)
{
	const struct config *config = c->config;
	const struct tls_config tls = config_tls(config);
	const struct commit_config commit = {
		.path = config->file_path,
		.micro = config->micro,
		.durable = config->ack == ACK_DURABLE,
		.wait = config->commit_wait,
		.wake = wake,
		.fatal = fatal,
		.ctx = c,
	};
	const struct registry_limits limits = {
		.feeds = config->max_sessions + FEEDS_AT_REST,
		.resting_ifaces = IFACES_AT_REST,
		.ifaces = IFACES_MAX,
	};
	int r;

	r = tls_store_new(TLS_COLLECTOR, &tls, &c->tls, err);
	if (r < 0)
		return r;
	/* The port before the file: a second collector finds out before it makes one. */
	r = listener_open(&c->listener, config->listen_address, (uint16_t)config->listen_port,
			  max_guests(config), err);
	if (r < 0)
		return r;
	c->registry = registry_new(&limits, NULL, report_line, NULL);
	if (!c->registry)
		return err_set(err, -ENOMEM, "out of memory");
	return commit_open(&commit, c->registry, &c->output, &c->commit, err);
}

static void set_up_env(struct collector *c)
{
	const struct config *config = c->config;

	c->env = (struct session_env){
		.tls = c->tls,
		.tls_enable = config->tls_enable,
		.allow = &config->allow,
		.any_name = config->any_name,
		.registry = c->registry,
		.output = c->output,
		.commit = c->commit,
		.noise = &c->noise,
		.max_sessions = config->max_sessions,
		.memory = config->memory_bytes,
		.payload_max = MAX(config->memory_bytes / PAYLOAD_PART, STREAM_PAYLOAD_MAX),
		.credit = config->credit_bytes,
		.hello_timeout = HELLO_TIMEOUT,
		.heartbeat = config->heartbeat,
		.retry = STORAGE_RETRY,
		.fatal = fatal,
		.ctx = c,
	};
}

/* The port is open, and nothing else takes rights. Before the threads are made. */
static void give_up_rights(const struct config *config)
{
	bool to_stdout = output_is_stdout(config->file_path);
	_cleanup_free_ char *folder = to_stdout ? NULL : fs_folder(config->file_path);
	const char *const files[] = {
		config->tls_certfile,
		config->tls_keyfile,
		config->tls_cafile,
		config->tls_crlfile,
		folder,
	};
	const struct sandbox sandbox = {.files = files, .n_files = ARRAY_SIZE(files)};
	struct err said;

	if (!config->sandbox)
		log_warn("sandbox is false: all rights and system calls are kept");
	else if (sandbox_enter(&sandbox, &said) < 0)
		log_error("%s, going on with all rights", said.text);
	else
		log_info("%s", said.text);
}

int collector_new(const struct config *config, struct collector **ret, struct err *err)
{
	struct collector *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return err_set(err, -ENOMEM, "out of memory");
	c->config = config;
	c->listener.fd = -1;
	noise_init(&c->noise);
	c->failed_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = c->failed_fd < 0 ? err_sys(err, -errno, "cannot make an eventfd") : open_parts(c, err);
	if (r == 0) {
		set_up_env(c);
		raise_fd_limit(config->max_sessions, max_guests(config));
		give_up_rights(config);
		r = start_workers(c, err);
	}
	/* It wakes workers, so they are there first. */
	if (r == 0)
		r = commit_start(c->commit, err);
	if (r < 0)
		collector_free(c);
	else
		*ret = c;
	return r;
}

const char *collector_address(const struct collector *c)
{
	return c->listener.name;
}

int collector_failed_fd(const struct collector *c)
{
	return c->failed_fd;
}

void collector_report(struct collector *c)
{
	registry_report(c->registry);
}

void collector_reload(struct collector *c, bool force)
{
	struct err err;
	int r = tls_store_refresh(c->tls, force, &err);

	if (r < 0)
		log_error("%s; the credentials that were loaded before stay in use", err.text);
	if (r <= 0)
		return;
	if (c->config->tls_enable)
		log_info("the credentials were loaded again, new sessions use them");
	wake(c);
}

static void stop_workers(struct collector *c)
{
	nsec_t deadline = clock_monotonic() + STOP_TIMEOUT;
	bool cancelled = false;

	for (unsigned int i = 0; i < c->n_workers; i++)
		worker_stop(c->workers[i]);
	for (unsigned int i = 0; i < c->n_workers; i++) {
		if (!cancelled && !worker_wait(c->workers[i], deadline)) {
			output_cancel(c->output);
			cancelled = true;
		}
		worker_join(c->workers[i]);
	}
}

int collector_free(struct collector *c)
{
	struct err err;
	int r = 0;

	stop_workers(c);
	listener_close(&c->listener);
	if (c->commit)
		r = commit_stop(c->commit, &err);
	if (r < 0)
		log_error("%s; what was written after the last commit is not acknowledged, and "
			  "will come again",
			  err.text);
	if (c->output && output_finish(c->output, &err) < 0) {
		log_error("%s; what was written last may be missing there", err.text);
		r = -EIO;
	}
	if (c->n_workers)
		collector_report(c);
	for (unsigned int i = 0; i < c->n_workers; i++)
		worker_free(c->workers[i]);
	commit_free(c->commit);
	registry_free(c->registry);
	output_free(c->output);
	tls_store_free(c->tls);
	noise_destroy(&c->noise);
	if (c->failed_fd >= 0)
		close(c->failed_fd);
	free(c);
	return r;
}
