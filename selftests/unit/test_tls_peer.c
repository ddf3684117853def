/* SPDX-License-Identifier: Apache-2.0 */
/* The peer of a session: its names, when it ends, whether it would still be accepted. */
#include "tls_bench.h"

static void must_meet(struct pair *p, struct tls_config agent, struct tls_config collector)
{
	pair_open(p);
	end_open(&p->agent, TLS_AGENT, agent, NAME);
	end_open(&p->collector, TLS_COLLECTOR, collector, NULL);
	must_agree(p);
}

static void an_agent_may_use_only_names_of_its_certificate(void **state)
{
	static const struct {
		const char *dns, *uri, *yes[4], *no[8];
	} table[] = {
		{"node-1.example",
		 NULL,
		 {"node-1.example", "node-1", "NODE-1", "Node-1.Example"},
		 {"node-2", "node-1.other", "node-1.example.", "node-1.", "node", "node-1.exampl",
		  "*", ""}},
		{"node-1", NULL, {"node-1"}, {"node-1.example", "node-10", "ode-1", "1"}},
		{"*.nodes.example",
		 NULL,
		 {"a.nodes.example", "B.NODES.example"},
		 {"a", "nodes.example", ".nodes.example", "a.b.nodes.example", "*",
		  "*.nodes.example", "a.nodes.example.org", "anodes.example"}},
		{NULL,
		 "spiffe://corp/ns/node-1",
		 {"node-1", "Node-1"},
		 {"ns", "corp", "ns/node-1", "spiffe", "node-11", "ode-1", "corp/ns/node-1", ""}},
		{NULL,
		 "spiffe://corp/node-1?x/node-2#y/node-3",
		 {"node-1"},
		 {"node-2", "node-3", "x"}},
		{NULL, "spiffe://corp/node-1/", {NULL}, {"node-1", "corp", "", "/"}},
		{NULL, "urn:corp:node-1", {"node-1"}, {"corp", "urn", "corp:node-1"}},
		{NULL, "node-1", {NULL}, {"node-1"}},
		{"x", "urn:ps:agent", {"node-1", "anything at all", "x"}, {NULL}},
		{"x", "URN:PS:AGENT", {"node-1"}, {NULL}},
		{"x", "urn:ps:agent:node-1", {"node-1", "x"}, {"agent", "y"}},
		{"ps-agent", "urn:ps:agents", {"ps-agent", "agents"}, {"node-1"}},
	};
	struct pair p;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		const struct testpki_leaf leaf = {.dns = table[i].dns,
						  .uri = table[i].uri,
						  .cn = "common",
						  .purpose = GNUTLS_KP_TLS_WWW_CLIENT};

		testpki_issue(&bench_ca, "named", &leaf);
		must_meet(&p, files("named", "ca"), files("collector", "ca"));
		for (size_t k = 0; k < 4 && table[i].yes[k]; k++)
			if (!tls_peer_may_be(p.collector.tls, table[i].yes[k]))
				fail_msg("row %zu: not \"%s\"", i, table[i].yes[k]);
		for (size_t k = 0; k < 8 && table[i].no[k]; k++)
			if (tls_peer_may_be(p.collector.tls, table[i].no[k]))
				fail_msg("row %zu: \"%s\"", i, table[i].no[k]);
		if (i < 8)
			assert_false(tls_peer_may_be(p.collector.tls, "common"));
		pair_close(&p);
	}
}

static void without_certificates_any_name_will_do(void **state)
{
	struct tls_config plain = {.enable = false};
	struct pair p;

	(void)state;
	must_meet(&p, key("k"), key("k"));
	assert_true(tls_peer_may_be(p.collector.tls, "node-1"));
	pair_close(&p);
	must_meet(&p, plain, plain);
	assert_true(tls_peer_may_be(p.collector.tls, "node-1"));
	pair_close(&p);
}

static void nobody_has_a_name_before_the_handshake(void **state)
{
	struct pair p;

	(void)state;
	pair_open(&p);
	end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
	assert_false(tls_peer_may_be(p.collector.tls, "node-1"));
	pair_close(&p);
	pair_open(&p);
	end_open(&p.collector, TLS_COLLECTOR, key("k"), NULL);
	assert_false(tls_peer_may_be(p.collector.tls, "node-1"));
	pair_close(&p);
}

static nsec_t in(time_t seconds)
{
	return (nsec_t)(time(NULL) + seconds) * NSEC_PER_SEC;
}

static void must_expire(const struct end *e, time_t seconds)
{
	nsec_t at = tls_expires(e->tls), wanted = in(seconds);

	assert_true(at > wanted - 30 * NSEC_PER_SEC && at <= wanted);
}

static void a_session_ends_with_its_first_certificate(void **state)
{
	static const struct testpki_leaf client = {.dns = "a",
						   .purpose = GNUTLS_KP_TLS_WWW_CLIENT,
						   .from = -10,
						   .until = 7200},
					 server = {.dns = NAME,
						   .purpose = GNUTLS_KP_TLS_WWW_SERVER,
						   .from = -10,
						   .until = 3600};
	struct tls_config plain = {.enable = false};
	struct pair p;

	(void)state;
	testpki_issue(&bench_ca, "hours2", &client);
	testpki_issue(&bench_ca, "hour", &server);
	must_meet(&p, files("hours2", "ca"), files("collector", "ca"));
	must_expire(&p.agent, 7200);
	must_expire(&p.collector, 7200);
	pair_close(&p);
	must_meet(&p, files("hours2", "ca"), files("hour", "ca"));
	must_expire(&p.agent, 3600);
	must_expire(&p.collector, 3600);
	pair_close(&p);

	must_meet(&p, key("k"), key("k"));
	assert_true(tls_expires(p.agent.tls) == UINT64_MAX);
	pair_close(&p);
	must_meet(&p, plain, plain);
	assert_true(tls_expires(p.collector.tls) == UINT64_MAX);
	pair_close(&p);
}

static void a_certificate_without_an_end_has_none(void **state)
{
	/* 9999-12-31T23:59:59Z, RFC 5280, 4.1.2.5 */
	const struct testpki_leaf client = {.dns = "a",
					    .purpose = GNUTLS_KP_TLS_WWW_CLIENT,
					    .from = -10,
					    .until = 253402300799 - time(NULL)};
	struct pair p;

	(void)state;
	testpki_issue(&bench_ca, "forever", &client);
	must_meet(&p, files("forever", "ca"), files("collector", "ca"));
	/* The collector's own. */
	must_expire(&p.collector, TESTPKI_DAY);
	pair_close(&p);
}

static void append(const char *to, const char *from)
{
	gnutls_datum_t pem;
	FILE *f;

	testpki_must(gnutls_load_file(testpki_path(from, ".crt"), &pem));
	f = fopen(testpki_path(to, ".crt"), "ae");
	assert_non_null(f);
	assert_int_equal(fwrite(pem.data, 1, pem.size, f), pem.size);
	assert_int_equal(fclose(f), 0);
	gnutls_free(pem.data);
}

/* The former certificate of the authority, sent along by who has not heard of the new one. */
static void an_old_certificate_that_is_not_needed_ends_no_session(void **state)
{
	static const struct testpki_leaf client = {.dns = "a", .purpose = GNUTLS_KP_TLS_WWW_CLIENT};
	gnutls_x509_crt_t former;
	struct pair p;

	(void)state;
	former = testpki_crt("test CA", bench_ca.key, -9 * TESTPKI_DAY, -TESTPKI_DAY);
	testpki_must(gnutls_x509_crt_set_basic_constraints(former, 1, 0));
	testpki_must(gnutls_x509_crt_sign2(former, former, bench_ca.key, GNUTLS_DIG_SHA256, 0));
	testpki_write_crt("former", former);
	gnutls_x509_crt_deinit(former);
	testpki_issue(&bench_ca, "chain", &client);
	append("chain", "former");
	must_meet(&p, files("chain", "ca"), files("collector", "ca"));
	must_expire(&p.agent, TESTPKI_DAY);
	must_expire(&p.collector, TESTPKI_DAY);
	pair_close(&p);
}

/* What each end says when its credentials change to @config. NULL: nothing. */
static void must_recheck(struct end *e, enum tls_side side, struct tls_config config, int code,
			 const char *says)
{
	struct tls_context *now = must_load(side, config);
	struct err err = {""};

	assert_int_equal(tls_recheck(e->tls, now, &err), code);
	if (says && !strstr(err.text, says))
		fail_msg("\"%s\" instead of \"%s\"", err.text, says);
	tls_context_free(now);
}

static void an_open_session_is_judged_by_new_credentials(void **state)
{
	struct tls_config plain = {.enable = false};
	struct pair p;

	(void)state;
	testpki_crl(&bench_ca, "nobody", NULL, 0, -TESTPKI_DAY, TESTPKI_DAY);
	testpki_crl(&bench_ca, "them", (const char *const[]){"agent", "collector"}, 2, -TESTPKI_DAY,
		    TESTPKI_DAY);
	must_meet(&p, files("agent", "ca"), files("collector", "ca"));
	must_recheck(&p.collector, TLS_COLLECTOR, files("byaddress", "ca"), 0, NULL);
	must_recheck(&p.collector, TLS_COLLECTOR, with_crl(files("collector", "ca"), "nobody"), 0,
		     NULL);
	must_recheck(&p.collector, TLS_COLLECTOR, with_crl(files("collector", "ca"), "them"),
		     -EKEYREVOKED, "the certificate of the agent was revoked");
	must_recheck(&p.collector, TLS_COLLECTOR, files("collector", "otherca"), -EKEYREJECTED,
		     "the certificate of the agent is signed by nobody in \"");
	must_recheck(&p.collector, TLS_COLLECTOR, key("k"), -EKEYREJECTED,
		     "the stream of the agent is not secured as it has to be now");
	must_recheck(&p.collector, TLS_COLLECTOR, plain, -EKEYREJECTED,
		     "the stream of the agent is not secured as it has to be now");
	must_recheck(&p.agent, TLS_AGENT, files("agentdns", "ca"), 0, NULL);
	must_recheck(&p.agent, TLS_AGENT, with_crl(files("agent", "ca"), "them"), -EKEYREVOKED,
		     "the certificate of the collector was revoked");
	/* To be asked does the session no harm, nor that its context is gone elsewhere. */
	p.agent.ctx = tls_context_free(p.agent.ctx);
	p.collector.ctx = tls_context_free(p.collector.ctx);
	must_recheck(&p.collector, TLS_COLLECTOR, files("collector", "ca"), 0, NULL);
	assert_string_equal(tls_peer_identity(p.collector.tls), "urn:test:agent");
	assert_true(tls_peer_may_be(p.collector.tls, "a.example"));
	pass(&p.agent, &p.collector, 100000, 1000);
	pass(&p.collector, &p.agent, 100000, 1000);
	part(&p);
}

static void wait_past(time_t when)
{
	for (int i = 0; time(NULL) <= when; i++) {
		assert_true(i < 1000);
		assert_int_equal(poll(NULL, 0, 10), 0);
	}
}

static void an_open_session_is_judged_by_the_date_too(void **state)
{
	static const struct testpki_leaf client = {
		.dns = "a", .purpose = GNUTLS_KP_TLS_WWW_CLIENT, .from = -10, .until = 1};
	struct pair p;

	(void)state;
	testpki_issue(&bench_ca, "second", &client);
	must_meet(&p, files("second", "ca"), files("collector", "ca"));
	wait_past(time(NULL) + 1);
	must_recheck(&p.collector, TLS_COLLECTOR, files("collector", "ca"), -EKEYEXPIRED,
		     "the certificate of the agent expired on ");
	pair_close(&p);
}

static void an_open_session_must_have_the_same_key(void **state)
{
	struct tls_config plain = {.enable = false};
	struct pair p;

	(void)state;
	must_meet(&p, key("one"), key("one"));
	must_recheck(&p.collector, TLS_COLLECTOR, key("one"), 0, NULL);
	must_recheck(&p.agent, TLS_AGENT, key("one"), 0, NULL);
	must_recheck(&p.collector, TLS_COLLECTOR, key("two"), -EKEYREJECTED,
		     "the agent has another auth.key");
	must_recheck(&p.agent, TLS_AGENT, key("two"), -EKEYREJECTED,
		     "the collector has another auth.key");
	pair_close(&p);
	must_meet(&p, plain, plain);
	must_recheck(&p.collector, TLS_COLLECTOR, plain, 0, NULL);
	must_recheck(&p.collector, TLS_COLLECTOR, key("one"), -EKEYREJECTED, "not secured");
	pair_close(&p);
}

static void what_is_not_open_cannot_be_judged(void **state)
{
	struct pair p;
	struct err err = {""};

	(void)state;
	pair_open(&p);
	end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
	assert_int_equal(tls_recheck(p.collector.tls, p.collector.ctx, &err), -ENOTCONN);
	pair_close(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_agent_may_use_only_names_of_its_certificate),
		cmocka_unit_test(without_certificates_any_name_will_do),
		cmocka_unit_test(nobody_has_a_name_before_the_handshake),
		cmocka_unit_test(a_session_ends_with_its_first_certificate),
		cmocka_unit_test(a_certificate_without_an_end_has_none),
		cmocka_unit_test(an_old_certificate_that_is_not_needed_ends_no_session),
		cmocka_unit_test(an_open_session_is_judged_by_new_credentials),
		cmocka_unit_test(an_open_session_is_judged_by_the_date_too),
		cmocka_unit_test(an_open_session_must_have_the_same_key),
		cmocka_unit_test(what_is_not_open_cannot_be_judged),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
