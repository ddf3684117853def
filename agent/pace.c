// SPDX-License-Identifier: Apache-2.0
#include "pace.h"

#include "util.h"

/* A segment of 1,448 bytes has 66 bytes of headers, with TLS a little more. */
#define OVERHEAD (17.0 / 16)
/* Fewer bytes are not worth a record of their own. */
#define LEAST 512u

double pace_rate(uint64_t bits_per_s)
{
	return PACE_SHARE * (double)bits_per_s / 8 / OVERHEAD;
}

static double ns_per_byte(const struct pace *p)
{
	return (double)NSEC_PER_SEC / (PACE_SHARE * (double)p->bits_per_s / 8);
}

void pace_set(struct pace *p, uint64_t bits_per_s)
{
	p->bits_per_s = bits_per_s;
	p->at = 0;
}

static nsec_t cost(const struct pace *p, size_t size)
{
	return (nsec_t)((OVERHEAD * (double)size + PACE_RECORD) * ns_per_byte(p));
}

size_t pace_allow(struct pace *p, nsec_t now, size_t size, nsec_t *ret_at)
{
	size_t least = MIN(size, LEAST);
	nsec_t ahead = p->at > now ? p->at - now : 0;
	double bytes;

	if (!p->bits_per_s)
		return size;
	/* A small piece may be dearer than the burst, then it has to be the only one. */
	if (ahead && ahead + cost(p, least) > PACE_BURST) {
		nsec_t most = PACE_BURST > cost(p, least) ? PACE_BURST - cost(p, least) : 0;

		*ret_at = p->at - most;
		return 0;
	}
	bytes = ((double)(PACE_BURST - MIN(ahead, PACE_BURST)) / ns_per_byte(p) - PACE_RECORD) /
		OVERHEAD;
	return bytes > (double)least ? MIN(size, (size_t)bytes) : least;
}

void pace_charge(struct pace *p, nsec_t now, size_t size)
{
	if (p->bits_per_s)
		p->at = MAX(p->at, now) + cost(p, size);
}
