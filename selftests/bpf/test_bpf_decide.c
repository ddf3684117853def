// SPDX-License-Identifier: Apache-2.0
/*
 * User space decides what the kernel's programs decide: the same packets, one after the
 * other, to both; random ones of every shape, datagrams in fragments, and all real captures.
 */
#include <dirent.h>
#include <pcap/pcap.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "bpfenv.h"
#include "decide.h"
#include "shapes.h"
#include "util.h"

#define RUN_MIN 15
/* A test run takes no more than a page. */
#define RUN_MAX 1500

static uint64_t masks[65536];
static struct env env;
static struct decide *decide;
static unsigned int packets, picked;

static const struct capture_config with_ports = {
	.snaplen = 65535,
	.ring_bytes = 4 << 20,
	.need_ports = true,
	.port_masks = masks,
};

static const struct iface_rule rules[] = {
	{.id = 5, .invert = 1},
	{.id = 5, .mask = PORT_CAPTURE},
	{.id = 5, .mask = PORT_SET(0)},
	{.id = 5, .mask = PORT_SET(1)},
	{.id = 5, .mask = PORT_CAPTURE | PORT_SET(1)},
	{.id = 5, .mask = PORT_CAPTURE, .invert = 1},
	{.id = 5, .mask = PORT_SET(0) | PORT_SET(1), .invert = 1},
	{.id = 5, .invert = 1, .sample = 3, .asks = RULE_SAMPLE_FLOWS},
};

static int setup(void **state)
{
	(void)state;
	if (env_skip_reason)
		return 0;
	memset(masks, 0, sizeof(masks));
	masks[SPORT] |= PORT_SET(0);
	masks[DPORT] |= PORT_SET(1);
	/* For the real captures: what is common in them, and what would be in none. */
	for (unsigned int port = 0; port < 65536; port++)
		masks[port] |=
			(port % 3 == 2 ? PORT_SET(0) : 0) | (port % 7 == 1 ? PORT_SET(1) : 0);
	masks[443] |= PORT_CAPTURE;
	masks[53] |= PORT_CAPTURE;
	masks[80] |= PORT_IGNORE;
	env_open(&env, &with_ports);
	decide = decide_new(&(struct decide_config){.port_masks = masks, .snaplen = 65535});
	assert_non_null(decide);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	decide = decide_free(decide);
	if (!env_skip_reason)
		env_close(&env);
	return 0;
}

/* Test runs on newer kernels want the whole IP header when the ethertype says there is one. */
static bool can_run(const uint8_t *data, size_t len)
{
	unsigned int type = (unsigned int)data[12] << 8 | data[13];

	return len >= (type == 0x800 ? 34 : type == 0x86dd ? 54 : RUN_MIN);
}

static void same(const char *what, const struct iface_rule *rule, const uint8_t *data, size_t len)
{
	struct decide_packet p = {
		.data = data,
		.caplen = (uint32_t)len,
		.len = (uint32_t)len,
		.direction = DIRECTION_INGRESS,
		.time = 1,
	};
	static struct capture_counts counts;
	enum capture_counter kernel, user;

	if (len < RUN_MIN || !can_run(data, len))
		return;
	env_rule(&env, LO, rule);
	kernel = env_packet(&env, DIRECTION_INGRESS, data, len);
	user = decide_packet(decide, rule, &counts, &p).counter;
	if (++packets % 200 == 0)
		env_drain(&env);
	picked += user == CAPTURE_CAPTURED;
	if (user == kernel)
		return;
	for (size_t b = 0; b < len; b++)
		fprintf(stderr, "%02x%s", data[b], b % 16 == 15 ? "\n" : " ");
	fail_msg("%s, rule %d: the kernel decided %d, user space %d", what, (int)(rule - rules),
		 kernel, user);
}

static void random_packets(void **state)
{
	(void)state;
	ENV_SKIP();
	for (int i = 0; i < 20000; i++) {
		struct shape s;

		if (shape_rnd() % 3)
			shape_random(&s, RUN_MIN);
		else
			shape_random_fragment(&s);
		same("random", &rules[shape_rnd() % ARRAY_SIZE(rules)], s.data, s.len);
	}
	env_drain(&env);
	assert_true(picked > packets / 8 && picked < packets / 8 * 7);
}

static void of_file(const char *path)
{
	char why[PCAP_ERRBUF_SIZE];
	pcap_t *file = pcap_open_offline(path, why);
	struct pcap_pkthdr *h;
	const u_char *data;

	if (!file)
		fail_msg("%s: %s", path, why);
	while (pcap_datalink(file) == DLT_EN10MB && pcap_next_ex(file, &h, &data) == 1)
		for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
			same(path, &rules[i], data, MIN(h->caplen, RUN_MAX));
	pcap_close(file);
}

static void real_captures(void **state)
{
	const char *folder = getenv("PS_TRAFFIC");
	DIR *dir = folder ? opendir(folder) : NULL;
	struct dirent *entry;
	char path[4096];

	(void)state;
	ENV_SKIP();
	if (!dir) {
		print_message("# skipped: no captures here (PS_TRAFFIC)\n");
		skip();
	}
	while ((entry = readdir(dir))) {
		const char *dot = strrchr(entry->d_name, '.');

		if (!dot || (strcmp(dot, ".pcap") != 0 && strcmp(dot, ".cap") != 0))
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		of_file(path);
	}
	closedir(dir);
	print_message("# %u decisions, %u packets picked\n", packets, picked);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(random_packets, setup, teardown),
		cmocka_unit_test_setup_teardown(real_captures, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	env_enter();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
