// SPDX-License-Identifier: Apache-2.0
/*
 * A reload is a transaction: everything that can fail is made ready beside what is in use, then the
 * interfaces go over, then what was in use is forgotten. Back there is no file to read and nothing
 * to make.
 */
#include "reload.h"

#include <errno.h>
#include <stdio.h>

#include "log.h"
#include "sets.h"
#include "util.h"

static int load(const char *path, struct sets **ret_sets, struct config **ret)
{
	_cleanup_free_ char *text = NULL;
	size_t size = 0;
	FILE *lines = open_memstream(&text, &size);
	int r;

	if (!lines)
		return -ENOMEM;
	r = config_load(path, filters_check, ret_sets, ret, lines);
	fclose(lines);
	for (char *line = text, *next; r < 0 && line && *line; line = next) {
		next = strchrnul(line, '\n');
		if (*next)
			*next++ = '\0';
		log_error("%s", line);
	}
	return r;
}

static int use(struct filters *filters, struct ifaces *ifaces, const struct config *config,
	       struct sets **sets)
{
	struct err err;
	int r = filters_prepare(filters, config, sets, &err);

	if (r == 0) {
		r = ifaces_refresh(ifaces, &err);
		if (r < 0)
			filters_abort(filters);
		else
			filters_commit(filters);
	}
	if (r < 0)
		log_error("%s", err.text);
	return r;
}

int reload(const char *path, struct filters *filters, struct ifaces *ifaces, struct config **ret)
{
	struct config *config = NULL;
	struct sets *sets = NULL;
	int r = load(path, &sets, &config);

	if (r == 0) {
		r = use(filters, ifaces, config, &sets);
		if (r == 0)
			*ret = config;
		else
			config_free(config);
	}
	sets_free(sets);
	return r;
}
