/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An interface is captured from the moment it is first up until it is deleted or gets
 * a name that is not wanted; going down and up again changes nothing. A new name is a
 * new interface in the stream (new id), because the rules go by name.
 *
 * META goes into the queue before the hook is attached, so no DATA can precede it.
 *
 * To know that no program still counts for a detached interface takes the kernel some
 * 20 ms, so those that go together (a node is drained, a namespace ends) wait for it
 * together: detached at once, settled in ifaces_settle().
 */
#include "iface.h"

#include <errno.h>
#include <linux/if_arp.h>
#include <stdio.h>
#include <sys/stat.h>

#include "log.h"
#include "packet.h"
#include "util.h"

#define TEND_AT_ONCE 64
#define RETRY_TICKS  10

struct iface {
	uint32_t ifindex, id, slot;
	char name[RTNL_NAME_MAX];
	bool failed; /* could not be attached: said so */
	bool retry;  /* but may be one day; else it is not tried again under this name */
	bool listed;
};

struct ifaces {
	struct ifaces_config config;
	uint64_t netns;
	struct iface *v;
	size_t n, cap;
	struct iface going[IFACE_SLOTS]; /* detached, not settled; their slots are taken */
	size_t n_going;
	bool slots[IFACE_SLOTS];
	size_t tended; /* index of the interface whose hooks were looked at last */
	unsigned int ticks;
};

struct ifaces *ifaces_new(const struct ifaces_config *config)
{
	struct ifaces *f = calloc(1, sizeof(*f));
	struct stat st;

	if (!f)
		return NULL;
	f->config = *config;
	if (stat("/proc/self/ns/net", &st) == 0)
		f->netns = st.st_ino;
	return f;
}

struct ifaces *ifaces_free(struct ifaces *f)
{
	if (!f)
		return NULL;
	free(f->v);
	free(f);
	return NULL;
}

uint32_t iface_link_type(uint16_t arphrd)
{
	switch (arphrd) {
	case ARPHRD_ETHER:
	case ARPHRD_LOOPBACK:
		return LINK_ETHERNET;
	case ARPHRD_NONE:
	case ARPHRD_RAWIP:
	case ARPHRD_TUNNEL:
	case ARPHRD_TUNNEL6:
	case ARPHRD_SIT:
	case ARPHRD_PPP:
		return LINK_RAW;
	default:
		return 0;
	}
}

static struct iface *find(struct ifaces *f, uint32_t ifindex)
{
	for (size_t i = 0; i < f->n; i++)
		if (f->v[i].ifindex == ifindex)
			return &f->v[i];
	return NULL;
}

static int take_slot(struct ifaces *f, uint32_t *ret, struct err *err)
{
	for (uint32_t i = 0; i < IFACE_SLOTS; i++) {
		if (f->slots[i])
			continue;
		*ret = i;
		f->slots[i] = true;
		return 0;
	}
	if (f->n_going) {
		ifaces_settle(f);
		return take_slot(f, ret, err);
	}
	return err_set(err, -ENOSPC, "%u interfaces are being captured already", IFACE_SLOTS);
}

static int tell(struct ifaces *f, const struct stream_iface *info, struct err *err)
{
	_cleanup_(buf_free) struct buf payload = {};

	if (!f->config.queue)
		return 0;
	stream_meta_encode(&payload, info);
	if (buf_failed(&payload) ||
	    queue_push_control(f->config.queue, STREAM_META, payload.data, payload.len) < 0)
		return err_set(err, -ENOBUFS, "the queue has no room to announce it");
	return 0;
}

static int attach(struct ifaces *f, const struct rtnl_link *link, struct iface *iface,
		  struct err *err)
{
	const struct ifaces_config *c = &f->config;
	struct capture_iface to = {
		.ifindex = link->ifindex,
		.name = link->name,
		.loopback = link->loopback,
		.rule = rules_for(c->rules, link->name),
	};
	struct stream_iface info = {
		.ifindex = link->ifindex,
		.netns = f->netns,
		.link_type = iface_link_type(link->type),
		.snaplen = (uint32_t)c->config->snaplen,
	};
	int r;

	if (!info.link_type)
		return err_set(err, -ENOTSUP, "its link type (ARPHRD %u) is not supported",
			       link->type);
	memcpy(info.mac, link->mac, sizeof(info.mac));
	snprintf(info.name, sizeof(info.name), "%s", link->name);
	r = take_slot(f, &iface->slot, err);
	if (r < 0)
		return r;
	r = book_add(c->book, &info);
	if (r < 0) {
		err_set(err, r, "out of memory");
		goto out;
	}
	iface->id = info.id;
	to.rule.id = info.id;
	to.rule.slot = iface->slot;
	to.rule.raw_ip = info.link_type == LINK_RAW;
	/* Each of many takes the kernel some 30 ms, and a stale heart stops them all. */
	c->ops->beat(c->capture);
	r = c->ops->reset(c->capture, iface->slot);
	if (r < 0)
		err_sys(err, r, "its counters cannot be set to zero");
	if (r == 0)
		r = tell(f, &info, err);
	if (r < 0) {
		book_remove(c->book, info.id);
		goto out;
	}
	r = c->ops->attach(c->capture, &to, err);
	if (r < 0) {
		struct err ignored;

		book_gone(c->book, info.id);
		info.gone = true;
		tell(f, &info, &ignored);
	}
out:
	if (r < 0)
		f->slots[iface->slot] = false;
	return r;
}

static void count(struct ifaces *f, const struct iface *iface)
{
	for (int d = DIRECTION_INGRESS; d <= DIRECTION_EGRESS; d++) {
		struct capture_counts counts;

		if (f->config.ops->counts(f->config.capture, iface->slot, (enum direction)d,
					  &counts) == 0)
			book_counts(f->config.book, iface->id, (enum direction)d, &counts);
	}
}

static void forget(struct ifaces *f, struct iface *iface)
{
	*iface = f->v[--f->n];
}

static void detach(struct ifaces *f, struct iface *iface, const char *why)
{
	if (!iface->failed) {
		f->config.ops->detach(f->config.capture, iface->ifindex);
		f->config.ops->beat(f->config.capture);
		f->going[f->n_going++] = *iface;
		log_info("interface \"%s\" (index %u) %s", iface->name, iface->ifindex, why);
	}
	forget(f, iface);
}

static void settle(struct ifaces *f, const struct iface *iface)
{
	struct stream_iface info = {.id = iface->id,
				    .ifindex = iface->ifindex,
				    .gone = true,
				    .netns = f->netns,
				    .link_type = book_link_type(f->config.book, iface->id),
				    .snaplen = 1};
	struct err err;

	count(f, iface);
	snprintf(info.name, sizeof(info.name), "%s", iface->name);
	book_gone(f->config.book, iface->id);
	if (tell(f, &info, &err) < 0)
		log_warn("the collector is not told that \"%s\" is gone: %s", iface->name,
			 err.text);
	f->slots[iface->slot] = false;
}

void ifaces_settle(struct ifaces *f)
{
	if (!f->n_going)
		return;
	f->config.ops->quiesce(f->config.capture);
	while (f->n_going)
		settle(f, &f->going[--f->n_going]);
}

/* For want of room, which there may be one day? */
static bool may_work_later(int r)
{
	return r == -ENOBUFS || r == -ENOSPC || r == -ENOMEM;
}

/* Try to capture what @iface stands for; @again: it could not be done before. */
static int try_attach(struct ifaces *f, const struct rtnl_link *link, struct iface *iface,
		      bool again)
{
	struct err err;
	int r = attach(f, link, iface, &err);

	iface->failed = r < 0;
	iface->retry = may_work_later(r);
	if (r == -ENODEV || (r < 0 && again))
		return r;
	if (r < 0)
		log_warn("interface \"%s\" cannot be captured: %s, going on without it", link->name,
			 err.text);
	else
		log_info("capturing interface \"%s\" (index %u)", link->name, link->ifindex);
	if (r > 0)
		log_warn("%s", err.text);
	return r;
}

static void add(struct ifaces *f, const struct rtnl_link *link)
{
	struct iface iface = {.ifindex = link->ifindex, .listed = true};

	if (f->n == f->cap) {
		size_t cap = f->cap ? 2 * f->cap : 16;
		struct iface *v = realloc(f->v, cap * sizeof(*v));

		if (!v) {
			log_error("out of memory: interface \"%s\" is not captured", link->name);
			return;
		}
		f->v = v;
		f->cap = cap;
	}
	snprintf(iface.name, sizeof(iface.name), "%s", link->name);
	if (try_attach(f, link, &iface, false) != -ENODEV)
		f->v[f->n++] = iface;
}

void ifaces_link(void *ctx, const struct rtnl_link *link)
{
	struct ifaces *f = ctx;
	struct iface *iface = find(f, link->ifindex);
	bool wanted = !link->deleted &&
		      config_wants_interface(f->config.config, link->name, link->loopback);

	if (iface && (!wanted || strcmp(iface->name, link->name) != 0)) {
		detach(f, iface, link->deleted ? "is gone" : "has another name now");
		iface = NULL;
	}
	if (iface) {
		iface->listed = true;
		if (iface->retry && link->up)
			try_attach(f, link, iface, true);
	} else if (wanted && link->up) {
		add(f, link);
	}
}

bool ifaces_tend(struct ifaces *f)
{
	bool list = false;

	for (size_t i = MIN(f->n, TEND_AT_ONCE); i-- > 0 && f->n;) {
		struct iface *iface = &f->v[f->tended++ % f->n];

		if (iface->failed || f->config.ops->intact(f->config.capture, iface->ifindex))
			continue;
		log_warn("somebody removed the hooks from \"%s\": packets since then are missing",
			 iface->name);
		detach(f, iface, "is to be attached again");
		list = true;
	}
	ifaces_settle(f);
	if (++f->ticks % RETRY_TICKS == 0)
		for (size_t i = 0; i < f->n; i++)
			list |= f->v[i].retry;
	return list;
}

void ifaces_list_begin(struct ifaces *f)
{
	for (size_t i = 0; i < f->n; i++)
		f->v[i].listed = false;
}

void ifaces_list_end(struct ifaces *f)
{
	for (size_t i = f->n; i-- > 0;)
		if (!f->v[i].listed)
			detach(f, &f->v[i], "is gone");
	ifaces_settle(f);
}

void ifaces_count(struct ifaces *f)
{
	for (size_t i = 0; i < f->n; i++)
		if (!f->v[i].failed)
			count(f, &f->v[i]);
}

size_t ifaces_number(const struct ifaces *f)
{
	size_t n = 0;

	for (size_t i = 0; i < f->n; i++)
		n += !f->v[i].failed;
	return n;
}

void ifaces_stop(struct ifaces *f)
{
	for (size_t i = 0; i < f->n; i++) {
		if (f->v[i].failed)
			continue;
		f->config.ops->detach(f->config.capture, f->v[i].ifindex);
		/* As in attach(): those whose turn is still to come go on capturing. */
		f->config.ops->beat(f->config.capture);
	}
	ifaces_settle(f);
	f->config.ops->quiesce(f->config.capture);
	ifaces_count(f);
}
