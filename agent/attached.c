// SPDX-License-Identifier: Apache-2.0
#include "attached.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>

#include "netns.h"
#include "netns_entry.h"
#include "util.h"

/* Egress first: the qdisc goes with the hook that made it, which is that of ingress. */
static void detach_hooks(struct attached *a)
{
	hook_detach(&a->hooks[HOOK_XDP]);
	hook_detach(&a->hooks[HOOK_OUT]);
	hook_detach(&a->hooks[HOOK_IN]);
}

static int warn_of_earlier(const struct attached *a, struct err *err)
{
	const struct hook *in = &a->hooks[HOOK_IN], *out = &a->hooks[HOOK_OUT];
	const struct hook *h =
		out->earlier && (!in->earlier || out->earlier < in->earlier) ? out : in;

	if (!h->earlier)
		return 0;
	return err_set(err, 1,
		       "another %s %u) runs first on %s of %s: packets that it takes are not seen",
		       h->link_fd >= 0 ? "TCX program (id" : "filter (priority", h->earlier,
		       in->earlier && out->earlier ? "ingress and egress"
		       : in->earlier               ? "ingress"
						   : "egress",
		       a->name);
}

struct entries {
	int tc[2], xdp, generic; /* descriptors of the programs to attach, by direction - 1 */
};

static int attach_hooks(struct attached *a, const struct entries *entries,
			const struct attached_how *how, struct err *err)
{
	static const enum direction directions[] = {DIRECTION_INGRESS, DIRECTION_EGRESS};
	uint32_t ifindex = (uint32_t)a->key;
	int r = 0;

	/* With XDP what comes in is captured there, and what goes out is only watched. */
	for (int i = how->use_xdp ? HOOK_OUT : HOOK_IN; !r && i <= HOOK_OUT; i++)
		r = hook_attach(&a->hooks[i], how->mode, entries->tc[i], ifindex, directions[i],
				err);
	if (!r && how->use_xdp)
		r = hook_attach_xdp(&a->hooks[HOOK_XDP], how->xdp_mode, entries->xdp,
				    entries->generic, ifindex, err);
	if (r < 0)
		detach_hooks(a);
	return MIN(r, 0);
}

static int attach_own(struct attached *a, const struct attached_how *how, struct err *err)
{
	const struct entries entries = {
		{how->tc->entry[0], how->tc->entry[1]}, how->xdp->entry[0], how->generic->entry[0]};

	return attach_hooks(a, &entries, how, err);
}

static int attach_by_netns(struct attached *a, const struct attached_how *how, struct err *err)
{
	struct netns_entry tc = {{-1, -1}}, xdp = {{-1, -1}}, generic = {{-1, -1}};
	uint32_t netns = (uint32_t)(a->key >> 32);
	int home, r = netns_entry_load(&tc, how->tc, netns, err);

	if (!r && how->xdp->object)
		r = netns_entry_load(&xdp, how->xdp, netns, err);
	if (!r && how->generic->object)
		r = netns_entry_load(&generic, how->generic, netns, err);
	if (!r)
		r = netns_enter(a->netns_fd, &home, err);
	if (!r) {
		const struct entries entries = {{tc.fd[0], tc.fd[1]}, xdp.fd[0], generic.fd[0]};

		r = attach_hooks(a, &entries, how, err);
		netns_return(home);
	}
	/* They live as long as they are attached. */
	netns_entry_close(&tc);
	netns_entry_close(&xdp);
	netns_entry_close(&generic);
	return r;
}

int attached_open(struct attached *a, const struct capture_iface *iface,
		  const struct attached_how *how, struct err *err)
{
	int r = how->tc->by_netns ? attach_by_netns(a, how, err) : attach_own(a, how, err);

	snprintf(a->name, sizeof(a->name), "%s", iface->name);
	return r ? r : warn_of_earlier(a, err);
}

static bool interface_exists(uint32_t ifindex)
{
	char name[IF_NAMESIZE];

	return if_indextoname(ifindex, name);
}

int attached_intact(struct attached *a, struct err *err)
{
	uint32_t in = a->hooks[HOOK_IN].earlier, out = a->hooks[HOOK_OUT].earlier;
	bool intact, news;
	int home;

	if (netns_enter(a->netns_fd, &home, err))
		return 1;
	/* An interface that goes is out of the list before its hooks are taken away. */
	intact = (hook_intact(&a->hooks[HOOK_IN]) & hook_intact(&a->hooks[HOOK_OUT])) ||
		 !interface_exists((uint32_t)a->key);
	netns_return(home);
	news = a->hooks[HOOK_IN].earlier != in || a->hooks[HOOK_OUT].earlier != out;
	return intact && news && warn_of_earlier(a, err) ? 2 : intact;
}

void attached_close(struct attached *a)
{
	struct err ignored;
	int home;

	if (netns_enter(a->netns_fd, &home, &ignored)) {
		for (int i = 0; i < HOOKS; i++)
			hook_abandon(&a->hooks[i]);
		return;
	}
	detach_hooks(a);
	netns_return(home);
}
