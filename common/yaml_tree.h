/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of the yaml module share: the text as a tree of nodes with their
 * places, the values in scalars, and the collected errors. For yaml*.c only.
 *
 *	yaml_tree.c	text -> nodes (libyaml's events)
 *	yaml_value.c	scalar -> number, size, duration, ...
 *	yaml_set.c	nodes -> fields of the struct
 *	yaml_blocks.c	named blocks of keys
 *	yaml_errors.c	the lines to report, the places of keys
 *	yaml.c		the walk along the table of keys
 */
#ifndef PS_YAML_TREE_H
#define PS_YAML_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

struct yaml_blocks;
struct yaml_errors;
struct yaml_key;
struct yaml_ports;
struct yaml_server;

/* Lines and columns count from 1, columns in characters. 0: the file as a whole. */
struct yaml_place {
	size_t line, column;
};

enum yaml_kind {
	NODE_NULL, /* nothing, ~, null: as if the key were not there */
	NODE_SCALAR,
	NODE_LIST,
	NODE_MAP,
	NODE_BROKEN, /* reported already, to be passed over */
};

struct yaml_item {
	enum yaml_kind kind;
	struct yaml_place at;
	char *key; /* in a map; NULL: reported already, to be passed over */
	struct yaml_place key_at;
	char *text; /* NODE_SCALAR; may hold zeros, see length */
	size_t length;
	struct yaml_item *first, *next;
	size_t n; /* items below */
};

/*
 * Parse the text. -EINVAL: not YAML, or beyond the limits, and reported; -ENOMEM.
 * Anchors, aliases, tags, and keys that are no scalars are reported too, but do not
 * end the parsing; the caller sees them in the count of errors. *@ret is NULL for
 * an empty text.
 */
int yaml_tree_parse(const char *text, size_t size, struct yaml_errors *errors,
		    struct yaml_item **ret);
struct yaml_item *yaml_tree_free(struct yaml_item *root);

/* Values. On failure @err says what is wrong with @text, for putting after "key: ". */
int yaml_value_bool(const char *text, bool *ret, struct err *err);
/* YAML_UINT, YAML_SIZE, YAML_DURATION */
int yaml_value_number(const struct yaml_key *key, const char *text, uint64_t *ret, struct err *err);
int yaml_value_enum(const struct yaml_key *key, const char *text, int *ret, struct err *err);
/* A port or a range, put into the set. */
int yaml_value_ports(const char *text, struct yaml_ports *set, struct err *err);
/* "host:port" or "[IPv6]:port". The host is malloc'ed; -ENOMEM comes without a sentence. */
int yaml_value_server(const char *text, struct yaml_server *ret, struct err *err);

/* Text of a file as it may be shown: in ASCII, cut short, without quotes around it. */
#define YAML_SHOWN_SIZE 100
const char *yaml_show(char out[static YAML_SHOWN_SIZE], const char *text);

/* One yaml_load() at work. */
struct yaml_walk {
	const struct yaml_key *keys;
	size_t n_keys;
	char *into;
	struct yaml_errors *errors;
};

/* Defaults of all keys; out of memory is noted in the errors. */
void yaml_set_defaults(const struct yaml_walk *w);
/* The value of a key of the table, or a line in the errors. @item is not NODE_NULL. */
void yaml_set(const struct yaml_walk *w, const struct yaml_key *key, struct yaml_item *item);

/* The same for a YAML_BLOCKS. */
void yaml_blocks_load(const struct yaml_walk *w, const struct yaml_key *key,
		      struct yaml_item *node);
void yaml_blocks_release(const struct yaml_key *key, struct yaml_blocks *blocks);

#define YAML_PATH_SIZE 256
#define YAML_NAME_SIZE 65 /* of a map's entry, or of an unknown key that is worth a guess */
/* @prefix.@name, with what people typed made harmless. */
void yaml_join(char out[static YAML_PATH_SIZE], const char *prefix, const char *name);
/* Can the text be the name of an entry of a map? */
bool yaml_is_name(const char *text);
/* Report that @item's key, in the block @prefix and with the name @path, is not in the table. */
void yaml_unknown(const struct yaml_walk *w, const struct yaml_item *item, const char *prefix,
		  const char *path);

/* Add a line. @path is the full name of the key. */
__attribute__((format(printf, 4, 5))) void yaml_report(struct yaml_errors *e, struct yaml_place at,
						       const char *path, const char *fmt, ...);
/* The text cannot be read as a whole: no rule that spans keys can be judged. */
void yaml_errors_unreadable(struct yaml_errors *e);
/* Memory ran out somewhere; the collected lines are not to be relied on. */
void yaml_errors_no_memory(struct yaml_errors *e);
bool yaml_errors_failed(const struct yaml_errors *e);

/* Remember where a key is. @bad: its value is reported already. */
void yaml_place_add(struct yaml_errors *e, const char *path, struct yaml_place at, bool bad);

#endif
