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
#include "filters.h"
#include "queue.h"
#include "rtnl.h"
#include "rules.h"

struct ifaces;

struct ifaces_config {
	const struct config *config;
	const struct rules *rules;
	struct filters *filters;
	const struct capture_ops *ops;
	struct capture *capture;
	struct book *book;
	struct queue *queue; /* NULL: no collector to tell */
};

/* A network namespace. */
struct place {
	uint32_t number; /* for IFACE_KEY(); 0: our own */
	int fd;          /* a descriptor of it; -1: our own */
	uint64_t inode;
	char name[STREAM_NAME_MAX + 1]; /* empty: our own */
};

struct ifaces *ifaces_new(const struct ifaces_config *config);
struct ifaces *ifaces_free(struct ifaces *f);

/* Something is new about a link. One that cannot be captured is logged and left. */
void ifaces_link(struct ifaces *f, const struct place *place, const struct rtnl_link *link);
/* After some of these: the last counts of what was detached go to book and collector. */
void ifaces_settle(struct ifaces *f);

/* Around a complete list of a place: what was not in it is gone. */
void ifaces_list_begin(struct ifaces *f, const struct place *place);
void ifaces_list_end(struct ifaces *f, const struct place *place);
/* Nothing in @place is captured any more, and nothing of it is remembered. */
void ifaces_leave(struct ifaces *f, const struct place *place);

/*
 * Every second: look after the hooks of some interfaces in turn, see whether the host has come to
 * use a tap, and have another try at those that could not be captured for want of something that
 * may be there by now. True when the interfaces are to be listed for that.
 */
bool ifaces_tend(struct ifaces *f);

/*
 * The filters say something else now (filters_prepare()): every interface gets its new rule, each
 * in one step; one whose packets the new filter cannot be asked of is left, unless that is all of
 * them. On an error all have their old ones. After it no program is running that saw others than
 * those in force.
 */
int ifaces_refresh(struct ifaces *f, struct err *err);

/* Copy the kernel's counters into the book. */
void ifaces_count(struct ifaces *f);
size_t ifaces_number(const struct ifaces *f);
/* Detach all, wait for programs that are still running, and count for the last time. */
void ifaces_stop(struct ifaces *f);

#endif
