/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network namespaces that are captured in: our own, and those that the key netns
 * stands for, which come and go. Each has its monitor of interfaces, which tells struct
 * ifaces. All of it on the loop thread.
 */
#ifndef PS_PLACES_H
#define PS_PLACES_H

#include "config.h"
#include "iface.h"

#define PLACES_MAX 256u /* namespaces, our own included */

struct places;

/* Adds to the loop's @epoll_fd what it waits for, each with the descriptor as its data. */
int places_new(const struct config *config, struct ifaces *ifaces, int epoll_fd,
	       struct places **ret, struct err *err);
/* After the capture's end, which still visits them. */
struct places *places_free(struct places *p);

/* Look for namespaces, and list the interfaces of all. What fails is tried again later. */
void places_list(struct places *p);
/* One of the descriptors has something to say. */
void places_event(struct places *p, int fd);
/* Every second. */
void places_tick(struct places *p);

#endif
