/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the sets share: sorted tables of prefixes, their text, the kernel's maps. */
#ifndef PS_SETS_INTERNAL_H
#define PS_SETS_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

/*
 * Prefixes of one family. A record is the address, then one byte: the number of its bits
 * that count, the others are zero. Sorted as bytes: so a network comes before what is in it.
 */
struct prefixes {
	size_t size; /* of an address: 4, 16 */
	size_t n, cap;
	uint8_t *records;
};

static inline uint8_t *prefixes_at(const struct prefixes *p, size_t i)
{
	return p->records + i * (p->size + 1);
}

/* False when out of memory. */
bool prefixes_add(struct prefixes *p, const uint8_t *address, uint8_t bits);
/* Sort, and drop what occurs twice or is in another. */
void prefixes_settle(struct prefixes *p);
/* Of settled tables. */
bool prefixes_have(const struct prefixes *p, const uint8_t *address);
bool prefixes_same(const struct prefixes *a, const struct prefixes *b);
void prefixes_release(struct prefixes *p);

/* Add to the two tables @to, of IPv4 and IPv6, each of up to @max; they are not settled. */
int sets_read_file(struct prefixes *to, uint32_t max, const char *path, struct err *err);
int sets_read_list(struct prefixes *to, uint32_t max, const char *const *items, size_t n,
		   struct err *err);

/* In the kernel, where nothing changes them. */
struct set_maps {
	int hosts, nets; /* -1: there are none */
};

#define SET_MAPS_NONE ((struct set_maps){.hosts = -1, .nets = -1})

/* From a settled table. On an error as set_maps_close() leaves it; -EPERM: no right to make maps.
 */
int set_maps_open(struct set_maps *m, const struct prefixes *p, struct err *err);
void set_maps_close(struct set_maps *m);

#endif
