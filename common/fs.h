/* SPDX-License-Identifier: Apache-2.0 */
/* Files that must survive: what the sinks, the journal and others do with the file system alike. */
#ifndef PS_FS_H
#define PS_FS_H

#include <stddef.h>
#include <sys/types.h>

#include "err.h"

/* The folder that @path is in, "." when it names none; NULL when out of memory. */
char *fs_folder(const char *path);
/* The last part of @path. */
const char *fs_name(const char *path);
/* Open the folder that @path is in, for openat() and fsync(). A descriptor, or -errno. */
int fs_open_folder(const char *path, struct err *err);
/* Could @path be appended to, or be made? Makes nothing. */
int fs_check_append(const char *path, struct err *err);
/* Make the names in the folder durable: files made, renamed and removed. 0 or -errno. */
int fs_sync_folder(int folder_fd);

/* flock(2) it for this process alone, without waiting: 0, -EWOULDBLOCK, -errno. */
int fs_lock(int fd);

/* All @n bytes at @offset: 0 or -errno, and then some of them may be there. */
int fs_write(int fd, const void *data, size_t n, off_t offset);
/* The bytes at @offset, fewer than @n at the end of the file; -errno. */
ssize_t fs_read(int fd, void *data, size_t n, off_t offset);

/*
 * What the errno of a failed write comes to: -ENOSPC or -EDQUOT (try again later, there may be
 * room), else -EIO.
 */
int fs_write_error(int e);

#endif
