// SPDX-License-Identifier: Apache-2.0
/*
 * A packet socket does not say which socket a packet came from. But the agent knows both ends
 * of its connection: where it connects to from the caller, its own end from the kernel, as soon
 * as the connection is under way. Between the two moments a packet of it may come out of a ring
 * already, so whoever asks then waits for the second.
 *
 * NAT changes the ends between our socket and the interface. What it leaves alone: the TTL, which
 * our sockets set to a value of their own, and TCP's time stamps, which run from an offset that
 * the kernel keeps secret and tells the socket (TCP_TIMESTAMP). A packet with that TTL and a time
 * stamp that our socket could have sent then is ours, and its flow is remembered in both
 * directions. Without time stamps (net.ipv4.tcp_timestamps=0, or 2, where they have no offset) the
 * TTL and our own source port must do, so NAT that changes ports too defeats that, as
 * whatever sets a TTL does, and as any proxy does that makes a connection of its own.
 *
 * A flow counts while its socket is the current one, and for OWN_FLOW_GRACE_NS after its last
 * packet, as in the kernel (bpf/own.h).
 */
#include "ownflow.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "abi.h"
#include "ctx_user.h"
#include "parse.h"
#include "util.h"

#define FLOWS 64
#define TTL   199
/* How old a time stamp may be when the packet comes to the interface: queues may hold it. */
#define STAMP_LATE_MS  1000
#define STAMP_EARLY_MS 10
/* An offset closer to 0 than this is none. */
#define STAMP_OFFSET_MIN 10000
/* A connect() that takes longer than this has hung, and nobody waits for it. */
#define PATIENCE (100 * NSEC_PER_MSEC)

struct sock {
	ino_t id;    /* its inode; 0: none */
	__u64 to[2]; /* where it connects to */
	uint16_t to_port, port;
	uint8_t family;
	bool connecting; /* its own end is not known yet */
	nsec_t since;    /* connecting; CLOCK_MONOTONIC */
	bool has_clock;
	uint32_t clock_offset; /* of its time stamps to CLOCK_MONOTONIC in ms */
};

struct known {
	struct flow flow;
	ino_t id;
	nsec_t last_used;
};

struct ownflow {
	pthread_mutex_t lock;
	pthread_cond_t settled; /* a socket is no longer connecting */
	atomic_bool active;
	struct sock socks[OWN_COOKIES]; /* the current one first */
	struct known flows[FLOWS];
	size_t nflows;
};

struct ownflow *ownflow_new(void)
{
	struct ownflow *o = calloc(1, sizeof(*o));
	pthread_condattr_t attr;

	if (!o)
		return NULL;
	pthread_mutex_init(&o->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&o->settled, &attr);
	pthread_condattr_destroy(&attr);
	return o;
}

struct ownflow *ownflow_free(struct ownflow *o)
{
	if (!o)
		return NULL;
	pthread_cond_destroy(&o->settled);
	pthread_mutex_destroy(&o->lock);
	free(o);
	return NULL;
}

bool ownflow_active(const struct ownflow *o)
{
	return atomic_load_explicit(&o->active, memory_order_acquire);
}

/* False for another family. IPv4 in IPv6 is IPv4 on the wire. */
static bool end_of(const struct sockaddr *sa, __u64 addr[2], uint16_t *port, uint8_t *family)
{
	struct sockaddr_in6 six;
	struct sockaddr_in four;
	uint32_t v4;

	addr[0] = addr[1] = 0;
	if (sa->sa_family == AF_INET) {
		memcpy(&four, sa, sizeof(four));
		*port = ntohs(four.sin_port);
		v4 = four.sin_addr.s_addr;
	} else if (sa->sa_family == AF_INET6) {
		memcpy(&six, sa, sizeof(six));
		*port = ntohs(six.sin6_port);
		if (!IN6_IS_ADDR_V4MAPPED(&six.sin6_addr)) {
			memcpy(addr, &six.sin6_addr, sizeof(six.sin6_addr));
			*family = 6;
			return true;
		}
		memcpy(&v4, &six.sin6_addr.s6_addr[12], sizeof(v4));
	} else {
		return false;
	}
	addr[0] = v4;
	*family = 4;
	return true;
}

static struct known *find(struct ownflow *o, const struct flow *flow)
{
	for (size_t i = 0; i < o->nflows; i++)
		if (!memcmp(&o->flows[i].flow, flow, sizeof(*flow)))
			return &o->flows[i];
	return NULL;
}

static struct known *least_recent(struct ownflow *o)
{
	struct known *at = &o->flows[0];

	for (size_t i = 1; i < o->nflows; i++)
		if (o->flows[i].last_used < at->last_used)
			at = &o->flows[i];
	return at;
}

static void remember(struct ownflow *o, const struct flow *flow, ino_t id)
{
	struct known *at = find(o, flow);

	if (!at)
		at = o->nflows < FLOWS ? &o->flows[o->nflows++] : least_recent(o);
	*at = (struct known){.flow = *flow, .id = id, .last_used = clock_boottime()};
}

static uint32_t monotonic_ms(void)
{
	return (uint32_t)(clock_monotonic() / NSEC_PER_MSEC);
}

static void read_clock(struct sock *s, int fd)
{
	socklen_t size = sizeof(uint32_t);
	uint32_t value;

	s->has_clock = false;
	if (getsockopt(fd, IPPROTO_TCP, TCP_TIMESTAMP, &value, &size) < 0)
		return;
	s->clock_offset = value - monotonic_ms();
	s->has_clock = (uint32_t)(s->clock_offset + STAMP_OFFSET_MIN) > 2 * STAMP_OFFSET_MIN;
}

/* The connection is under way: our end is known, and what the time stamps run from. */
static void settle(struct ownflow *o, struct sock *s, int fd)
{
	struct sockaddr_storage here = {}, there = {};
	socklen_t here_len = sizeof(here), there_len = sizeof(there);
	struct addresses a = {};
	struct flow flow;

	s->connecting = false;
	if (getsockname(fd, (struct sockaddr *)&here, &here_len) < 0 ||
	    !end_of((struct sockaddr *)&here, a.src, &s->port, &s->family) || !s->port)
		return;
	if (!s->to_port && (getpeername(fd, (struct sockaddr *)&there, &there_len) < 0 ||
			    !end_of((struct sockaddr *)&there, s->to, &s->to_port, &s->family)))
		return;
	memcpy(a.dst, s->to, sizeof(a.dst));
	read_clock(s, fd);
	parse_make_flow(&a, s->family, s->port, s->to_port, &flow);
	remember(o, &flow, s->id);
}

static void set_ttl(int fd)
{
	int ttl = TTL;

	/* One of the two fails, according to the family; a socket that has neither is not marked.
	 */
	setsockopt(fd, IPPROTO_IP, IP_TTL, &ttl, sizeof(ttl));
	setsockopt(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, &ttl, sizeof(ttl));
}

/* The socket with @id, now the current one. */
static struct sock *make_current(struct ownflow *o, ino_t id)
{
	struct sock found = {.id = id};
	int at = OWN_COOKIES - 1;

	for (int i = 0; i < OWN_COOKIES; i++) {
		if (o->socks[i].id != id)
			continue;
		found = o->socks[i];
		at = i;
		break;
	}
	memmove(&o->socks[1], &o->socks[0], (size_t)at * sizeof(o->socks[0]));
	o->socks[0] = found;
	return &o->socks[0];
}

int ownflow_socket(struct ownflow *o, int fd, const struct sockaddr *to, struct err *err)
{
	struct stat st;
	struct sock *s;

	if (fstat(fd, &st) < 0)
		return err_sys(err, -errno, "cannot tell the agent's own stream from others");
	if (to)
		set_ttl(fd);
	pthread_mutex_lock(&o->lock);
	s = make_current(o, st.st_ino);
	if (to) {
		s->connecting = end_of(to, s->to, &s->to_port, &s->family);
		s->since = clock_monotonic();
	} else {
		settle(o, s, fd);
		pthread_cond_broadcast(&o->settled);
	}
	atomic_store_explicit(&o->active, true, memory_order_release);
	pthread_mutex_unlock(&o->lock);
	return 0;
}

static struct sock *connecting(struct ownflow *o)
{
	for (size_t i = 0; i < OWN_COOKIES; i++)
		if (o->socks[i].connecting)
			return &o->socks[i];
	return NULL;
}

/* One whose connect() never came does not stop the capture. */
static void wait_for_connecting(struct ownflow *o)
{
	struct sock *s;

	while ((s = connecting(o))) {
		nsec_t end = s->since + PATIENCE;
		struct timespec until = {.tv_sec = (time_t)(end / NSEC_PER_SEC),
					 .tv_nsec = (long)(end % NSEC_PER_SEC)};

		if (pthread_cond_timedwait(&o->settled, &o->lock, &until) != 0)
			s->connecting = false;
	}
}

/* Could the socket have sent this packet, whatever ends it has now? */
static bool is_marked(const struct sock *s, const struct ownflow_packet *p, uint32_t now_ms)
{
	uint32_t age;

	if (!s->id || s->connecting || !s->port || s->family != p->family || p->ttl != TTL)
		return false;
	if (!s->has_clock || !p->has_timestamp)
		return p->sport == s->port;
	age = now_ms - (p->timestamp - s->clock_offset);
	return age + STAMP_EARLY_MS < STAMP_LATE_MS + STAMP_EARLY_MS;
}

bool ownflow_has(struct ownflow *o, const struct ownflow_packet *p)
{
	struct addresses a = {{p->src[0], p->src[1]}, {p->dst[0], p->dst[1]}};
	struct known *known;
	struct flow flow;
	uint32_t then_ms;
	bool own = false;

	parse_make_flow(&a, p->family, p->sport, p->dport, &flow);
	pthread_mutex_lock(&o->lock);
	wait_for_connecting(o);
	known = find(o, &flow);
	if (known) {
		nsec_t now = clock_boottime();

		own = known->id == o->socks[0].id || now - known->last_used <= OWN_FLOW_GRACE_NS;
		if (own)
			known->last_used = now;
	} else if (p->ttl == TTL) {
		then_ms = monotonic_ms() - (uint32_t)((clock_boottime() - p->time) / NSEC_PER_MSEC);
		for (size_t i = 0; !own && i < OWN_COOKIES; i++) {
			own = is_marked(&o->socks[i], p, then_ms);
			if (own)
				remember(o, &flow, o->socks[i].id);
		}
	}
	pthread_mutex_unlock(&o->lock);
	return own;
}
