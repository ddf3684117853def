/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions over TLS: who is let in, under which name, and for how long. */
#include "session_bench.h"
#include "testpki.h"

static struct testpki_ca ca;
static struct tls_context *agent_ctx;
static struct tls *agent;

static struct tls_config files(const char *own)
{
	return (struct tls_config){
		.enable = true,
		.certfile = testpki_path(own, ".crt"),
		.keyfile = testpki_path(own, ".key"),
		.cafile = testpki_path("ca", ".crt"),
	};
}

static int setup_tls(void **state)
{
	static const char *const none[] = {NULL};
	struct tls_config config;
	struct err err;

	if (setup(state) < 0)
		return -1;
	testpki_open();
	testpki_ca_new(&ca, "ca", -TESTPKI_DAY, TESTPKI_DAY);
	testpki_issue(
		&ca, "collector",
		&(struct testpki_leaf){.dns = "c.example", .purpose = GNUTLS_KP_TLS_WWW_SERVER});
	testpki_issue(
		&ca, "web1",
		&(struct testpki_leaf){.dns = "web1.example", .purpose = GNUTLS_KP_TLS_WWW_CLIENT});
	testpki_crl(&ca, "list", none, 0, -3600, 0);
	config = files("collector");
	config.crlfile = testpki_path("list", ".crl");
	tls_store_free(bench.tls);
	assert_int_equal(tls_store_new(TLS_COLLECTOR, &config, &bench.tls, &err), 0);
	bench.env.tls = bench.tls;
	bench.env.tls_enable = true;
	return 0;
}

static int teardown_tls(void **state)
{
	agent = tls_free(agent);
	agent_ctx = tls_context_free(agent_ctx);
	testpki_ca_free(&ca);
	testpki_remove();
	return teardown(state);
}

/* One message that comes over TLS; 0: none yet. */
static int hear(struct peer *p)
{
	static uint8_t in[8192];
	static size_t have;
	struct err err;
	size_t size;
	ssize_t n;

	do {
		n = tls_recv(agent, in + have, sizeof(in) - have, &err);
		have += n > 0 ? (size_t)n : 0;
	} while (n > 0);
	if (have < STREAM_HEADER_SIZE) {
		have = n == 0 ? 0 : have;
		return n == 0 ? -1 : 0;
	}
	assert_int_equal(stream_header_decode(in, &p->header, NULL), 0);
	size = STREAM_HEADER_SIZE + p->header.payload_len;
	assert_true(have >= size);
	memcpy(p->payload, in + STREAM_HEADER_SIZE, p->header.payload_len);
	memmove(in, in + size, have - size);
	have -= size;
	return p->header.type;
}

/* The agent with the certificate @own connects, and says HELLO as "web1". */
static struct peer *connect_as(const char *own)
{
	struct tls_config config = files(own);
	struct stream_hello m = {.agent_id = {1},
				 .epoch = 9,
				 .first_unacked = 1,
				 .next_seq = 1,
				 .agent_name = "web1"};
	struct peer *p = dial(0);
	struct buf payload = {}, b = {};
	struct err err;
	int r;

	agent = tls_free(agent);
	agent_ctx = tls_context_free(agent_ctx);
	assert_int_equal(tls_context_new(TLS_AGENT, &config, &agent_ctx, &err), 0);
	assert_int_equal(tls_new(agent_ctx, p->fd, "c.example", &agent, &err), 0);
	while ((r = tls_handshake(agent, &err)) == -EAGAIN)
		run(p);
	assert_int_equal(r, 1);
	run(p);
	stream_hello_encode(&payload, &m);
	stream_message(&b, STREAM_HELLO, 0, payload.data, payload.len);
	/* One that is refused may not read it any more. */
	tls_send(agent, b.data, b.len, &err);
	run(p);
	buf_free(&payload);
	buf_free(&b);
	return p;
}

static void assert_refused(struct peer *p, const char *why)
{
	struct stream_error m = {};

	assert_int_equal(hear(p), STREAM_ERROR);
	assert_int_equal(stream_error_decode(p->payload, p->header.payload_len, &m, NULL), 0);
	assert_int_equal(m.code, STREAM_E_AUTH);
	if (!strstr(m.text, why))
		fail_msg("\"%s\" is not in \"%s\"", why, m.text);
	assert_logged(why);
}

static void name_of_the_certificate_is_let_in(void **state)
{
	(void)state;
	assert_int_equal(hear(connect_as("web1")), STREAM_WELCOME);
}

static void another_name_is_refused_with_a_hint(void **state)
{
	(void)state;
	testpki_issue(
		&ca, "web2",
		&(struct testpki_leaf){.dns = "web2.example", .purpose = GNUTLS_KP_TLS_WWW_CLIENT});
	assert_refused(connect_as("web2"), "agent name \"web1\" is not in its certificate "
					   "(web2.example): set agentName on the agent, or "
					   "agents.names on the collector");
	bench.env.any_name = true;
	assert_int_equal(hear(connect_as("web2")), STREAM_WELCOME);
}

static void list_of_identities_holds(void **state)
{
	static char other[] = "db*", mine[] = "web?.example";
	char *patterns[] = {other, mine};
	struct yaml_strings allow = {.v = patterns, .n = 1};

	(void)state;
	bench.env.allow = &allow;
	assert_refused(connect_as("web1"), "\"web1.example\" is none of agents.allow");
	assert_int_equal(bench.env.sessions, 0);
	allow.n = 2;
	assert_int_equal(hear(connect_as("web1")), STREAM_WELCOME);
}

static void session_ends_with_its_certificate(void **state)
{
	nsec_t deadline = clock_monotonic() + 20 * SECOND;
	struct stream_bye bye = {};
	struct peer *p;
	int type;

	(void)state;
	testpki_issue(&ca, "short",
		      &(struct testpki_leaf){.dns = "web1",
					     .purpose = GNUTLS_KP_TLS_WWW_CLIENT,
					     .from = -3600,
					     .until = 3});
	p = connect_as("short");
	assert_int_equal(hear(p), STREAM_WELCOME);
	while ((type = hear(p)) != STREAM_BYE) {
		assert_true(clock_monotonic() < deadline);
		assert_true(type >= 0);
		poll(NULL, 0, 20);
		run(p);
	}
	assert_int_equal(stream_bye_decode(p->payload, p->header.payload_len, &bye, NULL), 0);
	assert_int_equal(bye.reason, STREAM_BYE_DRAIN);
	assert_logged("is asked to come back");
}

static void revoked_agent_is_thrown_out(void **state)
{
	static const char *const revoked[] = {"web1", NULL};
	struct peer *p = connect_as("web1");
	struct err err = {};

	(void)state;
	assert_int_equal(hear(p), STREAM_WELCOME);
	/* The same files again: nothing happens to it. */
	assert_int_equal(tls_store_refresh(bench.tls, true, &err), 1);
	assert_true(session_has_news(p->session));
	run(p);
	assert_int_equal(hear(p), 0);
	assert_false(session_has_news(p->session));
	testpki_crl(&ca, "list", revoked, 1, -3600, 0);
	assert_int_equal(tls_store_refresh(bench.tls, false, &err), 1);
	assert_true(session_has_news(p->session));
	run(p);
	assert_refused(p, "revoked");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup_tls, teardown_tls)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(name_of_the_certificate_is_let_in), TEST(another_name_is_refused_with_a_hint),
		TEST(list_of_identities_holds),          TEST(session_ends_with_its_certificate),
		TEST(revoked_agent_is_thrown_out),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
