// SPDX-License-Identifier: Apache-2.0
/* ps-collector.yaml: keys, defaults, rules between keys, examples. */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "clock.h"
#include "config.h"
#include "util.h"

#define BASE  "input: {address: '::', port: 5}\noutput: {file: {path: x.pcap}}\n"
#define PLAIN BASE "tls: {enable: false}\n"
#define WAYS_OUT                                                                                  \
	"set tls.certfile, tls.keyfile and tls.cafile (`ps-collector --init-pki DIR` makes such " \
	"files), or auth.enable and auth.key, or `tls.enable: false` for plain text\n"

static char *parse(const char *text, struct config **ret)
{
	size_t size;
	char *lines;
	FILE *f = open_memstream(&lines, &size);
	int r;

	assert_non_null(f);
	*ret = NULL;
	r = config_parse("f", text, strlen(text), ret, f);
	fclose(f);
	assert_int_equal(r == 0, *ret != NULL);
	assert_int_equal(r<0, size> 0);
	return lines;
}

static struct config *good(const char *text)
{
	struct config *c;
	char *lines = parse(text, &c);

	assert_string_equal(lines, "");
	free(lines);
	return c;
}

static void bad(const char *text, const char *expected)
{
	struct config *c;
	char *lines = parse(text, &c);

	assert_string_equal(lines, expected);
	free(lines);
}

static void defaults_are_the_documented_ones(void **state)
{
	struct config *c = good(PLAIN);

	(void)state;
	assert_string_equal(c->listen_address, "::");
	assert_int_equal(c->listen_port, 5);
	assert_string_equal(c->file_path, "x.pcap");
	assert_false(c->micro);
	assert_false(c->tls_enable);
	assert_false(c->auth_enable);
	assert_int_equal(c->ack, ACK_DURABLE);
	assert_int_equal(c->commit_wait, 50 * NSEC_PER_MSEC);
	assert_int_equal(c->heartbeat, 10 * NSEC_PER_SEC);
	assert_int_equal(c->memory_bytes, 1280 << 20);
	assert_int_equal(c->max_sessions, 4096);
	assert_int_equal(c->credit_bytes, 4 << 20);
	assert_int_equal(c->allow.n, 0);
	assert_false(c->any_name);
	assert_null(config_tls(c).crlfile);
	assert_null(c->log_filename);
	assert_true(c->sandbox);
	config_free(c);
}

static void every_key_is_read(void **state)
{
	struct config *c = good(BASE "tls:\n"
				     "  enable: on\n"
				     "  certfile: c.crt\n"
				     "  keyfile: c.key\n"
				     "  cafile: ca.crt\n"
				     "  crlfile: crl.pem\n"
				     "  serverName: collector.example\n"
				     "auth: {enable: no, key: 0123456789abcdef}\n"
				     "logFilename: l.log\n"
				     "sandbox: off\n"
				     "format: PCAP\n"
				     "timestampPrecision: micro\n"
				     "agents: {allow: ['urn:corp:*', node-1], names: Any}\n"
				     "ack: written\n"
				     "commitIntervalMs: 7\n"
				     "heartbeat: 500ms\n"
				     "memoryBudget: 16MB\n"
				     "maxSessions: 65536\n"
				     "creditBytes: 2MB\n");
	struct tls_config tls = config_tls(c);

	(void)state;
	assert_true(tls.enable);
	assert_string_equal(tls.certfile, "c.crt");
	assert_string_equal(tls.keyfile, "c.key");
	assert_string_equal(tls.cafile, "ca.crt");
	assert_string_equal(tls.crlfile, "crl.pem");
	assert_null(tls.psk);
	assert_string_equal(c->log_filename, "l.log");
	assert_false(c->sandbox);
	assert_true(c->micro);
	assert_int_equal(c->allow.n, 2);
	assert_string_equal(c->allow.v[0], "urn:corp:*");
	assert_string_equal(c->allow.v[1], "node-1");
	assert_true(c->any_name);
	assert_int_equal(c->ack, ACK_WRITTEN);
	assert_int_equal(c->commit_wait, 7 * NSEC_PER_MSEC);
	assert_int_equal(c->heartbeat, 500 * NSEC_PER_MSEC);
	assert_int_equal(c->memory_bytes, 16 << 20);
	assert_int_equal(c->max_sessions, 65536);
	assert_int_equal(c->credit_bytes, 2 << 20);
	config_free(c);
}

static void values_out_of_bounds_are_refused(void **state)
{
	(void)state;
	bad(PLAIN "maxSessions: 0\ncreditBytes: 1MB\nformat: pcapng\nack: never\n"
		  "timestampPrecision: s\n",
	    "f:4:14: maxSessions: 0 is below 1\n"
	    "f:5:14: creditBytes: 1MB is below 2MB\n"
	    "f:6:9: format: \"pcapng\" is not supported by this version (only: pcap)\n"
	    "f:7:6: ack: \"never\" is none of: durable, written\n"
	    "f:8:21: timestampPrecision: \"s\" is none of: nano, micro\n");
	bad(PLAIN "commitIntervalMs: 0\nheartbeat: 50ms\nmemoryBudget: 1MB\n",
	    "f:4:19: commitIntervalMs: 0ms is below 1ms\n"
	    "f:5:12: heartbeat: 50ms is below 100ms\n"
	    "f:6:15: memoryBudget: 1MB is below 16MB\n");
	bad(PLAIN "commitIntervalMs: 10001\nheartbeat: 11m\nmemoryBudget: 1025GB\n",
	    "f:4:19: commitIntervalMs: 10001ms is above 10s\n"
	    "f:5:12: heartbeat: 11m is above 10m\n"
	    "f:6:15: memoryBudget: 1025GB is above 1024GB\n");
	bad(PLAIN "metrics: {address: '::', port: 5}",
	    "f:4:1: metrics: not supported by this version\n");
}

static void listener_and_file_are_required(void **state)
{
	(void)state;
	bad("tls: {enable: false}", "f:1:1: input.address: is missing\n"
				    "f:1:1: input.port: is missing\n"
				    "f:1:1: output.file.path: is missing\n");
	bad("tls: {enable: false}\ninput: {port: 70000}\noutput:\n  file: {path: ~}\n",
	    "f:2:1: input.address: is missing\n"
	    "f:2:15: input.port: 70000 is above 65535\n"
	    "f:4:3: output.file.path: is missing\n");
}

static void plain_text_must_be_spelled_out(void **state)
{
	struct config *c;

	(void)state;
	bad(BASE, "f:1:1: tls: the stream has no certificates and no key: " WAYS_OUT);
	bad(BASE "tls: {enable: ~}",
	    "f:3:1: tls: the stream has no certificates and no key: " WAYS_OUT);
	bad(BASE "tls: {cafile: c, certfile: a}", "f:3:1: tls.keyfile: is missing: " WAYS_OUT);
	bad(PLAIN "auth: {enable: true, key: 0123456789abcdef}",
	    "f:4:16: auth.enable: the key works only inside TLS: leave `tls.enable: false` out, "
	    "or set this to false too\n");
	bad(BASE "auth: {enable: true, key: short}",
	    "f:3:27: auth.key: shorter than 16 characters\n");
	c = good(BASE "auth: {enable: true, key: 0123456789abcdef}");
	assert_string_equal(config_tls(c).psk, "0123456789abcdef");
	assert_true(config_tls(c).enable);
	config_free(c);
}

static void agents_are_told_apart_only_by_certificates(void **state)
{
	static const char *const certs = BASE "tls: {certfile: c, keyfile: k, cafile: a}\n";
	char text[500];
	struct config *c;

	(void)state;
	bad(PLAIN "agents: {allow: [a], names: identity}",
	    "f:4:10: agents.allow: needs certificates to know agents by, and tls.enable is false\n"
	    "f:4:29: agents.names: needs certificates to know agents by, and tls.enable is "
	    "false\n");
	bad(BASE "auth: {enable: true, key: 0123456789abcdef}\nagents: {allow: [a]}",
	    "f:4:10: agents.allow: needs certificates to know agents by; with auth.enable all "
	    "have one key\n");
	bad(BASE "auth: {enable: true, key: 0123456789abcdef}\ntls: {crlfile: c}",
	    "f:4:16: tls.crlfile: revokes certificates, and with auth.enable there are none\n");
	snprintf(text, sizeof(text), "%sagents: {allow: [], names: some}\n", certs);
	bad(text, "f:4:10: agents.allow: is empty and would keep all agents out; leave it out to "
		  "let all in that tls.cafile vouches for\n"
		  "f:4:28: agents.names: \"some\" is none of: identity, any\n");
	snprintf(text, sizeof(text), "%sagents: {allow: one}\n", certs);
	bad(text, "f:4:17: agents.allow: a list is needed, such as [a, b]\n");
	/* What comes down to the same is no mistake. */
	c = good(PLAIN "agents: {names: any}\n");
	config_free(c);
}

static void nothing_on_stdout_is_durable(void **state)
{
	static const char *const says =
		"f:4:6: ack: nothing that goes to stdout can be made durable: leave this out, or "
		"write to a file\n";
	struct config *c;

	(void)state;
	bad("input: {address: '::', port: 5}\noutput: {file: {path: stdout}}\n"
	    "tls: {enable: false}\nack: durable\n",
	    says);
	bad("input: {address: '::', port: 5}\noutput: {file: {path: '-'}}\n"
	    "tls: {enable: false}\nack: durable\n",
	    says);
	c = good("input: {address: '::', port: 5}\noutput: {file: {path: stdout}}\n"
		 "tls: {enable: false}\nack: written\n");
	config_free(c);
}

static void keys_of_the_agent_are_named_as_such(void **state)
{
	static const char *const keys[] = {
		"agentName",
		"shutdownTimeout",
		"compressBlockSize",
		"inputPacketLen",
		"gatherMaxWaitSec",
		"gatherMaxWaitMs",
		"ringSize",
		"queueSize",
		"spool",
		"backend",
		"interfaces",
		"captureLoopback",
		"pcapMode",
		"captureInterfacesPorts",
		"capturePorts",
		"ignorePorts",
		"filter",
		"taps",
	};
	char text[200], expected[100];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		snprintf(text, sizeof(text), "%s%s: {a: 1}\n", PLAIN, keys[i]);
		snprintf(expected, sizeof(expected), "f:4:1: %s: belongs to ps-agent\n", keys[i]);
		bad(text, expected);
	}
	bad("input: {address: a, port: 1}\ntls: {enable: false}\noutput:\n  file: {path: x}\n"
	    "  server: {address: h, port: 5}\n  servers: []\n  plugins: {s3: {}, kafka: {}}\n",
	    "f:5:3: output.server: belongs to ps-agent\n"
	    "f:6:3: output.servers: belongs to ps-agent\n"
	    "f:7:13: output.plugins.s3: not supported by this version\n"
	    "f:7:21: output.plugins.kafka: not supported by this version\n");
}

static void the_examples_load(void **state)
{
	static const char *const names[] = {"", "-tls", "-psk", "-stdout", "-agents"};
	const char *src = getenv("PS_SRC");
	char path[PATH_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct config *c = NULL;

		snprintf(path, sizeof(path), "%s/contrib/config/collector%s.yaml", src ? src : ".",
			 names[i]);
		assert_int_equal(config_load(path, &c, stderr), 0);
		config_free(c);
	}
}

static void a_missing_file_keeps_its_errno(void **state)
{
	struct config *c = NULL;
	FILE *null = fopen("/dev/null", "w");

	(void)state;
	assert_non_null(null);
	assert_int_equal(config_load("/nonexistent/f", &c, null), -ENOENT);
	assert_null(c);
	assert_null(config_free(NULL));
	fclose(null);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_are_the_documented_ones),
		cmocka_unit_test(every_key_is_read),
		cmocka_unit_test(values_out_of_bounds_are_refused),
		cmocka_unit_test(listener_and_file_are_required),
		cmocka_unit_test(plain_text_must_be_spelled_out),
		cmocka_unit_test(agents_are_told_apart_only_by_certificates),
		cmocka_unit_test(nothing_on_stdout_is_durable),
		cmocka_unit_test(keys_of_the_agent_are_named_as_such),
		cmocka_unit_test(the_examples_load),
		cmocka_unit_test(a_missing_file_keeps_its_errno),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
