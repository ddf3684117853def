// SPDX-License-Identifier: Apache-2.0
/* New rules for interfaces that are being captured: for all of them, or for none. */
#include <errno.h>
#include <string.h>

#include "iface_internal.h"
#include "log.h"
#include "note.h"
#include "util.h"

/* What becomes of an interface at a refresh. */
struct refresh {
	bool leave; /* its packets cannot be asked what the filter asks */
	bool other; /* its rule or limit changes */
	struct capture_iface to;
};

static struct capture_iface as_it_is(const struct iface *iface)
{
	return (struct capture_iface){
		.ifindex = (uint32_t)iface->key,
		.netns = (uint32_t)(iface->key >> 32),
		.name = iface->name,
		.rule = iface->rule,
		.limit = iface->limit,
	};
}

/* Ask the filters for all new rules, which loads what these need; changes nothing in force. */
static int ask_all(struct ifaces *f, struct refresh *v, struct err *err)
{
	size_t left = 0;

	for (size_t i = 0; i < f->n; i++) {
		const struct iface *iface = &f->v[i];
		struct capture_iface *to = &v[i].to;
		int r;

		if (iface->failed)
			continue;
		*to = as_it_is(iface);
		r = filters_rule(f->config.filters, iface->name,
				 book_link_type(f->config.book, iface->id), &to->rule, &to->limit,
				 err);
		v[i].leave = r == -EOPNOTSUPP;
		left += v[i].leave;
		if (r < 0)
			err_wrap(err, r, "%s", iface->name);
		if (r < 0 && (!v[i].leave || left == ifaces_number(f)))
			return r;
		v[i].other = !v[i].leave && (memcmp(&to->rule, &iface->rule, sizeof(to->rule)) ||
					     memcmp(&to->limit, &iface->limit, sizeof(to->limit)));
	}
	return 0;
}

/* Put the new rules in force, or none of them. */
static int apply(struct ifaces *f, const struct refresh *v, struct err *err)
{
	const struct ifaces_config *c = &f->config;
	struct capture_iface was;
	struct err ignored;
	int r = 0;
	size_t i;

	for (i = 0; i < f->n && r >= 0; i++)
		if (v[i].other)
			r = c->ops->set_rule(c->capture, &v[i].to, err);
	while (r < 0 && i-- > 0) {
		was = as_it_is(&f->v[i]);
		if (v[i].other)
			c->ops->set_rule(c->capture, &was, &ignored);
	}
	return r;
}

static void tell_of_filter(struct ifaces *f, const struct iface *iface)
{
	const char *filter = filters_text(f->config.filters, iface->name);

	log_info("the filter of \"%s\" is now: %s", iface->name, filter ? filter : "none");
	if (note_push(f->config.queue, STREAM_NOTE_FILTER, &iface->id, "%s", filter ? filter : "") <
	    0)
		log_warn("the collector is not told of the filter of \"%s\"", iface->name);
}

/* The new rules are in force. */
static void note_applied(struct ifaces *f, const struct refresh *v)
{
	/* Backwards: the last one takes the place of one that is left. */
	for (size_t i = f->n; i-- > 0;) {
		struct iface *iface = &f->v[i];

		/* It may be the filter that it could not be captured with. */
		if (iface->failed)
			iface_retry_at_once(&iface->retry);
		if (v[i].leave) {
			iface_detach(f, iface,
				     "is left: its packets cannot be asked what the filter asks");
			continue;
		}
		if (v[i].other) {
			iface->rule = v[i].to.rule;
			iface->limit = v[i].to.limit;
		}
		if (!iface->failed && filters_text_changed(f->config.filters, iface->name))
			tell_of_filter(f, iface);
	}
	ifaces_settle(f);
}

int ifaces_refresh(struct ifaces *f, struct err *err)
{
	_cleanup_free_ struct refresh *v = calloc(f->n + 1, sizeof(*v));
	int r = v ? 0 : err_set(err, -ENOMEM, "out of memory");

	if (r == 0)
		r = ask_all(f, v, err);
	if (r == 0)
		r = apply(f, v, err);
	if (r >= 0)
		note_applied(f, v);
	f->config.ops->quiesce(f->config.capture);
	return MIN(r, 0);
}
