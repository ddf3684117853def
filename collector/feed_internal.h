/* SPDX-License-Identifier: Apache-2.0 */
/* Between the feed_*.c. All of it is called with the feed's `lock` held. */
#ifndef PS_COLLECTOR_FEED_INTERNAL_H
#define PS_COLLECTOR_FEED_INTERNAL_H

#include "feed.h"

/* Parts of an interface that are saved each by itself, by direction - 1. */
#define FEED_CHANGED_META       1u
#define FEED_CHANGED_WRITTEN(d) (2u << (d))
#define FEED_CHANGED_STATS(d)   (8u << (d))
#define FEED_CHANGED_ALL        31u

void feed_mark(struct feed *f, struct feed_iface *iface, unsigned int what);

/* Which of the FEED_FILES an interface belongs to. */
unsigned int feed_file_of(const struct feed_iface *iface);

struct feed_iface *feed_lookup(const struct feed *f, uint32_t id);
/* The interface @id, made when there is none. -ENOMEM: no room, or no memory. */
int feed_restore(struct feed *f, uint32_t id, struct feed_iface **ret, struct err *err);
/* The same for an agent that speaks of it. -EPROTO: too many. */
int feed_obtain(struct feed *f, uint32_t id, struct feed_iface **ret, struct err *err);
/* Put what is known of an interface in, its state included. */
void feed_set_meta(struct feed *f, struct feed_iface *iface, const struct stream_iface *meta);
/* What the interfaces of @file that are gone and forgotten add up to; to be changed. */
struct feed_iface *feed_sum_of_gone(struct feed *f, unsigned int file);
/* Take @iface out. */
void feed_remove(struct feed *f, struct feed_iface *iface);

void feed_rest_locked(struct feed *f, enum feed_state state, nsec_t unknown_after);

static inline void feed_count_add(struct ledger_count *to, const struct ledger_count *c)
{
	to->packets += c->packets;
	to->bytes += c->bytes;
}

#endif
