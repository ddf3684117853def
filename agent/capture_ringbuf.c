// SPDX-License-Identifier: Apache-2.0
/*
 * The capture back end on BPF ring buffers: loads bpf/capture_tc.bpf.c, attaches
 * its programs, merges the rings.
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
#include <net/if.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wcast-qual" /* of bpftool's making */
#include "capture_tc.skel.h"
#pragma GCC diagnostic pop
#include "hook.h"
#include "merge.h"
#include "ring.h"
#include "util.h"

#define PORTS        65536u
#define RING_MIN     (1u << 20)
#define RING_RECORDS 4 /* of the largest size, at least, fit a ring */

struct attached {
	uint32_t ifindex;
	struct hook hooks[2];
};

struct capture {
	struct capture_tc *skel;
	enum hook_mode mode;
	const char *description;

	struct heartbeat *heartbeat; /* mapped */
	size_t heartbeat_size;
	uint32_t pid_ns;

	struct capture_counts *per_cpu; /* room for one element of `counters` */
	unsigned int cpus;              /* possible ones */

	struct attached attached[IFACE_SLOTS];
	unsigned int nattached;

	pthread_mutex_t lock; /* of the cookies in .bss */

	bool left[IFACE_CELLS]; /* cells that a running program may still be reading */

	struct merge merge; /* of the rings */
	int epoll, event;
};

/*
 * libbpf's messages: silence, but keep what it last complained of, for the sentence.
 * A refusing verifier's reason is the last line of its log but for the statistics.
 */
static _Thread_local char complaint[256];

static void keep_line(const char *line, size_t len)
{
	len = MIN(len, sizeof(complaint) - 1);
	memcpy(complaint, line, len);
	complaint[len] = '\0';
}

static void keep_verdict(const char *log)
{
	static const char *const noise[] = {"processed ", "-- END", "verification time",
					    "stack depth"};

	for (const char *end; (end = strchr(log, '\n')); log = end + 1) {
		bool skip = end == log;

		for (size_t i = 0; i < ARRAY_SIZE(noise); i++)
			skip |= !strncmp(log, noise[i], strlen(noise[i]));
		if (!skip)
			keep_line(log, (size_t)(end - log));
	}
}

__attribute__((format(printf, 2, 0))) static int on_message(enum libbpf_print_level level,
							    const char *fmt, va_list ap)
{
	_cleanup_free_ char *text = NULL;
	char *log;

	if (level != LIBBPF_WARN || vasprintf(&text, fmt, ap) < 0)
		return 0;
	log = strstr(text, "-- BEGIN PROG LOAD LOG --\n");
	if (log)
		keep_verdict(strchr(log, '\n') + 1);
	else if (!complaint[0])
		keep_line(text, strcspn(text, "\n"));
	return 0;
}

static int set_knobs(struct capture *c, const struct capture_config *config, size_t ring_size,
		     struct err *err)
{
	struct capture_tc *skel = c->skel;
	uint64_t all = 0;
	int r = 0;

	skel->rodata->snaplen = config->snaplen;
	skel->rodata->wake_bytes = ring_size / 4;
	skel->rodata->nrings = c->merge.nrings;
	skel->rodata->need_ports = config->need_ports;
	skel->rodata->check_heartbeat = c->mode == HOOK_CLSACT;
	if (config->need_ports) {
		for (size_t port = 0; port < PORTS; port++)
			all |= config->port_masks[port];
		skel->rodata->ignore_mask = all & PORT_IGNORE;
	} else {
		r = bpf_map__set_max_entries(skel->maps.ports, 1);
		if (!r)
			r = bpf_map__set_max_entries(skel->maps.fragments, 1);
	}
	if (!r)
		r = bpf_map__set_max_entries(skel->maps.rings, c->merge.nrings);
	return r ? err_sys(err, r, "cannot size the BPF maps") : 0;
}

static int load(struct capture *c, struct err *err)
{
	int r;

	complaint[0] = '\0';
	r = capture_tc__load(c->skel);
	if (!r)
		return 0;
	if (r == -EPERM)
		return err_set(err, r,
			       "no right to load the capture programs (CAP_BPF, CAP_NET_ADMIN and "
			       "CAP_PERFMON are needed): %s",
			       complaint);
	if (r == -EACCES)
		return err_set(err, r, "the kernel refuses the capture programs%s: %s",
			       strstr(complaint, "!root") ? " for want of CAP_PERFMON" : "",
			       complaint);
	return err_sys(err, r, "cannot load the capture programs: %s", complaint);
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
	r = bpf_map_update_batch(bpf_map__fd(c->skel->maps.ports), keys, masks, &n, NULL);
	return r ? err_sys(err, r, "cannot fill the table of ports") : 0;
}

static int map_heartbeat(struct capture *c, struct err *err)
{
	struct stat ns;
	void *map;

	c->heartbeat_size = (size_t)sysconf(_SC_PAGESIZE);
	map = mmap(NULL, c->heartbeat_size, PROT_READ | PROT_WRITE, MAP_SHARED,
		   bpf_map__fd(c->skel->maps.heartbeat), 0);
	if (map == MAP_FAILED)
		return err_sys(err, -errno, "cannot map the heartbeat");
	c->heartbeat = map;
	if (!stat("/proc/self/ns/pid", &ns))
		c->pid_ns = (uint32_t)ns.st_ino;
	return 0;
}

static uint64_t power_of_two_up(uint64_t n)
{
	uint64_t p = 1;

	while (p < n)
		p <<= 1;
	return p;
}

/* As many rings as there are CPUs at work, but none below a useful size. */
static size_t plan_rings(struct capture *c, const struct capture_config *config)
{
	uint64_t least = MAX(RING_MIN, power_of_two_up(RING_RECORDS * EPB_SIZE(config->snaplen)));
	long online = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t share;

	c->merge.nrings = (unsigned int)MIN(MAX(online, 1), (long)MIN(c->cpus, RINGS_MAX));
	while (c->merge.nrings > 1 && config->ring_bytes / c->merge.nrings < least)
		c->merge.nrings--;
	share = MAX(config->ring_bytes / c->merge.nrings, least);
	while (least * 2 <= share)
		least *= 2;
	return least;
}

/*
 * In one call where the kernel has that: it then waits out one RCU grace period (older
 * ones, one for each ring).
 */
static int publish_rings(struct capture *c, struct err *err)
{
	int map = bpf_map__fd(c->skel->maps.rings);
	uint32_t keys[RINGS_MAX], n = c->merge.nrings;
	int fds[RINGS_MAX], r;

	for (uint32_t i = 0; i < n; i++) {
		keys[i] = i;
		fds[i] = c->merge.rings[i].fd;
	}
	r = bpf_map_update_batch(map, keys, fds, &n, NULL);
	for (uint32_t i = 0; r && i < c->merge.nrings; i++)
		if (bpf_map_update_elem(map, &keys[i], &fds[i], BPF_ANY))
			return err_sys(err, -errno, "cannot hand a ring to the capture programs");
	return 0;
}

static int open_rings(struct capture *c, size_t size, struct err *err)
{
	for (unsigned int i = 0; i < c->merge.nrings; i++) {
		struct epoll_event event = {.events = EPOLLIN | EPOLLET};
		int fd =
			bpf_map_create(BPF_MAP_TYPE_RINGBUF, "ps_ring", 0, 0, (uint32_t)size, NULL);
		int r;

		if (fd < 0)
			return err_sys(err, fd, "cannot allocate ring %u of %u with %zu bytes",
				       i + 1, c->merge.nrings, size);
		r = ring_open(&c->merge.rings[i], fd, size, err);
		if (r)
			return r;
		if (epoll_ctl(c->epoll, EPOLL_CTL_ADD, fd, &event))
			return err_sys(err, -errno, "cannot watch a ring");
	}
	return publish_rings(c, err);
}

static struct capture *ringbuf_close(struct capture *c);
static bool ringbuf_beat(struct capture *c);

static int allocate(struct capture *c, struct err *err)
{
	int cpus = libbpf_num_possible_cpus();
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};

	if (cpus < 1)
		return err_sys(err, cpus, "cannot tell how many CPUs there may be");
	c->cpus = (unsigned int)cpus;
	c->per_cpu = calloc(c->cpus, sizeof(*c->per_cpu));
	c->merge.rings = calloc(c->cpus, sizeof(*c->merge.rings));
	c->merge.heap = calloc(c->cpus, sizeof(*c->merge.heap));
	if (!c->per_cpu || !c->merge.rings || !c->merge.heap)
		return err_set(err, -ENOMEM, "out of memory");
	c->epoll = epoll_create1(EPOLL_CLOEXEC);
	c->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->epoll < 0 || c->event < 0 || epoll_ctl(c->epoll, EPOLL_CTL_ADD, c->event, &event))
		return err_sys(err, -errno, "cannot make an epoll");
	return 0;
}

static int open_all(struct capture *c, const struct capture_config *config, struct err *err)
{
	size_t ring_size;
	int r;

	if (!config->snaplen || config->snaplen > SNAPLEN_MAX)
		return err_set(err, -EINVAL, "a snap length of %u is not in 1..%u", config->snaplen,
			       SNAPLEN_MAX);
	libbpf_set_print(on_message);
	r = hook_choose(config->hook_mode, err);
	if (r < 0)
		return r;
	c->mode = (enum hook_mode)r;
	c->description = c->mode == HOOK_TCX                ? "tcx"
			 : config->hook_mode == HOOK_CLSACT ? "clsact"
							    : "clsact (this kernel has no TCX)";
	r = allocate(c, err);
	if (r)
		return r;
	c->skel = capture_tc__open();
	if (!c->skel)
		return err_sys(err, -errno, "cannot open the capture programs");
	ring_size = plan_rings(c, config);
	r = set_knobs(c, config, ring_size, err);
	if (!r)
		r = load(c, err);
	if (!r && config->need_ports)
		r = fill_ports(c, config->port_masks, err);
	if (!r)
		r = map_heartbeat(c, err);
	if (!r)
		r = open_rings(c, ring_size, err);
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

/* Egress first: the qdisc goes with the hook that made it, which is that of ingress. */
static void detach_hooks(struct attached *a)
{
	hook_detach(&a->hooks[1]);
	hook_detach(&a->hooks[0]);
}

static struct capture *ringbuf_close(struct capture *c)
{
	if (!c)
		return NULL;
	for (unsigned int i = 0; i < c->nattached; i++)
		detach_hooks(&c->attached[i]);
	for (unsigned int i = 0; c->merge.rings && i < c->merge.nrings; i++)
		ring_close(&c->merge.rings[i]);
	if (c->heartbeat)
		munmap(c->heartbeat, c->heartbeat_size);
	capture_tc__destroy(c->skel);
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

static int warn_of_earlier(const struct attached *a, const char *name, struct err *err)
{
	uint16_t in = a->hooks[0].earlier, out = a->hooks[1].earlier;

	if (!in && !out)
		return 0;
	return err_set(err, 1,
		       "another filter (priority %u) runs first on %s of %s: packets that it takes "
		       "are not seen",
		       in && out ? MIN(in, out) : MAX(in, out),
		       in && out ? "ingress and egress"
		       : in      ? "ingress"
				 : "egress",
		       name);
}

static void cell_set(struct capture *c, uint32_t ifindex, const struct iface_rule *rule)
{
	struct iface_cell *cell = &c->skel->bss->cells[ifindex % IFACE_CELLS];

	if (cell->ifindex || c->left[ifindex % IFACE_CELLS])
		return;
	cell->rule = *rule;
	__atomic_store_n(&cell->ifindex, ifindex, __ATOMIC_RELEASE);
}

static void forget_rule(struct capture *c, uint32_t ifindex)
{
	struct iface_cell *cell = &c->skel->bss->cells[ifindex % IFACE_CELLS];

	bpf_map_delete_elem(bpf_map__fd(c->skel->maps.interfaces), &ifindex);
	if (cell->ifindex != ifindex)
		return;
	__atomic_store_n(&cell->ifindex, 0, __ATOMIC_RELAXED);
	c->left[ifindex % IFACE_CELLS] = true;
}

static int ringbuf_attach(struct capture *c, const struct capture_iface *iface, struct err *err)
{
	int progs[2] = {bpf_program__fd(c->skel->progs.ps_tc_ingress),
			bpf_program__fd(c->skel->progs.ps_tc_egress)};
	static const enum direction directions[2] = {DIRECTION_INGRESS, DIRECTION_EGRESS};
	int interfaces = bpf_map__fd(c->skel->maps.interfaces);
	struct iface_rule rule = iface->rule;
	struct attached *a;
	int r;

	if (c->nattached == IFACE_SLOTS || rule.slot >= IFACE_SLOTS)
		return err_set(err, -ENOSPC, "%s: more than %u interfaces", iface->name,
			       IFACE_SLOTS);
	rule.ingress_only = iface->loopback;
	if (bpf_map_update_elem(interfaces, &iface->ifindex, &rule, BPF_NOEXIST)) {
		r = -errno;
		return err_sys(err, r, "%s: cannot set the capture rule", iface->name);
	}
	cell_set(c, iface->ifindex, &rule);
	a = &c->attached[c->nattached];
	*a = (struct attached){.ifindex = iface->ifindex};
	for (int i = 0; i < 2; i++) {
		r = hook_attach(&a->hooks[i], c->mode, progs[i], iface->ifindex, directions[i],
				err);
		if (r) {
			detach_hooks(a);
			forget_rule(c, iface->ifindex);
			return err_wrap(err, r, "%s", iface->name);
		}
	}
	c->nattached++;
	return warn_of_earlier(a, iface->name, err);
}

static bool interface_exists(uint32_t ifindex)
{
	char name[IF_NAMESIZE];

	return if_indextoname(ifindex, name);
}

static bool ringbuf_intact(struct capture *c, uint32_t ifindex)
{
	for (unsigned int i = 0; i < c->nattached; i++) {
		struct hook *hooks = c->attached[i].hooks;

		if (c->attached[i].ifindex != ifindex)
			continue;
		if (hook_intact(&hooks[0]) & hook_intact(&hooks[1]))
			return true;
		/* An interface that goes is out of the list before its hooks are taken away. */
		return !interface_exists(ifindex);
	}
	return false;
}

static void ringbuf_detach(struct capture *c, uint32_t ifindex)
{
	for (unsigned int i = 0; i < c->nattached; i++) {
		if (c->attached[i].ifindex != ifindex)
			continue;
		detach_hooks(&c->attached[i]);
		c->attached[i] = c->attached[--c->nattached];
		forget_rule(c, ifindex);
		return;
	}
}

/*
 * Replacing an inner map makes the kernel wait for every program that may still use
 * the old one (maybe_wait_bpf_programs() in kernel/bpf/syscall.c).
 */
static void ringbuf_quiesce(struct capture *c)
{
	uint32_t cpu = 0;

	bpf_map_update_elem(bpf_map__fd(c->skel->maps.rings), &cpu, &c->merge.rings[0].fd, BPF_ANY);
	memset(c->left, 0, sizeof(c->left));
}

static int ringbuf_counts(struct capture *c, uint32_t slot, enum direction direction,
			  struct capture_counts *ret)
{
	uint32_t key = 2 * slot + (direction == DIRECTION_EGRESS);

	if (bpf_map_lookup_elem(bpf_map__fd(c->skel->maps.counters), &key, c->per_cpu))
		return -errno;
	*ret = (struct capture_counts){};
	for (unsigned int cpu = 0; cpu < c->cpus; cpu++) {
		for (int i = 0; i < CAPTURE_COUNTERS; i++) {
			ret->packets[i] += c->per_cpu[cpu].packets[i];
			ret->bytes[i] += c->per_cpu[cpu].bytes[i];
		}
	}
	return 0;
}

static int ringbuf_reset(struct capture *c, uint32_t slot)
{
	memset(c->per_cpu, 0, c->cpus * sizeof(*c->per_cpu));
	for (uint32_t key = 2 * slot; key < 2 * slot + 2; key++)
		if (bpf_map_update_elem(bpf_map__fd(c->skel->maps.counters), &key, c->per_cpu,
					BPF_ANY))
			return -errno;
	return 0;
}

static bool ringbuf_beat(struct capture *c)
{
	nsec_t now = clock_boottime(), last = c->heartbeat->boottime_ns;

	c->heartbeat->pid = (uint32_t)getpid();
	c->heartbeat->pid_ns = c->pid_ns;
	__atomic_store_n(&c->heartbeat->boottime_ns, now, __ATOMIC_RELEASE);
	return c->mode != HOOK_CLSACT || !last || now - last < HEARTBEAT_STALE_NS;
}

static int ringbuf_own_socket(struct capture *c, int fd, struct err *err)
{
	struct own_state *own = &c->skel->bss->own;
	abi_u64 *cookies = own->cookies;
	uint64_t cookie;
	socklen_t size = sizeof(cookie);

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
 */
static int ringbuf_wait(struct capture *c, int timeout_ms)
{
	struct epoll_event events[16];
	int n = epoll_wait(c->epoll, events, ARRAY_SIZE(events), timeout_ms);
	int rings = 0;
	uint64_t drop;

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	for (int i = 0; i < n; i++) {
		if (!events[i].data.ptr)
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

static long ringbuf_drain(struct capture *c, nsec_t horizon, nsec_t boot_to_real,
			  capture_block_fn *fn, void *ctx, bool *ret_left)
{
	return merge_drain(&c->merge, horizon, boot_to_real, fn, ctx, ret_left);
}

const struct capture_ops capture_ringbuf = {
	.name = "ringbuf",
	.open = ringbuf_open,
	.close = ringbuf_close,
	.describe = ringbuf_describe,
	.attach = ringbuf_attach,
	.intact = ringbuf_intact,
	.detach = ringbuf_detach,
	.quiesce = ringbuf_quiesce,
	.counts = ringbuf_counts,
	.reset = ringbuf_reset,
	.beat = ringbuf_beat,
	.own_socket = ringbuf_own_socket,
	.wait = ringbuf_wait,
	.wake = ringbuf_wake,
	.drain = ringbuf_drain,
};
