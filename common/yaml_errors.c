// SPDX-License-Identifier: Apache-2.0
/*
 * The errors of one file, kept in the order of the file, and the places of the keys
 * that were in it. Both arrays are bounded: a file of nonsense gives YAML_LINES_MAX
 * lines and the number of the others, and the table's keys and a map's entries are
 * limited by their reader. Lives from yaml_errors_new() through any number of
 * reports to yaml_errors_free(); one thread.
 */
#include <errno.h>
#include <stdarg.h>

#include "util.h"
#include "yaml.h"
#include "yaml_tree.h"

#define YAML_LINES_MAX 1000

struct line {
	struct yaml_place at;
	char *text;
};

struct known_place {
	char *path;
	struct yaml_place at;
	bool bad;
};

struct yaml_errors {
	char *file;
	struct line *lines;
	size_t n_lines, more_lines;
	struct known_place *places;
	size_t n_places, cap_places;
	bool unreadable, no_memory;
};

struct yaml_errors *yaml_errors_new(const char *file)
{
	struct yaml_errors *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->file = strdup(file);
	return e->file ? e : yaml_errors_free(e);
}

struct yaml_errors *yaml_errors_free(struct yaml_errors *e)
{
	if (!e)
		return NULL;
	for (size_t i = 0; i < e->n_lines; i++)
		free(e->lines[i].text);
	for (size_t i = 0; i < e->n_places; i++)
		free(e->places[i].path);
	free(e->lines);
	free(e->places);
	free(e->file);
	free(e);
	return NULL;
}

size_t yaml_errors_count(const struct yaml_errors *e)
{
	return e->n_lines + e->more_lines + e->no_memory;
}

void yaml_errors_unreadable(struct yaml_errors *e)
{
	e->unreadable = true;
}

void yaml_errors_no_memory(struct yaml_errors *e)
{
	e->no_memory = true;
	e->unreadable = true;
}

bool yaml_errors_failed(const struct yaml_errors *e)
{
	return e->no_memory;
}

void yaml_errors_print(const struct yaml_errors *e, FILE *to)
{
	for (size_t i = 0; i < e->n_lines; i++) {
		const struct line *l = &e->lines[i];

		if (l->at.line)
			fprintf(to, "%s:%zu:%zu: %s\n", e->file, l->at.line, l->at.column, l->text);
		else
			fprintf(to, "%s: %s\n", e->file, l->text);
	}
	if (e->more_lines)
		fprintf(to, "%s: %zu more errors\n", e->file, e->more_lines);
	if (e->no_memory)
		fprintf(to, "%s: out of memory\n", e->file);
}

static bool before(struct yaml_place a, struct yaml_place b)
{
	return a.line != b.line ? a.line < b.line : a.column < b.column;
}

/* Put the line behind all that are not after it. Takes @text. */
static void insert(struct yaml_errors *e, struct yaml_place at, char *text)
{
	size_t i = e->n_lines;

	if (!e->lines)
		e->lines = calloc(YAML_LINES_MAX, sizeof(*e->lines));
	if (!e->lines || !text) {
		free(text);
		yaml_errors_no_memory(e);
		return;
	}
	if (i == YAML_LINES_MAX) {
		free(text);
		e->more_lines++;
		return;
	}
	for (; i > 0 && before(at, e->lines[i - 1].at); i--)
		e->lines[i] = e->lines[i - 1];
	e->lines[i] = (struct line){.at = at, .text = text};
	e->n_lines++;
}

__attribute__((format(printf, 4, 0))) static void
report(struct yaml_errors *e, struct yaml_place at, const char *path, const char *fmt, va_list ap)
{
	char *what = NULL, *text = NULL;

	if (vasprintf(&what, fmt, ap) < 0)
		what = NULL;
	if (what && asprintf(&text, "%s%s%s", path, *path ? ": " : "", what) < 0)
		text = NULL;
	free(what);
	insert(e, at, text);
}

void yaml_report(struct yaml_errors *e, struct yaml_place at, const char *path, const char *fmt,
		 ...)
{
	va_list ap;

	va_start(ap, fmt);
	report(e, at, path, fmt, ap);
	va_end(ap);
}

void yaml_place_add(struct yaml_errors *e, const char *path, struct yaml_place at, bool bad)
{
	struct known_place *grown;
	size_t cap;

	if (e->n_places == e->cap_places) {
		cap = e->cap_places ? 2 * e->cap_places : 64;
		grown = reallocarray(e->places, cap, sizeof(*grown));
		if (!grown) {
			yaml_errors_no_memory(e);
			return;
		}
		e->places = grown;
		e->cap_places = cap;
	}
	e->places[e->n_places] = (struct known_place){.path = strdup(path), .at = at, .bad = bad};
	if (!e->places[e->n_places].path) {
		yaml_errors_no_memory(e);
		return;
	}
	e->n_places++;
}

/* The place of the first @length bytes of @path. */
static const struct known_place *find(const struct yaml_errors *e, const char *path, size_t length)
{
	for (size_t i = 0; i < e->n_places; i++) {
		const struct known_place *p = &e->places[i];

		if (strncmp(p->path, path, length) == 0 && !p->path[length])
			return p;
	}
	return NULL;
}

bool yaml_was_set(const struct yaml_errors *e, const char *path)
{
	return find(e, path, strlen(path));
}

void yaml_error(struct yaml_errors *e, const char *path, const char *fmt, ...)
{
	const struct known_place *p;
	size_t length = strlen(path);
	va_list ap;

	if (e->unreadable)
		return;
	p = find(e, path, length);
	if (p && p->bad)
		return;
	/* What is missing is missing in the nearest key above that is there. */
	while (!p && length > 0) {
		if (path[--length] == '.')
			p = find(e, path, length);
	}
	va_start(ap, fmt);
	report(e, p ? p->at : (struct yaml_place){1, 1}, path, fmt, ap);
	va_end(ap);
}
