// SPDX-License-Identifier: Apache-2.0
/*
 * When an interface that cannot be captured is tried again: after a wait that grows, and once when
 * it comes up. Never because of anything else that netlink tells of it, since a try may change the
 * interface, and netlink tells of that.
 */
#include <errno.h>

#include "iface_internal.h"
#include "util.h"

/* Seconds. */
#define WAIT_FIRST    10u
#define WAIT_RESOLVER 60u /* at first: the loop stands still while it is asked */
#define WAIT_MAX      600u

/* For want of room, which there may be one day, or because of others who use a tap or its queues?
 */
static bool may_work_later(int r, bool tap)
{
	return r == -ENOBUFS || r == -ENOSPC || r == -ENOMEM || r == -ENOENT ||
	       (tap && (r == -EBUSY || r == -EINTR || r == -EADDRINUSE));
}

void iface_retry_plan(struct iface_retry *t, int r, bool tap)
{
	unsigned int least = r == -ENOENT ? WAIT_RESOLVER : WAIT_FIRST;

	t->due = false;
	t->wait = may_work_later(r, tap) ? MIN(MAX(2 * t->wait, least), WAIT_MAX) : 0;
	t->left = t->wait;
}

void iface_retry_at_once(struct iface_retry *t)
{
	*t = (struct iface_retry){.due = true, .down = t->down};
}

bool iface_retry_link(struct iface_retry *t, bool up)
{
	bool comes_up = up && t->down;

	t->down = !up;
	return up && (t->due || (comes_up && t->wait));
}

bool iface_retry_tick(struct iface_retry *t)
{
	if (!t->left || --t->left)
		return false;
	t->due = true;
	return true;
}
