// SPDX-License-Identifier: Apache-2.0
/*
 * YAML text as a tree of nodes, from libyaml's events. The tree exists between
 * yaml_tree_parse() and yaml_tree_free(), inside one yaml_load(); one thread.
 *
 * The text is not trusted: depth, nodes and entries of a map are bounded, and
 * nothing is ever copied by reference (anchors and aliases are refused), so memory
 * is proportional to the text. What cannot be understood is reported at its place;
 * only errors of syntax and of limits end the parsing.
 */
#include "yaml_tree.h"

#include <errno.h>
#include <stdio.h>
#include <yaml.h>

#include "util.h"
#include "yaml.h"

#define YAML_NODES_MAX (256u << 10)
#define YAML_MAP_MAX   1024u

struct builder {
	yaml_parser_t parser;
	struct yaml_errors *errors;
	const char *text;
	size_t size;
	size_t nodes;
};

static struct yaml_place place_of(yaml_mark_t mark)
{
	return (struct yaml_place){.line = mark.line + 1, .column = mark.column + 1};
}

struct yaml_item *yaml_tree_free(struct yaml_item *root)
{
	struct yaml_item *next;

	if (!root)
		return NULL;
	for (struct yaml_item *i = root->first; i; i = next) {
		next = i->next;
		yaml_tree_free(i);
	}
	free(root->key);
	free(root->text);
	free(root);
	return NULL;
}

/* The place of a byte, for the errors that libyaml's reader gives no mark to. */
static struct yaml_place place_of_byte(const struct builder *b, size_t offset)
{
	struct yaml_place at = {1, 1};

	for (size_t i = 0; i < MIN(offset, b->size); i++) {
		if (b->text[i] == '\n') {
			at.line++;
			at.column = 1;
		} else if (((unsigned char)b->text[i] & 0xc0) != 0x80) {
			at.column++;
		}
	}
	return at;
}

/* The byte at a place, 0 behind the end of the text or of its line. */
static char byte_at(const struct builder *b, struct yaml_place at)
{
	size_t line = 1, column = 0;

	for (size_t i = 0; i < b->size; i++) {
		if (line == at.line && ((unsigned char)b->text[i] & 0xc0) != 0x80 &&
		    ++column == at.column)
			return b->text[i];
		if (b->text[i] == '\n' && ++line > at.line)
			return 0;
	}
	return 0;
}

/* libyaml speaks of tokens and anchors; say what to do where the cause is a common one. */
static void report_syntax(struct builder *b)
{
	const yaml_parser_t *p = &b->parser;
	struct yaml_place at = place_of(p->problem_mark);
	const char *problem = p->problem ? p->problem : "cannot be parsed";
	char start[48] = "";

	if (p->error == YAML_READER_ERROR) {
		yaml_report(b->errors, place_of_byte(b, p->problem_offset), "syntax",
			    "%s (the file must be UTF-8 text)", problem);
		return;
	}
	if (p->error == YAML_SCANNER_ERROR && byte_at(b, at) == '\t') {
		yaml_report(b->errors, at, "syntax", "a tab, where YAML takes only spaces");
		return;
	}
	if (p->context && p->context_mark.line != p->problem_mark.line)
		snprintf(start, sizeof(start), " that starts in line %zu",
			 p->context_mark.line + 1);
	yaml_report(b->errors, at, "syntax", "%s%s%s%s%s", problem, p->context ? " " : "",
		    p->context ? p->context : "", start,
		    p->error == YAML_SCANNER_ERROR ? "; quotes are needed around special characters"
						   : "");
}

static int next_event(struct builder *b, yaml_event_t *ret)
{
	if (yaml_parser_parse(&b->parser, ret))
		return 0;
	if (b->parser.error == YAML_MEMORY_ERROR)
		return -ENOMEM;
	report_syntax(b);
	return -EINVAL;
}

static void refuse_anchor(struct builder *b, const yaml_char_t *anchor, struct yaml_place at)
{
	char shown[YAML_SHOWN_SIZE];

	if (anchor)
		yaml_report(b->errors, at, "syntax", "\"&%s\": anchors are not supported",
			    yaml_show(shown, (const char *)anchor));
}

static void refuse_tag(struct builder *b, const yaml_char_t *tag, struct yaml_place at)
{
	char shown[YAML_SHOWN_SIZE];

	if (tag)
		yaml_report(b->errors, at, "syntax",
			    "\"%s\" is a YAML tag: put quotes around a value that begins with '!'",
			    yaml_show(shown, (const char *)tag));
}

/* Nothing, ~ and null, not in quotes. */
static bool is_null(const yaml_event_t *event)
{
	const char *text = (const char *)event->data.scalar.value;

	return event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
	       (!*text || strcmp(text, "~") == 0 || strcasecmp(text, "null") == 0);
}

static int build(struct builder *b, yaml_event_t *event, unsigned int depth,
		 struct yaml_item **ret);

static int build_scalar(struct builder *b, const yaml_event_t *event, struct yaml_item *item)
{
	refuse_anchor(b, event->data.scalar.anchor, item->at);
	refuse_tag(b, event->data.scalar.tag, item->at);
	if (event->data.scalar.tag)
		return 0;
	if (is_null(event)) {
		item->kind = NODE_NULL;
		return 0;
	}
	item->kind = NODE_SCALAR;
	item->length = event->data.scalar.length;
	item->text = malloc(item->length + 1);
	if (!item->text)
		return -ENOMEM;
	memcpy(item->text, event->data.scalar.value, item->length);
	item->text[item->length] = 0;
	return 0;
}

static int build_list(struct builder *b, struct yaml_item *list, unsigned int depth)
{
	struct yaml_item **end = &list->first;
	yaml_event_t event;
	int r;

	for (;;) {
		r = next_event(b, &event);
		if (r < 0)
			return r;
		if (event.type == YAML_SEQUENCE_END_EVENT)
			break;
		r = build(b, &event, depth, end);
		if (r < 0)
			return r;
		end = &(*end)->next;
		list->n++;
	}
	yaml_event_delete(&event);
	return 0;
}

/* One key and its value, the key's text moved into the value's node. */
static int build_entry(struct builder *b, yaml_event_t *event, unsigned int depth,
		       struct yaml_item **ret)
{
	struct yaml_item *key = NULL;
	yaml_event_t value;
	int r;

	r = build(b, event, depth, &key);
	if (r < 0)
		goto out;
	r = next_event(b, &value);
	if (r < 0)
		goto out;
	r = build(b, &value, depth, ret);
	if (r < 0)
		goto out;
	(*ret)->key_at = key->at;
	if (key->kind == NODE_SCALAR && strlen(key->text) == key->length) {
		(*ret)->key = key->text;
		key->text = NULL;
	} else if (key->kind != NODE_BROKEN) {
		yaml_report(b->errors, key->at, "syntax", "a key must be a plain word");
	}
out:
	yaml_tree_free(key);
	return r;
}

static int build_map(struct builder *b, struct yaml_item *map, unsigned int depth)
{
	struct yaml_item **end = &map->first;
	yaml_event_t event;
	int r;

	for (;;) {
		r = next_event(b, &event);
		if (r < 0)
			return r;
		if (event.type == YAML_MAPPING_END_EVENT)
			break;
		if (map->n == YAML_MAP_MAX) {
			yaml_report(b->errors, place_of(event.start_mark), "syntax",
				    "more than %u keys in one block", YAML_MAP_MAX);
			yaml_event_delete(&event);
			return -EINVAL;
		}
		r = build_entry(b, &event, depth, end);
		if (r < 0)
			return r;
		end = &(*end)->next;
		map->n++;
	}
	yaml_event_delete(&event);
	return 0;
}

/* Takes @event. *@ret is set, perhaps half built, even on failure: to be freed. */
static int build(struct builder *b, yaml_event_t *event, unsigned int depth, struct yaml_item **ret)
{
	char shown[YAML_SHOWN_SIZE];
	struct yaml_item *item;
	int r = 0;

	item = *ret = calloc(1, sizeof(*item));
	if (!item) {
		r = -ENOMEM;
		goto out;
	}
	item->kind = NODE_BROKEN;
	item->at = place_of(event->start_mark);
	if (++b->nodes > YAML_NODES_MAX) {
		yaml_report(b->errors, item->at, "syntax", "more than %u values in one file",
			    YAML_NODES_MAX);
		r = -EINVAL;
		goto out;
	}
	if (depth > YAML_DEPTH_MAX) {
		yaml_report(b->errors, item->at, "syntax", "nested deeper than %u levels",
			    YAML_DEPTH_MAX);
		r = -EINVAL;
		goto out;
	}
	switch (event->type) {
	case YAML_ALIAS_EVENT:
		yaml_report(
			b->errors, item->at, "syntax",
			"\"*%s\" is a YAML alias: put quotes around a value that begins with '*'",
			yaml_show(shown, (const char *)event->data.alias.anchor));
		break;
	case YAML_SCALAR_EVENT:
		r = build_scalar(b, event, item);
		break;
	case YAML_SEQUENCE_START_EVENT:
		refuse_anchor(b, event->data.sequence_start.anchor, item->at);
		refuse_tag(b, event->data.sequence_start.tag, item->at);
		item->kind = NODE_LIST;
		r = build_list(b, item, depth + 1);
		break;
	case YAML_MAPPING_START_EVENT:
		refuse_anchor(b, event->data.mapping_start.anchor, item->at);
		refuse_tag(b, event->data.mapping_start.tag, item->at);
		item->kind = NODE_MAP;
		r = build_map(b, item, depth + 1);
		break;
	default:
		break;
	}
out:
	yaml_event_delete(event);
	return r;
}

/* The events around the values: the start and end of the stream and of its documents. */
static int build_stream(struct builder *b, struct yaml_item **ret)
{
	yaml_event_type_t type;
	bool document = false;
	yaml_event_t event;
	int r;

	do {
		r = next_event(b, &event);
		if (r < 0)
			return r;
		type = event.type;
		switch (type) {
		case YAML_STREAM_START_EVENT:
		case YAML_STREAM_END_EVENT:
		case YAML_DOCUMENT_END_EVENT:
			break;
		case YAML_DOCUMENT_START_EVENT:
			if (document) {
				yaml_report(b->errors, place_of(event.start_mark), "syntax",
					    "a second document: only one is taken");
				r = -EINVAL;
			}
			document = true;
			break;
		default:
			r = build(b, &event, 0, ret);
			if (r < 0)
				return r;
			continue;
		}
		yaml_event_delete(&event);
		if (r < 0)
			return r;
	} while (type != YAML_STREAM_END_EVENT);
	return 0;
}

int yaml_tree_parse(const char *text, size_t size, struct yaml_errors *errors,
		    struct yaml_item **ret)
{
	struct builder b = {.errors = errors};
	struct yaml_item *root = NULL;
	int r;

	/* Some editors begin a file with a byte order mark; it is no part of line 1. */
	if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
		text += 3;
		size -= 3;
	}
	b.text = text;
	b.size = size;
	if (!yaml_parser_initialize(&b.parser))
		return -ENOMEM;
	yaml_parser_set_encoding(&b.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&b.parser, (const unsigned char *)text, size);
	r = build_stream(&b, &root);
	yaml_parser_delete(&b.parser);
	if (r < 0) {
		yaml_tree_free(root);
		return r;
	}
	*ret = root;
	return 0;
}
