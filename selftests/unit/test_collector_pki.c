/* SPDX-License-Identifier: Apache-2.0 */
/* What --init-pki leaves on disk, and that a session can be made of it. */
#include "pki.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "testpki.h"
#include "tls.h"
#include "util.h"

static const char *const six[] = {"ca.crt",        "ca.key",    "collector.crt",
				  "collector.key", "agent.crt", "agent.key"};
static char names_text[][32] = {"collector.example", "192.0.2.7", "2001:db8::7", "localhost",
				"Collector.Example"};
static char *const names[] = {names_text[0], names_text[1], names_text[2], names_text[3],
			      names_text[4]};

static int open_folder(void **state)
{
	(void)state;
	testpki_open();
	return 0;
}

static int remove_folder(void **state)
{
	(void)state;
	testpki_remove();
	return 0;
}

static void must_init(void)
{
	struct err err = {""};

	if (pki_init(testpki_dir, names, ARRAY_SIZE(names), &err))
		fail_msg("%s", err.text);
}

static gnutls_x509_crt_t read_crt(const char *name)
{
	gnutls_x509_crt_t crt;
	gnutls_datum_t pem;

	testpki_must(gnutls_load_file(testpki_path(name, ""), &pem));
	testpki_must(gnutls_x509_crt_init(&crt));
	testpki_must(gnutls_x509_crt_import(crt, &pem, GNUTLS_X509_FMT_PEM));
	gnutls_free(pem.data);
	return crt;
}

static size_t count_files(void)
{
	DIR *dir = opendir(testpki_dir);
	struct dirent *e;
	size_t n = 0;

	assert_non_null(dir);
	while ((e = readdir(dir)))
		n += e->d_name[0] != '.' || strlen(e->d_name) > 2;
	closedir(dir);
	return n;
}

static void writes_six_files_and_keeps_keys_private(void **state)
{
	struct stat st;
	mode_t old;

	(void)state;
	rmdir(testpki_dir); /* so that it has to be made */
	old = umask(022);
	must_init();
	umask(old);
	assert_int_equal(stat(testpki_dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	for (size_t i = 0; i < ARRAY_SIZE(six); i++) {
		assert_int_equal(stat(testpki_path(six[i], ""), &st), 0);
		assert_int_equal(st.st_mode & 07777, strstr(six[i], ".key") ? 0600 : 0644);
	}
	assert_int_equal(count_files(), ARRAY_SIZE(six));
}

static void never_overwrites_and_then_writes_nothing(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(six); i++) {
		struct err err = {""};
		struct stat st;
		char says[256];

		testpki_write(six[i], "", "mine", 4);
		assert_int_equal(pki_init(testpki_dir, NULL, 0, &err), -EEXIST);
		snprintf(says, sizeof(says), "\"%s\" exists already; nothing has been written",
			 testpki_path(six[i], ""));
		assert_string_equal(err.text, says);
		assert_int_equal(count_files(), 1);
		assert_int_equal(stat(testpki_path(six[i], ""), &st), 0);
		assert_int_equal(st.st_size, 4);
		unlink(testpki_path(six[i], ""));
	}
	/* A link that leads nowhere is somebody's file too. */
	assert_int_equal(symlink("/nowhere/at/all", testpki_path("agent.key", "")), 0);
	assert_int_equal(pki_init(testpki_dir, NULL, 0, NULL), -EEXIST);
	assert_int_equal(count_files(), 1);
}

static off_t size_of(const char *name)
{
	struct stat st;

	assert_int_equal(stat(testpki_path(name, ""), &st), 0);
	return st.st_size;
}

/* A limit that the collector's certificate, with all its names, is the first to pass. */
static void a_file_that_cannot_be_written_leaves_none_behind(void **state)
{
	struct rlimit old, low;
	struct err err = {""};
	int r;

	(void)state;
	must_init();
	assert_true(size_of("ca.crt") + 40 < size_of("collector.crt"));
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	low = old;
	low.rlim_cur = (rlim_t)size_of("ca.crt") + 20;
	for (size_t i = 0; i < ARRAY_SIZE(six); i++)
		unlink(testpki_path(six[i], ""));

	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
	r = pki_init(testpki_dir, names, ARRAY_SIZE(names), &err);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(r, -EFBIG);
	assert_non_null(strstr(err.text, "/collector.crt\": File too large"));
	assert_int_equal(count_files(), 0);
}

static void an_impossible_directory_is_named(void **state)
{
	struct err err = {""};

	(void)state;
	assert_int_equal(pki_init(testpki_path("a/b", ""), NULL, 0, &err), -ENOENT);
	assert_non_null(strstr(err.text, "a/b\": No such file or directory"));
	testpki_write("file", "", "", 0);
	assert_int_equal(pki_init(testpki_path("file", ""), NULL, 0, &err), -ENOTDIR);
}

static void names_that_are_none_are_refused(void **state)
{
	char bad[][80] = {
		"",          "a b",
		"host:8081", "https://a",
		"a..b",      ".a",
		"*",         "a.*.b",
		"a\nb",      "192.0.2.1/24",
		"*.",        "\xc3\xa9.example",
		"[::1]",     "0123456789012345678901234567890123456789012345678901234567890123"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char *const list[] = {bad[i]};
		struct err err = {""};

		if (pki_init(testpki_dir, list, 1, &err) != -EINVAL)
			fail_msg("\"%s\"", bad[i]);
		assert_non_null(strstr(err.text, "is neither a host name nor an IP address"));
		assert_int_equal(count_files(), 0);
	}
}

static void must_have_names(gnutls_x509_crt_t crt, const char *const wanted[], size_t n)
{
	char text[64];
	unsigned char raw[64];
	size_t size, i;
	int type;

	for (i = 0;; i++) {
		size = sizeof(raw) - 1;
		type = gnutls_x509_crt_get_subject_alt_name(crt, (unsigned int)i, raw, &size, NULL);
		if (type < 0)
			break;
		raw[size] = '\0';
		if (type == GNUTLS_SAN_IPADDRESS)
			inet_ntop(size == 4 ? AF_INET : AF_INET6, raw, text, sizeof(text));
		else
			snprintf(text, sizeof(text), "%s", (char *)raw);
		assert_true(i < n);
		assert_string_equal(text, wanted[i]);
	}
	assert_int_equal(i, n);
}

static void must_have_purpose(gnutls_x509_crt_t crt, const char *wanted)
{
	char oid[64];
	size_t size = sizeof(oid);

	testpki_must(gnutls_x509_crt_get_key_purpose_oid(crt, 0, oid, &size, NULL));
	assert_string_equal(oid, wanted);
	size = sizeof(oid);
	assert_true(gnutls_x509_crt_get_key_purpose_oid(crt, 1, oid, &size, NULL) < 0);
}

static void must_last(gnutls_x509_crt_t crt, int days)
{
	time_t from = gnutls_x509_crt_get_activation_time(crt);
	time_t until = gnutls_x509_crt_get_expiration_time(crt);

	assert_true(labs(time(NULL) - 3600 - from) < 60);
	assert_true(labs(time(NULL) + (time_t)days * TESTPKI_DAY - until) < 60);
}

static void certificates_say_whom_they_are_for(void **state)
{
	static const char *const collector_names[] = {
		"collector.example", "192.0.2.7", "2001:db8::7", "localhost", "127.0.0.1", "::1"};
	static const char *const agent_names[] = {"urn:ps:agent", "ps-agent"};
	gnutls_x509_crt_t ca, collector, agent;
	unsigned int is_ca, critical, usage;
	unsigned char serial[32];
	size_t size = sizeof(serial);
	int pathlen;

	(void)state;
	must_init();
	ca = read_crt("ca.crt");
	collector = read_crt("collector.crt");
	agent = read_crt("agent.crt");

	testpki_must(gnutls_x509_crt_get_basic_constraints(ca, &critical, &is_ca, &pathlen));
	assert_true(is_ca && critical && pathlen == 0);
	testpki_must(gnutls_x509_crt_get_key_usage(ca, &usage, &critical));
	assert_int_equal(usage, GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN);
	testpki_must(gnutls_x509_crt_get_basic_constraints(agent, &critical, &is_ca, &pathlen));
	assert_false(is_ca);
	must_have_names(collector, collector_names, ARRAY_SIZE(collector_names));
	must_have_names(agent, agent_names, ARRAY_SIZE(agent_names));
	must_have_purpose(collector, GNUTLS_KP_TLS_WWW_SERVER);
	must_have_purpose(agent, GNUTLS_KP_TLS_WWW_CLIENT);
	must_last(ca, 3650);
	must_last(collector, 730);
	must_last(agent, 730);
	testpki_must(gnutls_x509_crt_get_serial(agent, serial, &size));
	assert_int_equal(size, 16);
	assert_int_equal(gnutls_x509_crt_get_signature_algorithm(agent), GNUTLS_SIGN_ECDSA_SHA256);
	assert_true(gnutls_x509_crt_check_issuer(agent, ca));
	assert_true(gnutls_x509_crt_check_issuer(collector, ca));

	gnutls_x509_crt_deinit(ca);
	gnutls_x509_crt_deinit(collector);
	gnutls_x509_crt_deinit(agent);
}

static struct tls_context *must_load(enum tls_side side, const char *own)
{
	struct tls_config config = {
		.enable = true,
		.certfile = testpki_path(own, ".crt"),
		.keyfile = testpki_path(own, ".key"),
		.cafile = testpki_path("ca", ".crt"),
	};
	struct tls_context *ctx = NULL;
	struct err err = {""};

	if (tls_context_new(side, &config, &ctx, &err))
		fail_msg("%s", err.text);
	return ctx;
}

/* The errors of both ends of a handshake; 1, 1 when it is done. */
static void handshake_as(struct tls_context *agent_ctx, struct tls_context *collector_ctx,
			 const char *name, const char *identity, int *ret_agent, int *ret_collector)
{
	struct tls *agent = NULL, *collector = NULL;
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	assert_int_equal(tls_new(agent_ctx, fds[0], name, &agent, NULL), 0);
	assert_int_equal(tls_new(collector_ctx, fds[1], NULL, &collector, NULL), 0);
	*ret_agent = *ret_collector = -EAGAIN;
	for (int i = 0; i < 10 && (*ret_agent == -EAGAIN || *ret_collector == -EAGAIN); i++) {
		if (*ret_agent == -EAGAIN)
			*ret_agent = tls_handshake(agent, NULL);
		if (*ret_collector == -EAGAIN)
			*ret_collector = tls_handshake(collector, NULL);
	}
	if (*ret_collector == 1)
		assert_string_equal(tls_peer_identity(collector), identity);
	tls_free(agent);
	tls_free(collector);
	close(fds[0]);
	close(fds[1]);
}

static void handshake(struct tls_context *agent_ctx, struct tls_context *collector_ctx,
		      const char *name, int *ret_agent, int *ret_collector)
{
	handshake_as(agent_ctx, collector_ctx, name, "urn:ps:agent", ret_agent, ret_collector);
}

static void a_session_can_be_made_of_it(void **state)
{
	static const char *const good[] = {"collector.example", "192.0.2.7", "2001:db8::7",
					   "localhost",         "127.0.0.1", "::1"};
	struct tls_context *agent, *collector, *swapped;
	int a, c;

	(void)state;
	must_init();
	agent = must_load(TLS_AGENT, "agent");
	collector = must_load(TLS_COLLECTOR, "collector");
	swapped = must_load(TLS_AGENT, "collector");
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		handshake(agent, collector, good[i], &a, &c);
		assert_int_equal(a, 1);
		assert_int_equal(c, 1);
	}
	handshake(agent, collector, "other.example", &a, &c);
	assert_true(a < 0 && c < 0);
	/* Who steals a collector's key cannot feed it packets. */
	handshake(swapped, collector, "localhost", &a, &c);
	assert_true(c < 0);
	tls_context_free(agent);
	tls_context_free(collector);
	tls_context_free(swapped);
}

static void must_issue(const char *name)
{
	struct err err = {""};

	if (pki_issue_agent(testpki_dir, name, &err))
		fail_msg("%s", err.text);
}

static void an_agent_gets_a_certificate_of_its_own(void **state)
{
	static const char *const dns[] = {"node-1.example"};
	gnutls_x509_crt_t ca, crt;
	struct tls_context *agent, *collector;
	struct stat st;
	int a, c;

	(void)state;
	must_init();
	must_issue("node-1.example");
	assert_int_equal(count_files(), ARRAY_SIZE(six) + 2);
	assert_int_equal(stat(testpki_path("agent-node-1.example.key", ""), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	ca = read_crt("ca.crt");
	crt = read_crt("agent-node-1.example.crt");
	must_have_names(crt, dns, ARRAY_SIZE(dns));
	must_have_purpose(crt, GNUTLS_KP_TLS_WWW_CLIENT);
	must_last(crt, 730);
	assert_true(gnutls_x509_crt_check_issuer(crt, ca));
	gnutls_x509_crt_deinit(ca);
	gnutls_x509_crt_deinit(crt);

	agent = must_load(TLS_AGENT, "agent-node-1.example");
	collector = must_load(TLS_COLLECTOR, "collector");
	handshake_as(agent, collector, "localhost", "node-1.example", &a, &c);
	assert_int_equal(a, 1);
	assert_int_equal(c, 1);
	tls_context_free(agent);
	tls_context_free(collector);
}

static void no_agent_gets_a_certificate_twice(void **state)
{
	struct err err = {""};
	char says[256];

	(void)state;
	must_init();
	must_issue("a");
	must_issue("b");
	unlink(testpki_path("agent-a.crt", ""));
	assert_int_equal(pki_issue_agent(testpki_dir, "a", &err), -EEXIST);
	snprintf(says, sizeof(says), "\"%s\" exists already; nothing has been written",
		 testpki_path("agent-a.key", ""));
	assert_string_equal(err.text, says);
	assert_int_equal(count_files(), ARRAY_SIZE(six) + 3);
}

static void only_a_host_name_can_be_in_an_agents_certificate(void **state)
{
	static const char *const bad_names[] = {"",    "*.example", "../x", "a/b",
						"a b", "192.0.2.1", "::1",  "n\xc3\xb6"};

	(void)state;
	must_init();
	for (size_t i = 0; i < ARRAY_SIZE(bad_names); i++) {
		struct err err = {""};

		assert_int_equal(pki_issue_agent(testpki_dir, bad_names[i], &err), -EINVAL);
		assert_non_null(strstr(err.text, "is no host name"));
	}
	assert_int_equal(count_files(), ARRAY_SIZE(six));
}

static void must_not_issue(int code, const char *says)
{
	struct err err = {""};

	assert_int_equal(pki_issue_agent(testpki_dir, "a", &err), code);
	if (!strstr(err.text, says))
		fail_msg("\"%s\" instead of \"%s\"", err.text, says);
	assert_int_equal(access(testpki_path("agent-a.crt", ""), F_OK), -1);
	assert_int_equal(access(testpki_path("agent-a.key", ""), F_OK), -1);
}

static void swap_files(const char *one, const char *two)
{
	assert_int_equal(renameat2(AT_FDCWD, testpki_path(one, ""), AT_FDCWD, testpki_path(two, ""),
				   RENAME_EXCHANGE),
			 0);
}

static void an_authority_that_cannot_sign_is_named(void **state)
{
	struct testpki_ca old;

	(void)state;
	must_not_issue(-ENOENT, "/ca.crt\": No such file or directory");
	must_init();
	swap_files("ca.crt", "collector.crt");
	must_not_issue(-EINVAL, "does not belong to \"ca.crt\"");
	swap_files("ca.key", "collector.key");
	must_not_issue(-EINVAL, "may not sign others");
	testpki_ca_new(&old, "ca", -5 * TESTPKI_DAY, -TESTPKI_DAY);
	testpki_write_key("ca", old.key);
	testpki_ca_free(&old);
	must_not_issue(-EKEYEXPIRED, "has expired");
	testpki_write("ca", ".key", "", 0);
	must_not_issue(-EINVAL, "there is no PEM private key in");
	testpki_write("ca", ".crt", "", 0);
	must_not_issue(-EINVAL, "there is no PEM certificate in");
	unlink(testpki_path("ca.key", ""));
	assert_int_equal(mkfifo(testpki_path("ca.key", ""), 0600), 0);
	must_not_issue(-EINVAL, "is no PEM file");
}

static void no_certificate_outlives_the_authority(void **state)
{
	gnutls_x509_crt_t crt;
	struct testpki_ca ca;

	(void)state;
	testpki_ca_new(&ca, "ca", -5 * TESTPKI_DAY, 5 * TESTPKI_DAY);
	testpki_write_key("ca", ca.key);
	must_issue("a");
	crt = read_crt("agent-a.crt");
	assert_int_equal(gnutls_x509_crt_get_expiration_time(crt),
			 gnutls_x509_crt_get_expiration_time(ca.crt));
	gnutls_x509_crt_deinit(crt);
	testpki_ca_free(&ca);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(writes_six_files_and_keeps_keys_private,
						open_folder, remove_folder),
		cmocka_unit_test_setup_teardown(never_overwrites_and_then_writes_nothing,
						open_folder, remove_folder),
		cmocka_unit_test_setup_teardown(a_file_that_cannot_be_written_leaves_none_behind,
						open_folder, remove_folder),
		cmocka_unit_test_setup_teardown(an_impossible_directory_is_named, open_folder,
						remove_folder),
		cmocka_unit_test_setup_teardown(names_that_are_none_are_refused, open_folder,
						remove_folder),
		cmocka_unit_test_setup_teardown(certificates_say_whom_they_are_for, open_folder,
						remove_folder),
		cmocka_unit_test_setup_teardown(a_session_can_be_made_of_it, open_folder,
						remove_folder),
		cmocka_unit_test_setup_teardown(an_agent_gets_a_certificate_of_its_own, open_folder,
						remove_folder),
		cmocka_unit_test_setup_teardown(no_agent_gets_a_certificate_twice, open_folder,
						remove_folder),
		cmocka_unit_test_setup_teardown(only_a_host_name_can_be_in_an_agents_certificate,
						open_folder, remove_folder),
		cmocka_unit_test_setup_teardown(an_authority_that_cannot_sign_is_named, open_folder,
						remove_folder),
		cmocka_unit_test_setup_teardown(no_certificate_outlives_the_authority, open_folder,
						remove_folder),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
