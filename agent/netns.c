// SPDX-License-Identifier: Apache-2.0
#include "netns.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "util.h"

#define HERE "/proc/thread-self/ns/net"

static struct netns_id id_of(const struct stat *st)
{
	return (struct netns_id){st->st_dev, st->st_ino};
}

int netns_self(struct netns_id *ret, struct err *err)
{
	struct stat st;

	if (stat(HERE, &st) < 0)
		return err_sys(err, -errno, "cannot tell the network namespace of this process");
	*ret = id_of(&st);
	return 0;
}

/* All namespaces are files of one file system. */
bool netns_look(const char *path, const struct netns_id *self, struct netns_id *ret, int *ret_errno)
{
	struct stat st;

	*ret_errno = 0;
	if (stat(path, &st) < 0) {
		*ret_errno = errno;
		return false;
	}
	*ret = id_of(&st);
	return ret->dev == self->dev;
}

int netns_open(const char *path, struct netns_id *ret, struct err *err)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return err_sys(err, -errno, "cannot open it");
	if (ioctl(fd, NS_GET_NSTYPE) != CLONE_NEWNET)
		return err_set(err, -EINVAL, "it is not a network namespace");
	*ret = id_of(&st);
	return take_fd(&fd);
}

int netns_enter(int fd, int *ret_home, struct err *err)
{
	_cleanup_close_ int home = -1;

	*ret_home = -1;
	if (fd < 0)
		return 0;
	home = open(HERE, O_RDONLY | O_CLOEXEC);
	if (home < 0)
		return err_sys(err, -errno, "cannot open the network namespace of this process");
	if (setns(fd, CLONE_NEWNET) < 0)
		return err_sys(err, -errno, "cannot enter a network namespace%s",
			       errno == EPERM ? " (CAP_SYS_ADMIN is needed)" : "");
	*ret_home = take_fd(&home);
	return 0;
}

void netns_return(int home)
{
	if (home < 0)
		return;
	/*
	 * It took the same right as the way there, and what this thread would do elsewhere
	 * is not to be thought of.
	 */
	if (setns(home, CLONE_NEWNET) < 0)
		abort();
	close(home);
}

int netns_allowed(struct err *err)
{
	_cleanup_close_ int here = open(HERE, O_RDONLY | O_CLOEXEC);
	int home, r;

	if (here < 0)
		return err_sys(err, -errno, "cannot open the network namespace of this process");
	r = netns_enter(here, &home, err);
	if (r == 0)
		netns_return(home);
	return r;
}

void netns_name(const char *path, char *ret, size_t size)
{
	static const char *const folders[] = {"/run/netns/", "/var/run/netns/"};
	size_t len;

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		if (strncmp(path, folders[i], strlen(folders[i])) != 0)
			continue;
		path += strlen(folders[i]);
		break;
	}
	/* The end of a path tells more of it than the beginning. */
	len = strlen(path);
	snprintf(ret, size, "%s", path + (len < size ? 0 : len - size + 1));
	for (; *ret; ret++)
		if (*ret < ' ' || *ret > '~')
			*ret = '?';
}
