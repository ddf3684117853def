/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An interface with the capture programs on it: its hooks, put there and looked after
 * in its network namespace. One thread.
 */
#ifndef PS_ATTACHED_H
#define PS_ATTACHED_H

#include "capture.h"
#include "hook.h"
#include "programs.h"

enum { HOOK_IN, HOOK_OUT, HOOK_XDP, HOOKS };

struct attached {
	uint64_t key; /* IFACE_KEY() */
	int netns_fd; /* the caller's; -1: our own namespace */
	bool ingress_only;
	int tap; /* its number; -1: none */
	char name[16];
	struct hook hooks[HOOKS];
};

struct attached_how {
	enum hook_mode mode;
	bool use_xdp; /* XDP at ingress; then TC at egress only learns */
	enum xdp_mode xdp_mode;
	const struct programs *tc, *xdp, *generic; /* not loaded what is not needed */
};

/*
 * Put the programs on an interface; a->key, netns_fd and ingress_only are there. 1: some packets
 * may be kept from being seen, the sentence says by whom. On failure nothing is attached.
 */
int attached_open(struct attached *a, const struct capture_iface *iface,
		  const struct attached_how *how, struct err *err);
/* As capture_ops.intact. */
int attached_intact(struct attached *a, struct err *err);
void attached_close(struct attached *a);

#endif
