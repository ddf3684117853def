// SPDX-License-Identifier: Apache-2.0
/* ps-agent.yaml: keys, defaults, rules between keys, the choice of interfaces, examples. */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "abi.h"
#include "config.h"
#include "util.h"

#define FILE_ONLY "output: {file: {path: stdout}}\n"
#define SERVER    "output: {server: {address: h, port: 5}}\n"
#define PLAIN     SERVER "tls: {enable: false}\n"
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
	struct config *c = good(FILE_ONLY);
	char host[HOST_NAME_MAX + 1];

	(void)state;
	assert_int_equal(gethostname(host, sizeof(host)), 0);
	assert_int_equal(c->servers.n, 0);
	assert_string_equal(c->file_path, "stdout");
	assert_false(c->micro);
	assert_true(c->tls_enable);
	assert_false(c->auth_enable);
	assert_string_equal(c->agent_name, host);
	assert_int_equal(c->block_bytes, 65 * 1024);
	assert_int_equal(c->snaplen, 65535);
	assert_int_equal(c->gather_max_wait, 100 * NSEC_PER_MSEC);
	assert_int_equal(c->ring_bytes, 32 << 20);
	assert_int_equal(c->queue_bytes, 64 << 20);
	assert_int_equal(c->spool_mode, SPOOL_OFF);
	assert_null(c->spool_path);
	assert_int_equal(c->spool_max_bytes, 1 << 30);
	assert_int_equal(c->spool_max_age, 0);
	assert_int_equal(c->spool_min_free, 512 << 20);
	assert_int_equal(c->spool_segment_bytes, 32 << 20);
	assert_int_equal(c->shutdown_timeout, 10 * NSEC_PER_SEC);
	assert_null(c->log_filename);
	assert_true(c->sandbox);
	assert_int_equal(c->backend, BACKEND_AUTO);
	assert_int_equal(c->pcap_mode, PCAP_MODE_ALL);
	assert_int_equal(c->interfaces.n, 0);
	assert_false(c->capture_loopback);
	config_free(c);
}

static void every_key_is_read(void **state)
{
	struct config *c = good("output:\n"
				"  server: {address: collector.example, port: 65535}\n"
				"  file: {path: /tmp/x.pcap}\n"
				"tls:\n"
				"  enable: true\n"
				"  certfile: c.crt\n"
				"  keyfile: c.key\n"
				"  cafile: ca.crt\n"
				"  crlfile: crl.pem\n"
				"  serverName: other.example\n"
				"auth: {enable: false, key: 0123456789abcdef}\n"
				"agentName: a1\n"
				"logFilename: l.log\n"
				"sandbox: off\n"
				"timestampPrecision: Micro\n"
				"shutdownTimeout: 3\n"
				"compressBlockSize: 1MB\n"
				"inputPacketLen: 262144\n"
				"gatherMaxWaitMs: 7\n"
				"ringSize: 1MB\n"
				"queueSize: 4MB\n"
				"spool:\n"
				"  path: /s\n"
				"  mode: Always\n"
				"  maxBytes: 10MB\n"
				"  maxAge: 36h\n"
				"  minFree: 0\n"
				"  segmentBytes: 64KB\n"
				"backend: TC\n"
				"interfaces: [eth*, '!eth7']\n"
				"captureLoopback: yes\n"
				"pcapMode: Deny\n"
				"capturePorts: [22]\n"
				"captureInterfacesPorts: {eth0: [80, 81], lo: []}\n"
				"ignorePorts: [5, 6, 7]\n");
	struct tls_config tls = config_tls(c);

	(void)state;
	assert_int_equal(c->servers.n, 1);
	assert_string_equal(c->servers.v[0].host, "collector.example");
	assert_int_equal(c->servers.v[0].port, 65535);
	assert_string_equal(c->file_path, "/tmp/x.pcap");
	assert_true(tls.enable);
	assert_string_equal(tls.certfile, "c.crt");
	assert_string_equal(tls.keyfile, "c.key");
	assert_string_equal(tls.cafile, "ca.crt");
	assert_string_equal(tls.crlfile, "crl.pem");
	assert_null(tls.psk);
	assert_string_equal(c->tls_server_name, "other.example");
	assert_string_equal(c->agent_name, "a1");
	assert_string_equal(c->log_filename, "l.log");
	assert_false(c->sandbox);
	assert_true(c->micro);
	assert_int_equal(c->shutdown_timeout, 3 * NSEC_PER_SEC);
	assert_int_equal(c->block_bytes, 1 << 20);
	assert_int_equal(c->snaplen, SNAPLEN_MAX);
	assert_int_equal(c->gather_max_wait, 7 * NSEC_PER_MSEC);
	assert_int_equal(c->ring_bytes, 1 << 20);
	assert_int_equal(c->queue_bytes, 4 << 20);
	assert_string_equal(c->spool_path, "/s");
	assert_int_equal(c->spool_mode, SPOOL_ALWAYS);
	assert_int_equal(c->spool_max_bytes, 10 << 20);
	assert_int_equal(c->spool_max_age, 36 * 3600 * NSEC_PER_SEC);
	assert_int_equal(c->spool_min_free, 0);
	assert_int_equal(c->spool_segment_bytes, 64 << 10);
	assert_int_equal(c->backend, BACKEND_TC);
	assert_int_equal(c->interfaces.n, 2);
	assert_true(c->capture_loopback);
	assert_int_equal(c->pcap_mode, PCAP_MODE_DENY);
	assert_int_equal(c->capture_ports.count, 1);
	assert_int_equal(c->interface_ports.n, 2);
	assert_int_equal(c->ignore_ports.count, 3);
	config_free(c);
}

static void values_out_of_bounds_are_refused(void **state)
{
	static const struct {
		const char *line, *error;
	} table[] = {
		{"compressBlockSize: 1025", "20: compressBlockSize: 1025KB is above 1MB"},
		{"compressBlockSize: 0", "20: compressBlockSize: 0KB is below 1KB"},
		{"inputPacketLen: 700000", "17: inputPacketLen: 700000 is above 262144"},
		{"inputPacketLen: 63", "17: inputPacketLen: 63 is below 64"},
		{"gatherMaxWaitSec: 3601", "19: gatherMaxWaitSec: 3601s is above 1h"},
		{"gatherMaxWaitMs: 2h", "18: gatherMaxWaitMs: 2h is above 1h"},
		{"shutdownTimeout: 601", "18: shutdownTimeout: 601s is above 10m"},
		{"ringSize: 5KB", "11: ringSize: 5KB is below 1MB"},
		{"queueSize: 3MB", "12: queueSize: 3MB is below 4MB"},
		{"auth: {key: tooshort}", "13: auth.key: shorter than 16 characters"},
		{"pcapMode: some", "11: pcapMode: \"some\" is none of: all, allow, deny"},
		{"timestampPrecision: pico",
		 "21: timestampPrecision: \"pico\" is none of: nano, micro"},
	};
	char text[200], expected[200];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		snprintf(text, sizeof(text), "%s%s\n", FILE_ONLY, table[i].line);
		snprintf(expected, sizeof(expected), "f:2:%s\n", table[i].error);
		bad(text, expected);
	}
	bad("output: {server: {address: h, port: 65536}}\ntls: {enable: no}",
	    "f:1:37: output.server.port: 65536 is above 65535\n");
	bad("output: {server: {address: h, port: 0}}\ntls: {enable: no}",
	    "f:1:37: output.server.port: 0 is below 1\n");
}

static void what_this_version_cannot_do_is_refused_once(void **state)
{
	(void)state;
	bad(FILE_ONLY "\n\n\n\n\n\n\n  \nmetrics: {port: 9100}\n",
	    "f:10:1: metrics: not supported by this version\n");
	bad("output:\n"
	    "  file: {path: x}\n"
	    "  plugins:\n"
	    "    s3: {bucket: b, region: r, totalFileSize: 10MB, uploadTimeout: 1m}\n"
	    "    kafka:\n"
	    "      brokers: [a]\n"
	    "      topic: t\n",
	    "f:4:5: output.plugins.s3: not supported by this version\n"
	    "f:5:5: output.plugins.kafka: not supported by this version\n");
	bad(FILE_ONLY "metrics: {address: '::', port: 1}\n",
	    "f:2:1: metrics: not supported by this version\n");
}

static void taps_have_exact_names_and_are_wanted_in_any_case(void **state)
{
	struct config *c;

	(void)state;
#ifndef HAVE_XDP
	bad(FILE_ONLY "taps: [eth1]\n",
	    "f:2:1: taps: this build has no AF_XDP, for want of libxdp\n");
	return;
#endif
	c = good(FILE_ONLY "taps: [eth1, span0]\ninterfaces: [eth0, '!span*']\n");
	assert_true(config_is_tap(c, "eth1"));
	assert_true(config_is_tap(c, "span0"));
	assert_false(config_is_tap(c, "eth0"));
	assert_false(config_is_tap(c, "span"));
	assert_true(config_wants_interface(c, "eth0", false));
	assert_true(config_wants_interface(c, "eth1", false));
	assert_true(config_wants_interface(c, "span0", false));
	assert_false(config_wants_interface(c, "span1", false));
	assert_int_equal(c->tap_unmatched, TAP_PASS);
	config_free(c);
	c = good(FILE_ONLY "taps: [eth1]\ntapUnmatched: drop\n");
	assert_int_equal(c->tap_unmatched, TAP_DROP);
	config_free(c);
	bad(FILE_ONLY "taps: ['eth*', lo, eth1, eth1]\n",
	    "f:2:1: taps: \"eth*\" is a pattern: a tap has its exact name\n"
	    "f:2:1: taps: \"lo\" cannot be taken from the host\n"
	    "f:2:1: taps: \"eth1\" is there twice\n");
	bad(FILE_ONLY
	    "taps: [t0, t1, t2, t3, t4, t5, t6, t7, t8, t9, t10, t11, t12, t13, t14, t15, t16]\n",
	    "f:2:1: taps: 17 taps, at most 16 are possible\n");
	bad(FILE_ONLY "taps: [eth1]\nbackend: pcap\n",
	    "f:2:1: taps: need BPF programs, and backend pcap works without them\n");
}

static void what_is_asked_of_single_interfaces_takes_the_place_of_what_is_asked_of_all(void **state)
{
	struct config *c = good(FILE_ONLY "filter: tcp\n"
					  "slice: l4+64\n"
					  "sampleFlows: 10\n"
					  "packetsPerSecond: 1000\n"
					  "perInterface:\n"
					  "  eth0: {filter: udp, slice: headers, sample: 2}\n"
					  "  'eth*': {bitsPerSecond: 10Mbit}\n");
	struct selection s = selection_for(&c->selection, &c->per_interface, "eth0");

	(void)state;
	assert_string_equal(s.filter, "udp");
	assert_int_equal(selection_slice(&s), SLICE_L4);
	assert_int_equal(s.sample, 2);
	assert_int_equal(s.sample_flows, 0);
	assert_int_equal(s.bits_per_s, 0);
	s = selection_for(&c->selection, &c->per_interface, "eth1");
	assert_string_equal(s.filter, "tcp");
	assert_int_equal(selection_slice(&s), SLICE_L4 | 64);
	assert_int_equal(s.sample_flows, 10);
	assert_int_equal(s.bits_per_s, 10000000);
	/* The agent's limit is that of all interfaces together. */
	assert_int_equal(s.packets_per_s, 0);
	assert_int_equal(c->selection.packets_per_s, 1000);
	config_free(c);
}

static void bad_selections_and_sets_are_refused_by_their_whole_names(void **state)
{
	(void)state;
	bad(FILE_ONLY "slice: l4\n"
		      "perInterface:\n"
		      "  eth0: {slice: 5, sample: 2, sampleFlows: 2}\n"
		      "  eth1: {filtre: tcp}\n"
		      "  eth2: 5\n",
	    "f:2:8: slice: \"l4\" is neither headers, nor l4+N for N bytes behind the header of "
	    "layer 4, nor N bytes from 14 to 262144\n"
	    "f:4:17: perInterface.eth0.slice: \"5\" is neither headers, nor l4+N for N bytes behind "
	    "the header of layer 4, nor N bytes from 14 to 262144\n"
	    "f:4:44: perInterface.eth0.sampleFlows: there is sample too: only one of them is "
	    "possible\n"
	    "f:5:10: perInterface.eth1.filtre: unknown key, the nearest known one is filter\n"
	    "f:6:9: perInterface.eth2: a block of keys is needed, such as filter\n");
	bad(FILE_ONLY "sets:\n"
		      "  a: {file: x, addresses: [10.0.0.1]}\n"
		      "  b: {}\n"
		      "  c: {bitsPerSecond: 5}\n",
	    "f:3:3: sets.a: either file or addresses is needed\n"
	    "f:4:3: sets.b: either file or addresses is needed\n"
	    "f:5:7: sets.c.bitsPerSecond: unknown key, the nearest known one is addresses\n");
	bad(FILE_ONLY "bitsPerSecond: 10MB\n",
	    "f:2:16: bitsPerSecond: \"10MB\" is not a rate such as 500kbit, 10Mbit or 1Gbit\n");
}

static void note_key(void *ctx, const char *key)
{
	snprintf(ctx, 64, "%s", key);
}

static void budgets_are_shares_and_rates_and_change_live(void **state)
{
	struct config *was = good(PLAIN "cpuBudget: 25%\nbandwidthBudget: 400kbit\n");
	struct config *is =
		good(PLAIN "cpuBudget: 250\nbandwidthBudget: 10Mbit\nmaxSetEntries: 5\n");
	char changed[64] = "";

	(void)state;
	assert_int_equal(was->cpu_budget, 25);
	assert_int_equal(was->bandwidth_budget, 400000);
	assert_int_equal(config_block_bytes(was), 400000 / 8 / 4);
	assert_int_equal(is->cpu_budget, 250);
	assert_int_equal(config_block_bytes(is), 65 << 10);
	config_changes(was, is, note_key, changed);
	assert_string_equal(changed, "");
	config_free(was);
	config_free(is);
	bad(PLAIN "cpuBudget: 0%\nbandwidthBudget: 10kbit\n",
	    "f:3:12: cpuBudget: 0% is below 1\n"
	    "f:4:18: bandwidthBudget: 10kbit is below 100kbit\n");
	bad(PLAIN "cpuBudget: half\n", "f:3:12: cpuBudget: \"half\" is not a share such as 25%\n");
	bad(FILE_ONLY "bandwidthBudget: 10Mbit\n",
	    "f:2:18: bandwidthBudget: there is no collector to send to\n");
}

static void keys_of_the_collector_are_named_as_such(void **state)
{
	(void)state;
	bad(FILE_ONLY "input: {address: a, port: 1}\nack: written\nformat: pcap\n"
		      "maxSessions: 5\ncreditBytes: 4MB\nagents: {allow: [a], names: any}\n"
		      "commitIntervalMs: 50\nheartbeat: 10s\nmemoryBudget: 1GB\n",
	    "f:2:1: input: belongs to ps-collector\n"
	    "f:3:1: ack: belongs to ps-collector\n"
	    "f:4:1: format: belongs to ps-collector\n"
	    "f:5:1: maxSessions: belongs to ps-collector\n"
	    "f:6:1: creditBytes: belongs to ps-collector\n"
	    "f:7:1: agents: belongs to ps-collector\n"
	    "f:8:1: commitIntervalMs: belongs to ps-collector\n"
	    "f:9:1: heartbeat: belongs to ps-collector\n"
	    "f:10:1: memoryBudget: belongs to ps-collector\n");
}

static void an_output_is_needed(void **state)
{
	static const char nowhere[] =
		"output: nowhere to send to: output.server, output.servers or output.file.path is "
		"needed\n";
	char expected[200];

	(void)state;
	snprintf(expected, sizeof(expected), "f:1:1: %s", nowhere);
	bad("", expected);
	bad("pcapMode: all", expected);
	bad("output: ~", expected);
	bad("output: {file: {path: ''}}", expected);
	snprintf(expected, sizeof(expected), "f:2:1: %s", nowhere);
	bad("\noutput: {}", expected);
	bad("output:\n  server: {address: h}\ntls: {enable: no}",
	    "f:2:3: output.server.port: is missing\n");
	bad("output:\n  server: {port: 5, address: ''}\ntls: {enable: no}",
	    "f:2:3: output.server.address: is missing\n");
}

#define SERVERS(list) "output: {servers: " list "}\ntls: {enable: false}\n"

static void servers_are_a_list_in_several_forms(void **state)
{
	struct config *c =
		good(SERVERS("[a.example:1, {address: '::1', port: 2}, '[2001:db8::1]:3',"
			     " 192.0.2.1:65535]"));
	static const struct {
		const char *host;
		uint16_t port;
	} expected[] = {{"a.example", 1}, {"::1", 2}, {"2001:db8::1", 3}, {"192.0.2.1", 65535}};

	(void)state;
	assert_int_equal(c->servers.n, ARRAY_SIZE(expected));
	for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
		assert_string_equal(c->servers.v[i].host, expected[i].host);
		assert_int_equal(c->servers.v[i].port, expected[i].port);
	}
	config_free(c);
	config_free(good(SERVERS("[a.example:1, a.example:2, b.example:1]")));
}

static void one_server_or_a_list_of_them(void **state)
{
	(void)state;
	bad("output:\n  server: {address: h, port: 5}\n  servers: [a:1]\ntls: {enable: no}",
	    "f:3:3: output.servers: there is output.server too: put it into this list, or leave "
	    "one of them out\n");
	bad(SERVERS("[]"), "f:1:10: output.servers: names no server\n");
	bad(SERVERS("[]") "output: {}", "f:1:10: output.servers: names no server\n"
					"f:3:1: output: given twice, first in line 1\n");
	bad("output: {servers: [a:1]}",
	    "f:1:1: tls: the stream has no certificates and no key: " WAYS_OUT);
}

static void a_spool_needs_a_folder(void **state)
{
	struct config *c;

	(void)state;
	c = good(PLAIN "spool: {path: /s}");
	assert_int_equal(c->spool_mode, SPOOL_OVERFLOW);
	config_free(c);
	c = good(PLAIN "spool: {path: /s, mode: off}");
	assert_int_equal(c->spool_mode, SPOOL_OFF);
	config_free(c);
	config_free(good(PLAIN "spool: {mode: off, maxBytes: 2MB}"));
	config_free(good(PLAIN "compressBlockSize: 256\nspool: {path: /s, maxBytes: 1MB}"));
	bad(PLAIN "compressBlockSize: 257\nspool: {path: /s, maxBytes: 1MB}",
	    "f:4:29: spool.maxBytes: is below four times compressBlockSize\n");
	bad(PLAIN "spool: {mode: overflow}",
	    "f:3:1: spool.path: is missing: the folder to keep frames in (or set spool.mode to "
	    "off)\n");
	bad(PLAIN "spool: {mode: always, path: ''}",
	    "f:3:1: spool.path: is missing: the folder to keep frames in (or set spool.mode to "
	    "off)\n");
	bad(PLAIN "spool: {maxBytes: 2MB}",
	    "f:3:1: spool.path: is missing: the folder to keep frames in (or set spool.mode to "
	    "off)\n");
	bad(PLAIN "spool: {path: /s, mode: sometimes}",
	    "f:3:25: spool.mode: \"sometimes\" is none of: overflow, always, off\n");
}

static void segments_are_small_beside_the_quota(void **state)
{
	struct config *c = good(PLAIN "spool: {path: /s, maxBytes: 1MB}");

	(void)state;
	assert_int_equal(c->spool_segment_bytes, 256 << 10);
	config_free(c);
	config_free(good(PLAIN "spool: {path: /s, maxBytes: 4MB, segmentBytes: 1MB}"));
	bad(PLAIN "spool: {path: /s, maxBytes: 4MB, segmentBytes: 1025KB}",
	    "f:3:48: spool.segmentBytes: is above a quarter of spool.maxBytes\n");
	bad(PLAIN "spool: {path: /s, maxBytes: 1023KB}",
	    "f:3:29: spool.maxBytes: 1023KB is below 1MB\n");
	bad(PLAIN "spool: {path: /s, segmentBytes: 1B}",
	    "f:3:33: spool.segmentBytes: 1B is below 64KB\n");
}

static void a_server_needs_certificates_a_key_or_plain_text(void **state)
{
	struct config *c;

	(void)state;
	bad(SERVER, "f:1:1: tls: the stream has no certificates and no key: " WAYS_OUT);
	bad(SERVER "tls: {enable: true}",
	    "f:2:1: tls: the stream has no certificates and no key: " WAYS_OUT);
	bad(SERVER "tls: {certfile: a, keyfile: b}", "f:2:1: tls.cafile: is missing: " WAYS_OUT);
	bad(SERVER "tls: {cafile: a, keyfile: ''}", "f:2:1: tls.certfile: is missing: " WAYS_OUT
						    "f:2:1: tls.keyfile: is missing: " WAYS_OUT);
	bad(SERVER "tls: {enable: maybe, certfile: a, keyfile: b, cafile: c}",
	    "f:2:15: tls.enable: \"maybe\" is neither true nor false\n");

	c = good(SERVER "tls: {certfile: a, keyfile: b, cafile: c}");
	assert_true(config_tls(c).enable);
	config_free(c);
	c = good(PLAIN);
	assert_false(config_tls(c).enable);
	config_free(c);
	c = good(SERVER "auth: {enable: true, key: 0123456789abcdef}");
	assert_true(config_tls(c).enable);
	assert_string_equal(config_tls(c).psk, "0123456789abcdef");
	config_free(c);
	/* The key wins over certificates. */
	c = good(SERVER "auth: {enable: true, key: 0123456789abcdef}\n"
			"tls: {certfile: a, keyfile: b, cafile: c}");
	assert_null(config_tls(c).certfile);
	assert_non_null(config_tls(c).psk);
	config_free(c);
}

static void a_key_that_secures_nothing_is_refused(void **state)
{
	(void)state;
	bad(PLAIN "auth: {enable: true, key: 0123456789abcdef}",
	    "f:3:16: auth.enable: the key works only inside TLS: leave `tls.enable: false` out, "
	    "or set this to false too\n");
	bad(SERVER "auth: {enable: true}",
	    "f:2:1: auth.key: is missing, and auth.enable is true\n");
	bad(PLAIN "auth: {key: 0123456789abcdef}",
	    "f:3:13: auth.key: is not used without `auth.enable: true`\n");
	config_free(good(PLAIN "auth: {enable: false, key: 0123456789abcdef}"));
}

static void allow_needs_a_list(void **state)
{
	static const char *const empties[] = {
		"",
		"capturePorts: []\n",
		"captureInterfacesPorts: {}\n",
		"capturePorts: []\ncaptureInterfacesPorts: ~\n",
	};
	char text[200];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(empties); i++) {
		snprintf(text, sizeof(text), "%spcapMode: ALLOW\n%s", FILE_ONLY, empties[i]);
		bad(text, "f:2:11: pcapMode: allow without capturePorts or "
			  "captureInterfacesPorts matches no packet\n");
	}
	config_free(good(FILE_ONLY "pcapMode: Allow\ncapturePorts: [1]"));
	config_free(good(FILE_ONLY "pcapMode: allow\ncaptureInterfacesPorts: {eth0: []}"));
	config_free(good(FILE_ONLY "pcapMode: allow\ncaptureInterfacesPorts:\n  eth0:\n"));
	config_free(good(FILE_ONLY "pcapMode: deny"));
}

/* @n different lists, the empty one among them, each several times. */
static char *lists(unsigned int n)
{
	size_t size;
	char *text;
	FILE *f = open_memstream(&text, &size);

	assert_non_null(f);
	fprintf(f, "%scaptureInterfacesPorts:\n  all: []\n  none: []\n", FILE_ONLY);
	for (unsigned int i = 0; i < 3 * (n - 1); i++)
		fprintf(f, "  eth%u: [1, %u]\n", i, i % (n - 1) + 2);
	fclose(f);
	return text;
}

static void different_lists_of_ports_are_limited(void **state)
{
	char *text = lists(PORT_SETS);

	(void)state;
	config_free(good(text));
	free(text);
	text = lists(PORT_SETS + 1);
	bad(text, "f:2:1: captureInterfacesPorts: 63 different lists of ports, at most 62 are "
		  "possible (equal lists count once)\n");
	free(text);
}

static void the_seeds_wait_wins(void **state)
{
	static const struct {
		const char *lines;
		nsec_t wait;
	} table[] = {
		{"gatherMaxWaitSec: 5", 5 * NSEC_PER_SEC},
		{"gatherMaxWaitSec: 5\ngatherMaxWaitMs: 7", 5 * NSEC_PER_SEC},
		{"gatherMaxWaitMs: 250", 250 * NSEC_PER_MSEC},
		{"gatherMaxWaitSec: ~\ngatherMaxWaitMs: 250", 250 * NSEC_PER_MSEC},
		{"gatherMaxWaitSec: 200ms", 200 * NSEC_PER_MSEC},
		{"gatherMaxWaitSec: 0", NSEC_PER_MSEC},
	};
	char text[200];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct config *c;

		snprintf(text, sizeof(text), "%s%s\n", FILE_ONLY, table[i].lines);
		c = good(text);
		assert_int_equal(c->gather_max_wait, table[i].wait);
		config_free(c);
	}
}

static void interfaces_are_chosen_by_pattern_and_mode(void **state)
{
	static const struct {
		const char *lines, *name;
		bool loopback, wanted;
	} table[] = {
		{"", "eth0", false, true},
		{"", "lo", true, false},
		{"captureLoopback: true", "lo", true, true},
		{"interfaces: [lo]", "lo", true, true},
		{"interfaces: [lo]", "eth0", false, false},
		{"interfaces: ['*']", "lo", true, false},
		{"interfaces: ['l*']\ncaptureLoopback: true", "lo", true, true},
		{"interfaces: [eth*]", "eth12", false, true},
		{"interfaces: [eth*]", "wlan0", false, false},
		{"interfaces: ['eth[01]', wg?]", "wg1", false, true},
		{"interfaces: ['eth[01]', wg?]", "eth2", false, false},
		{"interfaces: ['!eth7']", "eth0", false, true},
		{"interfaces: ['!eth7']", "eth7", false, false},
		{"interfaces: ['!eth7', eth*, eth7]", "eth7", false, false},
		{"interfaces: ['!lo', lo]\ncaptureLoopback: true", "lo", true, false},
		{"interfaces: []", "eth0", false, true},
		{"captureInterfacesPorts: {lo: [1]}", "lo", true, true},
		{"captureInterfacesPorts: {'l*': [1]}", "lo", true, false},
		{"captureInterfacesPorts: {eth0: [1]}", "eth1", false, true},
		{"pcapMode: deny\ncaptureInterfacesPorts: {eth0: [1]}", "eth1", false, true},
		{"pcapMode: allow\ncaptureInterfacesPorts: {eth0: [1]}", "eth1", false, false},
		{"pcapMode: allow\ncaptureInterfacesPorts: {eth*: [1]}", "eth1", false, true},
		{"pcapMode: allow\ncaptureInterfacesPorts: {eth*: []}", "eth1", false, true},
		{"pcapMode: allow\ncapturePorts: [1]", "eth1", false, true},
		{"pcapMode: allow\ncapturePorts: [1]", "lo", true, false},
		{"pcapMode: allow\ncapturePorts: [1]\ncaptureInterfacesPorts: {eth0: [1]}", "eth1",
		 false, true},
		{"pcapMode: allow\ninterfaces: [eth0]\ncaptureInterfacesPorts: {eth1: [1]}", "eth1",
		 false, false},
	};
	char text[300];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct config *c;

		snprintf(text, sizeof(text), "%s%s\n", FILE_ONLY, table[i].lines);
		c = good(text);
		if (config_wants_interface(c, table[i].name, table[i].loopback) != table[i].wanted)
			fail_msg("%s: %s", table[i].lines, table[i].name);
		config_free(c);
	}
	bad(FILE_ONLY "interfaces: ['!']", "f:2:1: interfaces: \"!\" leaves out nothing\n");
}

static void errors_of_keys_and_of_rules_come_together(void **state)
{
	(void)state;
	bad("output:\n"
	    "  server:\n"
	    "    addres: h\n"
	    "    port: http\n"
	    "pcapMode: allow\n"
	    "spol: {mode: off}\n",
	    "f:1:1: tls: the stream has no certificates and no key: " WAYS_OUT
	    "f:2:3: output.server.address: is missing\n"
	    "f:3:5: output.server.addres: unknown key, the nearest known one is "
	    "output.server.address\n"
	    "f:4:11: output.server.port: \"http\" is not a whole number\n"
	    "f:5:11: pcapMode: allow without capturePorts or captureInterfacesPorts matches no "
	    "packet\n"
	    "f:6:1: spol: unknown key, the nearest known one is spool\n");
}

static void the_examples_load(void **state)
{
	static const char *const names[] = {
		"local", "remote", "servers", "tls", "psk", "ports", "deny", "interfaces", "filter",
	};
	const char *src = getenv("PS_SRC");
	char path[PATH_MAX];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct config *c = NULL;

		snprintf(path, sizeof(path), "%s/contrib/config/agent-%s.yaml", src ? src : ".",
			 names[i]);
		assert_int_equal(config_load(path, NULL, NULL, &c, stderr), 0);
		config_free(c);
	}
}

static void a_missing_file_keeps_its_errno(void **state)
{
	struct config *c = NULL;
	FILE *null = fopen("/dev/null", "w");

	(void)state;
	assert_non_null(null);
	assert_int_equal(config_load("/nonexistent/f", NULL, NULL, &c, null), -ENOENT);
	assert_int_equal(config_load("/", NULL, NULL, &c, null), -EISDIR);
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
		cmocka_unit_test(what_this_version_cannot_do_is_refused_once),
		cmocka_unit_test(taps_have_exact_names_and_are_wanted_in_any_case),
		cmocka_unit_test(
			what_is_asked_of_single_interfaces_takes_the_place_of_what_is_asked_of_all),
		cmocka_unit_test(bad_selections_and_sets_are_refused_by_their_whole_names),
		cmocka_unit_test(budgets_are_shares_and_rates_and_change_live),
		cmocka_unit_test(keys_of_the_collector_are_named_as_such),
		cmocka_unit_test(an_output_is_needed),
		cmocka_unit_test(servers_are_a_list_in_several_forms),
		cmocka_unit_test(one_server_or_a_list_of_them),
		cmocka_unit_test(a_spool_needs_a_folder),
		cmocka_unit_test(segments_are_small_beside_the_quota),
		cmocka_unit_test(a_server_needs_certificates_a_key_or_plain_text),
		cmocka_unit_test(a_key_that_secures_nothing_is_refused),
		cmocka_unit_test(allow_needs_a_list),
		cmocka_unit_test(different_lists_of_ports_are_limited),
		cmocka_unit_test(the_seeds_wait_wins),
		cmocka_unit_test(interfaces_are_chosen_by_pattern_and_mode),
		cmocka_unit_test(errors_of_keys_and_of_rules_come_together),
		cmocka_unit_test(the_examples_load),
		cmocka_unit_test(a_missing_file_keeps_its_errno),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
