/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a run. Nothing is made: a folder that is not there yet is judged by the one it is
 * to be made in.
 */
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "check_internal.h"
#include "fs.h"
#include "output.h"
#include "util.h"

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

static void check_spool(struct check *c)
{
	const struct config *config = c->config;
	bool in_use, made, full;
	uint64_t free_bytes;
	char folder[PATH_MAX];
	struct statvfs fs;
	struct err err;
	int r;

	if (config->spool_mode == SPOOL_OFF) {
		check_row(c, CHECK_OK, "spool", NULL, NULL, "off: frames wait in memory only");
		return;
	}
	r = writable_folder(config->spool_path, folder, &err);
	if (r == 0 && statvfs(folder, &fs) < 0)
		r = err_sys(&err, -errno, "\"%s\"", folder);
	if (r < 0) {
		check_row(c, CHECK_FAILED, "spool", NULL,
			  "make spool.path a folder that the agent's user may write to, or set "
			  "spool.mode to off",
			  "%s", err.text);
		return;
	}
	free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	full = free_bytes < config->spool_min_free;
	in_use = is_in_use(config->spool_path);
	made = strcmp(folder, config->spool_path) == 0;
	check_row(c,
		  full     ? CHECK_FAILED
		  : in_use ? CHECK_WARN
			   : CHECK_OK,
		  "spool", NULL,
		  full     ? "make room, or lower spool.minFree"
		  : in_use ? "stop that agent first"
			   : NULL,
		  "\"%.200s\"%s: %" PRIu64 " of %" PRIu64 " bytes used; %" PRIu64
		  " are free in the file system, %" PRIu64 " are to stay free%s",
		  config->spool_path, made ? "" : " (to be made)", bytes_below(config->spool_path),
		  config->spool_max_bytes, free_bytes, config->spool_min_free,
		  in_use ? "; another agent uses it now" : "");
}

static void check_output(struct check *c)
{
	const struct output_config output = {.path = c->config->file_path,
					     .micro = c->config->micro};
	struct err err;
	int r = output_check(&output, &err);

	if (r == -ENOTTY)
		check_row(c, CHECK_WARN, "file", NULL,
			  "let the standard output of a run be a pipe or a file", "%s", err.text);
	else if (r < 0)
		check_row(c, CHECK_FAILED, "file", NULL, "mend output.file.path", "%s", err.text);
	else
		check_row(c, CHECK_OK, "file", NULL, NULL, "\"%s\"", c->config->file_path);
}

static void check_log(struct check *c)
{
	struct err err;

	if (fs_check_append(c->config->log_filename, &err) < 0)
		check_row(c, CHECK_FAILED, "log", NULL, "mend logFilename", "%s", err.text);
	else
		check_row(c, CHECK_OK, "log", NULL, NULL, "\"%s\"", c->config->log_filename);
}

void check_files(struct check *c)
{
	if (c->config->servers.n)
		check_spool(c);
	if (c->config->file_path)
		check_output(c);
	if (c->config->log_filename)
		check_log(c);
}

void check_credentials(struct check *c)
{
	const struct tls_config tls = config_tls(c->config);
	struct err err;

	if (!c->config->servers.n)
		return;
	if (tls_context_new(TLS_AGENT, &tls, &c->tls, &err) < 0) {
		c->tls = NULL;
		check_row(c, CHECK_FAILED, "tls", NULL,
			  "mend the files that tls.certfile, tls.keyfile and tls.cafile name "
			  "(`ps-collector --init-pki DIR` makes such)",
			  "%s", err.text);
	} else if (!tls.enable) {
		check_row(c, CHECK_WARN, "tls", NULL, "leave `tls.enable: false` out",
			  "off: everybody on the way can read the packets, and nobody knows who "
			  "takes them");
	} else {
		check_row(c, CHECK_OK, "tls", NULL, NULL,
			  tls.psk ? "the shared key" : "certificate, key and authority are there");
	}
}
