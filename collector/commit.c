/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `gate` is held for reading while a worker changes output and feed together, and for writing
 * while the committer copies both, which does no I/O. It prefers the writer: workers come and go
 * all the time, and the committer must not wait for a moment without any. Order: gate, then a
 * feed's turn, then the registry's lock and the feed's; `lock` is the innermost of all.
 *
 * A feed that has changed is on the list `dirty`, and when the committer takes it off, in `group`
 * until that is in the journal; each of the two counts in feed->commits.
 *
 * The group that could not be appended is kept and tried again: feed_save() said what changed
 * since it was called last, so what it wrote must not get lost. Where it does (no memory), or the
 * journal is long, everything is said anew (`all`). A journal begins with such a commit, whose
 * files are always durable: there is a commit to go back to.
 *
 * An error of a sync is not tried again: the kernel may have thrown away what it could not
 * write, and reports that once. The process ends, and the next one starts from the journal.
 */
#include "commit.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>

#include "log.h"
#include "recover.h"
#include "util.h"

#define GROUP_BYTES (4u << 20) /* written, then it is committed before its time */
#define RETRY       (500 * NSEC_PER_MSEC)

/* One commit, from the copy until it is in the journal. */
struct group {
	uint64_t number;
	bool pending; /* copied, not in the journal yet */
	bool all;     /* body says everything */
	struct buf body;
	struct group_feed {
		struct feed *feed;
		uint64_t seq;
	} * feeds;
	size_t n_feeds, cap_feeds;
	uint32_t link_types[OUTPUT_FILES_MAX]; /* with a file */
	size_t n_link_types;
};

struct commit {
	struct commit_config config;
	struct registry *registry;
	struct output *output;
	struct journal *journal; /* NULL: nothing to commit, all is as soon as it is written */
	pthread_rwlock_t gate;
	pthread_t thread;
	bool started;

	/* The committer's: the thread, before and after it who starts and stops it. */
	struct group group;
	bool all;     /* the next commit has to say everything */
	bool failing; /* the journal does not take a commit now */
	bool dead;    /* no more commits: the disk lost what it had taken */
	_Atomic uint64_t done;

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t changed;
	struct feed *dirty;
	size_t n_dirty;
	nsec_t since; /* when the first change of the next group was made; 0: none */
	size_t bytes; /* written since */
	bool hurry;   /* do not wait for more */
	bool stop;
	uint64_t copied;                  /* number of the last group that was copied */
	uint32_t known[OUTPUT_FILES_MAX]; /* link types whose file the journal names */
	size_t n_known;
};

/* A regular file, or where one will be made. */
static bool goes_to_files(const char *path)
{
	struct stat st;

	return !output_is_stdout(path) && (stat(path, &st) < 0 || S_ISREG(st.st_mode));
}

static struct commit *make(const struct commit_config *config, struct registry *registry)
{
	struct commit *c = calloc(1, sizeof(*c));
	pthread_rwlockattr_t prefer;
	pthread_condattr_t clock;

	if (!c)
		return NULL;
	c->config = *config;
	c->registry = registry;
	pthread_rwlockattr_init(&prefer);
	pthread_rwlockattr_setkind_np(&prefer, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&c->gate, &prefer);
	pthread_rwlockattr_destroy(&prefer);
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&c->changed, &clock);
	pthread_condattr_destroy(&clock);
	return c;
}

static void tell_left_alone(void *ctx, const struct output_file *file, const char *why)
{
	(void)ctx;
	log_warn("\"%s\" is not continued: %s", file->name, why);
}

int commit_open(const struct commit_config *config, struct registry *registry,
		struct output **ret_output, struct commit **ret, struct err *err)
{
	struct output_config output = {
		.path = config->path,
		.micro = config->micro,
		.left_alone = tell_left_alone,
	};
	struct recovered recovered = {};
	struct err warning = {};
	struct commit *c;
	int r = 0;

	c = make(config, registry);
	if (!c)
		return err_set(err, -ENOMEM, "out of memory");
	if (goes_to_files(config->path)) {
		r = recover(config->path, registry, &recovered, &warning, err);
		if (r < 0)
			err_wrap(err, r, "no journal for \"%s\"", config->path);
		c->journal = recovered.journal;
		output.files = recovered.files;
		output.n_files = recovered.n_files;
	}
	if (warning.text[0])
		log_warn("%s", warning.text);
	if (r == 0)
		r = output_new(&output, &c->output, err);
	if (r < 0) {
		commit_free(c);
		return r;
	}
	registry_set_output(registry, c->output);
	if (recovered.commits)
		log_info("continuing from the journal of \"%s\"", config->path);
	c->all = true;
	*ret_output = c->output;
	*ret = c;
	return 0;
}

struct commit *commit_free(struct commit *c)
{
	if (!c)
		return NULL;
	journal_free(c->journal);
	buf_free(&c->group.body);
	free(c->group.feeds);
	pthread_rwlock_destroy(&c->gate);
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->changed);
	free(c);
	return NULL;
}

enum stream_ack_mode commit_ack_mode(const struct commit *c)
{
	return c->journal && c->config.durable ? STREAM_ACK_DURABLE : STREAM_ACK_WRITTEN;
}

/* With the lock. */
static void put_on_list(struct commit *c, struct feed *f)
{
	if (f->dirty)
		return;
	f->dirty = true;
	atomic_fetch_add(&f->commits, 1);
	f->next_dirty = c->dirty;
	c->dirty = f;
	c->n_dirty++;
}

/* With the lock: there is something to commit. */
static void begin_group(struct commit *c)
{
	if (c->since)
		return;
	c->since = clock_monotonic();
	pthread_cond_signal(&c->changed);
}

void commit_enter(struct commit *c)
{
	if (c->journal)
		pthread_rwlock_rdlock(&c->gate);
}

void commit_touch(struct commit *c, struct feed *f)
{
	if (!c->journal) {
		pthread_mutex_lock(&f->lock);
		feed_commit(f, f->next_seq - 1);
		pthread_mutex_unlock(&f->lock);
		return;
	}
	pthread_mutex_lock(&c->lock);
	put_on_list(c, f);
	begin_group(c);
	pthread_mutex_unlock(&c->lock);
}

void commit_leave(struct commit *c, struct feed *f, size_t bytes)
{
	if (f)
		commit_touch(c, f);
	if (!c->journal)
		return;
	if (bytes) {
		pthread_mutex_lock(&c->lock);
		begin_group(c);
		if (c->bytes < GROUP_BYTES && c->bytes + bytes >= GROUP_BYTES)
			pthread_cond_signal(&c->changed);
		c->bytes += bytes;
		pthread_mutex_unlock(&c->lock);
	}
	pthread_rwlock_unlock(&c->gate);
}

int commit_file(struct commit *c, uint32_t link_type, struct err *err)
{
	bool known = !c->journal;
	int r;

	if (!known) {
		pthread_mutex_lock(&c->lock);
		for (size_t i = 0; i < c->n_known; i++)
			known |= c->known[i] == link_type;
		pthread_mutex_unlock(&c->lock);
	}
	if (known)
		return 0;
	r = output_open(c->output, link_type, err);
	if (r < 0)
		return r;
	pthread_mutex_lock(&c->lock);
	begin_group(c);
	pthread_mutex_unlock(&c->lock);
	return err_set(err, -EAGAIN, "the file of link type %u is to be committed first",
		       link_type);
}

uint64_t commit_hurry(struct commit *c)
{
	uint64_t number;

	if (!c->journal)
		return 0;
	pthread_mutex_lock(&c->lock);
	number = c->copied;
	if (c->since) {
		number++;
		c->hurry = true;
		pthread_cond_signal(&c->changed);
	}
	pthread_mutex_unlock(&c->lock);
	return number;
}

bool commit_is_done(const struct commit *c, uint64_t number)
{
	return atomic_load(&c->done) >= number;
}

static int reserve_feeds(struct group *g, size_t n)
{
	struct group_feed *feeds;

	if (n <= g->cap_feeds)
		return 0;
	feeds = reallocarray(g->feeds, n + n / 2, sizeof(*feeds));
	if (!feeds)
		return -ENOMEM;
	g->feeds = feeds;
	g->cap_feeds = n + n / 2;
	return 0;
}

/* Nobody writes. @dirty: what is to be said of them, but for when everything is. */
static void copy(struct commit *c, struct feed *dirty)
{
	struct output_file files[OUTPUT_FILES_MAX];
	size_t n = output_files(c->output, files);
	struct group *g = &c->group;

	recover_put_files(&g->body, files, n);
	for (size_t i = 0; i < n; i++)
		g->link_types[i] = files[i].link_type;
	g->n_link_types = n;
	if (g->all)
		registry_save(c->registry, &g->body);
	else
		registry_save_changes(c->registry, &g->body);
	for (struct feed *f = dirty, *next; f; f = next) {
		next = f->next_dirty;
		f->dirty = false;
		g->feeds[g->n_feeds++] = (struct group_feed){f, f->next_seq - 1};
		if (!g->all)
			feed_save(f, false, &g->body);
	}
}

/* The group as it is now. -ENOMEM: nothing is lost, try again. */
static int copy_group(struct commit *c, struct err *err)
{
	struct group *g = &c->group;
	struct feed *dirty;
	int r;

	buf_reset(&g->body);
	g->n_feeds = 0;
	g->all = c->all || journal_is_long(c->journal);

	pthread_rwlock_wrlock(&c->gate);
	pthread_mutex_lock(&c->lock);
	r = reserve_feeds(g, c->n_dirty);
	if (r == 0) {
		dirty = c->dirty;
		c->dirty = NULL;
		c->n_dirty = 0;
		c->since = 0;
		c->bytes = 0;
		c->hurry = false;
		g->number = ++c->copied;
	}
	pthread_mutex_unlock(&c->lock);
	if (r == 0)
		copy(c, dirty);
	pthread_rwlock_unlock(&c->gate);

	if (r == 0 && !buf_failed(&g->body)) {
		g->pending = true;
		return 0;
	}
	/* What feed_save() wrote is gone. */
	c->all = true;
	pthread_mutex_lock(&c->lock);
	for (size_t i = 0; i < g->n_feeds; i++) {
		put_on_list(c, g->feeds[i].feed);
		atomic_fetch_sub(&g->feeds[i].feed->commits, 1);
	}
	begin_group(c);
	pthread_mutex_unlock(&c->lock);
	return err_set(err, -ENOMEM, "no memory for a commit");
}

/* 0; -ENOSPC, -EDQUOT, -ENOMEM: try again later; else what was written before may be gone. */
static int store_group(struct commit *c, struct err *err)
{
	bool durable = c->config.durable;
	struct group *g = &c->group;
	int r = 0;

	if (durable || g->all)
		r = output_sync(c->output, err);
	if (r < 0)
		return -EIO;
	if (g->all) {
		r = journal_rewrite(c->journal, &g->body, err);
		if (r == 0 || r == -EIO)
			return r;
		/* There may be room for it where the journal is. */
	}
	return journal_append(c->journal, &g->body, durable, err);
}

/* The group is in the journal. */
static void settle_group(struct commit *c)
{
	struct group *g = &c->group;

	pthread_mutex_lock(&c->lock);
	memcpy(c->known, g->link_types, sizeof(c->known));
	c->n_known = g->n_link_types;
	pthread_mutex_unlock(&c->lock);
	for (size_t i = 0; i < g->n_feeds; i++) {
		struct feed *f = g->feeds[i].feed;

		feed_commit(f, g->feeds[i].seq);
		atomic_fetch_sub(&f->commits, 1);
	}
	c->all &= !g->all;
	g->pending = false;
	atomic_store(&c->done, g->number);
	c->config.wake(c->config.ctx);
}

/* One commit: the group that is pending, else a new one. Errors as store_group(). */
static int commit_group(struct commit *c, struct err *err)
{
	int r = 0;

	if (c->dead)
		return err_set(err, -EIO, "the disk has lost what was written before");
	if (!c->group.pending)
		r = copy_group(c, err);
	if (r == 0)
		r = store_group(c, err);
	if (r == 0) {
		if (c->failing)
			log_info("commits work again: agents get their acknowledgements");
		c->failing = false;
		settle_group(c);
		return 0;
	}
	if (r == -ENOSPC || r == -EDQUOT || r == -ENOMEM) {
		if (!c->failing)
			log_error("%s; agents keep their packets until that works again",
				  err->text);
		c->failing = true;
		return r;
	}
	c->dead = true;
	return r;
}

static void wait_until(struct commit *c, nsec_t when)
{
	const struct timespec ts = {.tv_sec = (time_t)(when / NSEC_PER_SEC),
				    .tv_nsec = (long)(when % NSEC_PER_SEC)};

	pthread_cond_timedwait(&c->changed, &c->lock, &ts);
}

/* Until a group is to be committed. False: we stop. */
static bool wait_for_group(struct commit *c)
{
	bool stop;

	pthread_mutex_lock(&c->lock);
	while (!c->stop && !c->since)
		pthread_cond_wait(&c->changed, &c->lock);
	while (!c->stop && !c->hurry && c->bytes < GROUP_BYTES &&
	       clock_monotonic() < c->since + c->config.wait)
		wait_until(c, c->since + c->config.wait);
	stop = c->stop;
	pthread_mutex_unlock(&c->lock);
	return !stop;
}

/* After a failure. False: we stop. */
static bool wait_for_retry(struct commit *c)
{
	nsec_t when = clock_monotonic() + RETRY;
	bool stop;

	pthread_mutex_lock(&c->lock);
	while (!c->stop && clock_monotonic() < when)
		wait_until(c, when);
	stop = c->stop;
	pthread_mutex_unlock(&c->lock);
	return !stop;
}

static void *commit_main(void *arg)
{
	struct commit *c = arg;
	struct err err;
	bool go_on = true;

	while (go_on && !c->dead) {
		if (!c->failing)
			go_on = wait_for_group(c);
		else
			go_on = wait_for_retry(c);
		if (go_on)
			commit_group(c, &err);
	}
	if (c->dead)
		c->config.fatal(c->config.ctx, &err);
	return NULL;
}

int commit_start(struct commit *c, struct err *err)
{
	int r;

	if (!c->journal)
		return 0;
	/* So that the journal knows the files. A disk that is full now is tried again. */
	r = commit_group(c, err);
	if (r < 0 && c->dead)
		return r;
	r = -pthread_create(&c->thread, NULL, commit_main, c);
	if (r < 0)
		return err_sys(err, r, "cannot start the committer");
	pthread_setname_np(c->thread, "committer");
	c->started = true;
	return 0;
}

int commit_stop(struct commit *c, struct err *err)
{
	int r = 0;

	if (!c->started)
		return 0;
	pthread_mutex_lock(&c->lock);
	c->stop = true;
	pthread_cond_signal(&c->changed);
	pthread_mutex_unlock(&c->lock);
	pthread_join(c->thread, NULL);
	c->started = false;
	/* The one that waits for room, then what came after it. */
	while (r == 0 && (c->group.pending || c->since))
		r = commit_group(c, err);
	return r;
}
