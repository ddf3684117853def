/* SPDX-License-Identifier: Apache-2.0 */
/* Peers that are refused, and what each side says about it. */
#include "tls_bench.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
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
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
