// SPDX-License-Identifier: Apache-2.0
/*
 * The capture back end on libpcap, for hosts without the right to load BPF programs: it takes
 * CAP_NET_RAW only. What the kernel does for the other back ends is done here: rules, own
 * stream, counting (decide.h).
 *
 * Life cycle: open allocates next to nothing; attach opens one packet socket for each direction
 * of an interface, with its ring, out of a budget of ring_bytes; detach blocks them; quiesce
 * waits until the kernel has shown all that was in them, decides on it and keeps what is wanted in
 * memory (never more than the rings held, which are given back), so that the counters are
 * final; the reader takes it from there.
 *
 * Order: a packet comes out when it is LIVE_DELAY old, because rings show theirs with a delay. It
 * is by the wall clock that the kernel stamps; a packet from the future (the clock was set back)
 * does not wait for it.
 *
 * Threads: `lock` guards everything. The reader lets go of it for each packet that it hands over,
 * since whoever takes that may block. The loop thread says that it wants the lock by
 * `gate`: a reader under load would never leave it to somebody who has to wake up first.
 */
#include "capture_pcap_internal.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <net/if.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#include "coarse.h"
#include "netns.h"
#include "rule_table.h"
#include "util.h"

#define SOURCES_MAX (4 * IFACE_SLOTS) /* detached ones that the reader is still at among them */
#define FLUSH_MAX   NSEC_PER_SEC      /* a ring that has shown nothing by then never will */
#define POLL_MS     5

static void loop_lock(struct capture *c)
{
	atomic_fetch_add(&c->wanted, 1);
	pthread_mutex_lock(&c->gate);
	pthread_mutex_lock(&c->lock);
}

static void loop_unlock(struct capture *c)
{
	pthread_mutex_unlock(&c->lock);
	pthread_mutex_unlock(&c->gate);
	atomic_fetch_sub(&c->wanted, 1);
}

void capture_pcap_reader_lock(struct capture *c)
{
	if (atomic_load_explicit(&c->wanted, memory_order_relaxed)) {
		pthread_mutex_lock(&c->gate);
		pthread_mutex_unlock(&c->gate);
	}
	pthread_mutex_lock(&c->lock);
}

void capture_pcap_reader_unlock(struct capture *c)
{
	pthread_mutex_unlock(&c->lock);
}

static struct capture *libpcap_close(struct capture *c)
{
	if (!c)
		return NULL;
	for (size_t i = 0; i < c->nsources; i++)
		source_free(c->sources[i]);
	free(c->sources);
	free(c->heap);
	decide_free(c->decide);
	ownflow_free(c->own);
	if (c->epoll >= 0)
		close(c->epoll);
	if (c->event >= 0)
		close(c->event);
	pthread_mutex_destroy(&c->gate);
	pthread_mutex_destroy(&c->lock);
	free(c);
	return NULL;
}

static bool is_limit(const struct capture_limit *limit)
{
	return limit->packets_per_s || limit->bits_per_s;
}

static const uint64_t *port_masks(const struct capture *c)
{
	return c->config.need_ports ? c->config.port_masks : NULL;
}

static struct decide *open_decide(const struct capture *c)
{
	struct decide_config config = {
		.port_masks = port_masks(c),
		.own = c->own,
		.snaplen = c->config.snaplen,
		.dedup_window = c->config.dedup_window,
		.limit_agent = is_limit(&c->config.limit),
	};
	struct bucket bucket = rule_table_bucket(&c->config.limit);
	struct decide *d = decide_new(&config);

	if (d)
		decide_set_bucket(d, 0, &bucket);
	return d;
}

static int open_all(struct capture *c, struct err *err)
{
	struct epoll_event event = {.events = EPOLLIN};
	int r = live_probe(err);

	if (r)
		return r;
	c->sources = calloc(SOURCES_MAX, sizeof(struct source *));
	c->heap = calloc(SOURCES_MAX, sizeof(struct source *));
	c->own = ownflow_new();
	if (c->own)
		c->decide = open_decide(c);
	if (!c->sources || !c->heap || !c->decide)
		return err_set(err, -ENOMEM, "out of memory");
	c->epoll = epoll_create1(EPOLL_CLOEXEC);
	c->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->epoll < 0 || c->event < 0 || epoll_ctl(c->epoll, EPOLL_CTL_ADD, c->event, &event))
		return err_sys(err, -errno, "cannot make an epoll");
	return 0;
}

static int libpcap_open(const struct capture_config *config, struct capture **ret, struct err *err)
{
	struct capture *c;
	int r;

	if (!config->snaplen || config->snaplen > SNAPLEN_MAX)
		return err_set(err, -EINVAL, "a snap length of %u is not in 1..%u", config->snaplen,
			       SNAPLEN_MAX);
	if (config->ntaps)
		return err_set(err, -EOPNOTSUPP,
			       "taps need BPF programs, and it works without them");
	c = calloc(1, sizeof(*c));
	if (!c)
		return err_set(err, -ENOMEM, "out of memory");
	c->config = *config;
	c->ring_left = config->ring_bytes;
	c->epoll = c->event = -1;
	pthread_mutex_init(&c->gate, NULL);
	pthread_mutex_init(&c->lock, NULL);
	r = open_all(c, err);
	if (r) {
		libpcap_close(c);
		return r;
	}
	*ret = c;
	return 0;
}

static const char *libpcap_describe(const struct capture *c)
{
	(void)c;
	return live_version();
}

/*
 * The ring of each of @n directions: half of what is left goes to every new interface. The shortest
 * ring is there for those that come when little is left, so with many of them all rings together
 * are longer than the budget, up to a limit.
 */
static uint32_t plan_ring(const struct capture *c, unsigned int n)
{
	uint64_t blocks = c->ring_left / (2 * n * LIVE_BLOCK);

	return (uint32_t)MAX(blocks, LIVE_BLOCKS_MIN) * LIVE_BLOCK;
}

/*
 * The bytes of a packet that come out of the socket: what is kept, what decisions need; an
 * expression may look at any.
 */
static uint32_t bytes_for(const struct capture *c, const struct iface_rule *rule)
{
	if (rule->asks & RULE_EXPRESSION)
		return SNAPLEN_MAX;
	return MAX(c->config.snaplen, DECIDE_BYTES);
}

static int open_source(struct capture *c, const struct capture_iface *iface,
		       enum direction direction, uint32_t ring_bytes, struct source **ret,
		       struct err *err)
{
	bool egress = direction == DIRECTION_EGRESS;
	/* By slot, not by address: a source may be gone when its event is looked at. */
	struct epoll_event event = {
		.events = EPOLLIN | EPOLLET,
		.data.u32 = 1 + 2 * iface->rule.slot + egress,
	};
	struct coarse filter;
	struct live_config live = {
		.name = iface->name,
		.ifindex = iface->ifindex,
		.raw_ip = iface->rule.raw_ip,
		.ring_bytes = ring_bytes,
		.filter = &filter,
	};
	int home, r;

	coarse_make(&filter, &iface->rule, port_masks(c), direction, bytes_for(c, &iface->rule));
	/* A packet socket stays in the namespace that it was made in. */
	r = netns_enter(iface->netns ? iface->netns_fd : -1, &home, err);
	if (r)
		return r;
	r = source_open(&live, ret, err);
	netns_return(home);
	if (r)
		return r;
	(*ret)->key = IFACE_KEY(iface->netns, iface->ifindex);
	(*ret)->netns_fd = iface->netns ? iface->netns_fd : -1;
	(*ret)->rule = iface->rule;
	(*ret)->direction = direction;
	(*ret)->counts = &c->counts[iface->rule.slot][egress];
	(*ret)->ready = true;
	if (epoll_ctl(c->epoll, EPOLL_CTL_ADD, (*ret)->live.fd, &event))
		return err_sys(err, -errno, "cannot watch a packet socket");
	return 0;
}

static unsigned int directions_of(const struct capture_iface *iface)
{
	return iface->loopback ? 1 : 2;
}

static int libpcap_room(struct capture *c, const struct capture_iface *iface, struct err *err)
{
	unsigned int n = directions_of(iface);
	uint64_t taken = c->ring_taken, more = (uint64_t)n * plan_ring(c, n);
	bool slots;

	loop_lock(c);
	slots = c->nsources + n <= SOURCES_MAX;
	loop_unlock(c);
	if (!slots)
		return err_set(err, -ENOSPC, "%s: more than %u interfaces", iface->name,
			       IFACE_SLOTS);
	if (taken + more > LIVE_RINGS_MAX * c->config.ring_bytes)
		return err_set(err, -ENOSPC,
			       "%s: the rings of others have %llu MiB, and more than %u times "
			       "ringSize is not taken: it has to be larger for so many interfaces",
			       iface->name, (unsigned long long)taken >> 20, LIVE_RINGS_MAX);
	return 0;
}

static void enter(struct capture *c, struct source *s)
{
	c->sources[c->nsources++] = s;
	c->of_slot[s->rule.slot][s->direction == DIRECTION_EGRESS] = s;
	s->budget = (uint32_t)MIN(s->ring_bytes, c->ring_left);
	c->ring_left -= s->budget;
	c->ring_taken += s->ring_bytes;
}

static int libpcap_attach(struct capture *c, const struct capture_iface *iface, struct err *err)
{
	static const enum direction directions[2] = {DIRECTION_INGRESS, DIRECTION_EGRESS};
	unsigned int n = directions_of(iface);
	struct bucket bucket = rule_table_bucket(&iface->limit);
	uint32_t ring_bytes = plan_ring(c, n);
	struct source *new[2] = {};
	int r = libpcap_room(c, iface, err);

	if (iface->rule.slot >= IFACE_SLOTS)
		r = err_set(err, -EINVAL, "there is no slot %u", iface->rule.slot);
	for (unsigned int i = 0; i < n && !r; i++)
		r = open_source(c, iface, directions[i], ring_bytes, &new[i], err);
	if (r) {
		source_free(new[0]);
		source_free(new[1]);
		return r;
	}
	loop_lock(c);
	decide_set_bucket(c->decide, 1 + iface->rule.slot, &bucket);
	for (unsigned int i = 0; i < n; i++)
		enter(c, new[i]);
	loop_unlock(c);
	/* It has missed the event of what came before it was entered. */
	event_signal(c->event);
	return 0;
}

static bool interface_exists(int netns_fd, uint32_t ifindex)
{
	char name[IF_NAMESIZE];
	struct err ignored;
	bool exists;
	int home;

	if (netns_enter(netns_fd, &home, &ignored))
		return true;
	exists = if_indextoname(ifindex, name);
	netns_return(home);
	return exists;
}

static int libpcap_intact(struct capture *c, uint64_t key, struct err *err)
{
	bool failed = false, found = false;
	int netns_fd = -1;

	(void)err;
	loop_lock(c);
	for (size_t i = 0; i < c->nsources; i++) {
		struct source *s = c->sources[i];

		if (s->key != key || s->parting)
			continue;
		found = true;
		failed |= s->failed;
		netns_fd = s->netns_fd;
	}
	loop_unlock(c);
	/* One that has gone fails as well. */
	return found && (!failed || !interface_exists(netns_fd, (uint32_t)key));
}

static void libpcap_detach(struct capture *c, uint64_t key)
{
	loop_lock(c);
	for (size_t i = 0; i < c->nsources; i++) {
		struct source *s = c->sources[i];

		if (s->key != key || s->parting)
			continue;
		live_stop(&s->live);
		s->parting = true;
	}
	loop_unlock(c);
}

static int libpcap_set_expression(struct capture *c, uint32_t slot, const struct expression *e,
				  struct err *err)
{
	if (!slot || slot >= EXPRESSIONS)
		return err_set(err, -EINVAL, "no expression can have the number %u", slot);
	loop_lock(c);
	decide_set_expression(c->decide, slot, e);
	loop_unlock(c);
	return 0;
}

/* What is in the rings has met the old coarse filter, and meets the new rule. */
static int set_rule(struct capture *c, struct source *s, const struct iface_rule *rule,
		    struct err *err)
{
	struct coarse filter;
	int r;

	coarse_make(&filter, rule, port_masks(c), s->direction, bytes_for(c, rule));
	r = coarse_attach(&filter, s->live.fd, err);
	if (!r)
		s->rule = *rule;
	return r;
}

static int libpcap_set_rule(struct capture *c, const struct capture_iface *iface, struct err *err)
{
	struct bucket bucket = rule_table_bucket(&iface->limit);
	int r = 0;

	loop_lock(c);
	for (size_t i = 0; i < c->nsources && !r; i++)
		if (c->sources[i]->key == IFACE_KEY(iface->netns, iface->ifindex) &&
		    !c->sources[i]->parting)
			r = set_rule(c, c->sources[i], &iface->rule, err);
	if (r == 0)
		decide_set_bucket(c->decide, 1 + iface->rule.slot, &bucket);
	loop_unlock(c);
	return r < 0 ? err_wrap(err, r, "%s", iface->name) : 0;
}

static void libpcap_degrade(struct capture *c, const struct degrade *degrade)
{
	loop_lock(c);
	decide_degrade(c->decide, degrade);
	loop_unlock(c);
}

/* The work is done by our own threads, whose time is known anyway. */
static void libpcap_work(struct capture *c, struct work *ret)
{
	loop_lock(c);
	*ret = decide_work(c->decide);
	loop_unlock(c);
}

/* By the clock of the last drain: what is measured by time does not follow the wall clock. */
void capture_pcap_take_time(struct capture *c, nsec_t boot_to_real)
{
	c->boot_to_real = boot_to_real;
	c->now = clock_boottime();
}

bool capture_pcap_judge(void *ctx, struct source *s, struct source_packet *p)
{
	struct capture *c = ctx;
	struct decide_packet packet = {
		.data = p->data,
		.caplen = p->caplen,
		.len = p->len,
		.direction = s->direction,
		.time = MIN(p->time - c->boot_to_real, c->now),
	};
	struct decide_verdict v = decide_packet(c->decide, &s->rule, s->counts, &packet);

	p->judged = true;
	p->caplen = v.caplen;
	return v.counter == CAPTURE_CAPTURED;
}

/* True when nothing is to come out of its ring any more. */
static bool flush(struct capture *c, struct source *s, bool give_up)
{
	uint32_t left;

	source_empty(s, capture_pcap_judge, c);
	left = live_left(&s->live);
	if (left && !give_up)
		return false;
	source_count_lost(s, left);
	live_close(&s->live);
	s->closed = true;
	c->of_slot[s->rule.slot][s->direction == DIRECTION_EGRESS] = NULL;
	c->ring_left += s->budget;
	c->ring_taken -= s->ring_bytes;
	return true;
}

static bool flush_all(struct capture *c, bool give_up)
{
	bool done = true;

	loop_lock(c);
	capture_pcap_take_time(c, clock_realtime() - clock_boottime());
	for (size_t i = 0; i < c->nsources; i++)
		if (c->sources[i]->parting && !c->sources[i]->closed)
			done &= flush(c, c->sources[i], give_up);
	loop_unlock(c);
	return done;
}

/*
 * After an RCU grace period no processor is in the middle of putting a packet into a socket
 * that was blocked before. Kernels with CPUs that are never interrupted (nohz_full) will not
 * wait for one on behalf of us; there, such a packet has the time that the rings take anyway.
 */
static void libpcap_quiesce(struct capture *c)
{
	nsec_t end = clock_monotonic() + FLUSH_MAX;
	bool any = false;

	loop_lock(c);
	for (size_t i = 0; i < c->nsources; i++)
		any |= c->sources[i]->parting && !c->sources[i]->closed;
	loop_unlock(c);
	if (!any)
		return;
	if (syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) < 0)
		poll(NULL, 0, LIVE_DELAY / NSEC_PER_MSEC);
	while (!flush_all(c, clock_monotonic() >= end))
		poll(NULL, 0, POLL_MS);
	/* What came out of the rings is not what the reader watches. */
	event_signal(c->event);
}

static int libpcap_counts(struct capture *c, uint32_t slot, enum direction direction,
			  struct capture_counts *ret)
{
	bool egress = direction == DIRECTION_EGRESS;

	if (slot >= IFACE_SLOTS)
		return -EINVAL;
	loop_lock(c);
	if (c->of_slot[slot][egress])
		source_count_drops(c->of_slot[slot][egress]);
	*ret = c->counts[slot][egress];
	loop_unlock(c);
	return 0;
}

static int libpcap_reset(struct capture *c, uint32_t slot)
{
	if (slot >= IFACE_SLOTS)
		return -EINVAL;
	loop_lock(c);
	memset(c->counts[slot], 0, sizeof(c->counts[slot]));
	loop_unlock(c);
	return 0;
}

/* Nothing goes unseen while this process stands still: rings fill, and then drops are counted. */
static bool libpcap_beat(struct capture *c)
{
	(void)c;
	return true;
}

static int libpcap_own_socket(struct capture *c, int fd, const struct sockaddr *to, struct err *err)
{
	return ownflow_socket(c->own, fd, to, err);
}

/* Edge-triggered: the kernel wakes us with each block of a ring that it hands over. */
static int libpcap_wait(struct capture *c, int timeout_ms)
{
	struct epoll_event events[64];
	int ready = 0, n;

	do {
		n = epoll_wait(c->epoll, events, ARRAY_SIZE(events), timeout_ms);
		if (n < 0)
			return errno == EINTR ? ready : -errno;
		capture_pcap_reader_lock(c);
		for (int i = 0; i < n; i++) {
			uint32_t cell = events[i].data.u32;
			struct source *s = cell ? c->of_slot[(cell - 1) / 2][(cell - 1) % 2] : NULL;

			if (!cell)
				event_clear(c->event);
			if (!s)
				continue;
			s->ready = true;
			ready++;
		}
		capture_pcap_reader_unlock(c);
		timeout_ms = 0;
	} while (n == ARRAY_SIZE(events));
	return ready;
}

static void libpcap_wake(struct capture *c)
{
	event_signal(c->event);
}

const struct capture_ops capture_pcap = {
	.name = "pcap",
	.user_space = true,
	.open = libpcap_open,
	.close = libpcap_close,
	.describe = libpcap_describe,
	.room = libpcap_room,
	.attach = libpcap_attach,
	.intact = libpcap_intact,
	.detach = libpcap_detach,
	.set_expression = libpcap_set_expression,
	.set_rule = libpcap_set_rule,
	.degrade = libpcap_degrade,
	.work = libpcap_work,
	.quiesce = libpcap_quiesce,
	.counts = libpcap_counts,
	.reset = libpcap_reset,
	.beat = libpcap_beat,
	.own_socket = libpcap_own_socket,
	.wait = libpcap_wait,
	.wake = libpcap_wake,
	.drain = capture_pcap_drain,
};
