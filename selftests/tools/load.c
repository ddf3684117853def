/* SPDX-License-Identifier: Apache-2.0 */
/*
 * load [OPTIONS] ADDRESS PORT: many agents in one process, without capture: the real codec
 * over TLS (plain text without -k), one thread, epoll.
 *
 *	-n AGENTS    how many; -s FIRST: number of the first
 *	-m MESSAGES  DATA messages of each; -p PACKETS in each; -i MS between two
 *	-b PERCENT   of the agents say BYE at the end, the others hang up without a word
 *	-k KEY -c CERTIFICATE -a AUTHORITY -N NAME of the collector
 *	-f FILE      an array of 64-bit numbers in this machine's order: what each agent may
 *	             forget, as it learns that
 *	-e EPOCH     of all; default: the time
 *	-l           each agent comes from a loopback address of its own
 *
 * Agent i is "load-i". Its message 1 is META, then DATA, then STATS. They are made again from
 * their number whenever they have to be sent again, so nothing is kept. Packets look like
 * blast's: a number at byte 42, the agent's at byte 50. Prints when all are connected, when
 * they are not any more, and what became of it all.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "gzip.h"
#include "packet.h"
#include "stream.h"
#include "tls.h"
#include "util.h"

#define PACKET_SIZE      64u
#define PACKETS_MAX      4096u
#define BACKOFF_MIN_MS   200u
#define BACKOFF_MAX_MS   8000u
#define INTRODUCE_TIME   (20 * NSEC_PER_SEC)
#define TICK_MS          5
#define RECEIVE_MAX      65536u
#define BLOCK_SIZE_MAX   (PACKET_SIZE + 64)
#define CREDIT_NONE      0u
#define LOOPBACK_HOSTS   250u
#define EVENTS_AT_ONCE   256
#define PERCENT          100u
#define FIRST_TIME_STAMP 1000000000000000000u

enum state { WAITING, CONNECTING, SHAKING, INTRODUCING, LIVE, DONE };

struct agent {
	unsigned int number;
	enum state state;
	nsec_t next; /* WAITING: try then; CONNECTING to INTRODUCING: give up then */
	int fd;
	struct tls *tls;
	struct buf out, in;
	size_t out_at;
	uint64_t sent, acked, credit, unacked; /* seqs; bytes */
	uint8_t ack_mode;
	unsigned int backoff_ms;
	bool bye_sent;
};

static struct {
	unsigned int n, first, messages, packets, interval_ms, bye_percent;
	const char *ack_file, *server_name;
	bool own_addresses, tls;
	struct sockaddr_storage to;
	socklen_t to_len;
	struct tls_context *context;
	int epoll;
	nsec_t start;
	uint64_t epoch;
	struct gzip *gzip;
	struct agent *agents;
	uint64_t *acks;
	unsigned int live, done, failures;
	bool all;
	char last_error[512];
} load = {.n = 1, .messages = 10, .packets = 10, .bye_percent = PERCENT};

static _Noreturn void die(const char *what, const struct err *err)
{
	fprintf(stderr, "load: %s: %s\n", what, err ? err->text : strerror(errno));
	exit(1);
}

static double seconds(void)
{
	return (double)(clock_monotonic() - load.start) / 1e9;
}

static uint64_t last_seq(void)
{
	return load.messages + 2u;
}

/* How many packets the messages up to @seq have. */
static uint64_t packets_until(uint64_t seq)
{
	uint64_t data = seq ? seq - 1 : 0;

	return MIN(data, load.messages) * load.packets;
}

static struct stream_iface the_interface(uint64_t acked)
{
	struct stream_iface m = {.id = 1,
				 .ifindex = 1,
				 .link_type = LINK_ETHERNET,
				 .snaplen = 65535,
				 .name = "eth0"};

	m.committed[0] =
		(struct ledger_count){packets_until(acked), packets_until(acked) * PACKET_SIZE};
	return m;
}

static void put_data(const struct agent *a, uint64_t seq, struct buf *out)
{
	static uint8_t raw[PACKETS_MAX * BLOCK_SIZE_MAX], bytes[PACKET_SIZE];
	uint64_t number = packets_until(seq - 1);
	nsec_t time = FIRST_TIME_STAMP + seq * NSEC_PER_MSEC;
	struct stream_data head = {.iface_min = 1,
				   .iface_max = 1,
				   .first = time,
				   .last = time,
				   .packets = load.packets,
				   .wire_bytes = (uint64_t)load.packets * PACKET_SIZE};
	struct stream_header h = {.type = STREAM_DATA, .seq = seq};
	uint8_t *message, *payload;
	size_t size = 0;

	memcpy(bytes + 50, &a->number, sizeof(a->number));
	for (unsigned int i = 0; i < load.packets; i++, number++) {
		const struct packet p = {.interface_id = 1,
					 .time = time,
					 .caplen = PACKET_SIZE,
					 .len = PACKET_SIZE,
					 .direction = 1,
					 .data = bytes};

		memcpy(bytes + 42, &number, sizeof(number));
		size += packet_write(raw + size, &p);
	}
	message = buf_reserve(out, STREAM_HEADER_SIZE + STREAM_DATA_HEAD + gzip_bound(size));
	if (!message)
		return;
	payload = message + STREAM_HEADER_SIZE;
	stream_data_encode(payload, &head);
	h.raw_len = (uint32_t)size;
	h.payload_len = STREAM_DATA_HEAD +
			(uint32_t)gzip_compress(load.gzip, raw, size, payload + STREAM_DATA_HEAD);
	h.payload_crc = gzip_crc32(0, payload, h.payload_len);
	stream_header_encode(message, &h);
	out->len += STREAM_HEADER_SIZE + h.payload_len;
}

/* The message @seq, appended to what is to be sent. */
static void put_message(struct agent *a, uint64_t seq)
{
	struct stream_stats_part part = {.iface = 1, .direction = 1};
	struct stream_stats stats = {.time = clock_realtime(), .parts = &part, .n_parts = 1};
	struct stream_meta meta = {.iface = the_interface(0)};
	struct ledger_count all = {packets_until(seq), packets_until(seq) * PACKET_SIZE};
	struct buf payload = {};

	if (seq > 1 && seq < last_seq()) {
		put_data(a, seq, &a->out);
		return;
	}
	if (seq == 1) {
		stream_meta_encode(&payload, &meta);
	} else {
		part.counts.c[LEDGER_SEEN] = part.counts.c[LEDGER_CAPTURED] = all;
		stream_stats_encode(&payload, &stats);
	}
	stream_message(&a->out, seq == 1 ? STREAM_META : STREAM_STATS, seq, payload.data,
		       payload.len);
	buf_free(&payload);
}

static void put_control(struct agent *a, uint8_t type, struct buf *payload)
{
	stream_message(&a->out, type, 0, payload->data, payload->len);
	buf_free(payload);
}

/* The last message that is there by now. */
static uint64_t produced(const struct agent *a)
{
	nsec_t interval = load.interval_ms * NSEC_PER_MSEC, now = clock_monotonic() - load.start;
	nsec_t offset = load.n ? interval * (a->number - load.first) / load.n : 0;

	if (!interval)
		return last_seq();
	return MIN(last_seq(), 1 + (now > offset ? (now - offset) / interval : 0));
}

static void put_hello(struct agent *a)
{
	struct stream_iface iface = the_interface(a->acked);
	struct stream_hello m = {.agent_id = {'l', 'o', 'a', 'd'},
				 .epoch = load.epoch,
				 .first_unacked = a->acked + 1,
				 .next_seq = MAX(a->sent, produced(a)) + 1,
				 .realtime_ns = clock_realtime(),
				 .boottime_ns = clock_boottime(),
				 .version = "load",
				 .ifaces = &iface,
				 .n_ifaces = 1};
	struct buf payload = {};

	snprintf(m.agent_name, sizeof(m.agent_name), "load-%u", a->number);
	memcpy(m.agent_id + 12, &a->number, sizeof(a->number));
	stream_hello_encode(&payload, &m);
	put_control(a, STREAM_HELLO, &payload);
}

/* Whether all agents are connected (or done) has become another: say so. */
static void tell(void)
{
	bool all = load.live + load.done == load.n;

	if (all == load.all)
		return;
	load.all = all;
	printf("%.3f %s\n", seconds(), all ? "all connected" : "not all connected");
	fflush(stdout);
}

static void hang_up(struct agent *a)
{
	if (a->state == LIVE)
		load.live--;
	a->tls = tls_free(a->tls);
	if (a->fd >= 0)
		close(a->fd);
	a->fd = -1;
	a->out_at = 0;
	buf_reset(&a->out);
	buf_reset(&a->in);
	a->bye_sent = false;
}

static void finish(struct agent *a)
{
	hang_up(a);
	a->state = DONE;
	load.done++;
	buf_free(&a->out);
	buf_free(&a->in);
	tell();
}

/* Full jitter, as the real ones do it. */
static void retry(struct agent *a, unsigned int at_least_ms, const char *why)
{
	unsigned int ms = at_least_ms + (unsigned int)random() % (a->backoff_ms + 1);

	if (strcmp(load.last_error, why) != 0) {
		snprintf(load.last_error, sizeof(load.last_error), "%s", why);
		fprintf(stderr, "%.3f load-%u: %s\n", seconds(), a->number, why);
	}
	load.failures++;
	hang_up(a);
	a->state = WAITING;
	a->next = clock_monotonic() + ms * NSEC_PER_MSEC;
	a->backoff_ms = MIN(2 * a->backoff_ms, BACKOFF_MAX_MS);
	tell();
}

static void wait_for(struct agent *a, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = a};

	epoll_ctl(load.epoll, EPOLL_CTL_MOD, a->fd, &ev);
}

static void dial(struct agent *a)
{
	struct epoll_event ev = {.events = EPOLLOUT, .data.ptr = a};
	struct sockaddr_in from = {.sin_family = AF_INET};
	unsigned int i = a->number - load.first;
	int one = 1;

	a->fd = socket(load.to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (a->fd < 0)
		die("socket", NULL);
	setsockopt(a->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	from.sin_addr.s_addr =
		htonl(0x7f000001u + ((1 + i / LOOPBACK_HOSTS) << 8) + i % LOOPBACK_HOSTS);
	if (load.own_addresses && bind(a->fd, (struct sockaddr *)&from, sizeof(from)) < 0)
		die("bind", NULL);
	if (epoll_ctl(load.epoll, EPOLL_CTL_ADD, a->fd, &ev) < 0)
		die("epoll", NULL);
	a->state = CONNECTING;
	a->next = clock_monotonic() + INTRODUCE_TIME;
	if (connect(a->fd, (struct sockaddr *)&load.to, load.to_len) < 0 && errno != EINPROGRESS)
		retry(a, 0, strerror(errno));
}

/* What was acknowledged counts, and is kept where others see it. */
static void acknowledged(struct agent *a, uint64_t seq)
{
	a->acked = MAX(a->acked, seq);
	if (load.acks)
		load.acks[a->number - load.first] = a->acked;
}

/* 0, or -1: the session is over. */
static int on_message(struct agent *a, const struct stream_header *h, const uint8_t *payload)
{
	struct stream_welcome w;
	struct stream_error e;
	struct stream_ping ping;
	struct stream_ack ack;
	struct buf answer = {};
	struct err err = {};

	switch (h->type) {
	case STREAM_WELCOME:
		if (a->state != INTRODUCING ||
		    stream_welcome_decode(payload, h->payload_len, &w, &err) < 0)
			break;
		if (w.resume_seq <= a->acked || w.resume_seq > MAX(a->sent, produced(a)) + 1) {
			fprintf(stderr, "load-%u: WELCOME asks for %llu, %llu were acknowledged\n",
				a->number, (unsigned long long)w.resume_seq,
				(unsigned long long)a->acked);
			exit(1);
		}
		acknowledged(a, w.resume_seq - 1);
		a->sent = w.resume_seq - 1;
		a->credit = w.credit;
		a->unacked = CREDIT_NONE;
		a->ack_mode = w.ack_mode;
		a->state = LIVE;
		a->backoff_ms = BACKOFF_MIN_MS;
		load.live++;
		tell();
		return 0;
	case STREAM_ACK:
		if (stream_ack_decode(payload, h->payload_len, &ack, &err) < 0)
			break;
		a->credit += ack.credit;
		a->unacked -= MIN(a->unacked, ack.credit);
		acknowledged(a, a->ack_mode == STREAM_ACK_DURABLE ? ack.durable : ack.written);
		return 0;
	case STREAM_PING:
		if (stream_ping_decode(payload, h->payload_len, &ping, &err) < 0)
			break;
		ping.received_ns = clock_realtime();
		stream_ping_encode(&answer, &ping);
		put_control(a, STREAM_PONG, &answer);
		return 0;
	case STREAM_PONG:
		return 0;
	case STREAM_BYE:
		if (a->bye_sent)
			finish(a);
		else
			retry(a, BACKOFF_MIN_MS, "the collector is stopping");
		return -1;
	case STREAM_ERROR:
		if (stream_error_decode(payload, h->payload_len, &e, &err) < 0)
			break;
		retry(a, e.retry_after_ms, e.text);
		return -1;
	default:
		break;
	}
	retry(a, 0, err.text[0] ? err.text : "an unexpected message");
	return -1;
}

/* Deal with the whole messages that are here. 0; -1: the session is over. */
static int handle_messages(struct agent *a)
{
	struct stream_header h;
	struct err err = {};
	size_t at = 0;

	while (a->in.len - at >= STREAM_HEADER_SIZE) {
		if (stream_header_decode(a->in.data + at, &h, &err) < 0) {
			retry(a, 0, err.text);
			return -1;
		}
		if (a->in.len - at < STREAM_HEADER_SIZE + h.payload_len)
			break;
		if (on_message(a, &h, a->in.data + at + STREAM_HEADER_SIZE) < 0)
			return -1;
		at += STREAM_HEADER_SIZE + h.payload_len;
	}
	a->in.len -= at;
	memmove(a->in.data, a->in.data + at, a->in.len);
	if (!a->in.len)
		buf_free(&a->in);
	return 0;
}

/* Take what came, and last of all the end of the connection. 0; -1: the session is over. */
static int receive(struct agent *a)
{
	struct err err = {};
	ssize_t n;

	do {
		uint8_t *to = buf_reserve(&a->in, RECEIVE_MAX);

		if (!to)
			die("memory", NULL);
		n = tls_recv(a->tls, to, RECEIVE_MAX, &err);
		if (n > 0)
			a->in.len += (size_t)n;
	} while (n > 0);
	if (handle_messages(a) < 0)
		return -1;
	if (n == -EAGAIN)
		return 0;
	retry(a, 0, n ? err.text : "the collector closed the connection");
	return -1;
}

/* 1: nothing left to be sent; 0: the connection is full; -1: over. */
static int flush(struct agent *a)
{
	struct err err = {};

	while (a->out_at < a->out.len) {
		ssize_t n = tls_send(a->tls, a->out.data + a->out_at, a->out.len - a->out_at, &err);

		if (n == -EAGAIN)
			return 0;
		if (n < 0) {
			retry(a, 0, err.text);
			return -1;
		}
		a->out_at += (size_t)n;
	}
	buf_free(&a->out);
	a->out_at = 0;
	return 1;
}

/* The next message, if there is one that credit allows, or the end. False: nothing to do now. */
static bool go_on(struct agent *a)
{
	bool polite = (a->number - load.first) % PERCENT < load.bye_percent;
	struct stream_bye bye = {.reason = STREAM_BYE_STOP, .last_seq = last_seq()};
	struct buf payload = {};

	if (a->state != LIVE || a->bye_sent)
		return false;
	if (a->acked >= last_seq()) {
		if (!polite) {
			finish(a);
			return false;
		}
		stream_bye_encode(&payload, &bye);
		put_control(a, STREAM_BYE, &payload);
		a->bye_sent = true;
		return true;
	}
	if (a->sent >= produced(a))
		return false;
	put_message(a, a->sent + 1);
	if (a->unacked && a->out.len > a->credit) {
		buf_free(&a->out);
		return false;
	}
	a->sent++;
	a->unacked += a->out.len;
	a->credit -= MIN(a->credit, a->out.len);
	return true;
}

static void run(struct agent *a)
{
	struct err err = {};
	int r, failed = 0;
	socklen_t len = sizeof(failed);

	if (a->state == CONNECTING) {
		getsockopt(a->fd, SOL_SOCKET, SO_ERROR, &failed, &len);
		if (failed) {
			retry(a, 0, strerror(failed));
			return;
		}
		if (tls_new(load.context, a->fd, load.server_name, &a->tls, &err) < 0)
			die("TLS", &err);
		a->state = SHAKING;
	}
	if (a->state == SHAKING) {
		r = tls_handshake(a->tls, &err);
		if (r == -EAGAIN) {
			wait_for(a, (uint32_t)tls_events(a->tls));
			return;
		}
		if (r < 0) {
			retry(a, 0, err.text);
			return;
		}
		a->state = INTRODUCING;
		put_hello(a);
	}
	if (receive(a) < 0)
		return;
	do {
		r = flush(a);
		if (r < 0)
			return;
	} while (r == 1 && go_on(a));
	if (a->state != DONE)
		wait_for(a, (uint32_t)(EPOLLIN | (r == 0 ? EPOLLOUT : 0)));
}

static void tick(struct agent *a, nsec_t now)
{
	if (a->state == WAITING && now >= a->next)
		dial(a);
	else if (a->state > WAITING && a->state < LIVE && now >= a->next)
		retry(a, 0, "no answer in time");
	else if (a->state == LIVE && a->out.len == 0 && !a->bye_sent && a->sent < produced(a))
		run(a);
}

static void resolve(const char *host, const char *port)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list;

	if (getaddrinfo(host, port, &hints, &list) != 0) {
		fprintf(stderr, "load: what is \"%s\"?\n", host);
		exit(2);
	}
	memcpy(&load.to, list->ai_addr, list->ai_addrlen);
	load.to_len = list->ai_addrlen;
	freeaddrinfo(list);
}

static void set_up(void)
{
	if (load.ack_file) {
		size_t size = load.n * sizeof(uint64_t);
		int fd = open(load.ack_file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

		if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
			die(load.ack_file, NULL);
		load.acks = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (load.acks == MAP_FAILED)
			die("mmap", NULL);
		close(fd);
	}
	load.epoll = epoll_create1(EPOLL_CLOEXEC);
	load.gzip = gzip_new();
	load.agents = calloc(load.n, sizeof(*load.agents));
	if (load.epoll < 0 || !load.gzip || !load.agents)
		die("memory", NULL);
	load.start = clock_monotonic();
	if (!load.epoch)
		load.epoch = clock_realtime();
	srandom((unsigned int)clock_realtime());
	for (unsigned int i = 0; i < load.n; i++)
		load.agents[i] = (struct agent){
			.number = load.first + i, .fd = -1, .backoff_ms = BACKOFF_MIN_MS};
}

static unsigned int number(const char *text)
{
	return (unsigned int)strtoul(text, NULL, 10);
}

int main(int argc, char **argv)
{
	struct tls_config config = {};
	struct epoll_event events[EVENTS_AT_ONCE];
	struct err err = {};
	int c;

	while ((c = getopt(argc, argv, "n:s:m:p:i:b:k:c:a:N:f:e:l")) != -1) {
		switch (c) {
		case 'n':
			load.n = number(optarg);
			break;
		case 's':
			load.first = number(optarg);
			break;
		case 'm':
			load.messages = number(optarg);
			break;
		case 'p':
			load.packets = number(optarg);
			break;
		case 'i':
			load.interval_ms = number(optarg);
			break;
		case 'b':
			load.bye_percent = number(optarg);
			break;
		case 'k':
			config.keyfile = optarg;
			break;
		case 'c':
			config.certfile = optarg;
			break;
		case 'a':
			config.cafile = optarg;
			break;
		case 'N':
			load.server_name = optarg;
			break;
		case 'f':
			load.ack_file = optarg;
			break;
		case 'e':
			load.epoch = strtoull(optarg, NULL, 10);
			break;
		case 'l':
			load.own_addresses = true;
			break;
		default:
			return 2;
		}
	}
	if (argc - optind != 2 || !load.n || load.packets > PACKETS_MAX || !load.packets) {
		fprintf(stderr, "usage: load [OPTIONS] ADDRESS PORT\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	resolve(argv[optind], argv[optind + 1]);
	if (!load.server_name)
		load.server_name = argv[optind];
	config.enable = config.keyfile;
	if (tls_context_new(TLS_AGENT, &config, &load.context, &err) < 0)
		die("credentials", &err);
	set_up();
	while (load.done < load.n) {
		int n = epoll_wait(load.epoll, events, ARRAY_SIZE(events), TICK_MS);
		nsec_t now = clock_monotonic();

		for (int i = 0; i < n; i++)
			run(events[i].data.ptr);
		for (unsigned int i = 0; i < load.n; i++)
			tick(&load.agents[i], now);
	}
	printf("%.3f done: %u agents, %llu packets of each, %u tries failed\n", seconds(), load.n,
	       (unsigned long long)packets_until(last_seq()), load.failures);
	tls_context_free(load.context);
	gzip_free(load.gzip);
	free(load.agents);
	return 0;
}
