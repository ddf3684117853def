/* SPDX-License-Identifier: Apache-2.0 */
#include "check_memory.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>

#include "util.h"

static uint64_t available(void)
{
	FILE *f = fopen("/proc/meminfo", "re");
	uint64_t kib = UINT64_MAX >> 10;
	char line[128];

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib << 10;
}

/* The number in a file; @fallback when there is none ("max", no such file). */
static uint64_t number_in(const char *folder, const char *name, uint64_t fallback)
{
	uint64_t value = fallback;
	char path[PATH_MAX + 64];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	f = fopen(path, "re");
	if (f && fscanf(f, "%" SCNu64, &value) != 1)
		value = fallback;
	if (f)
		fclose(f);
	return value;
}

/* Of the pages that count, those of files that nobody has asked for lately: free for the taking. */
static uint64_t reclaimable(const char *folder, const char *name)
{
	char path[PATH_MAX + 64], key[64];
	uint64_t value, found = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/memory.stat", folder);
	f = fopen(path, "re");
	while (f && fscanf(f, "%63s %" SCNu64, key, &value) == 2)
		if (strcmp(key, name) == 0)
			found = value;
	if (f)
		fclose(f);
	return found;
}

/* How a version of control groups calls things. */
struct names {
	const char *limit, *usage, *reclaimable;
};
static const struct names version_1 = {"memory.limit_in_bytes", "memory.usage_in_bytes",
				       "total_inactive_file"};
static const struct names version_2 = {"memory.max", "memory.current", "inactive_file"};

/* What the group @path below @root and all groups above it leave. */
static uint64_t left_in(const char *root, const char *path, const struct names *names)
{
	uint64_t least = UINT64_MAX;
	char folder[PATH_MAX];
	size_t n = strlen(root);
	char *slash;

	snprintf(folder, sizeof(folder), "%s%s", root, strcmp(path, "/") == 0 ? "" : path);
	for (;;) {
		uint64_t limit = number_in(folder, names->limit, UINT64_MAX);
		uint64_t usage = number_in(folder, names->usage, 0);

		usage -= MIN(usage, reclaimable(folder, names->reclaimable));
		if (limit != UINT64_MAX)
			least = MIN(least, limit - MIN(limit, usage));
		slash = strrchr(folder, '/');
		if (!slash || (size_t)(slash - folder) < n)
			return least;
		*slash = '\0';
	}
}

/* A line of /proc/self/cgroup, "ID:CONTROLLERS:PATH"; version 2 has no controllers in it. */
static uint64_t left_by_line(const char *controllers, const char *path)
{
	static const char *const roots[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
	uint64_t least = UINT64_MAX;

	if (strcmp(controllers, "memory") == 0)
		return left_in("/sys/fs/cgroup/memory", path, &version_1);
	for (size_t i = 0; !*controllers && i < ARRAY_SIZE(roots); i++)
		least = MIN(least, left_in(roots[i], path, &version_2));
	return least;
}

static uint64_t left_by_cgroups(void)
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	uint64_t least = UINT64_MAX;
	char line[PATH_MAX];

	while (f && fgets(line, sizeof(line), f)) {
		char *controllers = strchr(line, ':');
		char *path = controllers ? strchr(controllers + 1, ':') : NULL;

		if (!path)
			continue;
		*path++ = '\0';
		path[strcspn(path, "\n")] = '\0';
		least = MIN(least, left_by_line(controllers + 1, path));
	}
	if (f)
		fclose(f);
	return least;
}

struct memory_left memory_left(void)
{
	uint64_t machine = available(), groups = left_by_cgroups();

	return (struct memory_left){.bytes = MIN(machine, groups), .by_cgroup = groups < machine};
}
