// SPDX-License-Identifier: Apache-2.0
/*
 * The capture back end on BPF ring buffers: loads bpf/capture_tc.bpf.c, and for XDP
 * bpf/capture_xdp.bpf.c beside it with the same maps; attaches their programs, merges the
 * rings. Taps (agent/taps.c) are a part of it and no back end of their own: they differ in where
 * their program puts a packet, and rules, counters, limits and the agent's own flows are the
 * same maps for all.
 *
 * Life cycle: open loads the programs and allocates every ring; attach and detach
 * come and go; close detaches what is left. There is a ring for each CPU at work,
 * or fewer when the memory does not stretch to useful ones; CPU n writes to ring n
 * modulo their number (a BPF ring buffer takes several producers).
 *
 * Threads: the reader thread owns the rings and the epoll; all else is
 * the loop thread's, but for the cookies, which `lock` guards. Between them and the
 * kernel there are only maps.
 */
#include "capture.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "attached.h"
#include "merge.h"
#include "ring.h"
#include "rings.h"
#include "rule_table.h"
#include "taps.h"
#include "util.h"

#define PORTS     65536u
#define GLANCE_MS 1

struct capture {
	struct programs tc, xdp, generic; /* the latter two: where XDP is asked for, by mode */
	struct taps *taps;                /* NULL: none */
	struct attached_how how;
	const char *description;

	struct heartbeat *heartbeat; /* mapped */
	struct shared *shared;       /* mapped */
	struct rule_table rules;
	uint32_t pid_ns;

	struct capture_counts *per_cpu; /* room for one element of `counters` */
	unsigned int cpus;              /* possible ones */

	struct attached attached[IFACE_SLOTS];
	unsigned int nattached;

	pthread_mutex_t lock; /* of the cookies in .bss */

	struct merge merge; /* of the rings */
	int epoll, event;
	bool tap_news; /* packets came to taps, and the reader lingers before it drains */
};

static struct knobs make_knobs(const struct capture *c, const struct capture_config *config,
			       size_t ring_size)
{
	struct knobs knobs = {
		.wake_bytes = ring_size / 4,
		.dedup_window = config->dedup_window,
		.snaplen = config->snaplen,
		.nrings = c->merge.nrings,
		.need_ports = config->need_ports,
		.check_heartbeat = c->how.mode == HOOK_CLSACT,
		.other_netns = config->other_netns,
		.limit_agent = config->limit.packets_per_s || config->limit.bits_per_s,
	};
	uint64_t all = 0;

	for (size_t port = 0; config->need_ports && port < PORTS; port++)
		all |= config->port_masks[port];
	knobs.ignore_mask = all & PORT_IGNORE;
	return knobs;
}

static int fill_ports(struct capture *c, const uint64_t *masks, struct err *err)
{
	_cleanup_free_ uint32_t *keys = malloc(PORTS * sizeof(*keys));
	uint32_t n = PORTS;
	int r;

	if (!keys)
		return err_set(err, -ENOMEM, "out of memory");
	for (uint32_t port = 0; port < PORTS; port++)
		keys[port] = port;
	r = bpf_map_update_batch(c->tc.map[MAP_PORTS], keys, masks, &n, NULL);
	return r ? err_sys(err, r, "cannot fill the table of ports") : 0;
}

static size_t map_size(size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (size + page - 1) / page * page;
}

static int map_memory(const struct capture *c, enum programs_map map, size_t size, void **ret,
		      struct err *err)
{
	*ret = mmap(NULL, map_size(size), PROT_READ | PROT_WRITE, MAP_SHARED, c->tc.map[map], 0);
	if (*ret != MAP_FAILED)
		return 0;
	*ret = NULL;
	return err_sys(err, -errno, "cannot map what the capture programs share with us");
}

static int map_shared(struct capture *c, struct err *err)
{
	struct stat ns;
	void *heartbeat, *shared;
	int r = map_memory(c, MAP_HEARTBEAT, sizeof(*c->heartbeat), &heartbeat, err);

	c->heartbeat = heartbeat;
	if (r)
		return r;
	r = map_memory(c, MAP_BSS, sizeof(*c->shared), &shared, err);
	c->shared = shared;
	c->rules = (struct rule_table){.programs = &c->tc, .shared = c->shared};
	if (!stat("/proc/self/ns/pid", &ns))
		c->pid_ns = (uint32_t)ns.st_ino;
	return r;
}

static struct capture *ringbuf_close(struct capture *c);
static bool ringbuf_beat(struct capture *c);

static int allocate(struct capture *c, bool taps, struct err *err)
{
	int cpus = libbpf_num_possible_cpus();
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};

	if (cpus < 1)
		return err_sys(err, cpus, "cannot tell how many CPUs there may be");
	c->cpus = (unsigned int)cpus;
	c->per_cpu = calloc(c->cpus, sizeof(*c->per_cpu));
	c->merge.rings = calloc(c->cpus, sizeof(*c->merge.rings));
	c->merge.nrings = c->cpus;
	c->merge.heap = calloc(c->cpus + (taps ? TAPS_QUEUES_MAX : 0), sizeof(*c->merge.heap));
	if (!c->per_cpu || !c->merge.rings || !c->merge.heap)
		return err_set(err, -ENOMEM, "out of memory");
	c->epoll = epoll_create1(EPOLL_CLOEXEC);
	c->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->epoll < 0 || c->event < 0 || epoll_ctl(c->epoll, EPOLL_CTL_ADD, c->event, &event))
		return err_sys(err, -errno, "cannot make an epoll");
	return 0;
}

static int open_taps(struct capture *c, const struct capture_config *config,
		     const struct knobs *knobs, uint64_t bytes, struct err *err)
{
	int r = taps_open(config, knobs, &c->tc, bytes, c->event, &c->taps, err);

	if (r || !c->taps)
		return r;
	c->merge.taps = c->taps;
	if (taps_watch(c->taps, c->epoll, EPOLL_CTL_ADD))
		return err_sys(err, -errno, "cannot watch the taps");
	return 0;
}

static int open_all(struct capture *c, const struct capture_config *config, struct err *err)
{
	struct knobs knobs;
	uint64_t share;
	size_t ring_size;
	int r;

	if (!config->snaplen || config->snaplen > SNAPLEN_MAX)
		return err_set(err, -EINVAL, "a snap length of %u is not in 1..%u", config->snaplen,
			       SNAPLEN_MAX);
	c->how = (struct attached_how){
		.use_xdp = config->xdp,
		.xdp_mode = config->xdp_mode,
		.tc = &c->tc,
		.xdp = &c->xdp,
		.generic = &c->generic,
	};
	r = hook_choose(config->hook_mode, err);
	if (r < 0)
		return r;
	c->how.mode = (enum hook_mode)r;
	c->description = c->how.use_xdp                     ? "xdp"
			 : c->how.mode == HOOK_TCX          ? "tcx"
			 : config->hook_mode == HOOK_CLSACT ? "clsact"
							    : "clsact (this kernel has no TCX)";
	r = allocate(c, config->ntaps, err);
	if (r)
		return r;
	/* Each tap has as much memory as all rings. */
	share = config->ring_bytes / (1 + config->ntaps);
	ring_size = rings_plan(&c->merge, share, config->snaplen);
	knobs = make_knobs(c, config, ring_size);
	r = programs_open(&c->tc, PROGRAMS_TC, &knobs, NULL, err);
	if (!r && config->xdp && config->xdp_mode != XDP_GENERIC)
		r = programs_open(&c->xdp, PROGRAMS_XDP, &knobs, &c->tc, err);
	if (!r && config->xdp && config->xdp_mode != XDP_NATIVE)
		r = programs_open(&c->generic, PROGRAMS_XDP_GENERIC, &knobs, &c->tc, err);
	if (!r && config->need_ports)
		r = fill_ports(c, config->port_masks, err);
	if (!r)
		r = map_shared(c, err);
	if (!r)
		r = rule_table_limit(&c->rules, -1, &config->limit, err);
	if (!r)
		r = rings_open(&c->merge, ring_size, c->epoll, c->tc.map[MAP_RINGS], err);
	if (!r)
		r = open_taps(c, config, &knobs, share, err);
	if (!r)
		ringbuf_beat(c);
	return r;
}

static int ringbuf_open(const struct capture_config *config, struct capture **ret, struct err *err)
{
	struct capture *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return err_set(err, -ENOMEM, "out of memory");
	c->epoll = c->event = -1;
	pthread_mutex_init(&c->lock, NULL);
	r = open_all(c, config, err);
	if (r) {
		ringbuf_close(c);
		return r;
	}
	*ret = c;
	return 0;
}

static struct capture *ringbuf_close(struct capture *c)
{
	if (!c)
		return NULL;
	for (unsigned int i = 0; i < c->nattached; i++)
		attached_close(&c->attached[i]);
	for (unsigned int i = 0; c->merge.rings && i < c->merge.nrings; i++)
		ring_close(&c->merge.rings[i]);
	if (c->heartbeat)
		munmap(c->heartbeat, map_size(sizeof(*c->heartbeat)));
	if (c->shared)
		munmap(c->shared, map_size(sizeof(*c->shared)));
	taps_close(c->taps);
	programs_close(&c->generic);
	programs_close(&c->xdp);
	programs_close(&c->tc);
	if (c->epoll >= 0)
		close(c->epoll);
	if (c->event >= 0)
		close(c->event);
	pthread_mutex_destroy(&c->lock);
	free(c->per_cpu);
	free(c->merge.rings);
	free(c->merge.heap);
	free(c);
	return NULL;
}

static const char *ringbuf_describe(const struct capture *c)
{
	return c->description;
}

static struct attached *find_attached(struct capture *c, uint64_t key)
{
	for (unsigned int i = 0; i < c->nattached; i++)
		if (c->attached[i].key == key)
			return &c->attached[i];
	return NULL;
}

/* The rule comes last: until it is there, the program takes nothing away. */
static int attach_tap(struct capture *c, struct attached *a, const struct capture_iface *iface,
		      const struct iface_rule *rule, struct err *err)
{
	int r = hook_attach_xdp(&a->hooks[HOOK_XDP], c->how.xdp_mode,
				taps_program(c->taps, XDP_NATIVE),
				taps_program(c->taps, XDP_GENERIC), iface->ifindex, err);

	if (r >= 0)
		r = taps_attach(c->taps, (unsigned int)a->tap, iface, (enum xdp_mode)r, err);
	if (!r)
		r = rule_table_add(&c->rules, a->key, rule, err);
	if (r) {
		taps_detach(c->taps, iface->ifindex);
		attached_close(a);
	}
	return r;
}

/* A tap is an interface of our own namespace. */
static int tap_number(const struct capture *c, const struct capture_iface *iface)
{
	return iface->netns ? -1 : taps_find(c->taps, iface->name);
}

static int ringbuf_room(struct capture *c, const struct capture_iface *iface, struct err *err)
{
	int tap = tap_number(c, iface);
	int r = tap < 0 ? 0 : taps_room(c->taps, (unsigned int)tap, err);

	return tap < 0 || r ? r : hook_xdp_room(iface->ifindex, err);
}

static int ringbuf_attach(struct capture *c, const struct capture_iface *iface, struct err *err)
{
	int tap = tap_number(c, iface);
	uint64_t key = IFACE_KEY(iface->netns, iface->ifindex);
	struct iface_rule rule = iface->rule;
	struct attached *a;
	int r;

	if (c->nattached == IFACE_SLOTS || rule.slot >= IFACE_SLOTS)
		return err_set(err, -ENOSPC, "%s: more than %u interfaces", iface->name,
			       IFACE_SLOTS);
	/* Linux leaves the Ethernet header of what carried it in front, for hooks to see. */
	if (iface->ipsec)
		return err_set(
			err, -EOPNOTSUPP,
			"%s: TC and XDP do not see right what comes out of IPsec (\"backend: "
			"pcap\" does)",
			iface->name);
	rule.ingress_only = tap >= 0 || iface->loopback || c->how.use_xdp;
	rule.tap = (uint8_t)MAX(tap, 0);
	r = rule_table_limit(&c->rules, rule.slot, &iface->limit, err);
	if (!r && tap < 0)
		r = rule_table_add(&c->rules, key, &rule, err);
	if (r)
		return err_wrap(err, r, "%s", iface->name);
	a = &c->attached[c->nattached];
	*a = (struct attached){
		.key = key,
		.netns_fd = iface->netns ? iface->netns_fd : -1,
		.ingress_only = rule.ingress_only,
		.tap = tap,
	};
	r = tap < 0 ? attached_open(a, iface, &c->how, err) : attach_tap(c, a, iface, &rule, err);
	if (r < 0) {
		rule_table_remove(&c->rules, key);
		return err_wrap(err, r, "%s", iface->name);
	}
	c->nattached++;
	return r;
}

static int ringbuf_intact(struct capture *c, uint64_t key, struct err *err)
{
	struct attached *a = find_attached(c, key);

	return a ? attached_intact(a, err) : 0;
}

static const char *ringbuf_how(struct capture *c, uint64_t key)
{
	const char *tap = key >> 32 ? NULL : taps_describe(c->taps, (uint32_t)key);
	const struct attached *a = find_attached(c, key);

	return tap || !a || !c->how.use_xdp    ? tap
	       : a->hooks[HOOK_XDP].is_generic ? "generic XDP"
					       : "native XDP";
}

/*
 * Replacing an inner map makes the kernel wait for every program that may still use
 * the old one (maybe_wait_bpf_programs() in kernel/bpf/syscall.c).
 */
static void ringbuf_quiesce(struct capture *c)
{
	uint32_t cpu = 0;

	bpf_map_update_elem(c->tc.map[MAP_RINGS], &cpu, &c->merge.rings[0].fd, BPF_ANY);
	rule_table_quiet(&c->rules);
}

static void ringbuf_detach(struct capture *c, uint64_t key)
{
	struct attached *a = find_attached(c, key);

	if (!a)
		return;
	attached_close(a);
	rule_table_remove(&c->rules, key);
	if (a->tap >= 0) {
		ringbuf_quiesce(c);
		taps_detach(c->taps, (uint32_t)key);
	}
	*a = c->attached[--c->nattached];
}

static int ringbuf_set_expression(struct capture *c, uint32_t slot, const struct expression *e,
				  struct err *err)
{
	int r = 0;

	if (!c->how.use_xdp)
		r = programs_set_expression(&c->tc, slot, e, err);
	if (c->xdp.object)
		r = programs_set_expression(&c->xdp, slot, e, err);
	/* What the verifier takes for one mode it takes for the other. */
	if (!r && c->generic.object)
		r = programs_set_expression(&c->generic, slot, e, err);
	if (!r)
		r = taps_set_expression(c->taps, slot, e, err);
	return r;
}

static int ringbuf_set_rule(struct capture *c, const struct capture_iface *iface, struct err *err)
{
	uint64_t key = IFACE_KEY(iface->netns, iface->ifindex);
	const struct attached *a = find_attached(c, key);
	struct iface_rule rule = iface->rule;
	int r;

	if (!a)
		return 0;
	rule.ingress_only = a->ingress_only;
	rule.tap = (uint8_t)MAX(a->tap, 0);
	r = rule_table_limit(&c->rules, rule.slot, &iface->limit, err);
	if (r == 0)
		r = rule_table_change(&c->rules, key, &rule, err);
	if (r > 0)
		ringbuf_quiesce(c);
	return r < 0 ? err_wrap(err, r, "%s", iface->name) : 0;
}

static void ringbuf_degrade(struct capture *c, const struct degrade *degrade)
{
	rule_table_degrade(&c->rules, degrade);
}

static void ringbuf_work(struct capture *c, struct work *ret)
{
	*ret = rule_table_work(&c->rules, c->cpus);
}

static int ringbuf_counts(struct capture *c, uint32_t slot, enum direction direction,
			  struct capture_counts *ret)
{
	uint32_t key = 2 * slot + (direction == DIRECTION_EGRESS);
	struct tap_count came, lost;
	bool tap = direction == DIRECTION_INGRESS && taps_count(c->taps, slot, &came, &lost);

	if (bpf_map_lookup_elem(c->tc.map[MAP_COUNTERS], &key, c->per_cpu))
		return -errno;
	*ret = (struct capture_counts){};
	for (unsigned int cpu = 0; cpu < c->cpus; cpu++) {
		for (int i = 0; i < CAPTURE_COUNTERS; i++) {
			ret->packets[i] += c->per_cpu[cpu].packets[i];
			ret->bytes[i] += c->per_cpu[cpu].bytes[i];
		}
	}
	if (tap)
		taps_correct(ret, &came, &lost);
	return 0;
}

static int ringbuf_reset(struct capture *c, uint32_t slot)
{
	taps_forget(c->taps, slot);
	memset(c->per_cpu, 0, c->cpus * sizeof(*c->per_cpu));
	for (uint32_t key = 2 * slot; key < 2 * slot + 2; key++)
		if (bpf_map_update_elem(c->tc.map[MAP_COUNTERS], &key, c->per_cpu, BPF_ANY))
			return -errno;
	return 0;
}

static bool ringbuf_beat(struct capture *c)
{
	nsec_t now = clock_boottime(), last = c->heartbeat->boottime_ns;

	c->heartbeat->pid = (uint32_t)getpid();
	c->heartbeat->pid_ns = c->pid_ns;
	__atomic_store_n(&c->heartbeat->boottime_ns, now, __ATOMIC_RELEASE);
	return c->how.mode != HOOK_CLSACT || !last || now - last < HEARTBEAT_STALE_NS;
}

static int ringbuf_own_socket(struct capture *c, int fd, const struct sockaddr *to, struct err *err)
{
	struct own_state *own = &c->shared->own;
	abi_u64 *cookies = own->cookies;
	uint64_t cookie;
	socklen_t size = sizeof(cookie);

	(void)to;
	if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size))
		return err_sys(err, -errno, "cannot tell the agent's own stream from others");
	pthread_mutex_lock(&c->lock);
	if (cookies[0] != cookie) {
		for (int i = OWN_COOKIES - 1; i > 0; i--)
			__atomic_store_n(&cookies[i], cookies[i - 1], __ATOMIC_RELAXED);
		__atomic_store_n(&own->generation, own->generation % 255 + 1, __ATOMIC_RELAXED);
		__atomic_store_n(&cookies[0], cookie, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&c->lock);
	return 0;
}

/*
 * Rings are watched edge-triggered: the kernel's wake-up for a record at the very
 * position that we have read up to is the edge, and drain leaves no doubt about
 * what came before (ring_pending()).
 *
 * A tap's sockets have told of their first packet, and wake nobody again: while the reader
 * lingers, we look how full they get.
 */
static int ringbuf_wait(struct capture *c, int timeout_ms)
{
	struct epoll_event events[16];
	int rings = 0, n;
	uint64_t drop;

	while (!(n = epoll_wait(c->epoll, events, ARRAY_SIZE(events),
				c->tap_news ? MIN(timeout_ms, GLANCE_MS) : timeout_ms)) &&
	       c->tap_news && timeout_ms > GLANCE_MS) {
		if (taps_filling(c->taps))
			return 1;
		timeout_ms -= GLANCE_MS;
	}

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	for (int i = 0; i < n; i++) {
		if (events[i].data.ptr && events[i].data.ptr == c->taps)
			c->tap_news = true;
		if (events[i].data.ptr != c)
			rings++;
		else if (read(c->event, &drop, sizeof(drop)) < 0 && errno != EAGAIN)
			return -errno;
	}
	return rings;
}

static void ringbuf_wake(struct capture *c)
{
	uint64_t one = 1;

	/* It can only fail when it is full, and then the reader is awake. */
	if (write(c->event, &one, sizeof(one)) < 0)
		return;
}

static long ringbuf_drain(struct capture *c, nsec_t horizon, const struct wall_map *wall,
			  capture_block_fn *fn, void *ctx, bool *ret_left)
{
	long blocks = merge_drain(&c->merge, horizon, wall, fn, ctx, ret_left);

	/* What is left is not in the sockets any more, so only news are told. */
	if (c->tap_news && !taps_watch(c->taps, c->epoll, EPOLL_CTL_MOD))
		c->tap_news = false;
	return blocks;
}

const struct capture_ops capture_ringbuf = {
	.name = "ringbuf",
	.open = ringbuf_open,
	.close = ringbuf_close,
	.describe = ringbuf_describe,
	.room = ringbuf_room,
	.attach = ringbuf_attach,
	.intact = ringbuf_intact,
	.how = ringbuf_how,
	.detach = ringbuf_detach,
	.set_expression = ringbuf_set_expression,
	.set_rule = ringbuf_set_rule,
	.degrade = ringbuf_degrade,
	.work = ringbuf_work,
	.quiesce = ringbuf_quiesce,
	.counts = ringbuf_counts,
	.reset = ringbuf_reset,
	.beat = ringbuf_beat,
	.own_socket = ringbuf_own_socket,
	.wait = ringbuf_wait,
	.wake = ringbuf_wake,
	.drain = ringbuf_drain,
};
