// SPDX-License-Identifier: Apache-2.0
/* The uplink and certificates that expire, or are revoked, while a session is open. */
#include "testpki.h"
#include "tls_internal.h"
#include "uplink_bench.h"

static bool wait_tls(struct tls *t, int fd)
{
	struct pollfd pfd = {.fd = fd, .events = tls_events(t)};

	return tls_pending(t) || poll(&pfd, 1, (int)(PATIENCE / NSEC_PER_MSEC)) == 1;
}

static void say_secure(struct tls *t, int fd, uint8_t type, const struct buf *payload)
{
	struct buf wire = {};
	size_t at = 0;

	stream_message(&wire, type, 0, payload->data, payload->len);
	while (at < wire.len) {
		ssize_t n = tls_send(t, wire.data + at, wire.len - at, NULL);

		assert_true(n > 0 || (n == -EAGAIN && wait_tls(t, fd)));
		at += n > 0 ? (size_t)n : 0;
	}
	buf_free(&wire);
}

/* The type of the next message that is no PING; 0: the agent has closed the connection. */
static uint8_t hear_secure(struct tls *t, int fd)
{
	struct stream_header h = {.type = STREAM_PING};
	uint8_t in[4096];

	while (h.type == STREAM_PING) {
		size_t have = 0, need = STREAM_HEADER_SIZE;

		while (have < need) {
			ssize_t n = tls_recv(t, in + have, need - have, NULL);

			if (n == -EAGAIN && wait_tls(t, fd))
				continue;
			if (n <= 0)
				return 0;
			have += (size_t)n;
			if (have == STREAM_HEADER_SIZE) {
				assert_int_equal(stream_header_decode(in, &h, NULL), 0);
				need += h.payload_len;
				assert_true(need <= sizeof(in));
			}
		}
	}
	return h.type;
}

/*
 * Let the agent in, do @then, and wait until it ends the session. Returns the type that it
 * said last, 0: nothing.
 */
static uint8_t secure_session(struct bench *b, struct tls_context *ctx,
			      void (*then)(struct bench *b))
{
	struct stream_welcome w = usual(1);
	struct buf payload = {};
	int fd = meet(b, 0), r;
	struct tls *t;
	struct err err;
	uint8_t type;

	assert_int_equal(tls_new(ctx, fd, NULL, &t, &err), 0);
	while ((r = tls_handshake(t, &err)) == -EAGAIN)
		assert_true(wait_tls(t, fd));
	if (r < 0)
		fail_msg("%s", err.text);
	if (hear_secure(t, fd) != STREAM_HELLO) {
		tls_free(t);
		close(fd);
		return 0;
	}
	stream_welcome_encode(&payload, &w);
	say_secure(t, fd, STREAM_WELCOME, &payload);
	if (then)
		then(b);
	type = hear_secure(t, fd);
	if (type == STREAM_BYE) {
		buf_reset(&payload);
		stream_bye_encode(&payload, &(struct stream_bye){.reason = STREAM_BYE_DRAIN});
		say_secure(t, fd, STREAM_BYE, &payload);
		assert_int_equal(hear_secure(t, fd), 0);
	}
	buf_free(&payload);
	tls_free(t);
	close(fd);
	return type;
}

/* An agent, and the credentials of a collector, with a certificate that lasts @seconds. */
static struct tls_context *secure_bench(struct bench *b, struct testpki_ca *ca, time_t seconds)
{
	const struct testpki_leaf agent = {.dns = "a"};
	const struct testpki_leaf collector = {
		.ip = "127.0.0.1", .from = -TESTPKI_DAY, .until = seconds};
	struct tls_config config = {.enable = true};
	struct tls_context *ctx;
	struct err err;

	testpki_open();
	testpki_ca_new(ca, "ca", -TESTPKI_DAY, TESTPKI_DAY);
	testpki_issue(ca, "agent", &agent);
	testpki_issue(ca, "collector", &collector);
	testpki_crl(ca, "list", NULL, 0, -TESTPKI_DAY, TESTPKI_DAY);
	config.cafile = testpki_path("ca", ".crt");
	config.certfile = testpki_path("collector", ".crt");
	config.keyfile = testpki_path("collector", ".key");
	if (tls_context_new(TLS_COLLECTOR, &config, &ctx, &err) < 0)
		fail_msg("%s", err.text);
	config.certfile = testpki_path("agent", ".crt");
	config.keyfile = testpki_path("agent", ".key");
	config.crlfile = testpki_path("list", ".crl");
	bench_init(b, 1);
	tls_store_free(b->tls);
	if (tls_store_new(TLS_AGENT, &config, &b->tls, &err) < 0)
		fail_msg("%s", err.text);
	return ctx;
}

static void secure_done(struct bench *b, struct testpki_ca *ca, struct tls_context *ctx)
{
	bench_done(b);
	tls_context_free(ctx);
	testpki_ca_free(ca);
	testpki_remove();
}

static void a_session_ends_before_its_certificate_does(void **state)
{
	struct bench b = {};
	struct testpki_ca ca;
	nsec_t began = clock_monotonic();
	struct tls_context *ctx = secure_bench(&b, &ca, 5);

	(void)state;
	bench_start(&b);
	assert_int_equal(secure_session(&b, ctx, NULL), STREAM_BYE);
	assert_true(clock_monotonic() - began < 5 * NSEC_PER_SEC);
	assert_true(clock_monotonic() - began > 2 * NSEC_PER_SEC);
	/* At once again: there may be a new one. */
	close(meet(&b, 0));
	secure_done(&b, &ca, ctx);
}

/* The collector's clock is behind: it would let the agent in, again and again. */
static void an_agent_whose_certificate_has_expired_says_nothing(void **state)
{
	struct bench b = {};
	struct testpki_ca ca;
	struct tls_context *ctx = secure_bench(&b, &ca, TESTPKI_DAY);
	struct tls_context *credentials = tls_store_get(b.tls);

	(void)state;
	credentials->expires = clock_realtime() - NSEC_PER_SEC;
	tls_context_free(credentials);
	bench_start(&b);
	for (int i = 0; i < 3; i++)
		assert_int_equal(secure_session(&b, ctx, NULL), 0);
	secure_done(&b, &ca, ctx);
}

static struct testpki_ca *authority;

static void revoke_it(struct bench *b)
{
	static const char *const names[] = {"collector"};
	struct err err;

	testpki_crl(authority, "list", names, 1, -TESTPKI_DAY, TESTPKI_DAY);
	if (tls_store_refresh(b->tls, true, &err) != 1)
		fail_msg("%s", err.text);
	uplink_credentials_changed(b->uplink);
}

static void a_collector_that_is_revoked_is_left(void **state)
{
	struct bench b = {};
	struct testpki_ca ca;
	struct tls_context *ctx = secure_bench(&b, &ca, TESTPKI_DAY);

	(void)state;
	authority = &ca;
	bench_start(&b);
	assert_int_equal(secure_session(&b, ctx, revoke_it), 0);
	/* It tries on: the list may change again. */
	close(meet(&b, 0));
	secure_done(&b, &ca, ctx);
}

static void renew_it(struct bench *b)
{
	const struct testpki_leaf leaf = {.dns = "a"};
	struct err err;

	testpki_issue(authority, "agent", &leaf);
	if (tls_store_refresh(b->tls, true, &err) != 1)
		fail_msg("%s", err.text);
	uplink_credentials_changed(b->uplink);
	push(b, 1);
}

static void an_open_session_survives_new_certificates(void **state)
{
	struct bench b = {};
	struct testpki_ca ca;
	struct tls_context *ctx = secure_bench(&b, &ca, TESTPKI_DAY);

	(void)state;
	authority = &ca;
	bench_start(&b);
	assert_int_equal(secure_session(&b, ctx, renew_it), STREAM_STATS);
	assert_int_equal(secure_session(&b, ctx, NULL), STREAM_STATS);
	secure_done(&b, &ca, ctx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_session_ends_before_its_certificate_does),
		cmocka_unit_test(an_agent_whose_certificate_has_expired_says_nothing),
		cmocka_unit_test(a_collector_that_is_revoked_is_left),
		cmocka_unit_test(an_open_session_survives_new_certificates),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	/* What it logs is not judged here. */
	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
