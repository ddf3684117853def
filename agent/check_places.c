/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network namespaces and the interfaces in them, as a run would find and choose them. Of our own
 * namespace those that the configuration names are meant to be there; with others, which come and
 * go, a name may be that of an interface in one of them.
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "check_internal.h"
#include "link_type.h"
#include "netns_list.h"
#include "places.h"
#include "text.h"
#include "util.h"

#define LISTS_MAX 10

struct search {
	struct check *c;
	struct check_places *found;
	struct netns_id self;
	uint32_t number; /* of the last one; our own has 0 */
};

static void note_link(void *ctx, const struct rtnl_link *link)
{
	struct check_place *p = ctx;

	if (p->n == p->cap) {
		size_t cap = p->cap ? 2 * p->cap : 16;
		struct rtnl_link *v = realloc(p->links, cap * sizeof(*v));

		if (!v) {
			p->failed = true;
			return;
		}
		p->links = v;
		p->cap = cap;
	}
	p->links[p->n++] = *link;
}

/* What is seen of a list that something changes under is not all there is. */
static int list_links(struct check_place *p, struct err *err)
{
	struct rtnl *rtnl = NULL;
	int r = rtnl_new(p->place.fd, &rtnl, err);

	for (int i = 0; rtnl && i < LISTS_MAX; i++) {
		p->n = 0;
		r = rtnl_list(rtnl, note_link, p, err);
		if (r != -EINTR)
			break;
	}
	rtnl_free(rtnl);
	if (r == 0 && p->failed)
		r = err_set(err, -ENOMEM, "out of memory");
	return r;
}

static void release(struct check_place *p)
{
	if (p->place.fd >= 0)
		close(p->place.fd);
	free(p->links);
}

/* Takes over @p. */
static int keep(struct check_places *found, struct check_place *p, struct err *err)
{
	struct check_place *v = realloc(found->v, (found->n + 1) * sizeof(*v));

	if (!v) {
		release(p);
		return err_set(err, -ENOMEM, "out of memory");
	}
	found->v = v;
	found->v[found->n++] = *p;
	return 0;
}

/* @path: NULL for our own. */
static int add(struct search *s, const char *path, struct err *err)
{
	struct check_place p = {.place.fd = -1, .id = s->self};
	int r = 0;

	if (path) {
		r = netns_open(path, &p.id, err);
		if (r < 0)
			return r;
		p.place.fd = r;
		p.place.number = s->number + 1;
		netns_name(path, p.place.name, sizeof(p.place.name));
	}
	r = list_links(&p, err);
	if (r < 0) {
		release(&p);
		return r;
	}
	s->number = p.place.number;
	return keep(s->found, &p, err);
}

static bool same(const struct netns_id *a, const struct netns_id *b)
{
	return a->dev == b->dev && a->inode == b->inode;
}

static bool is_known(const struct search *s, const struct netns_id *id)
{
	for (size_t i = 0; i < s->found->n; i++)
		if (same(&s->found->v[i].id, id))
			return true;
	return same(&s->self, id);
}

static void consider(void *ctx, const char *path, bool is_pattern)
{
	struct search *s = ctx;
	struct netns_id id = {};
	struct err err;
	int error;

	if (!netns_look(path, &s->self, &id, &error)) {
		if (!error || error == ENOENT || error == ENOTDIR) {
			if (!is_pattern)
				check_row(s->c, CHECK_WARN, "netns", path,
					  "mend the path, or wait for it",
					  "there is no network namespace \"%s\" yet", path);
			return;
		}
	} else if (is_known(s, &id)) {
		return;
	}
	if (s->number + 1 == PLACES_MAX)
		check_row(s->c, CHECK_WARN, "netns", path, "leave others out of netns",
			  "not captured in: %u others are already", PLACES_MAX - 1);
	else if (add(s, path, &err) < 0)
		check_row(s->c, CHECK_WARN, "netns", path,
			  "mend the path; one below /proc may take CAP_SYS_PTRACE",
			  "\"%s\" cannot be captured in: %s", path, err.text);
}

static void find_others(struct search *s)
{
	struct err err;

	if (netns_allowed(&err) < 0) {
		check_row(s->c, CHECK_FAILED, "netns", NULL,
			  "give it CAP_SYS_ADMIN, see the row capabilities", "%s", err.text);
		return;
	}
	netns_list_find(&s->c->config->netns, consider, s);
	check_row(s->c, s->number ? CHECK_OK : CHECK_WARN, "netns", NULL,
		  s->number ? NULL : "see netns, or wait for one to come",
		  "other network namespaces can be entered; %u of netns are there now", s->number);
}

bool check_place_wants(const struct check *c, const struct check_place *p,
		       const struct rtnl_link *link)
{
	return link->up && iface_wanted(c->config, &p->place, link);
}

static size_t count_wanted(const struct check *c, const struct check_places *places)
{
	size_t n = 0;

	for (size_t i = 0; i < places->n; i++)
		for (size_t k = 0; k < places->v[i].n; k++)
			n += check_place_wants(c, &places->v[i], &places->v[i].links[k]) &&
			     link_type_of(places->v[i].links[k].type);
	return n;
}

static void check_interfaces(struct check *c, const struct check_place *p, bool any)
{
	char names[400] = "", unfit[200] = "";
	struct text t = {.out = names, .size = sizeof(names)};
	struct text u = {.out = unfit, .size = sizeof(unfit)};
	bool own = !p->place.number;
	size_t n = 0;

	for (size_t i = 0; i < p->n; i++) {
		if (!check_place_wants(c, p, &p->links[i]))
			continue;
		if (link_type_of(p->links[i].type)) {
			text_put(&t, "%s%s", n ? " " : "", p->links[i].name);
			n++;
		} else {
			text_put(&u, " %s", p->links[i].name);
		}
	}
	check_row(c, any ? CHECK_OK : CHECK_WARN, own ? "interfaces" : "netns",
		  own ? NULL : p->place.name,
		  any ? NULL : "see interfaces, capturePoint and pcapMode, or wait for one to come",
		  "%zu to capture now%s%s%s%s", n, n ? ": " : "", names,
		  u.len ? "; not of a link type that can be captured:" : "", unfit);
}

static const struct rtnl_link *find(const struct check_place *p, const char *name)
{
	for (size_t i = 0; i < p->n; i++)
		if (strcmp(p->links[i].name, name) == 0)
			return &p->links[i];
	return NULL;
}

/* One that the configuration names and does not only have a pattern for is meant to be there. */
static void check_named(struct check *c, const struct check_place *own, const char *name,
			const char *key)
{
	const struct rtnl_link *link = find(own, name);

	if (*name == '!' || strpbrk(name, "*?[\\"))
		return;
	if (!link)
		check_row(c, CHECK_FAILED, "interface", name,
			  "mend the name, or write a pattern if it comes and goes",
			  "there is no interface \"%s\", which %s names", name, key);
	else if (!link_type_of(link->type))
		check_row(c, CHECK_FAILED, "interface", name,
			  "take it out, and capture on the device below or above it",
			  "packets of the link type of \"%s\" (ARPHRD %u) cannot be captured", name,
			  link->type);
	else if (!link->up)
		check_row(c, CHECK_FAILED, "interface", name, "`ip link set DEVICE up`",
			  "\"%s\", which %s names, is down, and is captured only once it is up",
			  name, key);
	else if (config_wants_interface(c->config, name, link->loopback) &&
		 !iface_wanted(c->config, &own->place, link))
		check_row(c, CHECK_FAILED, "interface", name,
			  "mend capturePoint, or take the interface out",
			  "\"%s\", which %s names, is not at the point that capturePoint says",
			  name, key);
}

static void check_taps(struct check *c, const struct check_place *own)
{
	for (size_t i = 0; i < c->config->taps.n; i++) {
		const char *name = c->config->taps.v[i];

		if (own)
			check_named(c, own, name, "taps");
		else
			check_row(c, CHECK_FAILED, "interface", name, "take \"!self\" out of netns",
				  "a tap is of the agent's own network namespace, which netns "
				  "leaves out");
	}
}

static void check_names(struct check *c, const struct check_place *own)
{
	const struct config *config = c->config;

	for (size_t i = 0; i < config->interfaces.n; i++)
		check_named(c, own, config->interfaces.v[i], "interfaces");
	for (size_t i = 0; i < config->interface_ports.n; i++)
		check_named(c, own, config->interface_ports.v[i].name, "captureInterfacesPorts");
	for (size_t i = 0; i < config->per_interface.n; i++)
		check_named(c, own, config->per_interface.v[i].name, "perInterface");
}

void check_places_find(struct check *c, struct check_places *ret)
{
	struct search s = {.c = c, .found = ret};
	bool own = netns_list_own(&c->config->netns);
	bool others = netns_list_others(&c->config->netns);
	struct err err;
	int r = netns_self(&s.self, &err);
	size_t n;

	if (r == 0 && own)
		r = add(&s, NULL, &err);
	if (r < 0)
		check_row(c, CHECK_FAILED, "interfaces", NULL, NULL, "%s", err.text);
	own = own && r == 0;
	if (others)
		find_others(&s);
	n = count_wanted(c, ret);
	for (size_t i = 0; i < ret->n; i++)
		check_interfaces(c, &ret->v[i], n);
	if (r == 0)
		check_taps(c, own ? &ret->v[0] : NULL);
	if (own && !others)
		check_names(c, &ret->v[0]);
}

void check_places_free(struct check_places *places)
{
	for (size_t i = 0; i < places->n; i++)
		release(&places->v[i]);
	free(places->v);
}
