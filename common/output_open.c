/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening an output: what its path leads to, the files of an earlier run, new ones. Others have
 * the output only when output_new() returns, so but for output_open_file() nothing here needs
 * its locks.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include "fs.h"
#include "output_internal.h"
#include "packet.h"
#include "util.h"

bool output_is_stdout(const char *path)
{
	return !strcmp(path, "stdout") || !strcmp(path, "-");
}

struct sink *output_file_of(struct output *out, uint32_t link_type)
{
	for (size_t i = 0; i < out->n_sinks; i++)
		if (out->sinks[i].link_type == link_type)
			return &out->sinks[i];
	return NULL;
}

int output_open_file(struct output *out, uint32_t link_type, struct err *err)
{
	int r = sink_open_file(out->path, link_type, out->micro, &out->sinks[out->n_sinks], err);

	if (r == 0) {
		out->n_sinks++;
		out->new_names = true;
	}
	return r;
}

static int check_stdout(struct err *err)
{
	if (isatty(STDOUT_FILENO))
		return err_set(err, -ENOTTY,
			       "standard output is a terminal; pcap goes to a pipe or a file");
	if (fcntl(STDOUT_FILENO, F_GETFD) < 0)
		return err_sys(err, -errno, "cannot write to standard output");
	return 0;
}

/* What @path is; a directory is an error. */
static int find_target(const char *path, enum target *ret, struct err *err)
{
	struct stat st;

	*ret = TARGET_FILES;
	if (stat(path, &st) < 0 || S_ISREG(st.st_mode))
		return 0;
	if (S_ISDIR(st.st_mode))
		return err_set(err, -EISDIR, "cannot write to \"%s\": it is a directory", path);
	*ret = S_ISFIFO(st.st_mode) ? TARGET_FIFO : TARGET_STREAM;
	return 0;
}

int output_check(const struct output_config *config, struct err *err)
{
	_cleanup_free_ char *folder = NULL;
	enum target target;
	int r;

	if (output_is_stdout(config->path))
		return check_stdout(err);
	r = find_target(config->path, &target, err);
	if (r < 0)
		return r;
	if (target != TARGET_FILES)
		return faccessat(AT_FDCWD, config->path, W_OK, AT_EACCESS) < 0
			       ? err_sys(err, -errno, "cannot write to \"%s\"", config->path)
			       : 0;
	folder = fs_folder(config->path);
	if (!folder)
		return err_set(err, -ENOMEM, "out of memory");
	if (faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS) < 0)
		return err_sys(err, -errno, "cannot create files in \"%s\"", folder);
	return 0;
}

static int continue_file(struct output *out, const struct output_file *file, struct err *err)
{
	int r;

	if (out->n_sinks == OUTPUT_FILES_MAX || output_file_of(out, file->link_type))
		return err_set(err, -EEXIST, "link type %u has a file already", file->link_type);
	r = sink_continue_file(out->path, out->folder_fd, file, out->micro,
			       &out->sinks[out->n_sinks], err);
	if (r < 0)
		return r;
	out->n_sinks++;
	/* The earlier run may not have cared. */
	out->new_names = true;
	return 0;
}

static int open_files(struct output *out, const struct output_config *config, struct err *err)
{
	struct err why;

	/* Who may write to the folder but not read it can have files, only not durable ones. */
	out->folder_fd = fs_open_folder(out->path, &why);
	if (out->folder_fd < 0 && config->n_files)
		return err_set(err, out->folder_fd, "%s", why.text);
	for (size_t i = 0; i < config->n_files; i++)
		if (continue_file(out, &config->files[i], &why) < 0 && config->left_alone)
			config->left_alone(config->ctx, &config->files[i], why.text);
	return output_file_of(out, LINK_ETHERNET) ? 0 : output_open_file(out, LINK_ETHERNET, err);
}

/* Open what can be opened without waiting; a FIFO has its turn at the first write. */
static int open_target(struct output *out, const struct output_config *config, struct err *err)
{
	struct sink *s = &out->sinks[0];
	bool is_stdout = output_is_stdout(out->path);
	struct stat st;

	if (output_is_files(out))
		return open_files(out, config, err);
	*s = (struct sink){.fd = -1, .path = strdup(is_stdout ? "-" : out->path)};
	if (!s->path)
		return err_set(err, -ENOMEM, "out of memory");
	out->n_sinks = 1;
	if (out->target == TARGET_FIFO)
		return 0;
	s->fd = is_stdout ? fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3)
			  : open(out->path, O_WRONLY | O_CLOEXEC);
	if (s->fd < 0 || fstat(s->fd, &st) < 0)
		return err_sys(err, -errno, "cannot open \"%s\" for writing", out->path);
	if (S_ISREG(st.st_mode)) {
		/* A shell's redirection; what it appends to is not ours to cut. */
		s->regular = true;
		s->size = lseek(s->fd, 0, fcntl(s->fd, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR);
	}
	return 0;
}

int output_new(const struct output_config *config, struct output **ret, struct err *err)
{
	struct output *out = calloc(1, sizeof(*out));
	int r;

	if (!out)
		return err_set(err, -ENOMEM, "out of memory");
	pthread_mutex_init(&out->lock, NULL);
	pthread_mutex_init(&out->sync_lock, NULL);
	out->folder_fd = -1;
	out->micro = config->micro;
	out->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	out->path = strdup(config->path);
	if (out->cancel_fd < 0 || !out->path) {
		r = err_sys(err, out->path ? -errno : -ENOMEM, "cannot set up the output");
		goto out;
	}
	if (output_is_stdout(out->path)) {
		out->target = TARGET_STREAM;
		r = check_stdout(err);
	} else {
		r = find_target(out->path, &out->target, err);
	}
	if (r == 0)
		r = open_target(out, config, err);
out:
	if (r < 0)
		output_free(out);
	else
		*ret = out;
	return r;
}
