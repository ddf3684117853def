/* SPDX-License-Identifier: Apache-2.0 */
/*
 * powercut_collector FOLDER ACKS EPOCH AGENTS PACKETS CUTS FILE=DURABLE...
 *
 * FOLDER/dump.pcap and its journal are what a collector left that was killed while `load`
 * (plain text, AGENTS from 0 on, PACKETS in each message, EPOCH) sent to it; ACKS is the file
 * that load wrote. Of each FILE only the first DURABLE bytes are safe. Cuts every FILE at up to
 * CUTS places above that (also with zeros in place of what is cut off), recovers with the
 * collector's code, and looks at every packet: everything that was acknowledged is there, nothing
 * is twice, nothing is there that a feed does not know of. Below DURABLE it cuts too, where only
 * the latter two hold.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <sys/eventfd.h>

#include "commit.h"
#include "log.h"
#include "registry.h"
#include "util.h"

#include "tools/powercut.h"

#define PACKET_SIZE 64u
#define RECORD      (16u + PACKET_SIZE)
#define FILE_HEADER 24u
#define NEAR        (64u << 10)
#define BELOW       4096u
#define MESSAGES    UINT32_MAX

static struct {
	char output[4096];
	uint64_t *acks, epoch;
	unsigned int agents, packets;
	uint64_t *resume, *found;
} crowd;

static void no_line(void *ctx, enum log_level level, const char *line)
{
	(void)ctx;
	(void)level;
	(void)line;
}

static void no_wake(void *ctx)
{
	(void)ctx;
}

static void on_fatal(void *ctx, const struct err *err)
{
	(void)ctx;
	finding("fatal: %s", err->text);
}

/* The agent comes back; where does it go on? */
static void attach(struct commit *c, struct registry *r, unsigned int agent, bool strict)
{
	struct stream_iface iface = {.id = 1,
				     .ifindex = 1,
				     .link_type = LINK_ETHERNET,
				     .snaplen = 65535,
				     .name = "eth0"};
	struct registry_owner owner = {.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
	struct stream_hello hello = {.agent_id = {'l', 'o', 'a', 'd'},
				     .epoch = crowd.epoch,
				     .first_unacked = 1,
				     .next_seq = MESSAGES,
				     .version = "load",
				     .ifaces = &iface,
				     .n_ifaces = 1};
	struct feed *f;
	struct err err;
	int r2;

	snprintf(hello.agent_name, sizeof(hello.agent_name), "load-%u", agent);
	memcpy(hello.agent_id + 12, &agent, sizeof(agent));
	crowd.resume[agent] = 0;
	commit_enter(c);
	r2 = registry_attach(r, "", &hello, &owner, &f, &crowd.resume[agent], &err);
	commit_leave(c, NULL, 0);
	if (r2 < 0) {
		finding("agent %u is refused: %s", agent, err.text);
		return;
	}
	if (strict && crowd.resume[agent] <= crowd.acks[agent])
		finding("agent %u: %" PRIu64 " was acknowledged, but it is to resume at %" PRIu64,
			agent, crowd.acks[agent], crowd.resume[agent]);
	commit_enter(c);
	registry_detach(r, f, &owner, FEED_LOST, 0);
	commit_leave(c, NULL, 0);
	close(owner.wake_fd);
}

static void count_file(const char *path)
{
	static uint8_t data[256u << 20];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, data, sizeof(data));

	if (fd >= 0)
		close(fd);
	if (n < (ssize_t)FILE_HEADER || ((size_t)n - FILE_HEADER) % RECORD) {
		finding("%s is torn: %zd bytes", path, n);
		return;
	}
	for (size_t at = FILE_HEADER; at < (size_t)n; at += RECORD) {
		uint64_t number = get_le64(data + at + 16 + 42);
		uint32_t agent = get_le32(data + at + 16 + 50);

		if (agent >= crowd.agents || get_le32(data + at + 8) != PACKET_SIZE) {
			finding("no packet of ours at %zu of %s", at, path);
			return;
		}
		if (number != crowd.found[agent]) {
			finding("agent %u: packet %" PRIu64 " where %" PRIu64 " should come", agent,
				number, crowd.found[agent]);
			return;
		}
		crowd.found[agent]++;
	}
}

/* The files as they are now: recover, and look at everything. */
static void try(bool strict, bool again)
{
	const struct registry_limits limits = {
		.feeds = 100000, .resting_ifaces = 1u << 20, .ifaces = 1u << 20};
	const struct commit_config config = {.path = crowd.output,
					     .durable = true,
					     .wait = NSEC_PER_MSEC,
					     .wake = no_wake,
					     .fatal = on_fatal};
	struct registry *r = registry_new(&limits, NULL, no_line, NULL);
	struct output *out = NULL;
	struct commit *c = NULL;
	struct err err = {};

	cut.tried++;
	if (commit_open(&config, r, &out, &c, &err) < 0) {
		finding("cannot be opened: %s", err.text);
		registry_free(r);
		return;
	}
	if (again && commit_start(c, &err) < 0)
		finding("cannot commit: %s", err.text);
	for (unsigned int i = 0; i < crowd.agents; i++)
		attach(c, r, i, strict);
	if (again && commit_stop(c, &err) < 0)
		finding("cannot commit at the end: %s", err.text);
	registry_free(r);
	output_free(out);
	commit_free(c);

	memset(crowd.found, 0, crowd.agents * sizeof(*crowd.found));
	count_file(crowd.output);
	for (unsigned int i = 0; i < crowd.agents; i++) {
		uint64_t messages = crowd.resume[i] > 2 ? crowd.resume[i] - 2 : 0;

		if (crowd.found[i] != messages * crowd.packets)
			finding("agent %u resumes at %" PRIu64 ", and has %" PRIu64 " packets in "
				"the file instead of %" PRIu64,
				i, crowd.resume[i], crowd.found[i], messages * crowd.packets);
	}
}

/* @f has @size bytes, and zeros up to where it ended; the others all they had, or little. */
static void one(struct tree_file *f, size_t size, size_t zeros, unsigned int n)
{
	bool others = n % 2, strict = size >= f->durable;

	tree_restore(cut.folder);
	for (size_t i = 0; i < tree.n; i++) {
		struct tree_file *o = &tree.files[i];

		if (o != f && others && o->durable < o->size)
			tree_write(o, o->durable, 0);
	}
	tree_write(f, size, zeros);
	snprintf(cut.what, sizeof(cut.what), "%s of %zu bytes (%zu durable)%s%s, others %s",
		 strrchr(f->path, '/') + 1, size, f->durable, zeros ? " and zeros" : "",
		 strict ? "" : ", below what is durable", others ? "cut" : "whole");
	try(strict, n % 8 == 0);
}

/* Where the first commit of a journal ends. Without it there is nothing to go back to. */
static size_t first_commit(const struct tree_file *f)
{
	return f->size < 24 ? f->size : MIN(f->size, 24 + get_le32(f->data + 4));
}

static void cut_file(struct tree_file *f)
{
	size_t end = MIN(f->size, f->durable + NEAR);
	size_t step = MAX((end - f->durable) / cut.cuts, 1u), low = f->durable;
	unsigned int n = 0;

	for (size_t at = f->durable; at < end; at += step, n++)
		one(f, at, n % 3 ? 0 : f->size - at, n);
	for (size_t at = MAX(end, f->size - MIN(f->size, NEAR)); at <= f->size; at += step, n++)
		one(f, at, 0, n);
	/* An output cut below what is durable has lost packets for good: only journals here. */
	if (!strstr(f->path, ".journal"))
		return;
	low = MAX(low - MIN(low, BELOW), first_commit(f));
	for (size_t at = low; at < f->durable; at += MAX((f->durable - low) / cut.cuts, 1u), n++)
		one(f, at, n % 3 ? 0 : f->size - at, n);
}

int main(int argc, char **argv)
{
	struct err err;
	size_t size;
	int fd;

	if (argc < 8)
		return 2;
	cut.folder = argv[1];
	snprintf(crowd.output, sizeof(crowd.output), "%s/dump.pcap", cut.folder);
	crowd.epoch = strtoull(argv[3], NULL, 10);
	crowd.agents = (unsigned int)strtoul(argv[4], NULL, 10);
	crowd.packets = (unsigned int)strtoul(argv[5], NULL, 10);
	cut.cuts = (unsigned int)strtoul(argv[6], NULL, 10);
	size = crowd.agents * sizeof(uint64_t);
	crowd.acks = malloc(size);
	crowd.resume = malloc(size);
	crowd.found = malloc(size);
	fd = open(argv[2], O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, crowd.acks, size) != (ssize_t)size)
		tree_die(argv[2]);
	close(fd);
	if (log_open("/dev/null", &err) < 0)
		return 2;
	tree_load(cut.folder);
	for (int i = 7; i < argc; i++)
		tree_durable(argv[i]);
	for (size_t i = 0; i < tree.n; i++)
		cut_file(&tree.files[i]);
	tree_restore(cut.folder);
	printf("%u cuts, %u findings\n", cut.tried, cut.wrong);
	return cut.wrong ? 1 : 0;
}
