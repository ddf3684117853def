/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named sets of addresses, for `host @NAME` in an expression: IPv4 and IPv6 addresses and
 * networks from a file or a list, in maps of the kernel that expression programs look
 * into, and in sorted arrays for user space.
 *
 * Sets never change. Other contents are other sets, in other maps, which other programs look
 * into: so going over to them is one step, and going back touches neither file nor map.
 *
 * Threads: one owns the sets; any number call set_has() at the same time.
 */
#ifndef PS_SETS_H
#define PS_SETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define SET_NAME_MAX 63u

struct sets;
struct set;

/* @max: addresses and networks of a set, per family. NULL: out of memory. */
struct sets *sets_new(uint32_t max);
struct sets *sets_free(struct sets *s);

/*
 * A set from the file @path: an address or network (10.0.0.0/8) per line, # starts a
 * comment. Errors are those of the file, FILE:LINE: what is wrong. -EEXIST: the name is
 * taken.
 */
int sets_add_file(struct sets *s, const char *name, const char *path, struct err *err);
/* A set from a list of addresses and networks. */
int sets_add_list(struct sets *s, const char *name, const char *const *items, size_t n,
		  struct err *err);

/*
 * Where @former has a set of the same name and contents, that very one takes the place of
 * ours, with its maps. Either may be freed first.
 */
void sets_share(struct sets *s, const struct sets *former);
/* Make the maps that are not there yet. On an error none of them is. */
int sets_load(struct sets *s, struct err *err);

/* NULL when there is none. @name need not end in a NUL. */
const struct set *sets_find(const struct sets *s, const char *name, size_t len);
const char *set_name(const struct set *set);
/* Addresses and networks of a family (4, 6), without those that others contain. */
size_t set_count(const struct set *set, int family);

/* @address: 4 or 16 bytes by @family. */
bool set_has(const struct set *set, int family, const uint8_t *address);

/*
 * The maps; -1 where nothing is of that kind, or they were not loaded. Hosts: a hash, its key
 * is the address. Nets: an LPM trie, its key is {u32 bits; u8 address[]}. A value is one byte
 * and means nothing.
 */
int set_hosts_fd(const struct set *set, int family);
int set_nets_fd(const struct set *set, int family);

#endif
