/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plays sessions: the input is a series of steps, each a byte and what it takes. Two connections
 * over socketpairs in plain text carry three streams to a collector that is all there but for
 * its sockets: messages that are right, mutated, out of order, cut in two; time that passes; ends
 * of connections, of the collector (everything not committed is gone then) and clean restarts.
 *
 * Holds always: answers are messages that may come then; numbers only rise; what was acknowledged
 * as durable is never asked for again. Holds at the end: the files have each packet of each
 * acknowledged DATA once, none twice, and none that was not sent.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "fuzz.h"
#include "log.h"
#include "packet.h"
#include "session.h"
#include "stream.h"
#include "util.h"

#define CONNS    2u
#define STREAMS  3u
#define SEQS     64u /* numbers that are looked at */
#define VARIANTS 512u
#define CAPLEN   24u
#define PACKETS  4u
#define FILES    3u
#define STEPS    400u

enum kind { NOTHING, DATA, OTHER };

static struct {
	char dir[64], path[FILES][96];
	struct tls_store *tls;
	struct noise noise;
	struct session_scratch scratch;
	struct gzip *gzip;

	struct session_env env;
	struct commit *commit;
	nsec_t now;

	struct conn {
		int fd;
		struct session *session;
		int stream;
		bool welcomed;
		uint64_t top, written, durable; /* sent, acknowledged */
		size_t split;                   /* the next message comes in two parts */
		struct buf in;
	} conns[CONNS];
	struct {
		uint64_t next, acked;
		enum kind kind[SEQS];
	} streams[STREAMS];
	/* Of each DATA that was sent. */
	struct variant {
		uint32_t stream, packets;
		uint64_t seq;
		uint8_t found[PACKETS];
	} variants[VARIANTS];
	uint32_t n_variants;
} f;

static const uint8_t *input;
static size_t input_left;

static uint8_t take(void)
{
	if (!input_left)
		return 0;
	input_left--;
	return *input++;
}

static void no_line(void *ctx, enum log_level level, const char *line)
{
	(void)ctx;
	(void)level;
	FUZZ_ASSERT(!strstr(line, "\n"));
}

static void no_wake(void *ctx)
{
	(void)ctx;
}

static void on_fatal(void *ctx, const struct err *err)
{
	(void)ctx;
	fprintf(stderr, "fatal: %s\n", err->text);
	abort();
}

static void once(void)
{
	const struct tls_config plain = {};
	struct err err;

	if (f.gzip)
		return;
	snprintf(f.dir, sizeof(f.dir), "%s/ps-fuzz-XXXXXX",
		 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	FUZZ_ASSERT(mkdtemp(f.dir));
	snprintf(f.path[0], sizeof(f.path[0]), "%s/dump.pcap", f.dir);
	snprintf(f.path[1], sizeof(f.path[1]), "%s/dump.raw.pcap", f.dir);
	snprintf(f.path[2], sizeof(f.path[2]), "%s/dump.pcap.journal", f.dir);
	FUZZ_ASSERT(log_open("/dev/null", &err) == 0);
	FUZZ_ASSERT(tls_store_new(TLS_COLLECTOR, &plain, &f.tls, &err) == 0);
	noise_init(&f.noise);
	f.scratch = (struct session_scratch){.gzip = gzip_new(),
					     .raw = malloc(STREAM_RAW_MAX),
					     .wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
	f.gzip = gzip_new();
}

static void clean_up(void)
{
	for (size_t i = 0; i < FILES; i++)
		unlink(f.path[i]);
	rmdir(f.dir);
}

/* The collector begins, with what is on the disk. */
static void start(void)
{
	const struct registry_limits limits = {.feeds = 64, .resting_ifaces = 4096, .ifaces = 4096};
	/* It commits when it is told to, or has to. */
	const struct commit_config config = {.path = f.path[0],
					     .durable = true,
					     .wait = 1000 * NSEC_PER_SEC,
					     .wake = no_wake,
					     .fatal = on_fatal};
	struct registry *registry = registry_new(&limits, NULL, no_line, NULL);
	struct output *output;
	struct err err;

	FUZZ_ASSERT(commit_open(&config, registry, &output, &f.commit, &err) == 0);
	FUZZ_ASSERT(commit_start(f.commit, &err) == 0);
	f.env = (struct session_env){.tls = f.tls,
				     .any_name = true,
				     .registry = registry,
				     .output = output,
				     .commit = f.commit,
				     .noise = &f.noise,
				     .max_sessions = 16,
				     .memory = 64u << 20,
				     .payload_max = 8u << 20,
				     .credit = 1u << 20,
				     .hello_timeout = 10 * NSEC_PER_SEC,
				     .heartbeat = 10 * NSEC_PER_SEC,
				     .retry = NSEC_PER_SEC / 2,
				     .fatal = on_fatal};
}

static void hang_up(struct conn *c)
{
	c->session = session_free(c->session);
	if (c->fd >= 0)
		close(c->fd);
	buf_free(&c->in);
	*c = (struct conn){.fd = -1, .stream = -1};
}

static void stop(void)
{
	struct err err;

	for (size_t i = 0; i < CONNS; i++)
		hang_up(&f.conns[i]);
	FUZZ_ASSERT(commit_stop(f.commit, &err) == 0);
	registry_free(f.env.registry);
	output_free(f.env.output);
	commit_free(f.commit);
}

/* The process is gone at this moment: nothing of what stop() does has happened. */
static void crash(void)
{
	static uint8_t data[FILES][1u << 20];
	ssize_t size[FILES];

	/* The journal first: a file may have more than the journal knows of, never less. */
	for (size_t i = FILES; i-- > 0;) {
		int fd = open(f.path[i], O_RDONLY | O_CLOEXEC);

		size[i] = fd < 0 ? -1 : read(fd, data[i], sizeof(data[i]));
		FUZZ_ASSERT(size[i] < (ssize_t)sizeof(data[i]));
		if (fd >= 0)
			close(fd);
	}
	stop();
	for (size_t i = 0; i < FILES; i++) {
		int fd = size[i] < 0 ? -1 : open(f.path[i], O_WRONLY | O_TRUNC | O_CLOEXEC);

		if (size[i] < 0) {
			unlink(f.path[i]);
			continue;
		}
		FUZZ_ASSERT(fd >= 0 && write(fd, data[i], (size_t)size[i]) == size[i]);
		close(fd);
	}
	start();
}

static void on_welcome(struct conn *c, const struct stream_welcome *w)
{
	FUZZ_ASSERT(c->stream >= 0 && !c->welcomed);
	FUZZ_ASSERT(w->resume_seq > f.streams[c->stream].acked);
	FUZZ_ASSERT(w->credit && w->ack_mode == STREAM_ACK_DURABLE);
	c->welcomed = true;
	c->top = w->resume_seq - 1;
	f.streams[c->stream].next = w->resume_seq;
}

static void on_ack(struct conn *c, const struct stream_ack *ack)
{
	FUZZ_ASSERT(c->welcomed && (ack->written || ack->durable || ack->credit));
	FUZZ_ASSERT(ack->written >= c->written);
	FUZZ_ASSERT(ack->written <= c->top);
	FUZZ_ASSERT(ack->durable >= c->durable);
	FUZZ_ASSERT(ack->durable <= ack->written);
	c->written = ack->written;
	c->durable = ack->durable;
	f.streams[c->stream].acked = MAX(f.streams[c->stream].acked, ack->durable);
}

static void on_answer(struct conn *c, const struct stream_header *h, const uint8_t *payload)
{
	struct stream_welcome welcome;
	struct stream_error error;
	struct stream_ack ack;
	struct stream_bye bye;
	struct stream_ping ping;

	FUZZ_ASSERT(!h->seq && !h->flags);
	switch (h->type) {
	case STREAM_WELCOME:
		FUZZ_ASSERT(stream_welcome_decode(payload, h->payload_len, &welcome, NULL) == 0);
		on_welcome(c, &welcome);
		break;
	case STREAM_ACK:
		FUZZ_ASSERT(stream_ack_decode(payload, h->payload_len, &ack, NULL) == 0);
		on_ack(c, &ack);
		break;
	case STREAM_ERROR:
		FUZZ_ASSERT(stream_error_decode(payload, h->payload_len, &error, NULL) == 0);
		FUZZ_ASSERT(error.text[0]);
		break;
	case STREAM_PING:
	case STREAM_PONG:
		FUZZ_ASSERT(stream_ping_decode(payload, h->payload_len, &ping, NULL) == 0);
		break;
	case STREAM_BYE:
		FUZZ_ASSERT(stream_bye_decode(payload, h->payload_len, &bye, NULL) == 0);
		break;
	default:
		FUZZ_ASSERT(!"an answer that no collector gives");
	}
}

static void read_answers(struct conn *c)
{
	struct stream_header h;
	size_t at = 0;
	ssize_t n;

	if (c->fd < 0)
		return;
	do {
		uint8_t *to = buf_reserve(&c->in, 65536);

		n = recv(c->fd, to, 65536, MSG_DONTWAIT);
		if (n > 0)
			c->in.len += (size_t)n;
	} while (n > 0);
	while (c->in.len - at >= STREAM_HEADER_SIZE) {
		FUZZ_ASSERT(stream_header_decode(c->in.data + at, &h, NULL) == 0);
		if (c->in.len - at < STREAM_HEADER_SIZE + h.payload_len)
			break;
		on_answer(c, &h, c->in.data + at + STREAM_HEADER_SIZE);
		at += STREAM_HEADER_SIZE + h.payload_len;
	}
	c->in.len -= at;
	memmove(c->in.data, c->in.data + at, c->in.len);
}

static void run(void)
{
	for (size_t i = 0; i < CONNS; i++) {
		struct conn *c = &f.conns[i];
		enum session_next next = SESSION_AGAIN;

		for (unsigned int n = 0; c->session && next == SESSION_AGAIN; n++) {
			FUZZ_ASSERT(n < 10000);
			next = session_run(c->session, f.now, false);
			if (next == SESSION_OVER)
				c->session = session_free(c->session);
			else if (next == SESSION_WAIT)
				session_deadline(c->session);
		}
		read_answers(c);
		if (!c->session)
			hang_up(c);
	}
}

/* Until all that there is is committed. */
static void commit(void)
{
	uint64_t number = commit_hurry(f.commit);

	while (!commit_is_done(f.commit, number))
		sched_yield();
	run();
}

static void dial(struct conn *c)
{
	struct err err;
	int fds[2];

	hang_up(c);
	FUZZ_ASSERT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
	c->fd = fds[0];
	FUZZ_ASSERT(session_new(&f.env, &f.scratch, fds[1], "192.0.2.1:5", f.now, &c->session,
				&err) == 0);
}

static void send_bytes(struct conn *c, const uint8_t *data, size_t n)
{
	size_t first = c->split && c->split < n ? c->split : n;

	c->split = 0;
	if (c->fd < 0 || send(c->fd, data, first, MSG_NOSIGNAL) < 0 || first == n)
		return;
	run();
	if (c->fd >= 0 && send(c->fd, data + first, n - first, MSG_NOSIGNAL) < 0)
		return;
}

/* @mutate: what becomes of the payload; its checksum is right all the same. */
static void send_message(struct conn *c, uint8_t type, uint64_t seq, struct buf *payload,
			 uint32_t raw_len, bool mutate)
{
	struct stream_header h = {.type = type, .seq = seq, .raw_len = raw_len};
	struct buf b = {};
	uint8_t *head;

	if (mutate && payload->len) {
		size_t at = take() * payload->len / 256;

		payload->data[at] ^= take();
		if (take() % 4 == 0)
			payload->len = at;
	}
	h.payload_len = (uint32_t)payload->len;
	h.payload_crc = gzip_crc32(0, payload->data, payload->len);
	head = buf_reserve(&b, STREAM_HEADER_SIZE);
	stream_header_encode(head, &h);
	b.len = STREAM_HEADER_SIZE;
	buf_put(&b, payload->data, payload->len);
	if (seq && c->welcomed) {
		c->top = MAX(c->top, seq);
		f.streams[c->stream].next = MAX(f.streams[c->stream].next, seq + 1);
	}
	send_bytes(c, b.data, b.len);
	buf_free(&b);
	buf_free(payload);
}

static struct stream_iface interface(uint32_t id)
{
	struct stream_iface m = {
		.id = id, .link_type = id % 2 ? LINK_ETHERNET : LINK_RAW, .snaplen = 1000};

	snprintf(m.name, sizeof(m.name), "eth%u", id);
	return m;
}

static void note_kind(int stream, uint64_t first, uint64_t last, enum kind kind)
{
	for (uint64_t seq = first; stream >= 0 && seq <= last && seq < SEQS; seq++) {
		enum kind *k = &f.streams[stream].kind[seq];

		*k = *k == NOTHING || *k == kind ? kind : OTHER;
	}
}

static void send_hello(struct conn *c, int stream, uint8_t how)
{
	struct stream_iface ifaces[] = {interface(1), interface(2)};
	struct stream_hello m = {.agent_id = {1, (uint8_t)(stream / 2)},
				 .epoch = 1 + (uint64_t)stream,
				 .first_unacked = f.streams[stream].acked + 1,
				 .next_seq = f.streams[stream].next,
				 .agent_name = "fuzz",
				 .version = "1",
				 .recovered = how & 8,
				 .ifaces = ifaces,
				 .n_ifaces = 2 - (how & 4) / 4};
	struct buf payload = {};

	if (how & 1)
		m.first_unacked += how >> 4;
	if (how & 2)
		m.next_seq += how >> 4;
	/* Who says that it needs no answer for a message gets none. */
	note_kind(stream, f.streams[stream].acked + 1, m.first_unacked - 1, OTHER);
	stream_hello_encode(&payload, &m);
	if (c->stream < 0)
		c->stream = stream;
	send_message(c, STREAM_HELLO, 0, &payload, 0, false);
	run();
	/* WELCOME waits for a commit, but not for ever. */
	if (c->session && !c->welcomed && !(how & 64))
		commit();
	else if (c->session && !c->welcomed)
		f.now += f.env.hello_timeout / 2;
}

static void send_data(struct conn *c, uint64_t seq, uint8_t how, bool mutate)
{
	uint32_t n = 1 + how % PACKETS, id = 1 + (how >> 2) % 2;
	struct stream_data head = {.iface_min = id,
				   .iface_max = id,
				   .packets = n,
				   .wire_bytes = n * CAPLEN,
				   .first = 1,
				   .last = 1};
	uint8_t raw[PACKETS * (CAPLEN + 64)], data[CAPLEN] = {};
	struct buf payload = {};
	size_t size = 0;

	if (f.n_variants == VARIANTS)
		return;
	f.variants[f.n_variants] =
		(struct variant){.stream = (uint32_t)MAX(c->stream, 0), .seq = seq, .packets = n};
	for (uint32_t i = 0; i < n; i++) {
		const struct packet p = {.interface_id = id,
					 .time = 1,
					 .caplen = CAPLEN,
					 .len = CAPLEN,
					 .direction = 1,
					 .data = data};

		put_le32(data, f.n_variants);
		put_le32(data + 4, i);
		size += packet_write(raw + size, &p);
	}
	f.n_variants++;
	buf_reserve(&payload, STREAM_DATA_HEAD + gzip_bound(size));
	stream_data_encode(payload.data, &head);
	payload.len = STREAM_DATA_HEAD +
		      gzip_compress(f.gzip, raw, size, payload.data + STREAM_DATA_HEAD);
	note_kind(c->stream, seq, seq, mutate ? OTHER : DATA);
	send_message(c, STREAM_DATA, seq, &payload, (uint32_t)size, mutate);
}

static void send_other(struct conn *c, uint64_t seq, uint8_t type, uint8_t how, bool mutate)
{
	struct stream_meta meta = {.iface = interface(1 + how % 8)};
	struct stream_note note = {.time = f.now,
				   .kind = how % 8,
				   .has_iface = how & 1,
				   .iface = how % 4,
				   .text = "why"};
	struct stream_gap_part lost = {.iface = 1 + how % 2,
				       .direction = 1,
				       .first = 1,
				       .last = 2,
				       .lost = {how, how * 60u}};
	struct stream_gap gap = {.first_seq = seq,
				 .last_seq = seq + how % 8,
				 .reason = 1 + how % 3,
				 .parts = &lost,
				 .n_parts = how & 1};
	struct stream_stats_part counts = {.iface = 1, .direction = 1};
	struct stream_stats stats = {.time = f.now, .parts = &counts, .n_parts = 1};
	struct stream_bye bye = {.reason = 1 + how % 3, .last_seq = seq - 1 + (how >> 7)};
	struct stream_ping ping = {.sent_ns = f.now, .received_ns = f.now};
	struct buf payload = {};

	meta.iface.gone = how & 16;
	if (how & 8)
		snprintf(meta.filter, sizeof(meta.filter), "tcp port %u", how);
	counts.counts.c[LEDGER_SEEN].packets = counts.counts.c[LEDGER_CAPTURED].packets = how;
	switch (type) {
	case STREAM_META:
		stream_meta_encode(&payload, &meta);
		break;
	case STREAM_NOTE:
		stream_note_encode(&payload, &note);
		break;
	case STREAM_GAP:
		stream_gap_encode(&payload, &gap);
		/* Nobody knows what it ends with then. */
		if (mutate)
			gap.last_seq = UINT32_MAX;
		note_kind(c->stream, seq, gap.last_seq, OTHER);
		break;
	case STREAM_STATS:
		stream_stats_encode(&payload, &stats);
		break;
	case STREAM_BYE:
		stream_bye_encode(&payload, &bye);
		break;
	default:
		stream_ping_encode(&payload, &ping);
	}
	if (!stream_type_numbered(type))
		seq = 0;
	else if (type != STREAM_GAP)
		note_kind(c->stream, seq, seq, OTHER);
	if (type == STREAM_GAP && c->welcomed)
		c->top = MAX(c->top, mutate ? UINT64_MAX : gap.last_seq);
	send_message(c, type, seq, &payload, 0, mutate);
}

/* The next number for this connection, or one beside it. */
static uint64_t number(const struct conn *c, uint8_t how)
{
	uint64_t next = c->stream >= 0 ? f.streams[c->stream].next : 1;

	switch (how >> 5) {
	case 6:
		return next + 1 + (how & 3u);
	case 7:
		return next > 1u + (how & 3u) ? next - 1 - (how & 3u) : 1;
	default:
		return next;
	}
}

static void send_garbage(struct conn *c)
{
	uint8_t data[64];
	size_t n = take() % sizeof(data);

	for (size_t i = 0; i < n; i++)
		data[i] = take();
	send_bytes(c, data, n);
}

static uint8_t other_type(uint8_t how)
{
	static const uint8_t types[] = {STREAM_META, STREAM_GAP,  STREAM_STATS,
					STREAM_BYE,  STREAM_PING, STREAM_PONG};

	if (how >> 3 == 19)
		return STREAM_NOTE;
	return types[(how >> 2) % ARRAY_SIZE(types)];
}

static void step(void)
{
	uint8_t what = take(), how = take();
	struct conn *c = &f.conns[what >> 4 & 1];
	bool mutate = what >= 0xe0;

	switch (what & 15) {
	case 0:
		dial(c);
		break;
	case 1:
		dial(c);
		send_hello(c, (what >> 5) % STREAMS, 0);
		break;
	case 2:
		send_hello(c, (what >> 5) % STREAMS, how);
		break;
	case 3:
	case 4:
	case 5:
	case 6:
		send_data(c, number(c, how), how, mutate);
		break;
	case 7:
	case 8:
	case 9:
		send_other(c, number(c, how), other_type(how), how, mutate);
		break;
	case 10:
		c->split = how;
		break;
	case 11:
		f.now += how * NSEC_PER_SEC / 8;
		break;
	case 12:
		commit();
		break;
	case 13:
		if (c->fd >= 0 && how & 1)
			shutdown(c->fd, SHUT_WR);
		else
			hang_up(c);
		break;
	case 14:
		if (how & 1) {
			crash();
		} else {
			stop();
			start();
		}
		break;
	default:
		send_garbage(c);
	}
	run();
}

static void count_file(const char *path)
{
	static uint8_t data[1u << 20];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, data, sizeof(data));

	if (fd >= 0)
		close(fd);
	FUZZ_ASSERT(n == 0 || (n >= 24 && (n - 24) % (16 + CAPLEN) == 0));
	for (ssize_t at = 24; at < n; at += 16 + CAPLEN) {
		uint32_t variant = get_le32(data + at + 16), i = get_le32(data + at + 20);

		FUZZ_ASSERT(variant < f.n_variants && i < f.variants[variant].packets);
		FUZZ_ASSERT(!f.variants[variant].found[i]);
		f.variants[variant].found[i] = 1;
	}
}

/* Each message of a stream is in the files once or, unless it was acknowledged, not at all. */
static void check_files(void)
{
	uint32_t times[STREAMS][SEQS] = {};

	count_file(f.path[0]);
	count_file(f.path[1]);
	for (uint32_t i = 0; i < f.n_variants; i++) {
		const struct variant *v = &f.variants[i];
		uint32_t sum = 0;

		for (uint32_t k = 0; k < v->packets; k++)
			sum += v->found[k];
		FUZZ_ASSERT(sum == 0 || sum == v->packets);
		if (sum && v->seq < SEQS)
			FUZZ_ASSERT(++times[v->stream][v->seq] == 1);
	}
	for (size_t s = 0; s < STREAMS; s++) {
		for (uint64_t seq = 1; seq < SEQS && seq <= f.streams[s].acked; seq++)
			FUZZ_ASSERT(f.streams[s].kind[seq] != DATA || times[s][seq] == 1);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	once();
	input = data;
	input_left = size;
	f.now = 1000 * NSEC_PER_SEC;
	f.n_variants = 0;
	memset(f.streams, 0, sizeof(f.streams));
	for (size_t i = 0; i < STREAMS; i++)
		f.streams[i].next = 1;
	for (size_t i = 0; i < CONNS; i++)
		f.conns[i] = (struct conn){.fd = -1, .stream = -1};
	mkdir(f.dir, 0700);
	start();
	for (unsigned int n = 0; input_left && n < STEPS; n++)
		step();
	commit();
	stop();
	check_files();
	clean_up();
	return 0;
}
