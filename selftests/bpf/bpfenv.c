// SPDX-License-Identifier: Apache-2.0
#include "bpfenv.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "util.h"

static const struct capture_ops *const ops = &capture_ringbuf;

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

const char *env_skip_reason;

void env_enter(void)
{
	struct err err;

	if (geteuid() != 0) {
		env_skip_reason = "not root";
	} else if (unshare(CLONE_NEWNET)) {
		env_skip_reason = "no right to make a network namespace";
	} else if (hook_choose(HOOK_AUTO, &err) < 0) {
		env_skip_reason = "no BPF here";
	} else {
		/* The kernel's own neighbour discovery would be in every count. */
		write_file("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
		write_file("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
	}
}

void env_run(const char *program, ...)
{
	char *argv[24] = {};
	int status, n = 0;
	va_list ap;
	pid_t pid;

	argv[n++] = strdup(program);
	va_start(ap, program);
	for (const char *arg; (arg = va_arg(ap, const char *)) && n < 23;)
		argv[n++] = strdup(arg);
	va_end(ap);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		execvp(argv[0], argv);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (status)
		fail_msg("%s %s %s: status %d", argv[0], argv[1], n > 2 ? argv[2] : "", status);
	while (n-- > 0)
		free(argv[n]);
}

static void note_prog(struct env *e, int fd)
{
	struct bpf_prog_info info = {};
	uint32_t size = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &size))
		return;
	if (!strcmp(info.name, "ps_tc_ingress"))
		e->ingress = fd;
	else if (!strcmp(info.name, "ps_tc_egress"))
		e->egress = fd;
}

static void note_map(struct env *e, int fd)
{
	struct bpf_map_info info = {};
	uint32_t size = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &size))
		return;
	if (!strcmp(info.name, "interfaces"))
		e->interfaces = fd;
	else if (!strcmp(info.name, "heartbeat"))
		e->heartbeat = fd;
	else if (!strcmp(info.name, "buckets"))
		e->buckets = fd;
}

/*
 * The back end keeps its programs and maps to itself; find them among our
 * descriptors: when there are two captures, those of the one opened last.
 */
static void find_objects(struct env *e)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;

	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		char link[64] = "";
		int fd = (int)strtol(entry->d_name, NULL, 10);

		if (readlinkat(dirfd(dir), entry->d_name, link, sizeof(link) - 1) < 0)
			continue;
		if (strstr(link, "bpf-prog"))
			note_prog(e, fd);
		else if (strstr(link, "bpf-map"))
			note_map(e, fd);
	}
	closedir(dir);
	assert_true(e->ingress > 0 && e->egress > 0 && e->interfaces > 0 && e->heartbeat > 0);
}

void env_open(struct env *e, const struct capture_config *config)
{
	struct err err = {};

	*e = (struct env){};
	if (ops->open(config, &e->capture, &err))
		fail_msg("open: %s", err.text);
	find_objects(e);
}

static void forget_blocks(struct env *e)
{
	for (size_t i = 0; i < e->nblocks; i++)
		free(e->blocks[i].rest);
	free(e->blocks);
	e->blocks = NULL;
	e->nblocks = 0;
}

void env_close(struct env *e)
{
	forget_blocks(e);
	e->capture = ops->close(e->capture);
}

void env_attach(struct env *e, const char *name, const struct iface_rule *rule)
{
	struct capture_iface iface = {
		.ifindex = if_nametoindex(name),
		.name = name,
		.rule = *rule,
	};
	struct err err = {};

	if (ops->attach(e->capture, &iface, &err))
		fail_msg("attach: %s", err.text);
}

void env_rule(struct env *e, uint32_t ifindex, const struct iface_rule *rule)
{
	uint64_t key = IFACE_KEY(0, ifindex);

	assert_int_equal(bpf_map_update_elem(e->interfaces, &key, rule, BPF_ANY), 0);
}

struct capture_counts env_counts(struct env *e, uint32_t slot, enum direction direction)
{
	struct capture_counts counts;

	assert_int_equal(ops->counts(e->capture, slot, direction, &counts), 0);
	return counts;
}

enum capture_counter env_packet(struct env *e, enum direction direction, const uint8_t *data,
				size_t size)
{
	struct capture_counts before = env_counts(e, 0, direction), after;
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = data, .data_size_in = (uint32_t)size,
		    .repeat = 1);
	enum capture_counter found = CAPTURE_COUNTERS;
	int fd = direction == DIRECTION_EGRESS ? e->egress : e->ingress;

	if (bpf_prog_test_run_opts(fd, &run))
		fail_msg("test run with %zu bytes: %s", size, strerror(errno));
	assert_int_equal((int)run.retval, -1);
	after = env_counts(e, 0, direction);
	for (int i = 0; i < CAPTURE_COUNTERS; i++) {
		uint64_t n = after.packets[i] - before.packets[i];

		assert_int_equal(after.bytes[i] - before.bytes[i], n * size);
		if (i == CAPTURE_SEEN) {
			assert_int_equal(n, 1);
		} else if (n && i < CAPTURE_DUPLICATES) {
			assert_int_equal(n, 1);
			assert_int_equal(found, CAPTURE_COUNTERS);
			found = (enum capture_counter)i;
		}
	}
	return found;
}

const struct wall_map env_no_wall = {.n = 1};

static int on_block(void *ctx, const struct epb_header *header, const void *rest)
{
	struct env *e = ctx;
	struct env_block *b;

	e->blocks = realloc(e->blocks, (e->nblocks + 1) * sizeof(*e->blocks));
	assert_non_null(e->blocks);
	b = &e->blocks[e->nblocks++];
	b->header = *header;
	assert_true(header->total_len >= EPB_HEADER + EPB_TRAILER);
	assert_true(header->total_len <= EPB_SIZE_MAX(SNAPLEN_MAX));
	b->rest = malloc(header->total_len - EPB_HEADER);
	assert_non_null(b->rest);
	memcpy(b->rest, rest, header->total_len - EPB_HEADER);
	return 0;
}

size_t env_drain(struct env *e)
{
	bool left;
	long n;

	forget_blocks(e);
	n = ops->drain(e->capture, UINT64_MAX, &env_no_wall, on_block, e, &left);
	assert_int_equal(n, e->nblocks);
	assert_false(left);
	return e->nblocks;
}

void env_expect(struct env *e, size_t n)
{
	nsec_t end = clock_monotonic() + 5 * NSEC_PER_SEC;
	bool left;

	forget_blocks(e);
	while (e->nblocks < n && clock_monotonic() < end) {
		ops->wait(e->capture, 100);
		ops->drain(e->capture, UINT64_MAX, &env_no_wall, on_block, e, &left);
	}
	assert_int_equal(e->nblocks, n);
}

void env_check_block(const struct env_block *b, uint32_t id, const uint8_t *data, size_t caplen,
		     size_t len, enum direction direction)
{
	env_check_offload(b, id, data, caplen, len, direction, NULL);
}

void env_check_offload(const struct env_block *b, uint32_t id, const uint8_t *data, size_t caplen,
		       size_t len, enum direction direction, const struct epb_offload *offload)
{
	size_t padded = ALIGN4(caplen), options = offload ? sizeof(*offload) : 0;
	struct epb_trailer trailer;

	assert_int_equal(b->header.type, 6);
	assert_int_equal(b->header.total_len, 28 + padded + options + 16);
	assert_int_equal(b->header.interface_id, id);
	assert_int_equal(b->header.caplen, caplen);
	assert_int_equal(b->header.len, len);
	assert_memory_equal(b->rest, data, caplen);
	for (size_t i = caplen; i < padded; i++)
		assert_int_equal(b->rest[i], 0);
	if (offload)
		assert_memory_equal(b->rest + padded, offload, sizeof(*offload));
	memcpy(&trailer, b->rest + padded + options, sizeof(trailer));
	assert_int_equal(trailer.flags_code, 2);
	assert_int_equal(trailer.flags_len, 4);
	assert_int_equal(trailer.flags, direction);
	assert_int_equal(trailer.end_code, 0);
	assert_int_equal(trailer.end_len, 0);
	assert_int_equal(trailer.total_len, 28 + padded + options + 16);
}
