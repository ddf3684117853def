// SPDX-License-Identifier: Apache-2.0
/*
 * The values of a tree put into the fields of a struct, by the table's types, and
 * the freeing of what the fields own. Strings are moved out of the tree, not copied.
 * Each field is zero or valid at any time, so yaml_release() works on a half filled
 * struct. One thread.
 */
#include <errno.h>
#include <stdio.h>
#include <strings.h>

#include "err.h"
#include "util.h"
#include "yaml.h"
#include "yaml_tree.h"

#define LIST_MAX    1024u /* items of a list of strings */
#define SERVERS_MAX 256u
#define HOST_MAX    253u

static void *member(const struct yaml_walk *w, const struct yaml_key *key)
{
	return w->into + key->offset;
}

void yaml_join(char out[static YAML_PATH_SIZE], const char *prefix, const char *name)
{
	char shown[YAML_SHOWN_SIZE];

	snprintf(out, YAML_PATH_SIZE, "%s%s%s", prefix, *prefix ? "." : "", yaml_show(shown, name));
}

/* No zeros, line breaks or escape sequences get into paths, names and log lines. */
static bool has_control(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c < 0x20 || c == 0x7f)
			return true;
		if (c == 0xc2 && i + 1 < length && (unsigned char)text[i + 1] < 0xa0)
			return true;
	}
	return false;
}

bool yaml_is_name(const char *text)
{
	size_t n = strlen(text);

	return n && n < YAML_NAME_SIZE && !has_control(text, n);
}

static int check_string(const struct yaml_key *key, const struct yaml_item *item, struct err *err)
{
	/* The text itself is not shown: it may be a secret. */
	if (has_control(item->text, item->length))
		return err_set(err, -EINVAL, "has a control character");
	if (item->length < key->min)
		return err_set(err, -ERANGE, "shorter than %llu characters",
			       (unsigned long long)key->min);
	if (key->max && item->length > key->max)
		return err_set(err, -ERANGE, "longer than %llu characters",
			       (unsigned long long)key->max);
	return 0;
}

/* Takes over the text of @item. */
static int set_string(const struct yaml_walk *w, const struct yaml_key *key, struct yaml_item *item,
		      struct err *err)
{
	char **to = member(w, key);
	int r = check_string(key, item, err);

	if (r < 0)
		return r;
	free(*to);
	*to = item->text;
	item->text = NULL;
	return 0;
}

static int set_scalar(const struct yaml_walk *w, const struct yaml_key *key, struct yaml_item *item,
		      struct err *err)
{
	char shown[YAML_SHOWN_SIZE];

	if (key->type == YAML_STRING)
		return set_string(w, key, item, err);
	if (strlen(item->text) != item->length)
		return err_set(err, -EINVAL, "\"%s...\" has a control character",
			       yaml_show(shown, item->text));
	if (key->type == YAML_BOOL)
		return yaml_value_bool(item->text, member(w, key), err);
	if (key->type == YAML_ENUM)
		return yaml_value_enum(key, item->text, member(w, key), err);
	return yaml_value_number(key, item->text, member(w, key), err);
}

static void load_ports(const struct yaml_walk *w, const char *path, const struct yaml_item *list,
		       struct yaml_ports *ports)
{
	struct err err;

	if (list->kind != NODE_LIST) {
		if (list->kind != NODE_BROKEN)
			yaml_report(w->errors, list->at, path,
				    "a list of ports is needed, such as [80, 8000-8100]");
		return;
	}
	for (const struct yaml_item *i = list->first; i; i = i->next) {
		if (i->kind == NODE_BROKEN)
			continue;
		if (i->kind != NODE_SCALAR || strlen(i->text) != i->length)
			yaml_report(w->errors, i->at, path,
				    "each item must be a port or a range such as 8000-8100");
		else if (yaml_value_ports(i->text, ports, &err) < 0)
			yaml_report(w->errors, i->at, path, "%s", err.text);
	}
	ports->set = true;
}

static void load_strings(const struct yaml_walk *w, const struct yaml_key *key,
			 const struct yaml_item *list)
{
	struct yaml_strings *strings = member(w, key);
	struct err err;

	if (list->kind != NODE_LIST) {
		yaml_report(w->errors, list->at, key->path, "a list is needed, such as [a, b]");
		return;
	}
	if (list->n == 0)
		return;
	if (list->n > LIST_MAX) {
		yaml_report(w->errors, list->at, key->path, "%zu items, at most %u are possible",
			    list->n, LIST_MAX);
		return;
	}
	strings->v = calloc(list->n, sizeof(*strings->v));
	if (!strings->v) {
		yaml_errors_no_memory(w->errors);
		return;
	}
	for (struct yaml_item *i = list->first; i; i = i->next) {
		if (i->kind == NODE_BROKEN)
			continue;
		if (i->kind != NODE_SCALAR || i->length == 0) {
			yaml_report(w->errors, i->at, key->path, "each item must be a text");
		} else if (check_string(key, i, &err) < 0) {
			yaml_report(w->errors, i->at, key->path, "%s", err.text);
		} else {
			strings->v[strings->n++] = i->text;
			i->text = NULL;
		}
	}
}

/* An entry of a server: {address: host, port: number}. */
static void load_server_map(const struct yaml_walk *w, const char *path, struct yaml_item *map,
			    struct yaml_server *ret)
{
	static const struct yaml_key address = {.type = YAML_STRING, .max = HOST_MAX},
				     port = {.type = YAML_UINT, .min = 1, .max = 65535};
	size_t count = yaml_errors_count(w->errors);
	char name[YAML_PATH_SIZE];
	uint64_t number = 0;
	struct err err;

	for (struct yaml_item *i = map->first; i; i = i->next) {
		bool is_address = i->key && strcasecmp(i->key, "address") == 0;
		bool is_port = i->key && strcasecmp(i->key, "port") == 0;

		if (!i->key || i->kind == NODE_BROKEN)
			continue;
		yaml_join(name, path, i->key);
		if (!is_address && !is_port)
			yaml_report(w->errors, i->key_at, name,
				    "unknown key, address and port are known");
		else if (is_address ? ret->host != NULL : number != 0)
			yaml_report(w->errors, i->key_at, name, "given twice");
		else if (i->kind == NODE_NULL)
			continue;
		else if (i->kind != NODE_SCALAR || (is_port && strlen(i->text) != i->length))
			yaml_report(w->errors, i->at, name, "a single value is needed");
		else if ((is_address ? check_string(&address, i, &err)
				     : yaml_value_number(&port, i->text, &number, &err)) < 0)
			yaml_report(w->errors, i->at, name, "%s", err.text);
		else if (is_address && i->length) {
			ret->host = i->text;
			i->text = NULL;
		}
	}
	ret->port = (uint16_t)number;
	if (yaml_errors_count(w->errors) > count)
		return;
	if (!ret->host)
		yaml_report(w->errors, map->at, path, "address is missing");
	if (!number)
		yaml_report(w->errors, map->at, path, "port is missing");
}

static void load_server(const struct yaml_walk *w, const char *path, struct yaml_item *item,
			struct yaml_server *ret)
{
	static const struct yaml_key text = {.max = HOST_MAX + sizeof("[]:65535") - 1};
	struct err err;
	int r;

	if (item->kind == NODE_MAP) {
		load_server_map(w, path, item, ret);
	} else if (item->kind != NODE_SCALAR || !item->length) {
		yaml_report(w->errors, item->at, path,
			    "each item must be host:port or {address: host, port: number}");
	} else {
		r = check_string(&text, item, &err);
		if (r == 0)
			r = yaml_value_server(item->text, ret, &err);
		if (r == -ENOMEM)
			yaml_errors_no_memory(w->errors);
		else if (r < 0)
			yaml_report(w->errors, item->at, path, "%s", err.text);
	}
}

static void load_servers(const struct yaml_walk *w, const struct yaml_key *key,
			 const struct yaml_item *list)
{
	struct yaml_servers *servers = member(w, key);

	if (list->kind != NODE_LIST) {
		yaml_report(w->errors, list->at, key->path,
			    "a list is needed, such as [a.example:8081, b.example:8081]");
		return;
	}
	if (list->n == 0)
		return;
	if (list->n > SERVERS_MAX) {
		yaml_report(w->errors, list->at, key->path, "%zu items, at most %u are possible",
			    list->n, SERVERS_MAX);
		return;
	}
	servers->v = calloc(list->n, sizeof(*servers->v));
	if (!servers->v) {
		yaml_errors_no_memory(w->errors);
		return;
	}
	for (struct yaml_item *i = list->first; i; i = i->next) {
		struct yaml_server *server = &servers->v[servers->n++];

		if (i->kind == NODE_BROKEN)
			continue;
		load_server(w, key->path, i, server);
		for (size_t k = 0; server->host && k < servers->n - 1; k++) {
			if (servers->v[k].host && servers->v[k].port == server->port &&
			    strcasecmp(servers->v[k].host, server->host) == 0)
				yaml_report(w->errors, i->at, key->path, "given twice");
		}
	}
}

static void load_ports_map(const struct yaml_walk *w, const struct yaml_key *key,
			   const struct yaml_item *node)
{
	struct yaml_ports_map *map = member(w, key);
	struct yaml_ports_entry *entry;
	char path[YAML_PATH_SIZE];

	if (node->kind != NODE_MAP) {
		yaml_report(w->errors, node->at, key->path,
			    "a block of `interface: [ports]` is needed");
		return;
	}
	if (node->n == 0)
		return;
	map->v = calloc(node->n, sizeof(*map->v));
	if (!map->v) {
		yaml_errors_no_memory(w->errors);
		return;
	}
	for (struct yaml_item *i = node->first; i; i = i->next) {
		if (!i->key)
			continue;
		yaml_join(path, key->path, i->key);
		for (size_t k = 0; k < map->n; k++) {
			if (strcmp(map->v[k].name, i->key) == 0)
				yaml_report(w->errors, i->key_at, path, "given twice");
		}
		if (!yaml_is_name(i->key)) {
			yaml_report(w->errors, i->key_at, path, "not a possible name");
			continue;
		}
		entry = &map->v[map->n++];
		entry->name = i->key;
		i->key = NULL;
		/* `eth0:` with nothing behind it names the interface, and no port. */
		if (i->kind == NODE_NULL)
			entry->ports.set = true;
		else
			load_ports(w, path, i, &entry->ports);
	}
}

void yaml_set(const struct yaml_walk *w, const struct yaml_key *key, struct yaml_item *item)
{
	size_t count = yaml_errors_count(w->errors);
	struct err err;

	/* An empty text counts as nothing: templates write `cafile: ""`. */
	if (key->type == YAML_STRING && item->kind == NODE_SCALAR && item->length == 0)
		return;
	switch (key->type) {
	case YAML_UNSUPPORTED:
		yaml_report(w->errors, item->key_at, key->path, "not supported by this version");
		break;
	case YAML_FOREIGN:
		yaml_report(w->errors, item->key_at, key->path, "belongs to %s", key->help);
		break;
	case YAML_PORTS:
		load_ports(w, key->path, item, member(w, key));
		break;
	case YAML_STRINGS:
		load_strings(w, key, item);
		break;
	case YAML_SERVERS:
		load_servers(w, key, item);
		break;
	case YAML_PORTS_MAP:
		load_ports_map(w, key, item);
		break;
	case YAML_BLOCKS:
		yaml_blocks_load(w, key, item);
		break;
	default:
		if (item->kind != NODE_SCALAR)
			yaml_report(w->errors, item->at, key->path, "a single value is needed");
		else if (set_scalar(w, key, item, &err) < 0)
			yaml_report(w->errors, item->at, key->path, "%s", err.text);
	}
	yaml_place_add(w->errors, key->path, item->kind == NODE_SCALAR ? item->at : item->key_at,
		       yaml_errors_count(w->errors) > count);
}

void yaml_set_defaults(const struct yaml_walk *w)
{
	struct err err;

	for (size_t i = 0; i < w->n_keys; i++) {
		const struct yaml_key *key = &w->keys[i];
		struct yaml_item item = {.kind = NODE_SCALAR};

		if (!key->fallback)
			continue;
		item.text = strdup(key->fallback);
		if (!item.text) {
			yaml_errors_no_memory(w->errors);
			return;
		}
		item.length = strlen(item.text);
		if (set_scalar(w, key, &item, &err) < 0)
			yaml_report(w->errors, item.at, key->path, "default: %s", err.text);
		free(item.text);
	}
}

void yaml_release(const struct yaml_key *keys, size_t n_keys, void *into)
{
	struct yaml_walk w = {.keys = keys, .n_keys = n_keys, .into = into};

	for (size_t i = 0; i < n_keys; i++) {
		struct yaml_strings *strings = member(&w, &keys[i]);
		struct yaml_servers *servers = member(&w, &keys[i]);
		struct yaml_ports_map *map = member(&w, &keys[i]);

		switch (keys[i].type) {
		case YAML_STRING:
			free(*(char **)member(&w, &keys[i]));
			*(char **)member(&w, &keys[i]) = NULL;
			break;
		case YAML_STRINGS:
			for (size_t k = 0; k < strings->n; k++)
				free(strings->v[k]);
			free(strings->v);
			*strings = (struct yaml_strings){0};
			break;
		case YAML_SERVERS:
			for (size_t k = 0; k < servers->n; k++)
				free(servers->v[k].host);
			free(servers->v);
			*servers = (struct yaml_servers){0};
			break;
		case YAML_PORTS_MAP:
			for (size_t k = 0; k < map->n; k++)
				free(map->v[k].name);
			free(map->v);
			*map = (struct yaml_ports_map){0};
			break;
		case YAML_BLOCKS:
			yaml_blocks_release(&keys[i], member(&w, &keys[i]));
			break;
		default:
			break;
		}
	}
}
