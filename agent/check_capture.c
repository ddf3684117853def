/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs, interfaces and hooks, all of it for real: what attaches here attaches in a run. Nothing
 * stays: signals that would end the process wait until the hooks are off, and a TCX link would
 * go with the process anyway. Each hook is there for a moment, in which it captures into
 * rings that nobody reads.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/if_link.h>
#include <signal.h>
#include <stdio.h>

#include "agent.h"
#include "check_internal.h"
#include "filters.h"
#include "link_type.h"
#include "live.h"
#include "rights.h"
#include "util.h"

#define RING_TRIAL_BYTES (1u << 20) /* where there is no memory for the real ones */

/* As a row has it: an interface of another namespace has that one's name before its own. */
struct subject {
	char text[STREAM_NAME_MAX + RTNL_NAME_MAX + 2];
};

static struct subject subject(const struct check_place *p, const struct rtnl_link *link)
{
	struct subject s;

	snprintf(s.text, sizeof(s.text), "%s%s%s", p->place.name, p->place.name[0] ? "/" : "",
		 link->name);
	return s;
}

static bool is_tap(const struct check *c, const struct check_place *p, const struct rtnl_link *link)
{
	return !p->place.number && config_is_tap(c->config, link->name);
}

/* " \"xdp_prog\"", where we may know. */
static void program_name(uint32_t id, char *out, size_t size)
{
	_cleanup_close_ int fd = bpf_prog_get_fd_by_id(id);
	struct bpf_prog_info info = {};
	uint32_t len = sizeof(info);

	*out = '\0';
	if (fd >= 0 && bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && info.name[0])
		snprintf(out, size, " \"%.15s\"", info.name);
}

/*
 * Somebody's XDP program: it has the place of ours, or stands before our TC hooks.
 */
static void check_xdp(struct check *c, const struct check_place *p, const struct rtnl_link *link)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, xdp);
	bool tap = is_tap(c, p, link);
	const char *mode = "in several modes";
	char name[32];
	uint32_t id;

	if (bpf_xdp_query((int)link->ifindex, 0, &xdp) < 0 || xdp.attach_mode == XDP_ATTACHED_NONE)
		return;
	id = xdp.prog_id ? xdp.prog_id : xdp.drv_prog_id ? xdp.drv_prog_id : xdp.skb_prog_id;
	if (xdp.attach_mode == XDP_ATTACHED_DRV)
		mode = "native";
	else if (xdp.attach_mode == XDP_ATTACHED_SKB)
		mode = "generic";
	else if (xdp.attach_mode == XDP_ATTACHED_HW)
		mode = "in the hardware";
	program_name(id, name, sizeof(name));
	if (c->config->backend == BACKEND_XDP || tap)
		check_row(c, CHECK_FAILED, "xdp", subject(p, link).text,
			  tap ? "take that program off"
			      : "use `backend: tc`, or take that program off",
			  "the XDP hook is taken by program %u%s (%s), and there is room for one",
			  id, name, mode);
	else
		check_row(c, CHECK_WARN, "xdp", subject(p, link).text,
			  "take the program off if its packets are to be captured too",
			  "the XDP hook is taken by program %u%s (%s): packets that it drops or "
			  "redirects do not come to the TC hooks",
			  id, name, mode);
}

static void check_xdp_of(struct check *c, const struct check_place *p)
{
	struct err err;
	int home;

	/* Who may not enter is told so by the hooks. */
	if (netns_enter(p->place.fd, &home, &err) < 0)
		return;
	for (size_t i = 0; i < p->n; i++)
		if (check_place_wants(c, p, &p->links[i]))
			check_xdp(c, p, &p->links[i]);
	netns_return(home);
}

static bool is_interrupted(void)
{
	sigset_t pending;

	return sigpending(&pending) == 0 &&
	       (sigismember(&pending, SIGINT) || sigismember(&pending, SIGTERM) ||
		sigismember(&pending, SIGHUP));
}

/* What a run would have open when it comes to the interfaces. */
struct trial {
	struct ifaces_config ifaces;
	struct rules *rules;
};

/* On success @how gets by what: the hook is off again, but for a moment it was there. */
static int attach(const struct trial *t, const struct check_place *p, const struct rtnl_link *link,
		  char *how, size_t size, struct err *err)
{
	const struct capture_ops *ops = t->ifaces.ops;
	uint64_t key = IFACE_KEY(p->place.number, link->ifindex);
	struct capture_iface to;
	const char *said;
	int r = iface_prepare(&t->ifaces, &p->place, link, &to, err);

	if (r < 0)
		return r;
	ops->beat(t->ifaces.capture);
	r = ops->attach(t->ifaces.capture, &to, err);
	if (r < 0)
		return r;
	said = ops->how ? ops->how(t->ifaces.capture, key) : NULL;
	snprintf(how, size, "%s", said ? said : ops->describe(t->ifaces.capture));
	ops->detach(t->ifaces.capture, key);
	/* Its rings make room for the next one's. */
	if (ops->user_space)
		ops->quiesce(t->ifaces.capture);
	return r;
}

static const char *hook_hint(int r)
{
	switch (r) {
	case 1:
		return "give that filter a higher priority number than ours";
	case -EPERM:
		return "see the row capabilities";
	case -EADDRINUSE:
		return "take it out of taps, or out of the host's use";
	case -EINVAL:
	case -E2BIG:
		return "see ps-filter(7)";
	case -EOPNOTSUPP:
		return NULL; /* the sentence says it all */
	default:
		return "see what else is on it: `tc filter show`, `bpftool net`";
	}
}

static void try_hook(struct check *c, const struct trial *t, const struct check_place *p,
		     const struct rtnl_link *link)
{
	struct subject name = subject(p, link);
	char how[128];
	struct err err;
	int r = attach(t, p, link, how, sizeof(how), &err);

	if (r == 0)
		check_row(c, CHECK_OK, "hook", name.text, NULL, "%s, attached and taken off again",
			  how);
	else
		check_row(c, r > 0 ? CHECK_WARN : CHECK_FAILED, "hook", name.text, hook_hint(r),
			  "%s", err.text);
}

static const char *open_hint(int r)
{
	switch (r) {
	case -EPERM:
	case -EACCES:
		return "see the rows capabilities and bpf";
	case -ENOMEM:
		return "make ringSize smaller";
	default:
		return "a kernel of 5.10 or later is needed";
	}
}

static int open_trial(struct check *c, const struct config *config, struct trial *t)
{
	struct ifaces_config *i = &t->ifaces;
	struct err report = {}, err;
	int r = agent_open_capture(config, &t->rules, &i->ops, &i->capture, &report, &err);

	if (r < 0) {
		check_row(c, CHECK_FAILED, "capture", NULL, open_hint(r), "%s", err.text);
		return r;
	}
	if (report.text[0])
		check_row(c, CHECK_WARN, "capture", NULL, "see the rows capabilities and bpf",
			  "by %s, because a better way does not work here: %s",
			  i->ops->describe(i->capture), report.text);
	else
		check_row(c, CHECK_OK, "capture", NULL, NULL, "it can be opened; by %s",
			  i->ops->describe(i->capture));
	r = filters_new(config, i->ops, i->capture, &i->filters, &err);
	if (r < 0)
		check_row(c, CHECK_FAILED, "filter", NULL, "see ps-filter(7)", "%s", err.text);
	i->config = config;
	i->rules = t->rules;
	return r;
}

/* libpcap has rings for each interface, and the shortest ones add up. */
static void check_rings(struct check *c, size_t interfaces)
{
	uint64_t least = interfaces * 2 * LIVE_BLOCKS_MIN * LIVE_BLOCK;

	if (least + c->config->ring_bytes > LIVE_RINGS_MAX * c->config->ring_bytes)
		check_row(c, CHECK_WARN, "rings", NULL, "make ringSize larger",
			  "the rings of %zu interfaces take %" PRIu64
			  " MiB at least, and there may be %u times ringSize: some may not be "
			  "captured",
			  interfaces, least >> 20, LIVE_RINGS_MAX);
}

static size_t try_hooks_of(struct check *c, const struct trial *t, const struct check_place *p)
{
	size_t n = 0;

	for (size_t i = 0; i < p->n && !is_interrupted(); i++) {
		if (!check_place_wants(c, p, &p->links[i]) || !link_type_of(p->links[i].type))
			continue;
		try_hook(c, t, p, &p->links[i]);
		n++;
	}
	return n;
}

static void check_hooks(struct check *c, const struct check_places *places)
{
	struct config config = *c->config;
	struct trial t = {};
	size_t n = 0;
	int r;

	if (c->memory_short)
		config.ring_bytes = RING_TRIAL_BYTES;
	r = open_trial(c, &config, &t);
	for (size_t i = 0; r == 0 && i < places->n; i++)
		n += try_hooks_of(c, &t, &places->v[i]);
	if (r == 0 && t.ifaces.ops->user_space)
		check_rings(c, n);
	if (t.ifaces.capture)
		t.ifaces.ops->close(t.ifaces.capture);
	filters_free(t.ifaces.filters);
	rules_free(t.rules);
}

void check_capture(struct check *c)
{
	struct check_places places = {};
	sigset_t ends, before;

	rights_raise_fd_limit();
	check_places_find(c, &places);
	for (size_t i = 0; i < places.n; i++)
		check_xdp_of(c, &places.v[i]);

	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGHUP);
	sigprocmask(SIG_BLOCK, &ends, &before);
	check_hooks(c, &places);
	/* One that came meanwhile ends the process here. */
	sigprocmask(SIG_SETMASK, &before, NULL);
	check_places_free(&places);
}
