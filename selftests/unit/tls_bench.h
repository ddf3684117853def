/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two ends in one thread over a socket pair, stepped in turn: each test says which
 * credentials they have and what each end must say. A raw GnuTLS session plays the
 * peers that our own code would not let through.
 */
#ifndef PS_TLS_BENCH_H
#define PS_TLS_BENCH_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include "testpki.h"
#include "tls.h"
#include "util.h"

#define STEPS_MAX 100000
#define NAME      "collector.example"
#define RAW_13    "NORMAL:-VERS-ALL:+VERS-TLS1.3"
#define RAW_12    "NORMAL:-VERS-ALL:+VERS-TLS1.2"

struct end {
	int fd;
	struct tls_context *ctx;
	struct tls *tls;
	/* Or a raw session that trusts everybody. */
	gnutls_session_t raw;
	gnutls_certificate_credentials_t raw_cred;

	bool done;   /* the handshake */
	bool closed; /* the peer said goodbye */
	int r;       /* < 0: failed */
	struct err err;
};

struct pair {
	struct end agent, collector;
	int relay[2]; /* -1, or the inner ends of a line that passes single bytes */
};

static inline struct tls_config files(const char *own, const char *ca)
{
	return (struct tls_config){
		.enable = true,
		.certfile = testpki_path(own, ".crt"),
		.keyfile = testpki_path(own, ".key"),
		.cafile = testpki_path(ca, ".crt"),
	};
}

static inline struct tls_config with_crl(struct tls_config config, const char *crl)
{
	config.crlfile = testpki_path(crl, ".crl");
	return config;
}

static inline struct tls_config key(const char *psk)
{
	return (struct tls_config){.enable = true, .psk = psk};
}

static inline void end_open(struct end *e, enum tls_side side, struct tls_config config,
			    const char *name)
{
	if (tls_context_new(side, &config, &e->ctx, &e->err) ||
	    tls_new(e->ctx, e->fd, name, &e->tls, &e->err))
		fail_msg("%s", e->err.text);
}

/* A second context, for a session that is open. */
static inline struct tls_context *must_load(enum tls_side side, struct tls_config config)
{
	struct tls_context *ctx = NULL;
	struct err err = {""};

	if (tls_context_new(side, &config, &ctx, &err))
		fail_msg("%s", err.text);
	return ctx;
}

static inline void end_open_raw(struct end *e, enum tls_side side, const char *priority,
				const char *own, const char *alpn)
{
	gnutls_datum_t protocol = {0};
	unsigned char text[16];

	testpki_must(gnutls_init(&e->raw, (side == TLS_AGENT ? GNUTLS_CLIENT : GNUTLS_SERVER) |
						  GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL |
						  GNUTLS_FORCE_CLIENT_CERT));
	testpki_must(gnutls_priority_set_direct(e->raw, priority, NULL));
	testpki_must(gnutls_certificate_allocate_credentials(&e->raw_cred));
	if (own)
		testpki_must(gnutls_certificate_set_x509_key_file(
			e->raw_cred, testpki_path(own, ".crt"), testpki_path(own, ".key"),
			GNUTLS_X509_FMT_PEM));
	testpki_must(gnutls_credentials_set(e->raw, GNUTLS_CRD_CERTIFICATE, e->raw_cred));
	if (alpn) {
		protocol.size = (unsigned int)strlen(alpn);
		memcpy(text, alpn, protocol.size);
		protocol.data = text;
		testpki_must(gnutls_alpn_set_protocols(e->raw, &protocol, 1, 0));
	}
	gnutls_transport_set_int(e->raw, e->fd);
}

static inline void end_close(struct end *e)
{
	e->tls = tls_free(e->tls);
	e->ctx = tls_context_free(e->ctx);
	if (e->raw)
		gnutls_deinit(e->raw);
	e->raw = NULL;
	if (e->raw_cred)
		gnutls_certificate_free_credentials(e->raw_cred);
	e->raw_cred = NULL;
	if (e->fd >= 0)
		close(e->fd);
	e->fd = -1;
}

static inline void nonblocking(int fd)
{
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
}

static inline void pair_open(struct pair *p)
{
	int fds[2];

	memset(p, 0, sizeof(*p));
	p->relay[0] = p->relay[1] = -1;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	p->agent.fd = fds[0];
	p->collector.fd = fds[1];
}

static inline void pair_open_relayed(struct pair *p)
{
	int left[2], right[2];

	memset(p, 0, sizeof(*p));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, left), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, right), 0);
	p->agent.fd = left[0];
	p->relay[0] = left[1];
	p->relay[1] = right[0];
	p->collector.fd = right[1];
}

/* Over TCP, where closing with something unread resets the connection. */
static inline void pair_open_tcp(struct pair *p)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sa);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	memset(p, 0, sizeof(*p));
	p->relay[0] = p->relay[1] = -1;
	assert_int_equal(bind(listener, (struct sockaddr *)&sa, len), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&sa, &len), 0);
	p->agent.fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(p->agent.fd, (struct sockaddr *)&sa, len), 0);
	p->collector.fd = accept(listener, NULL, NULL);
	assert_true(p->collector.fd >= 0);
	close(listener);
	nonblocking(p->agent.fd);
	nonblocking(p->collector.fd);
}

static inline void pair_close(struct pair *p)
{
	end_close(&p->agent);
	end_close(&p->collector);
	for (size_t i = 0; i < ARRAY_SIZE(p->relay); i++)
		if (p->relay[i] >= 0)
			close(p->relay[i]);
}

static inline void relay_byte(int from, int to)
{
	char c;

	if (from >= 0 && recv(from, &c, 1, MSG_DONTWAIT) == 1)
		assert_int_equal(send(to, &c, 1, MSG_NOSIGNAL), 1);
}

static inline void raw_step(struct end *e)
{
	char byte;
	int r = (int)(e->done ? gnutls_record_recv(e->raw, &byte, 1) : gnutls_handshake(e->raw));

	if (r == GNUTLS_E_AGAIN || r == GNUTLS_E_INTERRUPTED)
		return;
	if (r >= 0) {
		e->closed = e->done;
		e->done = true;
		return;
	}
	e->r = -EPROTO;
	if (r == GNUTLS_E_FATAL_ALERT_RECEIVED)
		snprintf(e->err.text, sizeof(e->err.text), "alert %d",
			 (int)gnutls_alert_get(e->raw));
	else
		snprintf(e->err.text, sizeof(e->err.text), "%s", gnutls_strerror(r));
	gnutls_alert_send_appropriate(e->raw, r);
}

/* One call of the handshake, or a look for what the peer says after it. */
static inline void end_step(struct end *e)
{
	char byte;
	int r;

	if (e->r || e->closed)
		return;
	if (e->raw) {
		raw_step(e);
	} else if (e->tls) {
		r = e->done ? (int)tls_recv(e->tls, &byte, 1, &e->err)
			    : tls_handshake(e->tls, &e->err);
		if (r == -EAGAIN) {
			assert_true(tls_events(e->tls) == POLLIN || tls_events(e->tls) == POLLOUT);
			return;
		}
		if (r < 0)
			e->r = r;
		else if (e->done)
			e->closed = r == 0;
		e->done = e->done || r == 1;
	}
	/* The one that refuses hangs up. */
	if (e->r)
		end_close(e);
}

/* Until both have agreed and had time to think again, or both have ended. */
static inline void meet(struct pair *p)
{
	int quiet = 0;

	for (int i = 0; i < STEPS_MAX && quiet < 10; i++) {
		end_step(&p->agent);
		end_step(&p->collector);
		relay_byte(p->relay[0], p->relay[1]);
		relay_byte(p->relay[1], p->relay[0]);
		if ((p->agent.done || p->agent.r) && (p->collector.done || p->collector.r))
			quiet++;
	}
}

static inline void must_agree(struct pair *p)
{
	meet(p);
	if (p->agent.r || p->collector.r)
		fail_msg("agent: %s; collector: %s", p->agent.err.text, p->collector.err.text);
	assert_true(p->agent.done && p->collector.done);
}

static inline void must_say(const struct end *e, const char *text)
{
	assert_true(e->r < 0);
	if (text && !strstr(e->err.text, text))
		fail_msg("\"%s\" instead of \"%s\"", e->err.text, text);
}

/* Both ends end with an error. NULL: that one is not asked what it says. */
static inline void must_refuse(struct pair *p, const char *agent_says, const char *collector_says)
{
	meet(p);
	must_say(&p->agent, agent_says);
	must_say(&p->collector, collector_says);
	pair_close(p);
}

static inline void pass(struct end *from, struct end *to, size_t size, size_t chunk)
{
	_cleanup_free_ unsigned char *out = malloc(size), *in = calloc(1, size + chunk);
	size_t sent = 0, got = 0;

	assert_non_null(out);
	assert_non_null(in);
	for (size_t i = 0; i < size; i++)
		out[i] = (unsigned char)(i * 7 + i / 251);
	for (int i = 0; i < STEPS_MAX * 20 && got < size; i++) {
		ssize_t n = 0;

		if (sent < size) {
			n = tls_send(from->tls, out + sent, size - sent, &from->err);
			assert_true(n > 0 || n == -EAGAIN);
			sent += n > 0 ? (size_t)n : 0;
		}
		n = tls_recv(to->tls, in + got, chunk, &to->err);
		assert_true(n > 0 || n == -EAGAIN);
		got += n > 0 ? (size_t)n : 0;
	}
	assert_int_equal(got, size);
	assert_memory_equal(in, out, size);
	assert_int_equal(tls_pending(to->tls), 0);
}

static inline void pass_all_sizes(struct pair *p)
{
	static const size_t sizes[] = {1, 2, 31, 4096, 16384, 16385, 65537, 1 << 20};
	static const size_t chunks[] = {1000, 65536, 5, 16384};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		pass(&p->agent, &p->collector, sizes[i], chunks[i % ARRAY_SIZE(chunks)]);
		pass(&p->collector, &p->agent, sizes[i], chunks[(i + 1) % ARRAY_SIZE(chunks)]);
	}
}

/* A goodbye reaches the other side as the end of the stream. */
static inline void part(struct pair *p)
{
	char byte;

	end_close(&p->agent);
	assert_int_equal(tls_recv(p->collector.tls, &byte, 1, &p->collector.err), 0);
	pair_close(p);
}

static inline void day_of(time_t offset, char out[32])
{
	time_t when = time(NULL) + offset;
	struct tm tm;

	strftime(out, 32, "%Y-%m-%d", gmtime_r(&when, &tm));
}

/* They sign what a test needs besides. */
static struct testpki_ca bench_ca, bench_other;

static inline int make_certificates(void **state)
{
	static const char server[] = GNUTLS_KP_TLS_WWW_SERVER, client[] = GNUTLS_KP_TLS_WWW_CLIENT;
	static const struct {
		const char *name;
		struct testpki_leaf leaf;
	} leaves[] = {
		{"collector", {.dns = NAME, .purpose = server}},
		{"anypurpose", {.dns = NAME}},
		{"byaddress", {.ip = "192.0.2.7", .purpose = server}},
		{"byaddress6", {.ip = "2001:db8::7", .purpose = server}},
		{"wild", {.dns = "*.nodes.example", .purpose = server}},
		{"cnonly", {.cn = "cn.example", .purpose = server}},
		{"agent", {.dns = "a.example", .uri = "urn:test:agent", .purpose = client}},
		{"agentdns", {.dns = "node7.example", .purpose = client}},
		{"agentname", {.dns = "node8.example", .purpose = client}},
		{"nobody", {.cn = "agent", .purpose = client}},
		{"oldagent", {.dns = "old", .purpose = client, -4 * TESTPKI_DAY, -2 * TESTPKI_DAY}},
		{"oldcollector",
		 {.dns = NAME, .purpose = server, -4 * TESTPKI_DAY, -2 * TESTPKI_DAY}},
		{"youngagent",
		 {.dns = "young", .purpose = client, 2 * TESTPKI_DAY, 4 * TESTPKI_DAY}},
	};
	struct testpki_ca old;

	(void)state;
	testpki_open();
	testpki_ca_new(&bench_ca, "ca", -5 * TESTPKI_DAY, 5 * TESTPKI_DAY);
	testpki_ca_new(&bench_other, "otherca", -5 * TESTPKI_DAY, 5 * TESTPKI_DAY);
	testpki_ca_new(&old, "oldca", -5 * TESTPKI_DAY, -TESTPKI_DAY);
	for (size_t i = 0; i < ARRAY_SIZE(leaves); i++)
		testpki_issue(&bench_ca, leaves[i].name, &leaves[i].leaf);
	testpki_issue(&bench_other, "strangeagent", &leaves[6].leaf);
	testpki_write("junk", ".crt", "junk\n", 5);
	testpki_write("empty", ".crt", "", 0);
	testpki_ca_free(&old);
	return 0;
}

static inline int remove_certificates(void **state)
{
	(void)state;
	testpki_ca_free(&bench_ca);
	testpki_ca_free(&bench_other);
	testpki_remove();
	return 0;
}

#endif
