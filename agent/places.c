// SPDX-License-Identifier: Apache-2.0
/*
 * A namespace is ours to capture in as long as one of the paths leads to it. It is found,
 * and found to be gone, by a look at all paths: when something changes in their folders
 * (inotify), when something is mounted or unmounted (a name of ip-netns(8) is a mount on an
 * empty file), and every few seconds, because neither tells of the end of a process, whose
 * /proc/PID/ns/net may be one of the paths.
 *
 * The descriptor and the monitor keep a namespace alive. So once its last path is gone
 * everything of it is let go at once: the hooks come off, then both are closed, and it
 * can die. A namespace has a number as long as it is captured in; the next one gets it after
 * no program runs any more that knew the former (ifaces_leave()).
 */
#include "places.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/inotify.h>

#include "log.h"
#include "netns.h"
#include "netns_list.h"
#include "rtnl.h"
#include "util.h"

#define LOOK_TICKS  2
#define LIST_TICKS  60 /* whatever the kernel told of changes, and did not */
#define RETRY_LOOKS 30
#define MEMBERS_MAX 1024 /* those that cannot be captured in included */
#define WATCH                                                                               \
	(IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB | IN_DELETE_SELF | \
	 IN_ONLYDIR)

struct member {
	struct ifaces *ifaces;
	struct place place;
	struct netns_id id;
	char *path;         /* the first that led there; NULL: our own */
	struct rtnl *rtnl;  /* NULL: it cannot be captured in, which has been said */
	bool listed;        /* what is known of its interfaces is complete */
	bool found;         /* by the look that goes on */
	unsigned int looks; /* without rtnl: since it was tried */
};

struct places {
	const struct config *config;
	struct ifaces *ifaces;
	struct netns_id self;
	int epoll_fd, inotify_fd, mounts_fd;
	struct member *v;
	size_t n, cap;
	bool numbers[PLACES_MAX];
	bool looked; /* once at least */
	bool full;   /* no number is left: said so */
	unsigned int ticks;
};

static int watch(struct places *p, int fd, uint32_t events, struct err *err)
{
	struct epoll_event event = {.events = events, .data.fd = fd};

	if (epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
		return err_sys(err, -errno, "cannot set up the event loop");
	return 0;
}

static struct member *new_member(struct places *p, const char *path)
{
	struct member m = {.ifaces = p->ifaces, .place.fd = -1};

	if (p->n == MEMBERS_MAX)
		return NULL;
	if (p->n == p->cap) {
		size_t cap = p->cap ? 2 * p->cap : 16;
		struct member *v = realloc(p->v, cap * sizeof(*v));

		if (!v)
			return NULL;
		p->v = v;
		p->cap = cap;
	}
	if (path && !(m.path = strdup(path)))
		return NULL;
	p->v[p->n] = m;
	return &p->v[p->n++];
}

static void close_member(struct places *p, struct member *m)
{
	m->rtnl = rtnl_free(m->rtnl);
	if (m->place.fd >= 0)
		close(m->place.fd);
	m->place.fd = -1;
	p->numbers[m->place.number] = false;
	m->place.number = 0;
}

static int open_monitor(struct places *p, struct member *m, struct err *err)
{
	int r = rtnl_new(m->place.fd, &m->rtnl, err);

	return r < 0 ? r : watch(p, rtnl_fd(m->rtnl), EPOLLIN, err);
}

static int open_own(struct places *p, struct err *err)
{
	struct member *m = new_member(p, NULL);

	if (!m)
		return err_set(err, -ENOMEM, "out of memory");
	m->place.inode = p->self.inode;
	return open_monitor(p, m, err);
}

static uint32_t free_number(const struct places *p)
{
	uint32_t i = 1;

	while (i < PLACES_MAX && p->numbers[i])
		i++;
	return i;
}

static int open_member(struct places *p, struct member *m, uint32_t number, struct err *err)
{
	int r = netns_open(m->path, &m->id, err);

	if (r < 0)
		return r;
	m->place.fd = r;
	m->place.inode = m->id.inode;
	m->place.number = number;
	p->numbers[number] = true;
	netns_name(m->path, m->place.name, sizeof(m->place.name));
	r = open_monitor(p, m, err);
	if (r < 0)
		close_member(p, m);
	return r;
}

static void on_link(void *ctx, const struct rtnl_link *link)
{
	struct member *m = ctx;

	ifaces_link(m->ifaces, &m->place, link);
}

static void complain(const struct member *m, const struct err *err)
{
	if (m->path)
		log_error("namespace \"%s\": %s", m->place.name, err->text);
	else
		log_error("%s", err->text);
}

/* One that fails is tried again with the next tick. */
static void list(struct member *m)
{
	struct err err;
	int r;

	if (!m->rtnl)
		return;
	ifaces_list_begin(m->ifaces, &m->place);
	r = rtnl_list(m->rtnl, on_link, m, &err);
	m->listed = r == 0;
	if (r == 0) {
		ifaces_list_end(m->ifaces, &m->place);
		return;
	}
	ifaces_settle(m->ifaces);
	/* Interrupted: there were changes meanwhile. That is no trouble. */
	if (r != -EINTR)
		complain(m, &err);
}

static void read_changes(struct member *m)
{
	struct err err;
	int r = rtnl_read(m->rtnl, on_link, m, &err);

	ifaces_settle(m->ifaces);
	if (r == -ENOBUFS) {
		list(m);
	} else if (r < 0) {
		complain(m, &err);
		m->listed = false;
	}
}

static bool same(const struct netns_id *a, const struct netns_id *b)
{
	return a->dev == b->dev && a->inode == b->inode;
}

static void add(struct places *p, const char *path, const struct netns_id *id)
{
	uint32_t number = free_number(p);
	struct member *m;
	struct err err;

	if (number == PLACES_MAX || p->n == MEMBERS_MAX) {
		if (!p->full)
			log_warn("namespace \"%s\" is not captured in: %u others are already", path,
				 PLACES_MAX - 1);
		p->full = true;
		return;
	}
	m = new_member(p, path);
	if (!m)
		return;
	m->found = true;
	m->id = *id;
	if (open_member(p, m, number, &err) < 0) {
		log_warn("namespace \"%s\" cannot be captured in: %s, going on without it", path,
			 err.text);
		return;
	}
	log_info("capturing in namespace \"%s\" (\"%s\", inode %llu)", m->place.name, path,
		 (unsigned long long)id->inode);
	list(m);
}

/* What may be looked at has an id; of the others only the path is known. */
static struct member *find(struct places *p, const char *path, const struct netns_id *id)
{
	for (size_t i = 0; i < p->n; i++) {
		struct member *m = &p->v[i];

		if (m->path && (id->dev ? same(&m->id, id) : !m->id.dev && !strcmp(m->path, path)))
			return m;
	}
	return NULL;
}

static void consider(void *ctx, const char *path, bool is_pattern)
{
	struct places *p = ctx;
	struct netns_id id = {};
	struct member *m;
	int error;

	if (!netns_look(path, &p->self, &id, &error)) {
		if (!error || error == ENOENT || error == ENOTDIR) {
			if (!p->looked && !is_pattern)
				log_info("there is no namespace \"%s\" yet", path);
			return;
		}
		id = (struct netns_id){};
	} else if (same(&id, &p->self)) {
		return;
	}
	m = find(p, path, &id);
	/* Another try with the next look. */
	if (m)
		m->found = m->rtnl || ++m->looks < RETRY_LOOKS;
	else
		add(p, path, &id);
}

static void leave(struct places *p, struct member *m)
{
	if (m->rtnl) {
		ifaces_leave(p->ifaces, &m->place);
		log_info("namespace \"%s\" is gone", m->place.name);
		p->full = false;
	}
	close_member(p, m);
	free(m->path);
	*m = p->v[--p->n];
}

/* Folders may come and go too; one that is watched already stays so. */
static void watch_folder(void *ctx, const char *path, bool is_pattern)
{
	struct places *p = ctx;

	(void)is_pattern;
	/* One that is not there, or has no room for a watch, is looked at every few seconds. */
	if (inotify_add_watch(p->inotify_fd, path, WATCH) < 0)
		return;
}

static void look(struct places *p)
{
	for (size_t i = 0; i < p->n; i++)
		p->v[i].found = !p->v[i].path;
	netns_list_folders(&p->config->netns, watch_folder, p);
	netns_list_find(&p->config->netns, consider, p);
	for (size_t i = p->n; i-- > 0;)
		if (!p->v[i].found)
			leave(p, &p->v[i]);
	p->looked = true;
}

static int open_others(struct places *p, struct err *err)
{
	int r = netns_allowed(err);

	if (r < 0)
		return err_wrap(err, r, "netns");
	p->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	p->mounts_fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	if (p->inotify_fd < 0 || p->mounts_fd < 0)
		return err_sys(err, -errno, "cannot watch for network namespaces");
	r = watch(p, p->inotify_fd, EPOLLIN, err);
	return r < 0 ? r : watch(p, p->mounts_fd, EPOLLPRI, err);
}

int places_new(const struct config *config, struct ifaces *ifaces, int epoll_fd,
	       struct places **ret, struct err *err)
{
	struct places *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return err_set(err, -ENOMEM, "out of memory");
	*p = (struct places){.config = config,
			     .ifaces = ifaces,
			     .epoll_fd = epoll_fd,
			     .inotify_fd = -1,
			     .mounts_fd = -1};
	r = netns_self(&p->self, err);
	if (r == 0 && netns_list_own(&config->netns))
		r = open_own(p, err);
	if (r == 0 && netns_list_others(&config->netns))
		r = open_others(p, err);
	if (r < 0) {
		places_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

struct places *places_free(struct places *p)
{
	if (!p)
		return NULL;
	while (p->n) {
		struct member *m = &p->v[--p->n];

		close_member(p, m);
		free(m->path);
	}
	if (p->inotify_fd >= 0)
		close(p->inotify_fd);
	if (p->mounts_fd >= 0)
		close(p->mounts_fd);
	free(p->v);
	free(p);
	return NULL;
}

void places_list(struct places *p)
{
	size_t known = p->n;

	/* New ones are listed when they are found. */
	if (p->inotify_fd >= 0)
		look(p);
	for (size_t i = 0; i < MIN(known, p->n); i++)
		list(&p->v[i]);
}

void places_event(struct places *p, int fd)
{
	uint8_t events[4096];

	if (fd == p->inotify_fd || fd == p->mounts_fd) {
		/* What happened does not matter: the look will see. */
		while (read(p->inotify_fd, events, sizeof(events)) > 0)
			;
		look(p);
		return;
	}
	for (size_t i = 0; i < p->n; i++) {
		if (p->v[i].rtnl && rtnl_fd(p->v[i].rtnl) == fd) {
			read_changes(&p->v[i]);
			return;
		}
	}
}

void places_tick(struct places *p)
{
	p->ticks++;
	/* Each has its own second. */
	for (size_t i = 0; i < p->n; i++)
		if (!p->v[i].listed || (p->ticks + i) % LIST_TICKS == 0)
			list(&p->v[i]);
	if (p->inotify_fd >= 0 && p->ticks % LOOK_TICKS == 0)
		look(p);
}
