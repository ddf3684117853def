// SPDX-License-Identifier: Apache-2.0
/*
 * A tap is attached as a struct tap, which outlives its sockets: its last packets are still to
 * be read when they are closed, and its figures are asked for until its slot is used
 * again. Then the interface may be attached anew, with other sockets and other memory; of
 * each tap there may be two at a time.
 *
 * What is exact, and why. The program numbers what it sends to a socket, per CPU
 * (bpf/divert.h), so every packet that comes tells what is missing before it. What is
 * missing at the end is told by the program's own numbers: after the last packet, and,
 * so that a socket which nothing comes out of tells of its losses too, once a while. What
 * is on its way between program and socket is neither: taps_correct().
 *
 * The lock guards the list of taps, the rings that we share with the kernel, and the books.
 * The reader holds it only for moments, never while it hands packets on. Only the reader frees
 * the memory that packets are in.
 */
#include "taps.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util.h"

#define TAPS_AT_A_TIME (2 * TAPS_MAX)
#define SETTLE_AFTER   (200 * NSEC_PER_MSEC) /* no packet is on its way for so long */
#define LINK_HEADER    22                    /* Ethernet with two tags */
#define FILLING        4                     /* when a quarter of a socket's frames wait */

struct tap {
	unsigned int number;
	uint32_t ifindex; /* 0: detached */
	uint32_t slot;
	bool forgotten;  /* nobody will ask for its figures */
	int promisc_fd;  /* a packet socket that is there for that only */
	struct xsk *xsk; /* NULL: everything was read */
	struct tap_queue *queues;
	unsigned int nqueues;
	nsec_t snapshot;             /* time of the queues' `before` */
	struct tap_count came, lost; /* once the queues are gone */
};

struct taps {
	struct programs native, generic; /* for hooks of either mode; may be empty */
	const int *map;                  /* of both */
	const char *const *names;
	unsigned int nnames;
	uint64_t bytes;
	unsigned int cpus;
	int epoll;
	int event; /* not ours; wakes the reader */
	uint8_t *scratch;
	struct tap_sent *sent; /* room for an element of the map */
	char description[64];
	nsec_t closed; /* when sockets were, last; 0: never */

	pthread_mutex_t lock;
	struct tap *taps[TAPS_AT_A_TIME];
	unsigned int ntaps;
};

static int open_programs(struct taps *t, enum xdp_mode mode, const struct knobs *knobs,
			 const struct programs *share, struct err *err)
{
	int r = 0;

	if (mode != XDP_GENERIC)
		r = programs_open(&t->native, PROGRAMS_TAP, knobs, share, err);
	if (!r && mode != XDP_NATIVE)
		r = programs_open(&t->generic, PROGRAMS_TAP_GENERIC, knobs,
				  t->native.object ? &t->native : share, err);
	t->map = t->native.object ? t->native.map : t->generic.map;
	return r;
}

int taps_open(const struct capture_config *config, const struct knobs *knobs,
	      const struct programs *share, uint64_t bytes, int event, struct taps **ret,
	      struct err *err)
{
	int cpus = libbpf_num_possible_cpus();
	struct knobs own = *knobs;
	struct taps *t;
	int r;

	*ret = NULL;
	if (!config->ntaps)
		return 0;
	t = calloc(1, sizeof(*t));
	if (!t)
		return err_set(err, -ENOMEM, "out of memory");
	pthread_mutex_init(&t->lock, NULL);
	t->names = config->taps;
	t->nnames = config->ntaps;
	t->bytes = bytes;
	t->event = event;
	t->cpus = (unsigned int)MAX(cpus, 1);
	t->epoll = epoll_create1(EPOLL_CLOEXEC);
	t->scratch = malloc(TAP_SCRATCH);
	t->sent = calloc(t->cpus, sizeof(*t->sent));
	own.tap_drop = config->tap_drop;
	own.other_netns = false;     /* they are in our own */
	own.check_heartbeat = false; /* the link ends with the process */
	if (!t->scratch || !t->sent || t->epoll < 0)
		r = err_set(err, -ENOMEM, "out of memory");
	else
		r = open_programs(t, config->xdp_mode, &own, share, err);
	if (r) {
		taps_close(t);
		return r;
	}
	*ret = t;
	return 0;
}

static void sum(const struct tap *tap, struct tap_count *ret_came, struct tap_count *ret_lost)
{
	*ret_came = tap->came;
	*ret_lost = tap->lost;
	for (unsigned int i = 0; i < tap->nqueues; i++) {
		ret_came->packets += tap->queues[i].came.packets;
		ret_came->bytes += tap->queues[i].came.bytes;
		ret_lost->packets += tap->queues[i].lost.packets;
		ret_lost->bytes += tap->queues[i].lost.bytes;
	}
}

/* Only the figures stay. */
static void free_packets(struct tap *tap)
{
	struct tap_count came, lost;

	sum(tap, &came, &lost);
	tap->came = came;
	tap->lost = lost;
	for (unsigned int i = 0; i < tap->nqueues; i++)
		tap_queue_done(&tap->queues[i]);
	free(tap->queues);
	tap->queues = NULL;
	tap->nqueues = 0;
	tap->xsk = xsk_free(tap->xsk);
}

static struct tap *tap_free(struct tap *tap)
{
	free_packets(tap);
	if (tap->promisc_fd >= 0)
		close(tap->promisc_fd);
	free(tap);
	return NULL;
}

struct taps *taps_close(struct taps *t)
{
	if (!t)
		return NULL;
	for (unsigned int i = 0; i < t->ntaps; i++)
		tap_free(t->taps[i]);
	programs_close(&t->generic);
	programs_close(&t->native);
	if (t->epoll >= 0)
		close(t->epoll);
	pthread_mutex_destroy(&t->lock);
	free(t->scratch);
	free(t->sent);
	free(t);
	return NULL;
}

int taps_find(const struct taps *t, const char *name)
{
	for (unsigned int i = 0; t && i < t->nnames; i++)
		if (strcmp(t->names[i], name) == 0)
			return (int)i;
	return -1;
}

int taps_program(const struct taps *t, enum xdp_mode mode)
{
	const struct programs *p = mode == XDP_NATIVE ? &t->native : &t->generic;

	return p->object ? p->entry[0] : -1;
}

int taps_set_expression(struct taps *t, uint32_t slot, const struct expression *e, struct err *err)
{
	int r = 0;

	if (t && t->native.object)
		r = programs_set_expression(&t->native, slot, e, err);
	if (!r && t && t->generic.object)
		r = programs_set_expression(&t->generic, slot, e, err);
	return r;
}

static struct tap *find(const struct taps *t, uint32_t ifindex)
{
	for (unsigned int i = 0; t && i < t->ntaps; i++)
		if (t->taps[i]->ifindex == ifindex)
			return t->taps[i];
	return NULL;
}

/* The receive queues in use, and what usually is the largest packet. */
static int ask_device(int fd, const char *name, struct xsk_config *ret, struct err *err)
{
	struct ethtool_channels channels = {.cmd = ETHTOOL_GCHANNELS};
	struct ifreq request = {.ifr_data = (char *)&channels};

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
	/* A device that cannot be asked has one. */
	ret->queues = 1;
	if (!ioctl(fd, SIOCETHTOOL, &request))
		ret->queues = MAX(channels.rx_count + channels.combined_count, 1u);
	if (ret->queues > TAP_QUEUES)
		return err_set(err, -EOPNOTSUPP,
			       "it has %u receive queues, and a tap may have %u (\"ethtool -L\")",
			       ret->queues, TAP_QUEUES);
	if (ioctl(fd, SIOCGIFMTU, &request))
		return err_sys(err, -errno, "cannot tell its MTU");
	ret->need_room = (uint32_t)request.ifr_mtu + LINK_HEADER + sizeof(struct tap_header);
	return 0;
}

static int open_packet_socket(struct tap *tap, struct err *err)
{
	tap->promisc_fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (tap->promisc_fd >= 0)
		return 0;
	if (errno == EPERM)
		return err_set(err, -EPERM, "no right to a packet socket: CAP_NET_RAW is needed");
	return err_sys(err, -errno, "cannot open a packet socket");
}

/* Packets for others, too: until the socket is closed. */
static int make_promiscuous(const struct tap *tap, struct err *err)
{
	struct packet_mreq request = {
		.mr_ifindex = (int)tap->ifindex,
		.mr_type = PACKET_MR_PROMISC,
	};

	if (setsockopt(tap->promisc_fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &request,
		       sizeof(request)))
		return err_sys(err, -errno, "cannot make it promiscuous");
	return 0;
}

static int make_queues(struct taps *t, struct tap *tap, uint32_t id, struct err *err)
{
	unsigned int n = xsk_queues(tap->xsk);

	tap->queues = calloc(n, sizeof(*tap->queues));
	while (tap->queues && tap->nqueues < n &&
	       !tap_queue_init(&tap->queues[tap->nqueues], tap->xsk, tap->nqueues, t->cpus, id,
			       t->scratch))
		tap->nqueues++;
	return tap->nqueues == n ? 0 : err_set(err, -ENOMEM, "out of memory");
}

/* Sequences start at 0, then the program may use the sockets. */
static int publish(struct taps *t, const struct tap *tap, struct err *err)
{
	struct tap_state state = {.room = xsk_room(tap->xsk)};
	const int *map = t->map;

	memset(t->sent, 0, t->cpus * sizeof(*t->sent));
	if (bpf_map_update_elem(map[MAP_TAPS], &tap->number, &state, BPF_ANY))
		return err_sys(err, -errno, "cannot tell the program for taps of it");
	for (unsigned int i = 0; i < tap->nqueues; i++) {
		struct epoll_event event = {.events = EPOLLIN};
		uint32_t key = TAP_SOCKET(tap->number, i);
		int fd = xsk_fd(tap->xsk, i);

		if (bpf_map_update_elem(map[MAP_SENT], &key, t->sent, BPF_ANY) ||
		    bpf_map_update_elem(map[MAP_SOCKETS], &key, &fd, BPF_ANY))
			return err_sys(err, -errno, "cannot hand a socket to the program for taps");
		if (epoll_ctl(t->epoll, EPOLL_CTL_ADD, fd, &event))
			return err_sys(err, -errno, "cannot watch an AF_XDP socket");
	}
	return 0;
}

/* It is made promiscuous last, as everybody is told of that: not when anything else fails. */
static int open_tap(struct taps *t, struct tap *tap, const struct capture_iface *iface,
		    enum xdp_mode mode, struct err *err)
{
	struct xsk_config config = {
		.name = iface->name,
		.bytes = t->bytes,
		.native = mode == XDP_NATIVE,
		.busy_until = t->closed ? t->closed + XSK_CLOSING : 0,
	};
	int r = open_packet_socket(tap, err);

	if (!r)
		r = ask_device(tap->promisc_fd, iface->name, &config, err);
	if (!r)
		r = xsk_open(&config, &tap->xsk, err);
	/* The sockets go by name. */
	if (!r && if_nametoindex(iface->name) != iface->ifindex)
		r = err_set(err, -ENODEV, "another interface has its name now");
	if (!r)
		r = make_queues(t, tap, iface->rule.id, err);
	if (!r)
		r = publish(t, tap, err);
	return r ? r : make_promiscuous(tap, err);
}

int taps_room(struct taps *t, unsigned int number, struct err *err)
{
	bool room, taken = false;

	pthread_mutex_lock(&t->lock);
	room = t->ntaps < TAPS_AT_A_TIME;
	for (unsigned int i = 0; i < t->ntaps; i++)
		taken |= t->taps[i]->ifindex && t->taps[i]->number == number;
	pthread_mutex_unlock(&t->lock);
	if (!room)
		return err_set(err, -ENOBUFS, "the packets of its last time have not been read");
	if (taken)
		return err_set(err, -ENOBUFS, "the interface that had its name is still captured");
	return 0;
}

int taps_attach(struct taps *t, unsigned int number, const struct capture_iface *iface,
		enum xdp_mode mode, struct err *err)
{
	struct tap *tap;
	int r = taps_room(t, number, err);

	if (r)
		return r;
	tap = calloc(1, sizeof(*tap));
	if (!tap)
		return err_set(err, -ENOMEM, "out of memory");
	*tap = (struct tap){
		.number = number,
		.ifindex = iface->ifindex,
		.slot = iface->rule.slot,
		.promisc_fd = -1,
	};
	r = open_tap(t, tap, iface, mode, err);
	if (r) {
		tap_free(tap);
		t->closed = clock_monotonic();
		return r;
	}
	pthread_mutex_lock(&t->lock);
	t->taps[t->ntaps++] = tap;
	pthread_mutex_unlock(&t->lock);
	return 0;
}

/* What the kernel has sent to a queue, by CPU: into t->sent. */
static bool read_sent(struct taps *t, const struct tap *tap, unsigned int queue)
{
	uint32_t key = TAP_SOCKET(tap->number, queue);

	return !bpf_map_lookup_elem(t->map[MAP_SENT], &key, t->sent);
}

/* Out of the sockets, and so of what the reader watches. */
static void collect_for_reader(struct taps *t, struct tap_queue *q)
{
	uint32_t tail = q->tail;

	tap_queue_collect(q);
	if (q->tail != tail)
		event_signal(t->event);
}

static void shut(struct taps *t, struct tap *tap)
{
	for (unsigned int i = 0; i < tap->nqueues; i++) {
		struct tap_queue *q = &tap->queues[i];

		collect_for_reader(t, q);
		if (read_sent(t, tap, i))
			tap_queue_settle(q, t->sent);
		q->shut = true;
		epoll_ctl(t->epoll, EPOLL_CTL_DEL, xsk_fd(tap->xsk, i), NULL);
	}
	xsk_shut(tap->xsk);
	t->closed = clock_monotonic();
	close(tap->promisc_fd);
	tap->promisc_fd = -1;
	tap->ifindex = 0;
	/* It has the memory to free. */
	event_signal(t->event);
}

void taps_detach(struct taps *t, uint32_t ifindex)
{
	struct tap *tap;

	if (!t)
		return;
	pthread_mutex_lock(&t->lock);
	tap = find(t, ifindex);
	if (tap)
		shut(t, tap);
	pthread_mutex_unlock(&t->lock);
}

const char *taps_describe(struct taps *t, uint32_t ifindex)
{
	const struct tap *tap;

	if (!t)
		return NULL;
	pthread_mutex_lock(&t->lock);
	tap = find(t, ifindex);
	if (tap)
		snprintf(t->description, sizeof(t->description), "AF_XDP %s, %u queue%s",
			 xsk_zero_copy(tap->xsk) ? "zero-copy" : "copy", tap->nqueues,
			 tap->nqueues == 1 ? "" : "s");
	pthread_mutex_unlock(&t->lock);
	return tap ? t->description : NULL;
}

/* What was sent when this was done last, and has not come by now, is lost. */
static void settle_old(struct taps *t, struct tap *tap)
{
	nsec_t now = clock_boottime();
	bool due = now - tap->snapshot >= SETTLE_AFTER;

	for (unsigned int i = 0; i < tap->nqueues; i++) {
		struct tap_queue *q = &tap->queues[i];

		collect_for_reader(t, q);
		if (!due)
			continue;
		tap_queue_settle(q, q->before);
		if (read_sent(t, tap, i))
			memcpy(q->before, t->sent, t->cpus * sizeof(*t->sent));
	}
	if (due)
		tap->snapshot = now;
}

bool taps_count(struct taps *t, uint32_t slot, struct tap_count *ret_came,
		struct tap_count *ret_lost)
{
	struct tap *tap = NULL;

	if (!t)
		return false;
	pthread_mutex_lock(&t->lock);
	for (unsigned int i = 0; i < t->ntaps; i++)
		if (t->taps[i]->slot == slot && !t->taps[i]->forgotten)
			tap = t->taps[i];
	if (tap && tap->ifindex)
		settle_old(t, tap);
	if (tap)
		sum(tap, ret_came, ret_lost);
	pthread_mutex_unlock(&t->lock);
	return tap;
}

void taps_correct(struct capture_counts *counts, const struct tap_count *came,
		  const struct tap_count *lost)
{
	uint64_t packets = came->packets + lost->packets, bytes = came->bytes + lost->bytes;

	counts->packets[CAPTURE_SEEN] -= counts->packets[CAPTURE_CAPTURED] - packets;
	counts->bytes[CAPTURE_SEEN] -= counts->bytes[CAPTURE_CAPTURED] - bytes;
	counts->packets[CAPTURE_CAPTURED] = came->packets;
	counts->bytes[CAPTURE_CAPTURED] = came->bytes;
	counts->packets[CAPTURE_LOST_RING] += lost->packets;
	counts->bytes[CAPTURE_LOST_RING] += lost->bytes;
}

void taps_forget(struct taps *t, uint32_t slot)
{
	if (!t)
		return;
	pthread_mutex_lock(&t->lock);
	for (unsigned int i = 0; i < t->ntaps; i++)
		if (t->taps[i]->slot == slot && !t->taps[i]->ifindex)
			t->taps[i]->forgotten = true;
	pthread_mutex_unlock(&t->lock);
	event_signal(t->event);
}

int taps_watch(struct taps *t, int epoll, int how)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.ptr = t};

	return epoll_ctl(epoll, how, t->epoll, &event);
}

bool taps_filling(struct taps *t)
{
	bool filling = false;

	pthread_mutex_lock(&t->lock);
	for (unsigned int i = 0; i < t->ntaps; i++)
		for (unsigned int k = 0; t->taps[i]->ifindex && k < t->taps[i]->nqueues; k++)
			filling |= xsk_waiting(t->taps[i]->xsk, k) >=
				   xsk_frames(t->taps[i]->xsk) / FILLING;
	pthread_mutex_unlock(&t->lock);
	return filling;
}

void taps_collect(struct taps *t, taps_queue_fn *fn, void *ctx)
{
	pthread_mutex_lock(&t->lock);
	for (unsigned int i = t->ntaps; i-- > 0;) {
		struct tap *tap = t->taps[i];

		for (unsigned int k = 0; k < tap->nqueues; k++) {
			tap_queue_collect(&tap->queues[k]);
			if (!tap_queue_empty(&tap->queues[k]))
				fn(ctx, &tap->queues[k]);
		}
	}
	pthread_mutex_unlock(&t->lock);
}

void taps_give_back(struct taps *t, struct tap_queue *q)
{
	pthread_mutex_lock(&t->lock);
	tap_queue_give_back(q);
	pthread_mutex_unlock(&t->lock);
}

/* Of taps without sockets, what nobody needs any more. */
static void prune(struct taps *t, unsigned int i)
{
	struct tap *tap = t->taps[i];
	bool empty = true;

	for (unsigned int k = 0; k < tap->nqueues; k++)
		empty &= tap_queue_empty(&tap->queues[k]);
	if (tap->ifindex || !empty)
		return;
	if (tap->xsk)
		free_packets(tap);
	if (!tap->forgotten)
		return;
	tap_free(tap);
	t->taps[i] = t->taps[--t->ntaps];
}

bool taps_settle(struct taps *t)
{
	bool left = false;

	pthread_mutex_lock(&t->lock);
	for (unsigned int i = t->ntaps; i-- > 0;) {
		struct tap *tap = t->taps[i];

		for (unsigned int k = 0; k < tap->nqueues; k++) {
			tap_queue_give_back(&tap->queues[k]);
			left |= !tap_queue_empty(&tap->queues[k]);
		}
		prune(t, i);
	}
	pthread_mutex_unlock(&t->lock);
	return left;
}
