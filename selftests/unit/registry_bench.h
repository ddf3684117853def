/* SPDX-License-Identifier: Apache-2.0 */
/* A registry with an output in a folder of its own, and an agent's part played by hand. */
#ifndef PS_REGISTRY_BENCH_H
#define PS_REGISTRY_BENCH_H

#include <stdio.h>
#include <sys/eventfd.h>

#include "registry.h"
#include "util.h"

#ifndef FEEDS_MAX
#define FEEDS_MAX 3u
#endif
#ifndef RESTING_MAX
#define RESTING_MAX 5u
#endif
#define IFACES_MAX 10000u

static struct registry *registry;
static struct output *output;
static char dir[64], path[96];
static char *lines;
static int wake_fd;

static inline void collect_line(void *ctx, enum log_level level, const char *line)
{
	static size_t len, cap;

	(void)ctx;
	if (!lines)
		len = cap = 0;
	if (len + strlen(line) + 16 > cap) {
		cap = 2 * (len + strlen(line) + 16);
		lines = realloc(lines, cap);
		assert_non_null(lines);
	}
	len += (size_t)snprintf(lines + len, cap - len, "%s%s\n",
				level == LOG_LEVEL_WARN ? "warning: " : "", line);
}

static inline int setup(void **state)
{
	const struct registry_limits limits = {
		.feeds = FEEDS_MAX, .resting_ifaces = RESTING_MAX, .ifaces = IFACES_MAX};
	struct output_config config = {.path = path};

	(void)state;
	lines = NULL;
	snprintf(dir, sizeof(dir), "/tmp/ps-registry-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/dump.pcap", dir);
	wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (output_new(&config, &output, NULL) < 0)
		return -1;
	registry = registry_new(&limits, output, collect_line, NULL);
	return registry ? 0 : -1;
}

static inline int teardown(void **state)
{
	(void)state;
	registry_free(registry);
	output_free(output);
	close(wake_fd);
	free(lines);
	unlink(path);
	return rmdir(dir);
}

static inline struct stream_hello hello(uint64_t epoch, uint64_t first_unacked, uint64_t next_seq)
{
	return (struct stream_hello){
		.agent_id = {0xab, 0xcd},
		.epoch = epoch,
		.first_unacked = first_unacked,
		.next_seq = next_seq,
		.agent_name = "web1",
	};
}

static inline struct feed *attach(const struct stream_hello *m, struct registry_owner *owner,
				  uint64_t resume)
{
	uint64_t got = 0;
	struct feed *f = NULL;
	struct err err;

	*owner = (struct registry_owner){.wake_fd = wake_fd};
	if (registry_attach(registry, "", m, owner, &f, &got, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(got, resume);
	return f;
}

static inline struct stream_iface interface(uint32_t id)
{
	struct stream_iface m = {.id = id, .link_type = LINK_ETHERNET, .snaplen = 65535};

	snprintf(m.name, sizeof(m.name), "eth%u", id);
	return m;
}

static inline void write_packets(struct feed *f, uint32_t id, uint32_t packets)
{
	const struct packet p = {.len = 100, .direction = 1};

	for (uint32_t i = 0; i < packets; i++)
		feed_tally(f, feed_find(f, id), &p);
	feed_settle(f, FEED_WRITTEN, 0);
}

static inline void stats(struct feed *f, uint32_t id, uint64_t captured, uint64_t seen)
{
	struct stream_stats_part part = {.iface = id, .direction = 1};
	const struct stream_stats m = {.parts = &part, .n_parts = 1};

	part.counts.c[LEDGER_SEEN] = (struct ledger_count){seen, seen * 100};
	part.counts.c[LEDGER_CAPTURED] = (struct ledger_count){captured, captured * 100};
	assert_int_equal(feed_stats(f, &m, NULL), 0);
}

static inline void report_has(const char *text)
{
	registry_report(registry);
	if (!strstr(lines, text))
		fail_msg("\"%s\" is not in the report:\n%s", text, lines);
	free(lines);
	lines = NULL;
}

#endif
