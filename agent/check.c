/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The preflight: a row for each thing that a run needs. One that fails does not keep the others
 * from being tried. Nothing is made: a folder that is not there yet is judged by the one it is
 * to be made in.
 */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "agent.h"
#include "iface.h"
#include "rtnl.h"
#include "util.h"

static int row(const char *what, int r, const char *text)
{
	printf("%-12s %-6s %s\n", what, r < 0 ? "FAILED" : "ok", text);
	return r;
}

static int check_capture(const struct config *config)
{
	struct rules *rules = NULL;
	struct capture *c = NULL;
	struct err err;
	int r = agent_open_capture(config, &rules, &c, &err);

	row("capture", r, r < 0 ? err.text : capture_ringbuf.describe(c));
	if (c)
		capture_ringbuf.close(c);
	rules_free(rules);
	return r;
}

struct wanted {
	const struct config *config;
	char names[256];
	size_t n;
};

static void note_wanted(void *ctx, const struct rtnl_link *link)
{
	struct wanted *w = ctx;
	size_t len = strlen(w->names);

	if (!link->up || !iface_link_type(link->type) ||
	    !config_wants_interface(w->config, link->name, link->loopback))
		return;
	w->n++;
	snprintf(w->names + len, sizeof(w->names) - len, " %s", link->name);
}

static int check_interfaces(const struct config *config)
{
	struct wanted wanted = {.config = config};
	struct rtnl *rtnl = NULL;
	struct err err;
	int r = rtnl_new(&rtnl, &err);

	if (r == 0)
		r = rtnl_list(rtnl, note_wanted, &wanted, &err);
	rtnl_free(rtnl);
	if (r < 0)
		return row("interfaces", r, err.text);
	return row("interfaces", 0, wanted.n ? wanted.names + 1 : "none is up and wanted now");
}

static int check_tls(const struct config *config)
{
	const struct tls_config tls = config_tls(config);
	struct tls_context *ctx = NULL;
	struct err err;
	int r = tls_context_new(TLS_AGENT, &tls, &ctx, &err);

	tls_context_free(ctx);
	return row("tls", r,
		   r < 0         ? err.text
		   : !tls.enable ? "off: plain text"
		   : tls.psk     ? "shared key"
				 : "certificates");
}

/* Bytes of the files below @path. What cannot be looked at does not count. */
static uint64_t bytes_below(char *path)
{
	char *const paths[] = {path, NULL};
	FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, NULL);
	uint64_t bytes = 0;
	FTSENT *e;

	while (fts && (e = fts_read(fts)))
		if (e->fts_info == FTS_F)
			bytes += (uint64_t)e->fts_statp->st_size;
	if (fts)
		fts_close(fts);
	return bytes;
}

static bool is_in_use(const char *path)
{
	_cleanup_close_ int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_close_ int fd = openat(dir, "lock", O_RDONLY | O_CLOEXEC);

	return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK;
}

/* The folder that would be written to first: @path, or the one that it is to be made in. */
static int writable_folder(const char *path, char ret[PATH_MAX], struct err *err)
{
	struct stat st;
	char *slash;

	snprintf(ret, PATH_MAX, "%s", path);
	if (stat(path, &st) < 0 && errno == ENOENT) {
		while ((slash = strrchr(ret, '/')) && slash != ret && !slash[1])
			*slash = '\0';
		if (!slash)
			snprintf(ret, PATH_MAX, ".");
		else
			slash[slash == ret] = '\0';
	}
	if (stat(ret, &st) < 0)
		return err_sys(err, -errno, "\"%s\"", ret);
	if (!S_ISDIR(st.st_mode))
		return err_sys(err, -ENOTDIR, "\"%s\"", ret);
	if (faccessat(AT_FDCWD, ret, R_OK | W_OK | X_OK, AT_EACCESS) < 0)
		return err_sys(err, -errno, "\"%s\" cannot be written", ret);
	return 0;
}

static int check_spool(const struct config *config)
{
	char folder[PATH_MAX], text[512];
	struct statvfs fs;
	struct err err;
	uint64_t free_bytes;
	int r;

	if (config->spool_mode == SPOOL_OFF)
		return row("spool", 0, "off: frames wait in memory only");
	r = writable_folder(config->spool_path, folder, &err);
	if (r < 0)
		return row("spool", r, err.text);
	if (statvfs(folder, &fs) < 0) {
		r = err_sys(&err, -errno, "\"%s\"", folder);
		return row("spool", r, err.text);
	}
	free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (free_bytes < config->spool_min_free)
		r = -ENOSPC;
	snprintf(text, sizeof(text),
		 "\"%.200s\"%s: %" PRIu64 " of %" PRIu64 " bytes used; %" PRIu64
		 " are free in the file system, %" PRIu64 " are to stay free%s",
		 config->spool_path, strcmp(folder, config->spool_path) != 0 ? " (to be made)" : "",
		 bytes_below(config->spool_path), config->spool_max_bytes, free_bytes,
		 config->spool_min_free,
		 is_in_use(config->spool_path) ? "; in use now: that agent has to stop first" : "");
	return row("spool", r, text);
}

int agent_check(const struct config *config)
{
	const int results[] = {
		row("config", 0, "read and consistent"),
		check_capture(config),
		check_interfaces(config),
		config->servers.n ? check_tls(config) : 0,
		config->servers.n ? check_spool(config) : 0,
	};

	for (size_t i = 0; i < ARRAY_SIZE(results); i++)
		if (results[i] < 0)
			return results[i];
	return 0;
}
