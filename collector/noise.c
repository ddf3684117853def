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

static bool allow(struct noise *n, nsec_t now, unsigned int *lines, unsigned int most,
		  unsigned int *ret_suppressed)
{
	bool allowed;

	pthread_mutex_lock(&n->lock);
	if (now - n->second >= NSEC_PER_SEC) {
		n->second = now;
		n->lines = n->infos = 0;
	}
	allowed = *lines < most;
	if (allowed) {
		++*lines;
		*ret_suppressed = n->suppressed;
		n->suppressed = 0;
	} else {
		n->suppressed++;
	}
	pthread_mutex_unlock(&n->lock);
	return allowed;
}

bool noise_allow(struct noise *n, nsec_t now, unsigned int *ret_suppressed)
{
	return allow(n, now, &n->lines, NOISE_LINES_PER_SECOND, ret_suppressed);
}

/* FNV-1a, 64 bits. */
static uint64_t hash_bytes(uint64_t hash, const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		hash = (hash ^ (uint8_t)text[i]) * 0x100000001b3;
	return hash;
}

bool noise_repeats(struct noise *n, nsec_t now, const char *peer, const char *name, const char *why)
{
	const char *port = strrchr(peer, ':');
	uint64_t hash = 0xcbf29ce484222325;
	bool repeats;
	size_t at;

	hash = hash_bytes(hash, peer, port ? (size_t)(port - peer) : strlen(peer));
	hash = hash_bytes(hash, name, strlen(name) + 1);
	hash = hash_bytes(hash, why, strlen(why));
	at = hash % NOISE_REMEMBERED;

	pthread_mutex_lock(&n->lock);
	repeats = n->remembered[at].hash == hash && now - n->remembered[at].told < NOISE_REPEAT;
	if (repeats) {
		n->suppressed++;
	} else {
		n->remembered[at].hash = hash;
		n->remembered[at].told = now;
	}
	pthread_mutex_unlock(&n->lock);
	return repeats;
}

static void write_line(enum log_level level, unsigned int suppressed, const char *fmt, va_list ap)
{
	char text[NOISE_LINE_MAX];

	vsnprintf(text, sizeof(text), fmt, ap);
	if (suppressed)
		log_warn("%u lines about peers were left out", suppressed);
	log_line(level, "%s", text);
}

void noise_warn(struct noise *n, const char *fmt, ...)
{
	unsigned int suppressed;
	va_list ap;

	if (!noise_allow(n, clock_monotonic(), &suppressed))
		return;
	va_start(ap, fmt);
	write_line(LOG_LEVEL_WARN, suppressed, fmt, ap);
	va_end(ap);
}

void noise_info(struct noise *n, const char *fmt, ...)
{
	unsigned int suppressed;
	va_list ap;

	if (!allow(n, clock_monotonic(), &n->infos, NOISE_INFOS_PER_SECOND, &suppressed))
		return;
	va_start(ap, fmt);
	write_line(LOG_LEVEL_INFO, suppressed, fmt, ap);
	va_end(ap);
}
