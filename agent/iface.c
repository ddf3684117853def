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
#include "iface_choice.h"
#include "iface_internal.h"

#include <errno.h>
#include <stdio.h>

#include "link_type.h"
#include "log.h"
#include "note.h"
#include "tap_guard.h"
#include "text.h"
#include "util.h"

#define TEND_AT_ONCE 64
#define GUARD_TICKS  5
#define FAILED_MAX   1024u /* that are remembered */

struct ifaces *ifaces_new(const struct ifaces_config *config)
{
	struct ifaces *f = calloc(1, sizeof(*f));

	if (f)
		f->config = *config;
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

static struct iface *find(struct ifaces *f, uint64_t key)
{
	for (size_t i = 0; i < f->n; i++)
		if (f->v[i].key == key)
			return &f->v[i];
	return NULL;
}

/* One of our own namespace. */
static bool is_tap(const struct ifaces *f, const struct iface *iface)
{
	return !(iface->key >> 32) && config_is_tap(f->config.config, iface->name);
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
	bool tap = config_is_tap(f->config.config, info->name);
	const char *hook = tap ? "af_xdp" : f->config.ops->describe(f->config.capture);
	const char *reason = strstr(hook, " (");
	const char *filter = filters_text(f->config.filters, info->name);
	struct stream_meta meta = {.iface = *info};
	_cleanup_(buf_free) struct buf payload = {};

	if (!f->config.queue)
		return 0;
	snprintf(meta.netns_name, sizeof(meta.netns_name), "%s", info->netns_name);
	/* Without the reason, which is in parentheses. */
	if (!info->gone) {
		snprintf(meta.hook, sizeof(meta.hook), "%.*s", (int)(reason ? reason - hook : 32),
			 hook);
		text_cut(meta.filter, sizeof(meta.filter), filter ? filter : "");
	}
	stream_meta_encode(&payload, &meta);
	if (buf_failed(&payload) ||
	    queue_push_control(f->config.queue, STREAM_META, payload.data, payload.len) < 0)
		return err_set(err, -ENOBUFS, "the queue has no room to announce it");
	return 0;
}

static struct stream_iface describe(const struct iface *iface)
{
	struct stream_iface info = {
		.id = iface->id,
		.ifindex = (uint32_t)iface->key,
		.netns = iface->netns_inode,
	};

	snprintf(info.name, sizeof(info.name), "%s", iface->name);
	snprintf(info.netns_name, sizeof(info.netns_name), "%s", iface->netns_name);
	return info;
}

/* For the log: where an interface is, when that is not our own namespace. */
struct where {
	char text[STREAM_NAME_MAX + 32];
};

static struct where where(const struct iface *iface)
{
	struct where w = {};

	if (iface->netns_name[0])
		snprintf(w.text, sizeof(w.text), " of namespace \"%s\"", iface->netns_name);
	return w;
}

static int attach(struct ifaces *f, const struct place *place, const struct rtnl_link *link,
		  struct iface *iface, struct err *err)
{
	const struct ifaces_config *c = &f->config;
	struct stream_iface info = describe(iface);
	struct capture_iface to;
	int r;

	if (!rtnl_name_holds(place->fd, link))
		return err_set(err, -ENODEV, "it has another name now, or is gone");
	r = iface_prepare(c, place, link, &to, err);
	if (r < 0)
		return r;
	info.link_type = link_type_of(link->type);
	info.snaplen = (uint32_t)c->config->snaplen;
	memcpy(info.mac, link->mac, sizeof(info.mac));
	r = c->ops->room ? c->ops->room(c->capture, &to, err) : 0;
	if (r == 0)
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
	iface->rule = to.rule;
	iface->limit = to.limit;
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

static bool has_limit(const struct ifaces *f, const struct iface *iface)
{
	const struct selection *all = &f->config.config->selection;

	return (iface->rule.asks & RULE_LIMIT) || all->packets_per_s || all->bits_per_s;
}

static void tell_of_limit(struct ifaces *f, struct iface *iface, uint64_t limited)
{
	unsigned long long left_out;
	int r = 0;

	switch (limit_watch(&iface->watch, limited, clock_monotonic())) {
	case LIMIT_NO_NEWS:
		return;
	case LIMIT_BEGINS:
		log_warn("packets of \"%s\" above its rate limit are left out, and counted as "
			 "rate_limited",
			 iface->name);
		r = note_push(f->config.queue, STREAM_NOTE_LIMIT, &iface->id,
			      "a rate limit takes effect: packets above it are left out");
		break;
	case LIMIT_ENDS:
		left_out = limited - iface->watch.first;
		log_info("\"%s\" is within its rate limit again; %llu packets were left out",
			 iface->name, left_out);
		r = note_push(f->config.queue, STREAM_NOTE_LIMIT, &iface->id,
			      "within the rate limit again: %llu packets were left out", left_out);
	}
	if (r < 0)
		log_warn("the collector is not told of the rate limit of \"%s\"", iface->name);
}

static void count(struct ifaces *f, struct iface *iface)
{
	uint64_t limited = 0;

	for (int d = DIRECTION_INGRESS; d <= DIRECTION_EGRESS; d++) {
		struct capture_counts counts;

		if (f->config.ops->counts(f->config.capture, iface->slot, (enum direction)d,
					  &counts) < 0)
			continue;
		book_counts(f->config.book, iface->id, (enum direction)d, &counts);
		limited += counts.packets[CAPTURE_RATE_LIMITED];
	}
	if (has_limit(f, iface))
		tell_of_limit(f, iface, limited);
}

static void tell_of_hooks(struct ifaces *f, const struct iface *iface, const char *text)
{
	log_warn("interface \"%s\"%s: %s", iface->name, where(iface).text, text);
	if (note_push(f->config.queue, STREAM_NOTE_OTHER, &iface->id, "%s", text) < 0)
		log_warn("the collector is told of this by the ledger only");
}

/* True: they are there no longer. */
static bool hooks_gone(struct ifaces *f, struct iface *iface)
{
	struct err err;
	int r;

	if (iface->unhooked)
		return true;
	r = f->config.ops->intact(f->config.capture, iface->key, &err);
	if (r == 2)
		tell_of_hooks(f, iface, err.text);
	if (r) {
		iface->looked = clock_realtime();
		return false;
	}
	iface->unhooked = true;
	tell_of_hooks(f, iface, "somebody removed the hooks: packets since then are missing");
	book_unseen(f->config.book, iface->id, iface->looked, clock_realtime());
	return true;
}

static void forget(struct ifaces *f, struct iface *iface)
{
	*iface = f->v[--f->n];
}

void iface_detach(struct ifaces *f, struct iface *iface, const char *why)
{
	if (!iface->failed) {
		hooks_gone(f, iface);
		f->config.ops->detach(f->config.capture, iface->key);
		f->going[f->n_going++] = *iface;
		log_info("interface \"%s\" (index %u)%s %s", iface->name, (uint32_t)iface->key,
			 where(iface).text, why);
	}
	forget(f, iface);
}

static void settle(struct ifaces *f, struct iface *iface)
{
	struct stream_iface info = describe(iface);
	struct err err;

	info.gone = true;
	info.link_type = book_link_type(f->config.book, iface->id);
	info.snaplen = 1;
	count(f, iface);
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

static void tell_captured(struct ifaces *f, const struct rtnl_link *link, const struct iface *iface)
{
	const struct capture_ops *ops = f->config.ops;
	const char *how = ops->how ? ops->how(f->config.capture, iface->key) : NULL;

	log_info("capturing interface \"%s\" (index %u)%s%s%s", link->name, link->ifindex,
		 where(iface).text, how ? " by " : "", how ? how : "");
}

/* Try to capture what @iface stands for; @quiet: that it cannot be done has been said. */
static int try_attach(struct ifaces *f, const struct place *place, const struct rtnl_link *link,
		      struct iface *iface, bool quiet)
{
	struct err err;
	int r = attach(f, place, link, iface, &err);

	iface->failed = r < 0;
	iface->looked = clock_realtime();
	iface_retry_plan(&iface->retry, r, is_tap(f, iface));
	if (r == -ENODEV || (r < 0 && quiet))
		return r;
	if (r < 0)
		log_warn("interface \"%s\"%s cannot be captured: %s, going on without it",
			 link->name, where(iface).text, err.text);
	else
		tell_captured(f, link, iface);
	if (r > 0)
		log_warn("%s", err.text);
	return r;
}

static unsigned int count_failed(const struct ifaces *f)
{
	unsigned int n = 0;

	for (size_t i = 0; i < f->n; i++)
		n += f->v[i].failed;
	return n;
}

/*
 * Those that cannot be captured are remembered, so that this is said once and not tried with every
 * change of theirs. When there are too many, others are tried with each, and nothing is said; but
 * taps, of which there are few, are remembered all the same.
 */
static void add(struct ifaces *f, const struct place *place, const struct rtnl_link *link)
{
	struct iface iface = {
		.key = IFACE_KEY(place->number, link->ifindex),
		.netns_inode = place->inode,
		.listed = true,
	};
	bool full;
	int r;

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
	snprintf(iface.netns_name, sizeof(iface.netns_name), "%s", place->name);
	full = count_failed(f) >= FAILED_MAX && !is_tap(f, &iface);
	r = try_attach(f, place, link, &iface, full);
	if (r == -ENODEV || (r < 0 && full))
		return;
	f->v[f->n++] = iface;
	if (r < 0 && count_failed(f) == FAILED_MAX)
		log_warn("%u interfaces cannot be captured; of more of them nothing is said",
			 FAILED_MAX);
}

void ifaces_link(struct ifaces *f, const struct place *place, const struct rtnl_link *link)
{
	struct iface *iface = find(f, IFACE_KEY(place->number, link->ifindex));
	bool other_name = iface && strcmp(iface->name, link->name) != 0;
	bool wanted = !link->deleted && iface_wanted(f->config.config, place, link);

	if (iface)
		iface->listed = true;
	/* A former name: it got its present one before we were told of this. */
	if (other_name && !link->deleted && !rtnl_name_holds(place->fd, link))
		return;
	if (iface && (!wanted || other_name)) {
		iface_detach(f, iface,
			     link->deleted ? "is gone"
			     : other_name  ? "has another name now"
					   : "is at another capture point now");
		iface = NULL;
	}
	if (iface) {
		if (iface_retry_link(&iface->retry, link->up))
			try_attach(f, place, link, iface, true);
	} else if (wanted && link->up) {
		/* Nobody may be at work any more with the rule that was there before. */
		ifaces_settle(f);
		add(f, place, link);
	}
}

/* The host may come to use what was a tap: then it is the host's, until it uses it no more. */
static bool give_back(struct ifaces *f)
{
	size_t n = f->n;
	struct err err;

	for (size_t i = n; i-- > 0;) {
		struct iface *iface = &f->v[i];

		if (iface->failed || !is_tap(f, iface) ||
		    tap_guard((uint32_t)iface->key, &err) != -EADDRINUSE)
			continue;
		log_error("the capture of \"%s\" ends: %s", iface->name, err.text);
		if (note_push(f->config.queue, STREAM_NOTE_OTHER, &iface->id,
			      "the capture ends: %s", err.text) < 0)
			log_warn("the collector is not told of this");
		iface_detach(f, iface, "is given back to the host");
	}
	return f->n < n;
}

bool ifaces_tend(struct ifaces *f)
{
	bool list = ++f->ticks % GUARD_TICKS == 0 && give_back(f);

	for (size_t i = MIN(f->n, TEND_AT_ONCE); i-- > 0 && f->n;) {
		struct iface *iface = &f->v[f->tended++ % f->n];

		if (iface->failed || !hooks_gone(f, iface))
			continue;
		iface_detach(f, iface, "is to be attached again");
		list = true;
	}
	ifaces_settle(f);
	for (size_t i = 0; i < f->n; i++)
		list |= iface_retry_tick(&f->v[i].retry);
	return list;
}

static bool is_in(const struct iface *iface, const struct place *place)
{
	return iface->key >> 32 == place->number;
}

void ifaces_list_begin(struct ifaces *f, const struct place *place)
{
	for (size_t i = 0; i < f->n; i++)
		if (is_in(&f->v[i], place))
			f->v[i].listed = false;
}

static void detach_unlisted(struct ifaces *f, const struct place *place, const char *why)
{
	for (size_t i = f->n; i-- > 0;)
		if (is_in(&f->v[i], place) && !f->v[i].listed)
			iface_detach(f, &f->v[i], why);
	ifaces_settle(f);
}

void ifaces_list_end(struct ifaces *f, const struct place *place)
{
	detach_unlisted(f, place, "is gone");
}

void ifaces_leave(struct ifaces *f, const struct place *place)
{
	ifaces_list_begin(f, place);
	detach_unlisted(f, place, "is left with its namespace");
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
		hooks_gone(f, &f->v[i]);
		f->config.ops->detach(f->config.capture, f->v[i].key);
	}
	ifaces_settle(f);
	f->config.ops->quiesce(f->config.capture);
	ifaces_count(f);
}
