// SPDX-License-Identifier: Apache-2.0
/*
 * Named blocks of keys: `name: {key: value}` for any number of names, each with the same
 * table of keys. An entry's value is zeroed memory into which yaml_set() puts what is
 * there. One thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <strings.h>

#include "util.h"
#include "yaml.h"
#include "yaml_tree.h"

static const struct yaml_key *find(const struct yaml_key *key, const char *name)
{
	for (size_t i = 0; i < key->n_sub; i++)
		if (strcasecmp(key->sub[i].path, name) == 0)
			return &key->sub[i];
	return NULL;
}

static bool given_before(const struct yaml_item *block, const struct yaml_item *item)
{
	for (const struct yaml_item *i = block->first; i != item; i = i->next)
		if (i->key && strcasecmp(i->key, item->key) == 0)
			return true;
	return false;
}

static void load_block(const struct yaml_walk *w, const struct yaml_key *key, const char *prefix,
		       struct yaml_item *block, void *value)
{
	struct yaml_walk inner = {
		.keys = key->sub, .n_keys = key->n_sub, .into = value, .errors = w->errors};
	char path[YAML_PATH_SIZE];

	if (block->kind != NODE_MAP) {
		yaml_report(w->errors, block->at, prefix, "a block of keys is needed, such as %s",
			    key->sub[0].path);
		return;
	}
	for (struct yaml_item *i = block->first; i; i = i->next) {
		const struct yaml_key *found;
		struct yaml_key named;

		if (!i->key)
			continue;
		yaml_join(path, prefix, i->key);
		found = find(key, i->key);
		if (given_before(block, i)) {
			yaml_report(w->errors, i->key_at, path, "given twice");
		} else if (!found) {
			yaml_unknown(&inner, i, "", path);
		} else if (i->kind != NODE_NULL && i->kind != NODE_BROKEN) {
			/* Errors, and rules that span keys, speak of it by its whole name. */
			yaml_join(path, prefix, found->path);
			named = *found;
			named.path = path;
			yaml_set(&inner, &named, i);
		}
	}
}

void yaml_blocks_load(const struct yaml_walk *w, const struct yaml_key *key, struct yaml_item *node)
{
	struct yaml_blocks *blocks = (struct yaml_blocks *)(void *)(w->into + key->offset);
	char path[YAML_PATH_SIZE];

	if (node->kind != NODE_MAP) {
		yaml_report(w->errors, node->at, key->path,
			    "a block of `name: {%s: ...}` is needed", key->sub[0].path);
		return;
	}
	if (node->n == 0)
		return;
	if (key->max && node->n > key->max) {
		yaml_report(w->errors, node->at, key->path,
			    "%zu entries, at most %llu are possible", node->n,
			    (unsigned long long)key->max);
		return;
	}
	blocks->v = calloc(node->n, sizeof(*blocks->v));
	for (struct yaml_item *i = node->first; blocks->v && i; i = i->next) {
		struct yaml_block *block = &blocks->v[blocks->n];
		size_t errors = yaml_errors_count(w->errors);

		if (!i->key)
			continue;
		yaml_join(path, key->path, i->key);
		for (size_t k = 0; k < blocks->n; k++)
			if (strcmp(blocks->v[k].name, i->key) == 0)
				yaml_report(w->errors, i->key_at, path, "given twice");
		if (!yaml_is_name(i->key)) {
			yaml_report(w->errors, i->key_at, path, "not a possible name");
			continue;
		}
		block->value = calloc(1, key->sub_size);
		if (!block->value) {
			yaml_errors_no_memory(w->errors);
			return;
		}
		block->name = i->key;
		i->key = NULL;
		blocks->n++;
		if (i->kind != NODE_NULL && i->kind != NODE_BROKEN)
			load_block(w, key, path, i, block->value);
		yaml_place_add(w->errors, path, i->key_at, yaml_errors_count(w->errors) > errors);
	}
	if (!blocks->v)
		yaml_errors_no_memory(w->errors);
}

void yaml_blocks_release(const struct yaml_key *key, struct yaml_blocks *blocks)
{
	for (size_t i = 0; i < blocks->n; i++) {
		yaml_release(key->sub, key->n_sub, blocks->v[i].value);
		free(blocks->v[i].value);
		free(blocks->v[i].name);
	}
	free(blocks->v);
	*blocks = (struct yaml_blocks){};
}
