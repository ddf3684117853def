/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Network namespaces by descriptor. An open one keeps its namespace alive, with all
 * that is in it, whoever else has let go.
 */
#ifndef PS_NETNS_H
#define PS_NETNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

/* A file that stands for a namespace: the same two numbers are the same namespace. */
struct netns_id {
	uint64_t dev, inode;
};

/* That of this process. */
int netns_self(struct netns_id *ret, struct err *err);
/*
 * What is at @path, without opening it. False when nothing is, or (yet) something else than a
 * namespace, in which case *ret_errno is 0.
 */
bool netns_look(const char *path, const struct netns_id *self, struct netns_id *ret,
		int *ret_errno);
/* The descriptor of the namespace at @path. -EINVAL: it is one of another type. */
int netns_open(const char *path, struct netns_id *ret, struct err *err);

/*
 * Take this thread into a namespace (-1: it stays), and back with what *ret_home was set to.
 * Between the two there is no return and no thread is made. -EPERM: CAP_SYS_ADMIN is needed.
 */
int netns_enter(int fd, int *ret_home, struct err *err);
void netns_return(int home);
/* May we? */
int netns_allowed(struct err *err);

/*
 * What people call the namespace at @path: its name when ip-netns(8) has one, else the path;
 * in printable ASCII, as every reader of the stream takes it.
 */
void netns_name(const char *path, char *ret, size_t size);

#endif
