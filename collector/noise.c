/* SPDX-License-Identifier: Apache-2.0 */
#include "noise.h"

#include <stdarg.h>
#include <stdio.h>

#include "log.h"
#include "util.h"

void noise_init(struct noise *n)
{
	*n = (struct noise){};
	pthread_mutex_init(&n->lock, NULL);
}

void noise_destroy(struct noise *n)
{
	pthread_mutex_destroy(&n->lock);
}

bool noise_allow(struct noise *n, nsec_t now, unsigned int *ret_suppressed)
{
	bool allowed;

	pthread_mutex_lock(&n->lock);
	if (now - n->second >= NSEC_PER_SEC) {
		n->second = now;
		n->lines = 0;
	}
	allowed = n->lines < NOISE_LINES_PER_SECOND;
	if (allowed) {
		n->lines++;
		*ret_suppressed = n->suppressed;
		n->suppressed = 0;
	} else {
		n->suppressed++;
	}
	pthread_mutex_unlock(&n->lock);
	return allowed;
}

void noise_warn(struct noise *n, const char *fmt, ...)
{
	unsigned int suppressed;
	char text[1024];
	va_list ap;

	if (!noise_allow(n, clock_monotonic(), &suppressed))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (suppressed)
		log_warn("%u warnings about peers were left out", suppressed);
	log_warn("%s", text);
}
