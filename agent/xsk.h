/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AF_XDP: a socket for each receive queue of a device, all on one memory (UMEM) of equal
 * frames, of which each queue has its share. Receives only.
 *
 * A frame is the kernel's while it is in a fill ring or in its hands, ours from xsk_peek() to
 * xsk_refill(). No locks in here.
 */
#ifndef PS_XSK_H
#define PS_XSK_H

#include <linux/if_xdp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clock.h"
#include "err.h"

#ifndef XDP_PKT_CONTD /* Linux 6.6 */
#define XDP_PKT_CONTD (1 << 0)
#define XDP_USE_SG    (1 << 4)
#endif

#define XSK_FRAME 4096u /* a page: the driver may want it so */

struct xsk;

struct xsk_config {
	const char *name;
	unsigned int queues;
	size_t bytes;       /* of memory, for all queues together */
	uint32_t need_room; /* the largest packet that usually comes */
	bool native;        /* the XDP program runs in the driver: zero-copy is worth a try */
	nsec_t busy_until;  /* a queue that is taken may be one of our own that was closed */
};

/* The kernel gives a queue back so long after its socket was closed, at most; mostly much sooner.
 */
#define XSK_CLOSING (200 * NSEC_PER_MSEC)

/*
 * With zero-copy where the driver has it, and with packets of several frames where the kernel
 * has these. -EBUSY: somebody's socket is there; -EPERM, -ENOBUFS: a right or memory is missing.
 * May wait for XSK_CLOSING, for queues of our own.
 */
int xsk_open(const struct xsk_config *config, struct xsk **ret, struct err *err);
/* Close the sockets, and give the queues back. What was received stays where it is. */
void xsk_shut(struct xsk *x);
struct xsk *xsk_free(struct xsk *x);

unsigned int xsk_queues(const struct xsk *x);
uint32_t xsk_frames(const struct xsk *x); /* of a queue */
bool xsk_zero_copy(const struct xsk *x);
uint32_t xsk_room(const struct xsk *x); /* the largest packet that they take */
int xsk_fd(const struct xsk *x, unsigned int queue);
/* The frame's bytes, from @addr of a descriptor on. */
uint8_t *xsk_data(const struct xsk *x, uint64_t addr);

/* Descriptors that wait in the queue's ring. */
uint32_t xsk_waiting(const struct xsk *x, unsigned int queue);
/* Copy out the oldest of them, at most @max; then say how many of these were taken. */
uint32_t xsk_peek(struct xsk *x, unsigned int queue, struct xdp_desc *ret, uint32_t max);
void xsk_take(struct xsk *x, unsigned int queue, uint32_t peeked, uint32_t taken);
/* Frames for the kernel, by any address in them. */
void xsk_refill(struct xsk *x, unsigned int queue, const uint64_t *addrs, uint32_t n);

#endif
