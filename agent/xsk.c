// SPDX-License-Identifier: Apache-2.0
/*
 * On libxdp, which makes the sockets and knows the rings. It is not to load its own
 * program, and two of its ways are minded here. A UMEM is registered with the first socket, and how
 * that is bound (zero-copy or not) holds for the others. And a failed bind leaves the
 * first socket's fill ring mapped, which keeps it open, unless the rings that are handed to
 * xsk_socket__create_shared() are not those of xsk_umem__create(): hence struct xsk's own pair.
 */
#include "xsk.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xdp/xsk.h>

#include "util.h"

#define HEADROOM   256u /* XDP_PACKET_HEADROOM: before every packet */
#define FRAMES_MIN 64u  /* of a queue */
#define POLL_MS    5

struct queue {
	struct xsk_socket *socket;
	struct xsk_ring_prod fill;
	struct xsk_ring_cons completion, rx;
};

struct xsk {
	struct xsk_umem *umem;
	struct xsk_ring_prod first_fill;
	struct xsk_ring_cons first_completion;
	uint8_t *memory;
	size_t bytes;
	struct queue *queues;
	unsigned int nqueues;
	uint32_t frames; /* of a queue */
	uint32_t room;
	bool zero_copy;
};

static uint32_t power_of_two_up(uint32_t n)
{
	uint32_t p = 1;

	while (p < n)
		p <<= 1;
	return p;
}

void xsk_shut(struct xsk *x)
{
	/* Before the UMEM, which has the first socket's descriptor. */
	for (unsigned int i = 0; i < x->nqueues; i++) {
		xsk_socket__delete(x->queues[i].socket);
		x->queues[i].socket = NULL;
	}
	if (x->umem)
		xsk_umem__delete(x->umem);
	x->umem = NULL;
}

struct xsk *xsk_free(struct xsk *x)
{
	if (!x)
		return NULL;
	xsk_shut(x);
	if (x->memory)
		munmap(x->memory, x->bytes);
	free(x->queues);
	free(x);
	return NULL;
}

static int allocate(struct xsk *x, const struct xsk_config *config, struct err *err)
{
	x->frames = (uint32_t)MIN(config->bytes / XSK_FRAME / config->queues, 1u << 24);
	if (x->frames < FRAMES_MIN)
		return err_set(err, -ENOSPC,
			       "%zu bytes are too few for its %u receive queues, which need %zu",
			       config->bytes, config->queues,
			       (size_t)config->queues * FRAMES_MIN * XSK_FRAME);
	x->bytes = (size_t)x->frames * config->queues * XSK_FRAME;
	x->queues = calloc(config->queues, sizeof(*x->queues));
	if (!x->queues)
		return err_set(err, -ENOMEM, "out of memory");
	x->memory = mmap(NULL, x->bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (x->memory == MAP_FAILED) {
		x->memory = NULL;
		return err_sys(err, -errno, "cannot allocate %zu bytes for its packets", x->bytes);
	}
	x->nqueues = config->queues;
	return 0;
}

static int register_memory(struct xsk *x, struct err *err)
{
	const struct xsk_umem_config config = {
		.fill_size = power_of_two_up(x->frames),
		.comp_size = FRAMES_MIN, /* of sent packets: there are none */
		.frame_size = XSK_FRAME,
	};
	int r = xsk_umem__create(&x->umem, x->memory, x->bytes, &x->first_fill,
				 &x->first_completion, &config);

	if (!r)
		return 0;
	x->umem = NULL;
	if (r == -EPERM)
		return err_set(err, r, "no right to an AF_XDP socket: CAP_NET_RAW is needed");
	if (r == -EAFNOSUPPORT)
		return err_set(err, r, "this kernel has no AF_XDP sockets (CONFIG_XDP_SOCKETS)");
	if (r == -ENOBUFS)
		return err_set(err, r,
			       "%zu bytes cannot be locked in memory: CAP_IPC_LOCK is needed, or a "
			       "higher limit (ulimit -l, LimitMEMLOCK=)",
			       x->bytes);
	return err_sys(err, r, "cannot hand %zu bytes to AF_XDP", x->bytes);
}

/* A driver that has run out of frames does not look for new ones by itself. */
static void wake(struct queue *q)
{
	if (xsk_ring_prod__needs_wakeup(&q->fill))
		recvfrom(xsk_socket__fd(q->socket), NULL, 0, MSG_DONTWAIT, NULL, NULL);
}

static int bind_queue(struct xsk *x, const char *name, unsigned int i, uint16_t flags)
{
	const struct xsk_socket_config config = {
		.rx_size = power_of_two_up(x->frames),
		.libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
		.bind_flags = flags,
	};
	struct queue *q = &x->queues[i];
	uint32_t index = 0;
	int r;

	r = xsk_socket__create_shared(&q->socket, name, i, x->umem, &q->rx, NULL, &q->fill,
				      &q->completion, &config);
	if (r) {
		q->socket = NULL;
		return r;
	}
	xsk_ring_prod__reserve(&q->fill, x->frames, &index);
	for (uint32_t f = 0; f < x->frames; f++)
		*xsk_ring_prod__fill_addr(&q->fill, index + f) =
			((uint64_t)i * x->frames + f) * XSK_FRAME;
	xsk_ring_prod__submit(&q->fill, x->frames);
	wake(q);
	return 0;
}

static int bind_all(struct xsk *x, const char *name, uint16_t flags, struct err *err)
{
	int r = register_memory(x, err);

	for (unsigned int i = 0; !r && i < x->nqueues; i++) {
		r = bind_queue(x, name, i, flags);
		if (r == -EBUSY)
			err_set(err, r, "queue %u has an AF_XDP socket of another program", i);
		else if (r)
			err_sys(err, r, "cannot bind an AF_XDP socket to queue %u", i);
	}
	if (r)
		xsk_shut(x);
	return r;
}

static bool asks_zero_copy(const struct xsk *x)
{
	struct xdp_options options = {};
	socklen_t size = sizeof(options);

	return !getsockopt(xsk_fd(x, 0), SOL_XDP, XDP_OPTIONS, &options, &size) &&
	       (options.flags & XDP_OPTIONS_ZEROCOPY);
}

static int bind_patiently(struct xsk *x, const char *name, uint16_t flags, nsec_t busy_until,
			  struct err *err)
{
	int r;

	while ((r = bind_all(x, name, flags, err)) == -EBUSY && clock_monotonic() < busy_until)
		poll(NULL, 0, POLL_MS);
	return r;
}

/* The best of what driver and kernel have: each word that they do not know is an error. */
static int bind_best(struct xsk *x, const struct xsk_config *config, struct err *err)
{
	static const uint16_t ways[] = {XDP_ZEROCOPY | XDP_USE_SG, XDP_ZEROCOPY,
					XDP_COPY | XDP_USE_SG, XDP_COPY};
	nsec_t give_up = clock_monotonic() + XSK_CLOSING;
	nsec_t busy_until = MIN(config->busy_until, give_up);
	int r = -EOPNOTSUPP;

	for (size_t i = 0; r && r != -EBUSY && r != -EPERM && r != -ENOBUFS && i < ARRAY_SIZE(ways);
	     i++) {
		bool sg = ways[i] & XDP_USE_SG, zero_copy = ways[i] & XDP_ZEROCOPY;

		if (zero_copy &&
		    (!config->native || (!sg && config->need_room > XSK_FRAME - HEADROOM)))
			continue;
		r = bind_patiently(x, config->name, ways[i] | XDP_USE_NEED_WAKEUP, busy_until, err);
		/* Sockets of this way may be in the way of the next one. */
		busy_until = give_up;
		x->room = sg ? UINT32_MAX : XSK_FRAME - HEADROOM;
	}
	if (!r)
		x->zero_copy = asks_zero_copy(x);
	return r;
}

int xsk_open(const struct xsk_config *config, struct xsk **ret, struct err *err)
{
	struct xsk *x = calloc(1, sizeof(*x));
	int r;

	if (!x)
		return err_set(err, -ENOMEM, "out of memory");
	r = allocate(x, config, err);
	if (!r)
		r = bind_best(x, config, err);
	if (r) {
		xsk_free(x);
		return r;
	}
	*ret = x;
	return 0;
}

unsigned int xsk_queues(const struct xsk *x)
{
	return x->nqueues;
}

uint32_t xsk_frames(const struct xsk *x)
{
	return x->frames;
}

bool xsk_zero_copy(const struct xsk *x)
{
	return x->zero_copy;
}

uint32_t xsk_room(const struct xsk *x)
{
	return x->room;
}

int xsk_fd(const struct xsk *x, unsigned int queue)
{
	return xsk_socket__fd(x->queues[queue].socket);
}

uint8_t *xsk_data(const struct xsk *x, uint64_t addr)
{
	return x->memory + addr;
}

uint32_t xsk_waiting(const struct xsk *x, unsigned int queue)
{
	const struct xsk_ring_cons *rx = &x->queues[queue].rx;

	return __atomic_load_n(rx->producer, __ATOMIC_ACQUIRE) - *rx->consumer;
}

uint32_t xsk_peek(struct xsk *x, unsigned int queue, struct xdp_desc *ret, uint32_t max)
{
	struct xsk_ring_cons *rx = &x->queues[queue].rx;
	uint32_t index, n = xsk_ring_cons__peek(rx, max, &index);

	for (uint32_t i = 0; i < n; i++)
		ret[i] = *xsk_ring_cons__rx_desc(rx, index + i);
	return n;
}

void xsk_take(struct xsk *x, unsigned int queue, uint32_t peeked, uint32_t taken)
{
	struct xsk_ring_cons *rx = &x->queues[queue].rx;

	xsk_ring_cons__cancel(rx, peeked - taken);
	xsk_ring_cons__release(rx, taken);
}

void xsk_refill(struct xsk *x, unsigned int queue, const uint64_t *addrs, uint32_t n)
{
	struct queue *q = &x->queues[queue];
	uint32_t index = 0;

	/* The ring has room for all the frames there are. */
	xsk_ring_prod__reserve(&q->fill, n, &index);
	for (uint32_t i = 0; i < n; i++)
		*xsk_ring_prod__fill_addr(&q->fill, index + i) = addrs[i];
	xsk_ring_prod__submit(&q->fill, n);
	wake(q);
}
