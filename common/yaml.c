// SPDX-License-Identifier: Apache-2.0
/*
 * The tree of a YAML text walked along a table of keys, its values put into a
 * struct. One yaml_load() is: defaults, parse, walk; the tree lives only inside it.
 * A failed value leaves the default in place and a line in the errors, and the walk
 * goes on, so that one run shows everything that is wrong. One thread.
 */
#include "yaml.h"

#include <errno.h>
#include <strings.h>

#include "err.h"
#include "util.h"
#include "yaml_tree.h"

/* Edits (insert, delete, replace, swap neighbours) from one name to another, any case. */
static unsigned int distance(const char *a, const char *b)
{
	unsigned int rows[3][YAML_NAME_SIZE];
	size_t n = strlen(b);
	unsigned int *now = rows[0], *last = rows[1], *older = rows[2], *spare;

	for (size_t k = 0; k <= n; k++)
		now[k] = (unsigned int)k;
	for (size_t i = 1; a[i - 1]; i++) {
		spare = older;
		older = last;
		last = now;
		now = spare;
		now[0] = (unsigned int)i;
		for (size_t k = 1; k <= n; k++) {
			bool same = strncasecmp(a + i - 1, b + k - 1, 1) == 0;

			now[k] = MIN(last[k] + 1, now[k - 1] + 1);
			now[k] = MIN(now[k], last[k - 1] + !same);
			if (i > 1 && k > 1 && strncasecmp(a + i - 1, b + k - 2, 1) == 0 &&
			    strncasecmp(a + i - 2, b + k - 1, 1) == 0)
				now[k] = MIN(now[k], older[k - 2] + 1);
		}
	}
	return now[n];
}

/*
 * The nearest name in the table, a key or a block of keys. A name that is right but
 * in the wrong block is one edit away. The result is the first *@length bytes of a path.
 */
static const char *nearest(const struct yaml_walk *w, const char *prefix, const char *name,
			   size_t *length)
{
	unsigned int best = UINT32_MAX, d;
	const char *found = w->keys[0].path;
	char part[YAML_NAME_SIZE];
	const char *start, *end;

	*length = strlen(found);
	for (size_t i = 0; i < w->n_keys; i++) {
		const char *path = w->keys[i].path;

		if (w->keys[i].type == YAML_FOREIGN)
			continue;
		for (start = path; start; start = *end ? end + 1 : NULL) {
			size_t before = start == path ? 0 : (size_t)(start - path - 1);

			end = strchrnul(start, '.');
			snprintf(part, sizeof(part), "%.*s", (int)(end - start), start);
			d = 2 * distance(name, part);
			d += before != strlen(prefix) || strncmp(prefix, path, before) != 0;
			if (d < best) {
				best = d;
				found = path;
				*length = (size_t)(end - path);
			}
		}
	}
	return found;
}

void yaml_unknown(const struct yaml_walk *w, const struct yaml_item *item, const char *prefix,
		  const char *path)
{
	const char *near;
	size_t length;

	if (strlen(item->key) >= YAML_NAME_SIZE) {
		yaml_report(w->errors, item->key_at, path, "unknown key");
		return;
	}
	near = nearest(w, prefix, item->key, &length);
	yaml_report(w->errors, item->key_at, path, "unknown key, the nearest known one is %.*s",
		    (int)length, near);
}

/* The table's entry for the path, or for a block that the path names. */
static const struct yaml_key *lookup(const struct yaml_walk *w, const char *path, bool *block)
{
	size_t length = strlen(path);

	for (size_t i = 0; i < w->n_keys; i++) {
		const char *known = w->keys[i].path;

		if (strncasecmp(known, path, length) != 0)
			continue;
		if (!known[length] || known[length] == '.') {
			*block = known[length];
			return &w->keys[i];
		}
	}
	return NULL;
}

static const struct yaml_item *earlier(const struct yaml_item *map, const struct yaml_item *item)
{
	for (const struct yaml_item *i = map->first; i != item; i = i->next) {
		if (i->key && strcasecmp(i->key, item->key) == 0)
			return i;
	}
	return NULL;
}

/* The keys of one block; @prefix is the block's path as the table writes it. */
static void walk_map(const struct yaml_walk *w, struct yaml_item *map, const char *prefix)
{
	const struct yaml_item *twin;
	const struct yaml_key *key;
	char path[YAML_PATH_SIZE];
	bool block;

	for (struct yaml_item *i = map->first; i; i = i->next) {
		if (!i->key)
			continue;
		yaml_join(path, prefix, i->key);
		key = lookup(w, path, &block);
		twin = earlier(map, i);
		if (twin) {
			yaml_report(w->errors, i->key_at, path, "given twice, first in line %zu",
				    twin->key_at.line);
		} else if (!key) {
			yaml_unknown(w, i, prefix, path);
		} else if (strchr(i->key, '.')) {
			yaml_report(
				w->errors, i->key_at, path,
				"a name with dots is to be written as blocks, one in the other");
		} else if (i->kind == NODE_NULL || i->kind == NODE_BROKEN) {
			continue;
		} else if (!block) {
			yaml_set(w, key, i);
		} else {
			/* From here on in the letter case of the table. */
			memcpy(path, key->path, strlen(path));
			yaml_place_add(w->errors, path, i->key_at, i->kind != NODE_MAP);
			if (i->kind == NODE_MAP)
				walk_map(w, i, path);
			else
				yaml_report(w->errors, i->at, path,
					    "a block of keys is needed, such as %s", key->path);
		}
	}
}

int yaml_load(const char *text, size_t size, const struct yaml_key *keys, size_t n_keys, void *into,
	      struct yaml_errors *errors)
{
	struct yaml_walk w = {.keys = keys, .n_keys = n_keys, .into = into, .errors = errors};
	struct yaml_item *root = NULL;
	int r;

	yaml_set_defaults(&w);
	if (size > YAML_FILE_MAX) {
		yaml_report(errors, (struct yaml_place){0}, "", "larger than %u MiB",
			    YAML_FILE_MAX >> 20);
		yaml_errors_unreadable(errors);
		return -EINVAL;
	}
	r = yaml_tree_parse(text, size, errors, &root);
	if (r == -ENOMEM)
		yaml_errors_no_memory(errors);
	else if (r < 0)
		yaml_errors_unreadable(errors);
	else if (root && root->kind == NODE_MAP)
		walk_map(&w, root, "");
	else if (root && root->kind != NODE_NULL && root->kind != NODE_BROKEN)
		yaml_report(errors, root->at, "syntax", "a block of keys is needed");
	yaml_tree_free(root);
	if (yaml_errors_failed(errors))
		return -ENOMEM;
	return yaml_errors_count(errors) ? -EINVAL : 0;
}

/* The whole file, at most one byte more than is allowed, so that the excess shows. */
static int read_file(const char *path, char **ret, size_t *ret_size)
{
	_cleanup_free_ char *text = NULL;
	size_t size = 0;
	FILE *f;
	int r;

	text = malloc(YAML_FILE_MAX + 1);
	if (!text)
		return -ENOMEM;
	f = fopen(path, "re");
	if (!f)
		return -errno;
	size = fread(text, 1, YAML_FILE_MAX + 1, f);
	r = ferror(f) ? -errno : 0;
	fclose(f);
	if (r < 0)
		return r;
	*ret = text;
	*ret_size = size;
	text = NULL;
	return 0;
}

int yaml_load_file(const char *path, const struct yaml_key *keys, size_t n_keys, void *into,
		   struct yaml_errors *errors)
{
	_cleanup_free_ char *text = NULL;
	size_t size = 0;
	int r;

	r = read_file(path, &text, &size);
	if (r < 0) {
		yaml_report(errors, (struct yaml_place){0}, "", "cannot be read: %s", strerror(-r));
		yaml_errors_unreadable(errors);
		return r;
	}
	return yaml_load(text, size, keys, n_keys, into, errors);
}

int yaml_read(const char *name, const char *text, size_t size, const struct yaml_key *keys,
	      size_t n_keys, void *into, yaml_finish_fn *finish, FILE *to)
{
	struct yaml_errors *errors = yaml_errors_new(name);
	int r, rules;

	if (!errors) {
		r = -ENOMEM;
	} else {
		r = text ? yaml_load(text, size, keys, n_keys, into, errors)
			 : yaml_load_file(name, keys, n_keys, into, errors);
		rules = finish(into, errors);
		r = r < 0 ? r : rules;
	}
	if (errors && yaml_errors_count(errors))
		yaml_errors_print(errors, to);
	else if (r < 0)
		fprintf(to, "%s: %s\n", name, strerror(-r));
	yaml_errors_free(errors);
	return r;
}
