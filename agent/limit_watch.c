// SPDX-License-Identifier: Apache-2.0
#include "limit_watch.h"

enum limit_news limit_watch(struct limit_watch *w, uint64_t count, nsec_t now)
{
	uint64_t before = w->count;

	w->count = count;
	if (count != before)
		w->last = now;
	if (w->in_force) {
		if (now - w->last < LIMIT_WATCH_QUIET)
			return LIMIT_NO_NEWS;
		w->in_force = false;
		return LIMIT_ENDS;
	}
	if (count == before || (w->told && now - w->told < LIMIT_WATCH_EVERY))
		return LIMIT_NO_NEWS;
	w->first = before;
	w->told = now;
	w->in_force = true;
	return LIMIT_BEGINS;
}
