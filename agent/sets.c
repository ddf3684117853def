// SPDX-License-Identifier: Apache-2.0
#include "sets.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sets_internal.h"
#include "util.h"

#define SETS_MAX 64u

struct set {
	unsigned int users; /* struct sets that it is in */
	char name[SET_NAME_MAX + 1];
	struct prefixes prefixes[2];
	struct set_maps maps[2];
	bool loaded;
};

struct sets {
	struct set *v[SETS_MAX];
	size_t n;
	uint32_t max;
};

struct sets *sets_new(uint32_t max)
{
	struct sets *s = calloc(1, sizeof(*s));

	if (s)
		s->max = max;
	return s;
}

static void set_unload(struct set *set)
{
	for (int i = 0; i < 2; i++)
		set_maps_close(&set->maps[i]);
	set->loaded = false;
}

static void set_release(struct set *set)
{
	if (--set->users)
		return;
	set_unload(set);
	for (int i = 0; i < 2; i++)
		prefixes_release(&set->prefixes[i]);
	free(set);
}

struct sets *sets_free(struct sets *s)
{
	if (!s)
		return NULL;
	for (size_t i = 0; i < s->n; i++)
		set_release(s->v[i]);
	free(s);
	return NULL;
}

static bool is_name(const char *name)
{
	size_t len =
		strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.");

	return len && !name[len] && len <= SET_NAME_MAX;
}

static int check_name(const struct sets *s, const char *name, struct err *err)
{
	if (!is_name(name))
		return err_set(
			err, -EINVAL,
			"\"%.80s\": the name of a set has letters, digits, _ - and ., at most %u",
			name, SET_NAME_MAX);
	if (sets_find(s, name, strlen(name)))
		return err_set(err, -EEXIST, "set \"%s\" occurs twice", name);
	if (s->n == SETS_MAX)
		return err_set(err, -ENOSPC, "more than %u sets", SETS_MAX);
	return 0;
}

/* From a file or a list. */
static int add(struct sets *s, const char *name, const char *path, const char *const *items,
	       size_t n, struct err *err)
{
	struct set *set;
	int e = check_name(s, name, err);

	if (e)
		return e;
	set = calloc(1, sizeof(*set));
	if (!set)
		return err_set(err, -ENOMEM, "out of memory");
	*set = (struct set){
		.users = 1,
		.prefixes = {{.size = 4}, {.size = 16}},
		.maps = {SET_MAPS_NONE, SET_MAPS_NONE},
	};
	memcpy(set->name, name, strlen(name));
	e = path ? sets_read_file(set->prefixes, s->max, path, err)
		 : sets_read_list(set->prefixes, s->max, items, n, err);
	if (e) {
		set_release(set);
		return e;
	}
	for (int i = 0; i < 2; i++)
		prefixes_settle(&set->prefixes[i]);
	s->v[s->n++] = set;
	return 0;
}

int sets_add_file(struct sets *s, const char *name, const char *path, struct err *err)
{
	return add(s, name, path, NULL, 0, err);
}

int sets_add_list(struct sets *s, const char *name, const char *const *items, size_t n,
		  struct err *err)
{
	return add(s, name, NULL, items, n, err);
}

static struct set *find(const struct sets *s, const char *name, size_t len)
{
	for (size_t i = 0; i < s->n; i++)
		if (strlen(s->v[i]->name) == len && !memcmp(s->v[i]->name, name, len))
			return s->v[i];
	return NULL;
}

void sets_share(struct sets *s, const struct sets *former)
{
	for (size_t i = 0; i < s->n; i++) {
		struct set *other = find(former, s->v[i]->name, strlen(s->v[i]->name));

		if (!other || !prefixes_same(&other->prefixes[0], &s->v[i]->prefixes[0]) ||
		    !prefixes_same(&other->prefixes[1], &s->v[i]->prefixes[1]))
			continue;
		other->users++;
		set_release(s->v[i]);
		s->v[i] = other;
	}
}

static int load(struct set *set, struct err *err)
{
	int e = 0;

	for (int i = 0; !e && i < 2; i++)
		e = set_maps_open(&set->maps[i], &set->prefixes[i], err);
	if (e) {
		set_unload(set);
		return err_wrap(err, e, "set \"%s\"", set->name);
	}
	set->loaded = true;
	return 0;
}

int sets_load(struct sets *s, struct err *err)
{
	bool mine[SETS_MAX] = {};
	int e = 0;

	for (size_t i = 0; !e && i < s->n; i++) {
		mine[i] = !s->v[i]->loaded;
		if (mine[i])
			e = load(s->v[i], err);
	}
	for (size_t i = 0; e && i < s->n; i++)
		if (mine[i])
			set_unload(s->v[i]);
	return e;
}

const struct set *sets_find(const struct sets *s, const char *name, size_t len)
{
	return find(s, name, len);
}

const char *set_name(const struct set *set)
{
	return set->name;
}

size_t set_count(const struct set *set, int family)
{
	return set->prefixes[family == 6].n;
}

bool set_has(const struct set *set, int family, const uint8_t *address)
{
	return prefixes_have(&set->prefixes[family == 6], address);
}

int set_hosts_fd(const struct set *set, int family)
{
	return set->maps[family == 6].hosts;
}

int set_nets_fd(const struct set *set, int family)
{
	return set->maps[family == 6].nets;
}
