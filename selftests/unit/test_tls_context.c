/* SPDX-License-Identifier: Apache-2.0 */
/* Credentials: what is wrong with their files, and lists of revoked certificates. */
#include "tls_bench.h"

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

static void crl_must_fail(const char *name, int code, const char *says)
{
	struct tls_config config = with_crl(files("collector", "ca"), name);
	struct tls_context *ctx = NULL;
	struct err err = {""};

	assert_int_equal(tls_context_new(TLS_COLLECTOR, &config, &ctx, &err), code);
	assert_null(ctx);
	assert_true(!strncmp(err.text, "tls.crlfile: ", strlen("tls.crlfile: ")));
	if (!strstr(err.text, says))
		fail_msg("\"%s\" instead of \"%s\"", err.text, says);
}

static void a_list_of_revoked_certificates_must_be_signed_and_in_date(void **state)
{
	char day[32], says[256];
	gnutls_datum_t pem;

	(void)state;
	crl_must_fail("none", -ENOENT, "none.crl\": No such file or directory");
	testpki_write("junk", ".crl", "junk\n", 5);
	crl_must_fail("junk", -EINVAL, "there is no good PEM list of revoked certificates");
	testpki_write("empty", ".crl", "", 0);
	crl_must_fail("empty", -EINVAL, "there is no good PEM list of revoked certificates");

	testpki_crl(&bench_other, "foreign", NULL, 0, -TESTPKI_DAY, TESTPKI_DAY);
	crl_must_fail("foreign", -EKEYREJECTED, "is signed by nobody in \"");

	day_of(-2 * TESTPKI_DAY, day);
	testpki_crl(&bench_ca, "late", NULL, 0, -3 * TESTPKI_DAY, -2 * TESTPKI_DAY);
	snprintf(says, sizeof(says), "is out of date: the next one was to come by %s", day);
	crl_must_fail("late", -EKEYEXPIRED, says);
	day_of(2 * TESTPKI_DAY, day);
	testpki_crl(&bench_ca, "early", NULL, 0, 2 * TESTPKI_DAY, 3 * TESTPKI_DAY);
	snprintf(says, sizeof(says), "is not valid before %s (is the clock right?)", day);
	crl_must_fail("early", -EKEYREJECTED, says);

	/* One that is cut off at any place is not taken for a shorter one. */
	testpki_crl(&bench_ca, "whole", (const char *const[]){"agent"}, 1, -TESTPKI_DAY, 0);
	testpki_must(gnutls_load_file(testpki_path("whole", ".crl"), &pem));
	for (unsigned int n = 0; n < pem.size - strlen("-----END X509 CRL-----\n"); n += 7) {
		testpki_write("cut", ".crl", pem.data, n);
		crl_must_fail("cut", -EINVAL, "there is no good PEM list");
	}
	gnutls_free(pem.data);
}

static void an_authority_that_may_not_sign_lists_is_named(void **state)
{
	struct tls_context *ctx = NULL;
	struct tls_config config;
	struct testpki_ca ca;
	struct err err = {""};

	(void)state;
	testpki_ca_new(&ca, "leafonly", -TESTPKI_DAY, TESTPKI_DAY);
	testpki_must(gnutls_x509_crt_set_key_usage(ca.crt, GNUTLS_KEY_KEY_CERT_SIGN));
	testpki_must(gnutls_x509_crt_sign2(ca.crt, ca.crt, ca.key, GNUTLS_DIG_SHA256, 0));
	testpki_write_crt("leafonly", ca.crt);
	testpki_issue(&ca, "collector2",
		      &(struct testpki_leaf){.dns = NAME, .purpose = GNUTLS_KP_TLS_WWW_SERVER});
	testpki_crl(&ca, "may-not", NULL, 0, -TESTPKI_DAY, TESTPKI_DAY);
	testpki_ca_free(&ca);
	config = with_crl(files("collector2", "leafonly"), "may-not");
	assert_int_equal(tls_context_new(TLS_COLLECTOR, &config, &ctx, &err), -EKEYREJECTED);
	assert_non_null(strstr(err.text, "that may not sign such lists"));
}

/* Signed by the right one, in a way that proves nothing. */
static void a_list_with_a_weak_signature_is_named(void **state)
{
	gnutls_datum_t pem;
	gnutls_x509_crl_t crl;

	(void)state;
	testpki_must(gnutls_x509_crl_init(&crl));
	testpki_must(gnutls_x509_crl_set_version(crl, 2));
	testpki_must(gnutls_x509_crl_set_this_update(crl, time(NULL) - TESTPKI_DAY));
	testpki_must(gnutls_x509_crl_sign2(crl, bench_ca.crt, bench_ca.key, GNUTLS_DIG_SHA1, 0));
	testpki_must(gnutls_x509_crl_export2(crl, GNUTLS_X509_FMT_PEM, &pem));
	testpki_write("weak", ".crl", pem.data, pem.size);
	gnutls_free(pem.data);
	gnutls_x509_crl_deinit(crl);
	crl_must_fail("weak", -EKEYREJECTED, "cannot be trusted: its signature is too weak");
}

static void who_is_on_the_list_is_refused_by_either_side(void **state)
{
	struct pair p;

	(void)state;
	testpki_crl(&bench_ca, "both", (const char *const[]){"agent", "collector"}, 2, -TESTPKI_DAY,
		    TESTPKI_DAY);
	pair_open(&p);
	end_open(&p.agent, TLS_AGENT, files("agent", "ca"), NAME);
	end_open(&p.collector, TLS_COLLECTOR, with_crl(files("collector", "ca"), "both"), NULL);
	must_refuse(&p, "the collector refused our certificate: revoked",
		    "the certificate of the agent was revoked");

	pair_open(&p);
	end_open(&p.agent, TLS_AGENT, with_crl(files("agent", "ca"), "both"), NAME);
	end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
	must_refuse(&p, "the certificate of the collector was revoked",
		    "the agent refused our certificate: revoked");

	/* The others go on. */
	pair_open(&p);
	end_open(&p.agent, TLS_AGENT, files("agentdns", "ca"), NAME);
	end_open(&p.collector, TLS_COLLECTOR, with_crl(files("collector", "ca"), "both"), NULL);
	must_agree(&p);
	pair_close(&p);
}

static void wait_past(time_t when)
{
	for (int i = 0; time(NULL) <= when; i++) {
		assert_true(i < 1000);
		assert_int_equal(poll(NULL, 0, 10), 0);
	}
}

static void a_list_that_is_out_of_date_lets_nobody_in(void **state)
{
	char day[32], says[256];
	struct pair p;

	(void)state;
	day_of(1, day);
	pair_open(&p);
	testpki_crl(&bench_ca, "short", NULL, 0, -TESTPKI_DAY, 1);
	end_open(&p.agent, TLS_AGENT, files("agent", "ca"), NAME);
	end_open(&p.collector, TLS_COLLECTOR, with_crl(files("collector", "ca"), "short"), NULL);
	wait_past(time(NULL) + 1);
	snprintf(says, sizeof(says), "is out of date, the next one was to come by %s", day);
	must_refuse(&p,
		    "the collector refused our certificate: cannot tell whether it is good, see "
		    "its log",
		    says);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(context_says_what_is_wrong_with_its_files),
		cmocka_unit_test(context_refuses_an_empty_shared_key),
		cmocka_unit_test(a_list_of_revoked_certificates_must_be_signed_and_in_date),
		cmocka_unit_test(an_authority_that_may_not_sign_lists_is_named),
		cmocka_unit_test(a_list_with_a_weak_signature_is_named),
		cmocka_unit_test(who_is_on_the_list_is_refused_by_either_side),
		cmocka_unit_test(a_list_that_is_out_of_date_lets_nobody_in),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
