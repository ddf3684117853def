/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions that come about, and what passes through them. */
#include "tls_bench.h"

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

static void after_a_goodbye_the_other_side_can_still_be_heard(void **state)
{
	struct pair p;
	char byte = 'x';

	(void)state;
	pair_open(&p);
	end_open(&p.agent, TLS_AGENT, files("agent", "ca"), NAME);
	end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
	must_agree(&p);
	tls_goodbye(p.agent.tls);
	tls_goodbye(p.agent.tls);
	assert_int_equal(tls_recv(p.collector.tls, &byte, 1, &p.collector.err), 0);
	assert_int_equal(tls_send(p.collector.tls, "y", 1, &p.collector.err), 1);
	assert_int_equal(tls_recv(p.agent.tls, &byte, 1, &p.agent.err), 1);
	assert_int_equal(byte, 'y');
	tls_goodbye(p.collector.tls);
	assert_int_equal(tls_recv(p.agent.tls, &byte, 1, &p.agent.err), 0);
	pair_close(&p);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(certificates_of_both_sides_make_a_session),
		cmocka_unit_test(the_shared_key_makes_a_session),
		cmocka_unit_test(plain_text_goes_the_same_way),
		cmocka_unit_test(a_handshake_may_come_byte_by_byte),
		cmocka_unit_test(addresses_and_wildcards_are_names_too),
		cmocka_unit_test(an_agent_without_uri_goes_by_its_dns_name),
		cmocka_unit_test(no_data_passes_before_the_peer_is_known),
		cmocka_unit_test(a_goodbye_does_not_wait_for_a_peer_that_does_not_read),
		cmocka_unit_test(after_a_goodbye_the_other_side_can_still_be_heard),
		cmocka_unit_test(a_context_outlives_its_sessions),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
