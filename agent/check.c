/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The preflight: a row for each thing that a run needs. Rows of the table are printed as they
 * are found, for some take seconds; the JSON object is printed whole, or not at all.
 */
#include "check.h"

#include <stdarg.h>
#include <stdio.h>

#include "check_internal.h"
#include "filters.h"
#include "sets.h"
#include "text.h"
#include "util.h"

#define ROW_TEXT_MAX 1024
#define ROW_JSON_MAX (4 * ROW_TEXT_MAX)

static const char *const json_names[] = {"ok", "warn", "failed"};
static const char *const table_names[] = {"ok", "warn", "FAILED"};

static void row_json(struct check *c, enum check_status status, const char *what,
		     const char *subject, const char *hint, const char *text)
{
	char line[ROW_JSON_MAX];
	struct text t = {.out = line, .size = sizeof(line)};

	text_put(&t, "{");
	text_json_string(&t, "check", what, ROW_TEXT_MAX);
	if (subject)
		text_json_string(&t, "subject", subject, ROW_TEXT_MAX);
	text_json_string(&t, "status", json_names[status], ROW_TEXT_MAX);
	text_json_string(&t, "text", text, ROW_TEXT_MAX);
	text_json_string(&t, "hint", hint ? hint : "", ROW_TEXT_MAX);
	text_put(&t, "}");
	if (c->rows.len)
		buf_put_u8(&c->rows, ',');
	buf_put(&c->rows, line, t.len);
}

static void row_table(enum check_status status, const char *what, const char *subject,
		      const char *hint, const char *text)
{
	char name[512], line[4 * ROW_TEXT_MAX];
	struct text t = {.out = name, .size = sizeof(name)};

	text_put(&t, "%s%s", what, subject ? " " : "");
	text_escape(name + t.len, sizeof(name) - t.len, subject ? subject : "");
	/* Some of it a collector may have said, or somebody given to an interface as its name. */
	text_escape(line, sizeof(line), text);
	printf("%-24s %-6s %s%s%s\n", name, table_names[status], line, hint ? " -> " : "",
	       hint ? hint : "");
	fflush(stdout);
}

void check_row(struct check *c, enum check_status status, const char *what, const char *subject,
	       const char *hint, const char *fmt, ...)
{
	char text[ROW_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (status == CHECK_FAILED)
		c->failed++;
	if (c->json)
		row_json(c, status, what, subject, hint, text);
	else
		row_table(status, what, subject, hint, text);
}

/* All its errors go to stderr, as at a start; the first is in the row. */
static struct config *check_config(struct check *c, const char *path)
{
	_cleanup_free_ char *lines = NULL;
	struct config *config = NULL;
	struct sets *sets = NULL;
	size_t size, more = 0;
	FILE *to = open_memstream(&lines, &size);
	char *end;

	if (!to) {
		check_row(c, CHECK_FAILED, "configuration", NULL, NULL, "out of memory");
		return NULL;
	}
	if (config_load(path, filters_check, &sets, &config, to) < 0)
		config = NULL;
	sets_free(sets);
	fclose(to);
	if (config) {
		check_row(c, CHECK_OK, "configuration", NULL, NULL, "\"%s\" is read and consistent",
			  path);
		return config;
	}
	fputs(lines, stderr);
	end = strchrnul(lines, '\n');
	for (const char *p = end; *p && p[1]; p = strchrnul(p + 1, '\n'))
		more++;
	*end = '\0';
	if (more)
		check_row(c, CHECK_FAILED, "configuration", NULL, "see ps-agent.yaml(5)",
			  "%s (and %zu more)", lines, more);
	else
		check_row(c, CHECK_FAILED, "configuration", NULL, "see ps-agent.yaml(5)", "%s",
			  lines);
	return NULL;
}

bool agent_check(const char *path, bool json)
{
	struct check c = {.json = json};
	struct config *config = check_config(&c, path);

	c.config = config;
	check_host(&c);
	if (config) {
		check_capture(&c);
		check_credentials(&c);
		check_collectors(&c);
		check_files(&c);
	}
	if (json && !buf_failed(&c.rows))
		printf("{\"ok\":%s,\"checks\":[%.*s]}\n", c.failed ? "false" : "true",
		       (int)c.rows.len, (const char *)c.rows.data);
	buf_free(&c.rows);
	tls_context_free(c.tls);
	config_free(config);
	return !c.failed;
}
