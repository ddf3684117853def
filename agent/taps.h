/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The taps: interfaces that only monitor, whose packets go from an XDP program to AF_XDP sockets.
 * A part of the back end on BPF ring buffers, whose maps their programs share.
 *
 * Threads: open, close, attach, detach, count and forget belong to the loop thread; collect, next,
 * give_back and the queues to the reader; waiting and describe to any.
 */
#ifndef PS_TAPS_H
#define PS_TAPS_H

#include "capture.h"
#include "programs.h"
#include "tap_queue.h"

struct taps;

/*
 * Load the programs with @knobs on the maps of @share. Each tap will have @bytes of memory for
 * packets. The loop thread signals @event, an eventfd of the caller's, when it leaves something to
 * the reader. 0 and NULL when the configuration has no taps.
 */
int taps_open(const struct capture_config *config, const struct knobs *knobs,
	      const struct programs *share, uint64_t bytes, int event, struct taps **ret,
	      struct err *err);
struct taps *taps_close(struct taps *t);

/* The number of a declared tap, -1 for any other interface. NULL has none. */
int taps_find(const struct taps *t, const char *name);
/* The program for a hook of that mode; -1: it was not to be loaded. */
int taps_program(const struct taps *t, enum xdp_mode mode);
/* As capture_ops.set_expression, for their programs. NULL has none. */
int taps_set_expression(struct taps *t, uint32_t slot, const struct expression *e, struct err *err);

/*
 * May there be another tap @number? -ENOBUFS: not while there is one, or what those of before
 * received has not been read yet.
 */
int taps_room(struct taps *t, unsigned int number, struct err *err);
/*
 * Open the sockets of tap @number, when the XDP program runs there in @mode, but no rule makes it
 * do anything yet. -EBUSY: another program's sockets; -ENOBUFS: as taps_room().
 */
int taps_attach(struct taps *t, unsigned int number, const struct capture_iface *iface,
		enum xdp_mode mode, struct err *err);
/*
 * After the program's last packet: take what is in the sockets, close them, and book as
 * lost what did not come. What was taken is still to be read.
 */
void taps_detach(struct taps *t, uint32_t ifindex);
/* For the log, "AF_XDP zero-copy, 4 queues": valid until the next call. NULL: no tap. */
const char *taps_describe(struct taps *t, uint32_t ifindex);

/*
 * What came and what was lost of what the program counts as captured for a slot, up to
 * somewhat before now: to be called before the program's counters are read. False: no tap's.
 */
bool taps_count(struct taps *t, uint32_t slot, struct tap_count *ret_came,
		struct tap_count *ret_lost);
/*
 * Correct the program's counters by that. What came there is captured; what was lost belongs to
 * what the rings lose; and what is neither yet, on its way to a socket, has not been seen yet.
 */
void taps_correct(struct capture_counts *counts, const struct tap_count *came,
		  const struct tap_count *lost);
/* The slot will be used again. */
void taps_forget(struct taps *t, uint32_t slot);

/*
 * Let @epoll tell (its data is @t) of packets in the sockets: once, so that the reader is not woken
 * by every poll of a driver while it lingers. @how: EPOLL_CTL_ADD, then _MOD for the next time.
 */
int taps_watch(struct taps *t, int epoll, int how);
/* Is a socket filling up, so that it cannot wait? */
bool taps_filling(struct taps *t);
/*
 * Take what has come out of the sockets. @fn gets every queue that has packets; it may be read
 * until the next call.
 */
typedef void taps_queue_fn(void *ctx, struct tap_queue *q);
void taps_collect(struct taps *t, taps_queue_fn *fn, void *ctx);
/* At least every TAPS_GIVE_BACK packets, or the queue runs dry. */
#define TAPS_GIVE_BACK 64
void taps_give_back(struct taps *t, struct tap_queue *q);
/*
 * After what was collected has been handed over: give its frames back, and free the memory of taps
 * that nobody needs any more. True: there are packets left.
 */
bool taps_settle(struct taps *t);
/* Queues that there may be at a time. */
#define TAPS_QUEUES_MAX (2 * TAP_SOCKETS)

#endif
