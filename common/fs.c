/* SPDX-License-Identifier: Apache-2.0 */
#include "fs.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "util.h"

const char *fs_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

char *fs_folder(const char *path)
{
	size_t n = (size_t)(fs_name(path) - path);

	if (!n)
		return strdup(".");
	/* Without the slash, but for the root. */
	return strndup(path, n > 1 ? n - 1 : 1);
}

int fs_open_folder(const char *path, struct err *err)
{
	_cleanup_free_ char *folder = fs_folder(path);
	int fd;

	if (!folder)
		return err_set(err, -ENOMEM, "out of memory");
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? err_sys(err, -errno, "cannot open the folder \"%s\"", folder) : fd;
}

int fs_check_append(const char *path, struct err *err)
{
	_cleanup_free_ char *folder = fs_folder(path);
	struct stat st;

	if (!folder)
		return err_set(err, -ENOMEM, "out of memory");
	if (stat(path, &st) < 0 && errno == ENOENT)
		return faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS) < 0
			       ? err_sys(err, -errno, "cannot create files in \"%s\"", folder)
			       : 0;
	if (faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) < 0)
		return err_sys(err, -errno, "cannot write to \"%s\"", path);
	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		return err_set(err, -EISDIR, "cannot write to \"%s\": it is a directory", path);
	return 0;
}

int fs_sync_folder(int folder_fd)
{
	/* EINVAL: a file system that has no such thing, and no way to do better. */
	return fsync(folder_fd) < 0 && errno != EINVAL ? -errno : 0;
}

int fs_lock(int fd)
{
	return flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
}

int fs_write(int fd, const void *data, size_t n, off_t offset)
{
	const char *at = data;

	while (n) {
		ssize_t w = pwrite(fd, at, n, offset);

		if (w < 0 && errno == EINTR)
			continue;
		if (w <= 0)
			return w ? -errno : -ENOSPC;
		at += w;
		offset += w;
		n -= (size_t)w;
	}
	return 0;
}

ssize_t fs_read(int fd, void *data, size_t n, off_t offset)
{
	size_t done = 0;

	while (done < n) {
		ssize_t r = pread(fd, (char *)data + done, n - done, offset + (off_t)done);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		done += (size_t)r;
	}
	return (ssize_t)done;
}

int fs_write_error(int e)
{
	switch (e) {
	case ENOSPC:
	case EDQUOT:
		return -e;
	case EFBIG: /* the size limit of the process or of the file system */
		return -ENOSPC;
	default:
		return -EIO;
	}
}
