/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The programs that are attached when there are several network namespaces. An ifindex means
 * something in one only, and a program cannot tell where it runs; so each of these is a few
 * instructions that note its namespace's number and go on with the one program for all of them.
 */
#ifndef PS_NETNS_ENTRY_H
#define PS_NETNS_ENTRY_H

#include "programs.h"

/* By direction - 1; -1: none. To be closed after they were attached. */
struct netns_entry {
	int fd[2];
};

/* @p: by_netns. On failure there is nothing to close. */
int netns_entry_load(struct netns_entry *ret, const struct programs *p, uint32_t netns,
		     struct err *err);
void netns_entry_close(struct netns_entry *e);

#endif
