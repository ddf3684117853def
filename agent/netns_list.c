// SPDX-License-Identifier: Apache-2.0
#include "netns_list.h"

#include <dirent.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "util.h"

static bool is_pattern(const char *text)
{
	return strpbrk(text, "*?[") != NULL;
}

/* What is before the last slash, and what is behind it. */
static const char *split(const char *path, char folder[PATH_MAX])
{
	const char *slash = strrchr(path, '/');

	snprintf(folder, PATH_MAX, "%.*s", slash == path ? 1 : (int)(slash - path), path);
	return slash + 1;
}

void netns_list_check(const struct yaml_strings *list, struct yaml_errors *errors)
{
	char folder[PATH_MAX];

	for (size_t i = 0; i < list->n; i++) {
		const char *text = list->v[i], *path = text + (*text == '!');

		if (strcmp(text, "!self") == 0)
			continue;
		if (*path != '/')
			yaml_error(errors, "netns",
				   "\"%s\" is neither an absolute path nor \"!self\"", text);
		else if (!*split(path, folder) || (*text != '!' && is_pattern(folder)))
			yaml_error(errors, "netns",
				   "\"%s\": only the last part of a path may be a pattern, and it "
				   "may not be empty",
				   text);
	}
	if (list->n && !netns_list_own(list) && !netns_list_others(list))
		yaml_error(errors, "netns", "nothing is left to capture");
}

bool netns_list_own(const struct yaml_strings *list)
{
	for (size_t i = 0; i < list->n; i++)
		if (strcmp(list->v[i], "!self") == 0)
			return false;
	return true;
}

bool netns_list_others(const struct yaml_strings *list)
{
	for (size_t i = 0; i < list->n; i++)
		if (list->v[i][0] != '!')
			return true;
	return false;
}

static bool left_out(const struct yaml_strings *list, const char *path)
{
	for (size_t i = 0; i < list->n; i++)
		if (list->v[i][0] == '!' && fnmatch(list->v[i] + 1, path, FNM_PATHNAME) == 0)
			return true;
	return false;
}

static void find_in_folder(const struct yaml_strings *list, const char *folder, const char *pattern,
			   netns_list_fn *fn, void *ctx)
{
	char path[PATH_MAX];
	struct dirent *entry;
	DIR *dir = opendir(folder);

	while (dir && (entry = readdir(dir))) {
		int len;

		if (fnmatch(pattern, entry->d_name, FNM_PERIOD) != 0)
			continue;
		len = snprintf(path, sizeof(path), "%s/%s", folder[1] ? folder : "", entry->d_name);
		if (len < (int)sizeof(path) && !left_out(list, path))
			fn(ctx, path, true);
	}
	if (dir)
		closedir(dir);
}

void netns_list_find(const struct yaml_strings *list, netns_list_fn *fn, void *ctx)
{
	char folder[PATH_MAX];

	for (size_t i = 0; i < list->n; i++) {
		const char *path = list->v[i], *last;

		if (*path == '!')
			continue;
		last = split(path, folder);
		if (is_pattern(last))
			find_in_folder(list, folder, last, fn, ctx);
		else if (!left_out(list, path))
			fn(ctx, path, false);
	}
}

void netns_list_folders(const struct yaml_strings *list, netns_list_fn *fn, void *ctx)
{
	char folder[PATH_MAX];

	for (size_t i = 0; i < list->n; i++) {
		if (list->v[i][0] == '!')
			continue;
		split(list->v[i], folder);
		fn(ctx, folder, false);
	}
}
