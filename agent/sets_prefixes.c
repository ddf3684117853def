// SPDX-License-Identifier: Apache-2.0
#include <stdlib.h>
#include <string.h>

#include "sets_internal.h"
#include "util.h"

bool prefixes_add(struct prefixes *p, const uint8_t *address, uint8_t bits)
{
	if (p->n == p->cap) {
		size_t cap = MAX(2 * p->cap, 64u);
		uint8_t *records = reallocarray(p->records, cap, p->size + 1);

		if (!records)
			return false;
		p->records = records;
		p->cap = cap;
	}
	memcpy(prefixes_at(p, p->n), address, p->size);
	prefixes_at(p, p->n++)[p->size] = bits;
	return true;
}

static int by_bytes(const void *a, const void *b, void *size)
{
	return memcmp(a, b, *(const size_t *)size + 1);
}

static bool contains(const uint8_t *record, size_t size, const uint8_t *address)
{
	size_t whole = record[size] / 8, bits = record[size] % 8;

	if (memcmp(record, address, whole))
		return false;
	return !bits || !((record[whole] ^ address[whole]) >> (8 - bits));
}

void prefixes_settle(struct prefixes *p)
{
	size_t kept = 0;

	if (!p->n)
		return;
	qsort_r(p->records, p->n, p->size + 1, by_bytes, &p->size);
	for (size_t i = 1; i < p->n; i++) {
		if (contains(prefixes_at(p, kept), p->size, prefixes_at(p, i)))
			continue;
		kept++;
		memmove(prefixes_at(p, kept), prefixes_at(p, i), p->size + 1);
	}
	p->n = kept + 1;
}

bool prefixes_have(const struct prefixes *p, const uint8_t *address)
{
	size_t from = 0, to = p->n;

	/* The last one whose address is not above: prefixes do not overlap. */
	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (memcmp(prefixes_at(p, middle), address, p->size) <= 0)
			from = middle + 1;
		else
			to = middle;
	}
	return from && contains(prefixes_at(p, from - 1), p->size, address);
}

bool prefixes_same(const struct prefixes *a, const struct prefixes *b)
{
	return a->n == b->n && (!a->n || !memcmp(a->records, b->records, a->n * (a->size + 1)));
}

void prefixes_release(struct prefixes *p)
{
	free(p->records);
	*p = (struct prefixes){.size = p->size};
}
