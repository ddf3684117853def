/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the interfaces share; iface.c explains it. */
#ifndef PS_IFACE_INTERNAL_H
#define PS_IFACE_INTERNAL_H

#include "clock.h"
#include "iface.h"
#include "limit_watch.h"

/* Of an interface that cannot be captured: iface_retry.c. */
struct iface_retry {
	unsigned int wait; /* seconds from the last try to the next; 0: none under this name */
	unsigned int left; /* of these */
	bool due;          /* they are over, and it has not been tried */
	bool down;         /* it was when netlink last told of it */
};

struct iface {
	uint64_t key; /* IFACE_KEY() */
	uint32_t id, slot;
	uint64_t netns_inode;
	char name[RTNL_NAME_MAX];
	char netns_name[STREAM_NAME_MAX + 1];
	struct iface_rule rule;
	struct capture_limit limit;
	struct limit_watch watch;
	bool failed; /* could not be attached: said so */
	struct iface_retry retry;
	bool listed;
	bool unhooked; /* somebody has removed its hooks: said so */
	nsec_t looked; /* CLOCK_REALTIME: its hooks were there then */
};

struct ifaces {
	struct ifaces_config config;
	struct iface *v;
	size_t n, cap;
	struct iface going[IFACE_SLOTS]; /* detached, not settled; their slots are taken */
	size_t n_going;
	bool slots[IFACE_SLOTS];
	size_t tended; /* index of the interface whose hooks were looked at last */
	unsigned int ticks;
};

/* Captured no more, and not in the list any more: the last one has its place. */
void iface_detach(struct ifaces *f, struct iface *iface, const char *why);

/* A try ended with @r (-errno): when is the next one? */
void iface_retry_plan(struct iface_retry *t, int r, bool tap);
/* Other settings are in force: with the next message, and the waits begin anew. */
void iface_retry_at_once(struct iface_retry *t);
/* Netlink tells of the interface. True: to be tried now. */
bool iface_retry_link(struct iface_retry *t, bool up);
/* Every second. True: it has become due, and netlink is to be asked for it. */
bool iface_retry_tick(struct iface_retry *t);

#endif
