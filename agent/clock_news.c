// SPDX-License-Identifier: Apache-2.0
#include "clock_news.h"

#include <stdio.h>

#include "log.h"
#include "note.h"

bool clock_news_tell(struct clock_news *n, nsec_t now)
{
	unsigned int steps;
	char text[128];
	int64_t sum;

	if (n->told && now - n->told < CLOCK_NEWS_AGAIN)
		return false;
	steps = wallclock_steps(n->wallclock, &sum);
	if (!steps)
		return false;
	n->told = now;
	if (steps == 1)
		snprintf(text, sizeof(text), "the wall clock was set by %+lld ns", (long long)sum);
	else
		snprintf(text, sizeof(text), "the wall clock was set %u times, by %+lld ns in all",
			 steps, (long long)sum);
	log_warn("%s", text);
	if (note_push(n->queue, STREAM_NOTE_CLOCK, NULL, "%s", text) < 0)
		log_warn("the collector is not told of that");
	return true;
}
