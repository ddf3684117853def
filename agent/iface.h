/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The interfaces that are being captured: follows what rtnetlink tells, decides by
 * the configuration, attaches and detaches, and keeps stream and book informed.
 * All of it on the loop thread.
 */
#ifndef PS_IFACE_H
#define PS_IFACE_H

#include "book.h"
#include "capture.h"
#include "config.h"
#include "queue.h"
#include "rtnl.h"
#include "rules.h"

struct ifaces;

struct ifaces_config {
	const struct config *config;
	const struct rules *rules;
	const struct capture_ops *ops;
	struct capture *capture;
	struct book *book;
	struct queue *queue; /* NULL: no collector to tell */
};

struct ifaces *ifaces_new(const struct ifaces_config *config);
struct ifaces *ifaces_free(struct ifaces *f);

/* Something is new about a link. One that cannot be captured is logged and left. */
void ifaces_link(void *ctx, const struct rtnl_link *link);
/* After some of these: the last counts of what was detached go to book and collector. */
void ifaces_settle(struct ifaces *f);

/* Around a complete list: what was not in it is gone. */
void ifaces_list_begin(struct ifaces *f);
void ifaces_list_end(struct ifaces *f);

/*
 * Every second: look after the hooks of some interfaces in turn, and have another try at
 * those that could not be captured for want of something that may be there by now. True
 * when the interfaces are to be listed for that.
 */
bool ifaces_tend(struct ifaces *f);

/* Copy the kernel's counters into the book. */
void ifaces_count(struct ifaces *f);
size_t ifaces_number(const struct ifaces *f);
/* Detach all, wait for programs that are still running, and count for the last time. */
void ifaces_stop(struct ifaces *f);

/* The link type that packets of an ARPHRD_ type are captured with; 0: we cannot. */
uint32_t iface_link_type(uint16_t arphrd);

#endif
