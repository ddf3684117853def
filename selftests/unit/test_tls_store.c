/* SPDX-License-Identifier: Apache-2.0 */
/* Credentials that follow their files, whatever way these change; several threads. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "tls_bench.h"
#include "tls_store.h"

static const char *const suffixes[] = {".crt", ".key"};

/* "own.crt" and "own.key" become copies of the files of @from, written in their place. */
static void rewrite(const char *to, const char *from, const char *suffix)
{
	gnutls_datum_t pem;

	testpki_must(gnutls_load_file(testpki_path(from, suffix), &pem));
	testpki_write(to, suffix, pem.data, pem.size);
	gnutls_free(pem.data);
}

static void rewrite_pair(const char *to, const char *from)
{
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++)
		rewrite(to, from, suffixes[i]);
}

/* No file is young any more, so that only changes make the store look. */
static void settle(struct tls_store *s)
{
	assert_int_equal(poll(NULL, 0, 2100), 0);
	assert_int_equal(tls_store_refresh(s, false, NULL), 0);
}

static struct tls_store *open_store(struct tls_config config)
{
	struct tls_store *s = NULL;
	struct err err = {""};

	if (tls_store_new(TLS_AGENT, &config, &s, &err))
		fail_msg("%s", err.text);
	return s;
}

static void must_refresh(struct tls_store *s, bool force, int code, const char *says)
{
	uint64_t generation = tls_store_generation(s);
	struct err err = {""};
	int r = tls_store_refresh(s, force, &err);

	if (r != code || (says && !strstr(err.text, says)))
		fail_msg("%d, \"%s\" instead of %d, \"%s\"", r, err.text, code, says ? says : "");
	if (r >= 0)
		assert_string_equal(err.text, "");
	assert_int_equal(tls_store_generation(s), generation + (r == 1));
}

/* What a new session of the store's tells a collector about us. */
static void must_be(struct tls_store *s, const char *identity)
{
	struct pair p;

	pair_open(&p);
	p.agent.ctx = tls_store_get(s);
	assert_int_equal(tls_new(p.agent.ctx, p.agent.fd, NAME, &p.agent.tls, NULL), 0);
	end_open(&p.collector, TLS_COLLECTOR, files("collector", "ca"), NULL);
	must_agree(&p);
	assert_string_equal(tls_peer_identity(p.collector.tls), identity);
	pair_close(&p);
}

static void a_store_starts_with_what_is_there(void **state)
{
	struct tls_config config = files("none", "ca");
	struct tls_store *s = NULL;
	struct err err = {""};

	(void)state;
	assert_int_equal(tls_store_new(TLS_AGENT, &config, &s, &err), -ENOENT);
	assert_null(s);
	assert_non_null(strstr(err.text, "tls.certfile: cannot read"));
	s = open_store(files("agent", "ca"));
	assert_int_equal(tls_store_generation(s), 1);
	must_be(s, "urn:test:agent");
	must_refresh(s, false, 0, NULL);
	tls_store_free(s);
	assert_null(tls_store_free(NULL));
}

static void files_that_are_written_anew_are_used(void **state)
{
	struct tls_store *s;

	(void)state;
	rewrite_pair("own", "agent");
	s = open_store(files("own", "ca"));
	must_refresh(s, false, 0, NULL);
	rewrite_pair("own", "agentdns");
	must_refresh(s, false, 1, NULL);
	must_be(s, "node7.example");
	must_refresh(s, false, 0, NULL);
	settle(s);
	rewrite_pair("own", "agent");
	must_refresh(s, false, 1, NULL);
	must_be(s, "urn:test:agent");
	/* The same once more is no change. */
	settle(s);
	rewrite_pair("own", "agent");
	must_refresh(s, false, 0, NULL);
	tls_store_free(s);
}

/* Same length, same inode, and as far as stat(2) can tell the same time. */
static void a_change_within_a_tick_of_the_clock_is_seen(void **state)
{
	struct tls_store *s;

	(void)state;
	for (int i = 0; i < 20; i++) {
		rewrite_pair("own", "agentdns");
		s = open_store(files("own", "ca"));
		rewrite_pair("own", "agentname");
		must_refresh(s, false, 1, NULL);
		must_be(s, "node8.example");
		tls_store_free(s);
	}
}

static void files_that_are_renamed_into_place_are_used(void **state)
{
	struct tls_store *s;

	(void)state;
	rewrite_pair("own", "agent");
	s = open_store(files("own", "ca"));
	settle(s);
	rewrite_pair("new", "agentdns");
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++)
		assert_int_equal(
			rename(testpki_path("new", suffixes[i]), testpki_path("own", suffixes[i])),
			0);
	must_refresh(s, false, 1, NULL);
	must_be(s, "node7.example");
	tls_store_free(s);
}

static void put_in_folder(const char *folder, const char *from)
{
	char path[80];

	assert_int_equal(mkdir(testpki_path(folder, ""), 0700), 0);
	snprintf(path, sizeof(path), "%s/tls", folder);
	rewrite_pair(path, from);
	rewrite(path, "ca", ".crt");
	rewrite_pair(path, from);
	snprintf(path, sizeof(path), "%s/ca", folder);
	rewrite(path, "ca", ".crt");
}

static void remove_folder(const char *folder)
{
	static const char *const names[] = {"tls.crt", "tls.key", "ca.crt"};
	char path[80];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
		unlink(testpki_path(path, ""));
	}
	rmdir(testpki_path(folder, ""));
}

/*
 * A Kubernetes Secret: the files are links through ..data, which is a link to a folder and
 * is replaced by a rename. Nothing happens to the names that the store knows.
 */
static void a_link_above_the_files_that_is_replaced_is_seen(void **state)
{
	static const char *const links[][2] = {{"..data/tls.crt", "k.crt"},
					       {"..data/tls.key", "k.key"},
					       {"..data/ca.crt", "kca.crt"}};
	struct tls_store *s;

	(void)state;
	put_in_folder("..one", "agent");
	put_in_folder("..two", "agentdns");
	assert_int_equal(symlink("..one", testpki_path("..data", "")), 0);
	for (size_t i = 0; i < ARRAY_SIZE(links); i++)
		assert_int_equal(symlink(links[i][0], testpki_path(links[i][1], "")), 0);
	s = open_store(files("k", "kca"));
	must_be(s, "urn:test:agent");
	settle(s);
	assert_int_equal(symlink("..two", testpki_path("..data_tmp", "")), 0);
	assert_int_equal(rename(testpki_path("..data_tmp", ""), testpki_path("..data", "")), 0);
	remove_folder("..one");
	must_refresh(s, false, 1, NULL);
	must_be(s, "node7.example");
	must_refresh(s, false, 0, NULL);

	/* A folder that is gone for a moment: what was there stays in use. */
	remove_folder("..two");
	must_refresh(s, false, -ENOENT, "tls.certfile: cannot read");
	must_refresh(s, false, 0, NULL);
	must_be(s, "node7.example");
	put_in_folder("..two", "agent");
	must_refresh(s, false, 1, NULL);
	must_be(s, "urn:test:agent");
	tls_store_free(s);
	remove_folder("..two");
	unlink(testpki_path("..data", ""));
}

static void half_of_a_pair_is_not_used_and_said_once(void **state)
{
	struct tls_store *s;

	(void)state;
	rewrite_pair("own", "agent");
	s = open_store(files("own", "ca"));
	settle(s);
	rewrite("own", "agentdns", ".crt");
	must_refresh(s, false, -EINVAL, "does not belong to the certificate");
	for (int i = 0; i < 3; i++)
		must_refresh(s, false, 0, NULL);
	must_be(s, "urn:test:agent");
	/* Who asks gets an answer. */
	must_refresh(s, true, -EINVAL, "does not belong to the certificate");
	rewrite("own", "collector", ".key");
	must_refresh(s, false, -EINVAL, "does not belong to the certificate");
	rewrite("own", "agentdns", ".key");
	must_refresh(s, false, 1, NULL);
	must_be(s, "node7.example");

	/* Back to what is in use: nothing has changed then. */
	testpki_write("own", ".key", "-----BEGIN", 10);
	must_refresh(s, false, -EINVAL, "there is no PEM private key");
	rewrite("own", "agentdns", ".key");
	must_refresh(s, false, 0, NULL);
	tls_store_free(s);
}

static void what_becomes_good_by_itself_is_taken(void **state)
{
	static const struct testpki_leaf client = {
		.dns = "later", .purpose = GNUTLS_KP_TLS_WWW_CLIENT, .from = 2, .until = 1000};
	struct tls_store *s;
	struct err err;
	int r = 0;

	(void)state;
	rewrite_pair("own", "agent");
	s = open_store(files("own", "ca"));
	testpki_issue(&bench_ca, "own", &client);
	must_refresh(s, false, -EKEYREJECTED, "is not valid before");
	for (int i = 0; i < 500 && r == 0; i++) {
		assert_int_equal(poll(NULL, 0, 10), 0);
		r = tls_store_refresh(s, false, &err);
	}
	assert_int_equal(r, 1);
	must_be(s, "later");
	tls_store_free(s);
}

static void authorities_and_lists_are_followed_too(void **state)
{
	static const char *const agent[] = {"agent"};
	struct tls_context *open_ctx, *now;
	struct tls_store *s;
	struct err err = {""};
	struct pair p;

	(void)state;
	rewrite("peers", "ca", ".crt");
	testpki_crl(&bench_ca, "list", NULL, 0, -TESTPKI_DAY, TESTPKI_DAY);
	{
		struct tls_config config = with_crl(files("collector", "peers"), "list");

		if (tls_store_new(TLS_COLLECTOR, &config, &s, &err))
			fail_msg("%s", err.text);
	}
	pair_open(&p);
	end_open(&p.agent, TLS_AGENT, files("agent", "ca"), NAME);
	open_ctx = tls_store_get(s);
	assert_int_equal(tls_new(open_ctx, p.collector.fd, NULL, &p.collector.tls, NULL), 0);
	must_agree(&p);

	testpki_crl(&bench_ca, "list", agent, 1, -TESTPKI_DAY, TESTPKI_DAY);
	must_refresh(s, false, 1, NULL);
	now = tls_store_get(s);
	assert_int_equal(tls_recheck(p.collector.tls, now, &err), -EKEYREVOKED);
	tls_context_free(now);

	/* Of another authority, before that one is in the file. */
	err.text[0] = '\0';
	testpki_crl(&bench_other, "list", NULL, 0, -TESTPKI_DAY, TESTPKI_DAY);
	must_refresh(s, false, -EKEYREJECTED, "is signed by nobody in");
	rewrite("peers", "otherca", ".crt");
	must_refresh(s, false, 1, NULL);
	now = tls_store_get(s);
	assert_int_equal(tls_recheck(p.collector.tls, now, &err), -EKEYREJECTED);
	tls_context_free(now);

	/* The session has what it began with, and that outlives the store. */
	tls_store_free(s);
	tls_context_free(open_ctx);
	pass(&p.agent, &p.collector, 1000, 1000);
	pair_close(&p);
}

static void the_user_may_ask_for_it(void **state)
{
	struct tls_config plain = {.enable = false};
	struct tls_store *s;

	(void)state;
	s = open_store(files("agent", "ca"));
	must_refresh(s, true, 1, NULL);
	must_refresh(s, true, 1, NULL);
	tls_store_free(s);
	/* Without files there is nothing to load. */
	s = open_store(key("k"));
	must_refresh(s, true, 0, NULL);
	must_refresh(s, false, 0, NULL);
	tls_store_free(s);
	s = open_store(plain);
	must_refresh(s, true, 0, NULL);
	tls_store_free(s);
}

static void a_fifo_does_not_hold_it_up(void **state)
{
	struct tls_store *s;

	(void)state;
	rewrite_pair("own", "agent");
	s = open_store(files("own", "ca"));
	unlink(testpki_path("own", ".key"));
	assert_int_equal(mkfifo(testpki_path("own", ".key"), 0600), 0);
	alarm(10); /* ends the test if it does wait */
	must_refresh(s, false, -EINVAL, "is not a file");
	alarm(0);
	unlink(testpki_path("own", ".key"));
	tls_store_free(s);
}

struct shared {
	struct tls_store *store;
	atomic_bool stop;
	atomic_uint sessions, failed;
};

/* Makes sessions as fast as it can, of whatever is current. */
static void *use(void *arg)
{
	struct shared *sh = arg;

	while (!sh->stop) {
		struct tls_context *ctx = tls_store_get(sh->store);
		struct tls *t = NULL;
		int fds[2];

		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds)) {
			sh->failed++;
			tls_context_free(ctx);
			break;
		}
		if (tls_new(ctx, fds[0], NAME, &t, NULL))
			sh->failed++;
		tls_context_free(ctx);
		if (t && tls_handshake(t, NULL) != -EAGAIN)
			sh->failed++;
		tls_free(t);
		close(fds[0]);
		close(fds[1]);
		sh->sessions++;
	}
	return NULL;
}

static void *refresh(void *arg)
{
	struct shared *sh = arg;

	while (!sh->stop) {
		struct err err;

		tls_store_refresh(sh->store, false, &err);
		tls_store_generation(sh->store);
	}
	return NULL;
}

static void threads_may_use_it_while_it_changes(void **state)
{
	static void *(*const jobs[])(void *) = {use, use, refresh, refresh};
	struct shared sh = {0};
	pthread_t threads[ARRAY_SIZE(jobs)];
	uint64_t generation;

	(void)state;
	rewrite_pair("own", "agent");
	sh.store = open_store(files("own", "ca"));
	for (size_t i = 0; i < ARRAY_SIZE(jobs); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, jobs[i], &sh), 0);
	for (int i = 0; i < 20; i++) {
		generation = tls_store_generation(sh.store);
		rewrite_pair("own", i % 2 ? "agent" : "agentdns");
		for (int k = 0; tls_store_generation(sh.store) == generation; k++) {
			assert_true(k < 2000);
			assert_int_equal(poll(NULL, 0, 5), 0);
		}
	}
	sh.stop = true;
	for (size_t i = 0; i < ARRAY_SIZE(jobs); i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(sh.failed, 0);
	assert_true(sh.sessions > 0);
	must_be(sh.store, "urn:test:agent");
	tls_store_free(sh.store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_store_starts_with_what_is_there),
		cmocka_unit_test(files_that_are_written_anew_are_used),
		cmocka_unit_test(a_change_within_a_tick_of_the_clock_is_seen),
		cmocka_unit_test(files_that_are_renamed_into_place_are_used),
		cmocka_unit_test(a_link_above_the_files_that_is_replaced_is_seen),
		cmocka_unit_test(half_of_a_pair_is_not_used_and_said_once),
		cmocka_unit_test(what_becomes_good_by_itself_is_taken),
		cmocka_unit_test(authorities_and_lists_are_followed_too),
		cmocka_unit_test(the_user_may_ask_for_it),
		cmocka_unit_test(a_fifo_does_not_hold_it_up),
		cmocka_unit_test(threads_may_use_it_while_it_changes),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
