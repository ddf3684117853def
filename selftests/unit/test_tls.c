/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two ends in one thread over a socket pair, stepped in turn: each test says which
 * credentials they have and what each end must say. A raw GnuTLS session plays the
 * peers that our own code would not let through.
 */
#include "tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include "testpki.h"
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

static struct tls_config files(const char *own, const char *ca)
{
	return (struct tls_config){
		.enable = true,
		.certfile = testpki_path(own, ".crt"),
		.keyfile = testpki_path(own, ".key"),
		.cafile = testpki_path(ca, ".crt"),
	};
}

static struct tls_config key(const char *psk)
{
	return (struct tls_config){.enable = true, .psk = psk};
}

static void end_open(struct end *e, enum tls_side side, struct tls_config config, const char *name)
{
	if (tls_context_new(side, &config, &e->ctx, &e->err) ||
	    tls_new(e->ctx, e->fd, name, &e->tls, &e->err))
		fail_msg("%s", e->err.text);
}

static void end_open_raw(struct end *e, enum tls_side side, const char *priority, const char *own,
			 const char *alpn)
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

static void end_close(struct end *e)
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

static void nonblocking(int fd)
{
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
}

static void pair_open(struct pair *p)
{
	int fds[2];

	memset(p, 0, sizeof(*p));
	p->relay[0] = p->relay[1] = -1;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	p->agent.fd = fds[0];
	p->collector.fd = fds[1];
}

static void pair_open_relayed(struct pair *p)
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
static void pair_open_tcp(struct pair *p)
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

static void pair_close(struct pair *p)
{
	end_close(&p->agent);
	end_close(&p->collector);
	for (size_t i = 0; i < ARRAY_SIZE(p->relay); i++)
		if (p->relay[i] >= 0)
			close(p->relay[i]);
}

static void relay_byte(int from, int to)
{
	char c;

	if (from >= 0 && recv(from, &c, 1, MSG_DONTWAIT) == 1)
		assert_int_equal(send(to, &c, 1, MSG_NOSIGNAL), 1);
}

static void raw_step(struct end *e)
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
static void end_step(struct end *e)
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
static void meet(struct pair *p)
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

static void must_agree(struct pair *p)
{
	meet(p);
	if (p->agent.r || p->collector.r)
		fail_msg("agent: %s; collector: %s", p->agent.err.text, p->collector.err.text);
	assert_true(p->agent.done && p->collector.done);
}

static void must_say(const struct end *e, const char *text)
{
	assert_true(e->r < 0);
	if (text && !strstr(e->err.text, text))
		fail_msg("\"%s\" instead of \"%s\"", e->err.text, text);
}

/* Both ends end with an error. NULL: that one is not asked what it says. */
static void must_refuse(struct pair *p, const char *agent_says, const char *collector_says)
{
	meet(p);
	must_say(&p->agent, agent_says);
	must_say(&p->collector, collector_says);
	pair_close(p);
}

static void pass(struct end *from, struct end *to, size_t size, size_t chunk)
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

static void pass_all_sizes(struct pair *p)
{
	static const size_t sizes[] = {1, 2, 31, 4096, 16384, 16385, 65537, 1 << 20};
	static const size_t chunks[] = {1000, 65536, 5, 16384};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		pass(&p->agent, &p->collector, sizes[i], chunks[i % ARRAY_SIZE(chunks)]);
		pass(&p->collector, &p->agent, sizes[i], chunks[(i + 1) % ARRAY_SIZE(chunks)]);
	}
}

/* A goodbye reaches the other side as the end of the stream. */
static void part(struct pair *p)
{
	char byte;

	end_close(&p->agent);
	assert_int_equal(tls_recv(p->collector.tls, &byte, 1, &p->collector.err), 0);
	pair_close(p);
}

static void certificates_of_both_sides_make_a_session(void **state)
{
	struct pair p;

	(void)state;
	pair_open(&p);
	end_open(&p.agent, TLS_AGENT, files("agent", "ca"), NAME);
	end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
	must_agree(&p);
	assert_string_equal(tls_peer_identity(p.collector.tls), "urn:test:agent");
	assert_string_equal(tls_peer_identity(p.agent.tls), NAME);
	pass_all_sizes(&p);
	part(&p);
}

static void the_shared_key_makes_a_session(void **state)
{
	struct pair p;

	(void)state;
	pair_open(&p);
	end_open(&p.agent, TLS_AGENT, key("correct horse"), NULL);
	end_open(&p.collector, TLS_COLLECTOR, key("correct horse"), NULL);
	must_agree(&p);
	assert_string_equal(tls_peer_identity(p.collector.tls), "psk");
	assert_string_equal(tls_peer_identity(p.agent.tls), "psk");
	pass_all_sizes(&p);
	part(&p);
}

static void plain_text_goes_the_same_way(void **state)
{
	struct tls_config plain = {.enable = false};
	struct pair p;

	(void)state;
	pair_open(&p);
	end_open(&p.agent, TLS_AGENT, plain, NULL);
	end_open(&p.collector, TLS_COLLECTOR, plain, NULL);
	assert_int_equal(tls_handshake(p.agent.tls, NULL), 1);
	assert_int_equal(tls_handshake(p.collector.tls, NULL), 1);
	assert_string_equal(tls_peer_identity(p.collector.tls), "");
	pass_all_sizes(&p);
	part(&p);
}

static void a_handshake_may_come_byte_by_byte(void **state)
{
	struct pair p;

	(void)state;
	pair_open_relayed(&p);
	end_open(&p.agent, TLS_AGENT, files("agent", "ca"), NAME);
	end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
	must_agree(&p);
	pair_close(&p);

	pair_open_relayed(&p);
	end_open(&p.agent, TLS_AGENT, key("k"), NULL);
	end_open(&p.collector, TLS_COLLECTOR, key("k"), NULL);
	must_agree(&p);
	pair_close(&p);
}

static void addresses_and_wildcards_are_names_too(void **state)
{
	static const struct {
		const char *cert, *name, *identity;
	} table[] = {
		{"byaddress", "192.0.2.7", "192.0.2.7"},
		{"byaddress6", "2001:db8::7", "2001:db8::7"},
		{"byaddress6", "2001:db8:0::7", "2001:db8:0::7"},
		{"byaddress6", "[2001:db8::7]", "2001:db8::7"},
		{"wild", "a.nodes.example", "*.nodes.example"},
		{"collector", NAME ".", NAME},
		{"collector", "COLLECTOR.example", NAME},
		{"anypurpose", NAME, NAME},
	};
	struct pair p;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		pair_open(&p);
		end_open(&p.agent, TLS_AGENT, files("agent", "ca"), table[i].name);
		end_open(&p.collector, TLS_COLLECTOR, files(table[i].cert, "ca"), NULL);
		must_agree(&p);
		assert_string_equal(tls_peer_identity(p.agent.tls), table[i].identity);
		pair_close(&p);
	}
}

static void an_agent_without_uri_goes_by_its_dns_name(void **state)
{
	struct pair p;

	(void)state;
	pair_open(&p);
	end_open(&p.agent, TLS_AGENT, files("agentdns", "ca"), NAME);
	end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
	must_agree(&p);
	assert_string_equal(tls_peer_identity(p.collector.tls), "node7.example");
	pair_close(&p);
}

static void a_wrong_name_is_refused_and_both_names_are_said(void **state)
{
	static const struct {
		const char *cert, *name, *says;
	} table[] = {
		{"collector", "b.example",
		 "the certificate of the collector is for collector.example, not for b.example"},
		{"collector", "192.0.2.7",
		 "the certificate of the collector is for collector.example, not for 192.0.2.7"},
		{"byaddress", "192.0.2.8",
		 "the certificate of the collector is for 192.0.2.7, not for 192.0.2.8"},
		{"wild", "b.a.nodes.example",
		 "the certificate of the collector is for *.nodes.example, not for b.a.nodes.example"},
		{"cnonly", "cn.example",
		 "the certificate of the collector carries no host name and no address, so it is "
		 "not for cn.example"},
	};
	struct pair p;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		pair_open(&p);
		end_open(&p.agent, TLS_AGENT, files("agent", "ca"), table[i].name);
		end_open(&p.collector, TLS_COLLECTOR, files(table[i].cert, "ca"), NULL);
		must_refuse(&p, table[i].says,
			    "the agent refused our certificate: damaged, or not for the name that "
			    "was asked for");
	}
}

static void an_unknown_ca_is_refused_by_either_side(void **state)
{
	char says[512];
	struct pair p;

	(void)state;
	pair_open(&p);
	end_open(&p.agent, TLS_AGENT, files("agent", "otherca"), NAME);
	end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
	snprintf(says, sizeof(says),
		 "the certificate of the collector is signed by nobody in \"%s\"",
		 testpki_path("otherca", ".crt"));
	must_refuse(&p, says,
		    "the agent refused our certificate: signed by nobody in its tls.cafile");

	/* Both CAs have the same name, so this is a signature that does not fit. */
	pair_open(&p);
	end_open(&p.agent, TLS_AGENT, files("strangeagent", "ca"), NAME);
	end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
	snprintf(says, sizeof(says), "the certificate of the agent is signed by nobody in \"%s\"",
		 testpki_path("ca", ".crt"));
	must_refuse(&p, "the collector refused our certificate: signed by nobody in its tls.cafile",
		    says);
}

static void a_wrong_purpose_is_refused_by_either_side(void **state)
{
	struct pair p;

	(void)state;
	pair_open(&p);
	end_open(&p.agent, TLS_AGENT, files("collector", "ca"), NAME);
	end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
	must_refuse(&p,
		    "the collector refused our certificate: not made for this purpose (server "
		    "certificates are for collectors, client certificates for agents)",
		    "the certificate of the agent is not made for client authentication");

	pair_open(&p);
	end_open(&p.agent, TLS_AGENT, files("agent", "ca"), "node8.example");
	end_open(&p.collector, TLS_COLLECTOR, files("agentname", "ca"), NULL);
	must_refuse(&p, "the certificate of the collector is not made for server authentication",
		    "the agent refused our certificate: not made for this purpose (server "
		    "certificates are for collectors, client certificates for agents)");
}

static void day_of(time_t offset, char out[32])
{
	time_t when = time(NULL) + offset;
	struct tm tm;

	strftime(out, 32, "%Y-%m-%d", gmtime_r(&when, &tm));
}

static void wrong_dates_are_refused_by_either_side(void **state)
{
	char day[32], says[256];
	struct pair p;

	(void)state;
	day_of(-2 * TESTPKI_DAY, day);
	pair_open(&p);
	end_open_raw(&p.agent, TLS_AGENT, RAW_13, "oldagent", "ps/1");
	end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
	snprintf(says, sizeof(says), "the certificate of the agent expired on %s", day);
	must_refuse(&p, "alert 45", says);

	pair_open(&p);
	end_open(&p.agent, TLS_AGENT, files("agent", "ca"), NAME);
	end_open_raw(&p.collector, TLS_COLLECTOR, RAW_13, "oldcollector", "ps/1");
	snprintf(says, sizeof(says), "the certificate of the collector expired on %s", day);
	must_refuse(&p, says, "alert 45");

	day_of(2 * TESTPKI_DAY, day);
	pair_open(&p);
	end_open_raw(&p.agent, TLS_AGENT, RAW_13, "youngagent", "ps/1");
	end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
	snprintf(says, sizeof(says),
		 "the certificate of the agent is not valid before %s (are the clocks right?)",
		 day);
	must_refuse(&p, "alert 45", says);
}

static void an_agent_without_certificate_is_refused(void **state)
{
	struct pair p;

	(void)state;
	pair_open(&p);
	end_open_raw(&p.agent, TLS_AGENT, RAW_13, NULL, "ps/1");
	end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
	must_refuse(&p, "alert 116", "the agent sent no certificate");
}

static void an_agent_whose_certificate_names_nobody_is_refused(void **state)
{
	struct pair p;

	(void)state;
	pair_open(&p);
	end_open(&p.agent, TLS_AGENT, files("nobody", "ca"), NAME);
	end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
	must_refuse(&p, NULL,
		    "the certificate of the agent names nobody: it needs a URI or a DNS name as "
		    "subject alternative name");
}

static void another_shared_key_is_refused(void **state)
{
	struct pair p;

	(void)state;
	pair_open(&p);
	end_open(&p.agent, TLS_AGENT, key("one"), NULL);
	end_open(&p.collector, TLS_COLLECTOR, key("two"), NULL);
	must_refuse(&p, "the collector has another auth.key", "the agent has another auth.key");
}

static void a_shared_key_and_certificates_do_not_meet(void **state)
{
	struct pair p;

	(void)state;
	pair_open(&p);
	end_open(&p.agent, TLS_AGENT, key("one"), NULL);
	end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
	must_refuse(&p,
		    "the collector accepts nothing that we offer: one side has auth.key, the other "
		    "certificates?",
		    "wants auth.key where we have a certificate?");

	pair_open(&p);
	end_open(&p.agent, TLS_AGENT, files("agent", "ca"), NAME);
	end_open(&p.collector, TLS_COLLECTOR, key("one"), NULL);
	must_refuse(&p, "wants auth.key where we have a certificate?",
		    "the agent offers nothing that we accept: one side has auth.key, the other "
		    "certificates?");
}

static void tls_1_2_is_refused(void **state)
{
	struct pair p;

	(void)state;
	pair_open(&p);
	end_open_raw(&p.agent, TLS_AGENT, RAW_12, "agent", "ps/1");
	end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
	must_refuse(&p, "alert 70", "the agent does not speak TLS 1.3");

	pair_open(&p);
	end_open(&p.agent, TLS_AGENT, files("agent", "ca"), NAME);
	end_open_raw(&p.collector, TLS_COLLECTOR, RAW_12, "collector", "ps/1");
	must_refuse(&p, "no TLS 1.3", NULL);
}

static void a_peer_with_another_protocol_is_refused(void **state)
{
	static const char *const protocols[] = {NULL, "http/1.1", "ps/2"};
	struct pair p;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(protocols); i++) {
		pair_open(&p);
		end_open_raw(&p.agent, TLS_AGENT, RAW_13, "agent", protocols[i]);
		end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
		must_refuse(&p, "alert 120", "the agent speaks TLS but not ps/1");

		pair_open(&p);
		end_open(&p.agent, TLS_AGENT, files("agent", "ca"), NAME);
		end_open_raw(&p.collector, TLS_COLLECTOR, RAW_13, "collector", protocols[i]);
		must_refuse(&p, "the collector speaks TLS but not ps/1", NULL);
	}
}

static void a_peer_in_plain_text_is_refused(void **state)
{
	static const char *const words[] = {"PS\1\1 some message of thirty-two bytes", "GET / ",
					    "\x16PS", "S"};
	struct pair p;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		char alert[7];

		pair_open(&p);
		end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
		assert_true(send(p.agent.fd, words[i], strlen(words[i]), 0) > 0);
		assert_int_equal(tls_handshake(p.collector.tls, &p.collector.err), -EPROTO);
		assert_string_equal(p.collector.err.text,
				    "the agent does not speak TLS (tls.enable: false there?)");
		/* The agent gets an alert, by which its codec can tell. */
		assert_int_equal(recv(p.agent.fd, alert, sizeof(alert), 0), sizeof(alert));
		assert_int_equal(alert[0], 21);
		pair_close(&p);

		pair_open(&p);
		end_open(&p.agent, TLS_AGENT, files("agent", "ca"), NAME);
		assert_true(send(p.collector.fd, words[i], strlen(words[i]), 0) > 0);
		assert_int_equal(tls_handshake(p.agent.tls, &p.agent.err), -EPROTO);
		assert_string_equal(p.agent.err.text,
				    "the collector does not speak TLS (tls.enable: false there?)");
		pair_close(&p);
	}
}

static void a_peer_that_closes_early_is_named(void **state)
{
	struct pair p;
	char byte = 0;

	(void)state;
	pair_open(&p);
	end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
	end_close(&p.agent);
	assert_int_equal(tls_handshake(p.collector.tls, &p.collector.err), -ECONNRESET);
	assert_string_equal(p.collector.err.text,
			    "the agent closed the connection during the TLS handshake");
	/* And it stays that way. */
	assert_int_equal(tls_send(p.collector.tls, &byte, 1, &p.collector.err), -ECONNRESET);
	assert_int_equal(tls_recv(p.collector.tls, &byte, 1, &p.collector.err), -ECONNRESET);
	pair_close(&p);

	pair_open(&p);
	end_open(&p.agent, TLS_AGENT, files("agent", "ca"), NAME);
	end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
	must_agree(&p);
	close(p.agent.fd);
	p.agent.fd = -1;
	assert_int_equal(tls_recv(p.collector.tls, &byte, 1, &p.collector.err), -ECONNRESET);
	assert_string_equal(p.collector.err.text,
			    "the agent closed the connection without a goodbye (was it killed?)");
	assert_int_equal(tls_send(p.agent.tls, &byte, 1, &p.agent.err), -EBADF);
	pair_close(&p);
}

static void wait_readable(int fd)
{
	struct pollfd pfd = {.fd = fd, .events = POLLIN};

	assert_int_equal(poll(&pfd, 1, 5000), 1);
}

static void a_refusal_explains_a_send_that_fails(void **state)
{
	_cleanup_free_ char *data = calloc(1, 65536);
	struct pair p;
	int r;

	(void)state;
	pair_open_tcp(&p);
	end_open(&p.agent, TLS_AGENT, files("strangeagent", "ca"), NAME);
	end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
	while ((r = tls_handshake(p.agent.tls, &p.agent.err)) == -EAGAIN) {
		wait_readable(p.collector.fd);
		end_step(&p.collector);
		wait_readable(p.agent.fd);
	}
	assert_int_equal(r, 1);
	/* The agent thinks that all is well and sends, and the collector hangs up on it. */
	assert_true(tls_send(p.agent.tls, data, 65536, &p.agent.err) > 0);
	while (!p.collector.r) {
		wait_readable(p.collector.fd);
		end_step(&p.collector);
	}
	do {
		wait_readable(p.agent.fd);
		r = (int)tls_send(p.agent.tls, data, 65536, &p.agent.err);
	} while (r > 0 || r == -EAGAIN);
	assert_int_equal(r, -EACCES);
	assert_string_equal(p.agent.err.text, "the collector refused our certificate: signed by "
					      "nobody in its tls.cafile");
	pair_close(&p);
}

static void no_data_passes_before_the_peer_is_known(void **state)
{
	struct pair p;
	char byte = 0;

	(void)state;
	pair_open(&p);
	end_open(&p.agent, TLS_AGENT, files("agent", "ca"), NAME);
	assert_int_equal(tls_send(p.agent.tls, &byte, 1, &p.agent.err), -ENOTCONN);
	assert_int_equal(tls_recv(p.agent.tls, &byte, 1, &p.agent.err), -ENOTCONN);
	assert_string_equal(tls_peer_identity(p.agent.tls), "");
	assert_int_equal(tls_new(p.agent.ctx, p.agent.fd, "", &p.collector.tls, &p.agent.err),
			 -EINVAL);
	pair_close(&p);
}

static void a_goodbye_does_not_wait_for_a_peer_that_does_not_read(void **state)
{
	_cleanup_free_ char *data = calloc(1, 65536);
	struct pair p;
	ssize_t n;

	(void)state;
	for (int blocking = 0; blocking < 2; blocking++) {
		pair_open(&p);
		end_open(&p.agent, TLS_AGENT, files("agent", "ca"), NAME);
		end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
		must_agree(&p);
		do
			n = tls_send(p.agent.tls, data, 65536, &p.agent.err);
		while (n > 0);
		assert_int_equal(n, -EAGAIN);
		assert_int_equal(tls_events(p.agent.tls), POLLOUT);
		if (blocking)
			assert_int_equal(fcntl(p.agent.fd, F_SETFL, 0), 0);
		alarm(10); /* ends the test if it does wait */
		p.agent.tls = tls_free(p.agent.tls);
		alarm(0);
		pair_close(&p);
	}
}

static void a_context_outlives_its_sessions(void **state)
{
	struct pair p;

	(void)state;
	pair_open(&p);
	end_open(&p.agent, TLS_AGENT, files("agent", "ca"), NAME);
	end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
	p.agent.ctx = tls_context_free(p.agent.ctx);
	p.collector.ctx = tls_context_free(p.collector.ctx);
	must_agree(&p);
	pass(&p.agent, &p.collector, 100, 100);
	pair_close(&p);
}

static void context_says_what_is_wrong_with_its_files(void **state)
{
	char expired[64], young[64];
	const struct {
		const char *cert, *key, *ca;
		int code;
		const char *says;
	} table[] = {
		{"none.crt", "agent.key", "ca.crt", -ENOENT,
		 "tls.certfile: cannot read \"%s/none.crt\": No such file or directory"},
		{"agent.crt", "none.key", "ca.crt", -ENOENT,
		 "tls.keyfile: cannot read \"%s/none.key\": No such file or directory"},
		{"agent.crt", "agent.key", "none.crt", -ENOENT,
		 "tls.cafile: cannot read \"%s/none.crt\": No such file or directory"},
		{NULL, "agent.key", "ca.crt", -EINVAL, "tls.certfile: not set, and TLS needs it"},
		{"agent.crt", NULL, "ca.crt", -EINVAL, "tls.keyfile: not set, and TLS needs it"},
		{"agent.crt", "agent.key", NULL, -EINVAL, "tls.cafile: not set, and TLS needs it"},
		{"junk.crt", "agent.key", "ca.crt", -EINVAL,
		 "tls.certfile: there is no PEM certificate in \"%s/junk.crt\""},
		{"empty.crt", "agent.key", "ca.crt", -EINVAL,
		 "tls.certfile: there is no PEM certificate in \"%s/empty.crt\""},
		{"agent.key", "agent.key", "ca.crt", -EINVAL,
		 "tls.certfile: there is no PEM certificate in \"%s/agent.key\""},
		{"agent.crt", "agent.crt", "ca.crt", -EINVAL,
		 "tls.keyfile: there is no PEM private key in \"%s/agent.crt\""},
		{"agent.crt", "agent.key", "agent.key", -EINVAL,
		 "tls.cafile: there is no PEM certificate in \"%s/agent.key\""},
		{"agent.crt", "", "ca.crt", -EINVAL, "tls.keyfile: \"%s/\" is not a file"},
		{"agent.crt", "collector.key", "ca.crt", -EINVAL,
		 "tls.keyfile: the key in \"%s/collector.key\" does not belong to the certificate "
		 "in \"%s/agent.crt\""},
		{"oldagent.crt", "oldagent.key", "ca.crt", -EKEYEXPIRED, expired},
		{"youngagent.crt", "youngagent.key", "ca.crt", -EKEYREJECTED, young},
		{"agent.crt", "agent.key", "oldca.crt", -EKEYEXPIRED, NULL},
	};

	(void)state;
	snprintf(expired, sizeof(expired), "oldagent.crt\" expired on ");
	snprintf(young, sizeof(young), "youngagent.crt\" is not valid before ");
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct tls_config config = {
			.enable = true,
			.certfile = table[i].cert ? testpki_path(table[i].cert, "") : NULL,
			.keyfile = table[i].key ? testpki_path(table[i].key, "") : NULL,
			.cafile = table[i].ca ? testpki_path(table[i].ca, "") : NULL,
		};
		struct tls_context *ctx = NULL;
		struct err err = {""};
		char says[700];

		assert_int_equal(tls_context_new(TLS_AGENT, &config, &ctx, &err), table[i].code);
		assert_null(ctx);
		if (!table[i].says)
			continue;
		snprintf(says, sizeof(says), "%s", "");
		for (const char *s = table[i].says; *s; s++) {
			size_t len = strlen(says);

			if (s[0] == '%' && s[1] == 's') {
				snprintf(says + len, sizeof(says) - len, "%s", testpki_dir);
				s++;
			} else {
				snprintf(says + len, sizeof(says) - len, "%c", *s);
			}
		}
		if (!strstr(err.text, says))
			fail_msg("\"%s\" instead of \"%s\"", err.text, says);
	}
}

static void context_refuses_an_empty_shared_key(void **state)
{
	struct tls_config config = key("");
	struct tls_context *ctx = NULL;
	struct err err = {""};

	(void)state;
	assert_int_equal(tls_context_new(TLS_AGENT, &config, &ctx, &err), -EINVAL);
	assert_string_equal(err.text, "auth.key: is empty");
}

static int make_certificates(void **state)
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
	struct testpki_ca ca, other, old;

	(void)state;
	testpki_open();
	testpki_ca_new(&ca, "ca", -5 * TESTPKI_DAY, 5 * TESTPKI_DAY);
	testpki_ca_new(&other, "otherca", -5 * TESTPKI_DAY, 5 * TESTPKI_DAY);
	testpki_ca_new(&old, "oldca", -5 * TESTPKI_DAY, -TESTPKI_DAY);
	for (size_t i = 0; i < ARRAY_SIZE(leaves); i++)
		testpki_issue(&ca, leaves[i].name, &leaves[i].leaf);
	testpki_issue(&other, "strangeagent", &leaves[6].leaf);
	testpki_write("junk", ".crt", "junk\n", 5);
	testpki_write("empty", ".crt", "", 0);
	testpki_ca_free(&ca);
	testpki_ca_free(&other);
	testpki_ca_free(&old);
	return 0;
}

static int remove_certificates(void **state)
{
	(void)state;
	testpki_remove();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(certificates_of_both_sides_make_a_session),
		cmocka_unit_test(the_shared_key_makes_a_session),
		cmocka_unit_test(plain_text_goes_the_same_way),
		cmocka_unit_test(a_handshake_may_come_byte_by_byte),
		cmocka_unit_test(addresses_and_wildcards_are_names_too),
		cmocka_unit_test(an_agent_without_uri_goes_by_its_dns_name),
		cmocka_unit_test(a_wrong_name_is_refused_and_both_names_are_said),
		cmocka_unit_test(an_unknown_ca_is_refused_by_either_side),
		cmocka_unit_test(a_wrong_purpose_is_refused_by_either_side),
		cmocka_unit_test(wrong_dates_are_refused_by_either_side),
		cmocka_unit_test(an_agent_without_certificate_is_refused),
		cmocka_unit_test(an_agent_whose_certificate_names_nobody_is_refused),
		cmocka_unit_test(another_shared_key_is_refused),
		cmocka_unit_test(a_shared_key_and_certificates_do_not_meet),
		cmocka_unit_test(tls_1_2_is_refused),
		cmocka_unit_test(a_peer_with_another_protocol_is_refused),
		cmocka_unit_test(a_peer_in_plain_text_is_refused),
		cmocka_unit_test(a_peer_that_closes_early_is_named),
		cmocka_unit_test(a_refusal_explains_a_send_that_fails),
		cmocka_unit_test(no_data_passes_before_the_peer_is_known),
		cmocka_unit_test(a_goodbye_does_not_wait_for_a_peer_that_does_not_read),
		cmocka_unit_test(a_context_outlives_its_sessions),
		cmocka_unit_test(context_says_what_is_wrong_with_its_files),
		cmocka_unit_test(context_refuses_an_empty_shared_key),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
