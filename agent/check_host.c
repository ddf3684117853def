/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine: kernel, rights, memory, clock. What can be tried is tried; versions are told, and
 * judge nothing that a trial could.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timex.h>
#include <sys/utsname.h>

#include "backend.h"
#include "check_internal.h"
#include "check_memory.h"
#include "clock.h"
#include "privileges.h"
#include "rights.h"
#include "text.h"
#include "util.h"

#define OLDEST_MAJOR 5 /* the oldest kernel that it was tried on */
#define OLDEST_MINOR 10
#define YEAR_2020    (1577836800 * NSEC_PER_SEC) /* before it no clock can be right */

static unsigned int needs(const struct check *c)
{
	return c->config ? rights_needs(c->config, c->config->backend == BACKEND_PCAP) : RIGHTS_BPF;
}

static void check_kernel(struct check *c)
{
	bool bpf = needs(c) & (RIGHTS_BPF | RIGHTS_XSK);
	const char *doubt = bpf ? backend_bpf_doubt() : NULL;
	unsigned int major = 0, minor = 0;
	const char *hint = NULL;
	struct utsname u;

	if (uname(&u) < 0 || sscanf(u.release, "%u.%u", &major, &minor) != 2) {
		check_row(c, CHECK_WARN, "kernel", NULL, NULL, "of an unknown version");
		return;
	}
	if (major < OLDEST_MAJOR || (major == OLDEST_MAJOR && minor < OLDEST_MINOR))
		hint = "5.10 or later is known to work";
	else if (strcmp(u.machine, "x86_64") != 0 && strcmp(u.machine, "aarch64") != 0)
		hint = "x86_64 and aarch64 are known to work";
	else if (doubt)
		hint = "use `backend: pcap`, or another kernel";
	check_row(c, hint ? CHECK_WARN : CHECK_OK, "kernel", NULL, hint, "%s %s on %s%s%s",
		  u.sysname, u.release, u.machine, doubt ? "; " : "", doubt ? doubt : "");
}

static void check_btf(struct check *c)
{
	if (access("/sys/kernel/btf/vmlinux", R_OK) == 0)
		check_row(c, CHECK_OK, "btf", NULL, NULL, "/sys/kernel/btf/vmlinux is there");
	else
		check_row(c, CHECK_WARN, "btf", NULL,
			  "a kernel with CONFIG_DEBUG_INFO_BTF has it; in a container, mount /sys",
			  "/sys/kernel/btf/vmlinux cannot be read (%s); the capture programs do "
			  "without it",
			  strerrordesc_np(errno));
}

/* Capabilities in another user namespace than the first do not count for BPF. */
static bool in_user_namespace(void)
{
	unsigned long inside = 1, outside = 1, n = 0;
	FILE *f = fopen("/proc/self/uid_map", "re");
	bool whole;

	if (!f)
		return false;
	whole = fscanf(f, "%lu %lu %lu", &inside, &outside, &n) == 3 && !inside && !outside &&
		n == UINT32_MAX;
	fclose(f);
	return !whole;
}

/* What a right that is missing comes to: to fall back to pcap helps when that does without. */
static enum check_status check_missing(const struct check *c, const struct right *right)
{
	bool pcap_too = c->config && right->needed_by & rights_needs(c->config, true);

	if (right->optional)
		return CHECK_WARN;
	return pcap_too ? CHECK_FAILED : check_no_bpf(c);
}

static void check_capabilities(struct check *c)
{
	unsigned int needed = needs(c);
	char have[160] = "", missing[600] = "";
	struct text h = {.out = have, .size = sizeof(have)};
	struct text m = {.out = missing, .size = sizeof(missing)};
	enum check_status status = CHECK_OK;

	for (size_t i = 0; i < RIGHTS; i++) {
		const struct right *right = &rights_table[i];

		if (!(right->needed_by & needed))
			continue;
		if (privileges_have(privileges_alias(right->cap))) {
			text_put(&h, "%s%s", h.len ? ", " : "", right->name);
			continue;
		}
		text_put(&m, "%s%s (%s)", m.len ? ", " : "", right->name, right->why);
		status = MAX(status, check_missing(c, right));
	}
	if (m.len)
		check_row(c, status, "capabilities", NULL,
			  "run as root, or give these: AmbientCapabilities= in systemd, "
			  "capabilities.add in Kubernetes, --cap-add in Docker, `setcap`",
			  "missing: %s", missing);
	else if (needed & (RIGHTS_BPF | RIGHTS_XSK) && in_user_namespace())
		check_row(c, check_no_bpf(c), "capabilities", NULL,
			  "run it in the first user namespace (no rootless container)",
			  "%s, but in a user namespace, where they do not count for BPF", have);
	else
		check_row(c, CHECK_OK, "capabilities", NULL, NULL, "%s", have);
}

/* The value of a line of /proc/self/status, or -1. */
static int status_value(const char *name)
{
	FILE *f = fopen("/proc/self/status", "re");
	size_t len = strlen(name);
	int value = -1;
	char line[256];

	while (f && fgets(line, sizeof(line), f))
		if (strncmp(line, name, len) == 0 && line[len] == ':' &&
		    sscanf(line + len + 1, "%d", &value) != 1)
			value = -1;
	if (f)
		fclose(f);
	return value;
}

static bool is_locked_down(void)
{
	_cleanup_close_ int fd = open("/sys/kernel/security/lockdown", O_RDONLY | O_CLOEXEC);
	char text[128];
	ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;

	text[MAX(n, 0)] = '\0';
	return strstr(text, "[confidentiality]");
}

/* The smallest thing that bpf(2) can do. */
static void check_bpf(struct check *c)
{
	int fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "ps_check", 4, 8, 1, NULL);
	bool filtered;

	if (fd >= 0) {
		close(fd);
		check_row(c, CHECK_OK, "bpf", NULL, NULL, "bpf(2) works");
		return;
	}
	c->bpf_refused = true;
	filtered = status_value("Seccomp") == 2;
	if (fd == -ENOSYS && !filtered)
		check_row(c, check_no_bpf(c), "bpf", NULL,
			  "a kernel with CONFIG_BPF_SYSCALL is needed",
			  "this kernel has no bpf(2)");
	else if (fd == -EPERM && !privileges_have(privileges_alias(CAP_BPF)))
		check_row(c, check_no_bpf(c), "bpf", NULL, "see the row capabilities",
			  "bpf(2) is refused for want of CAP_BPF");
	else if (filtered)
		check_row(
			c, CHECK_FAILED, "bpf", NULL,
			"allow bpf in the seccomp profile (Docker and Kubernetes: seccompProfile; "
			"systemd: SystemCallFilter=)",
			"bpf(2) is refused (%s), most likely by the seccomp filter that this "
			"process runs under",
			strerrordesc_np(-fd));
	else
		check_row(c, check_no_bpf(c), "bpf", NULL,
			  "see the kernel's log, and /sys/kernel/security/lsm",
			  "bpf(2) is refused although CAP_BPF is there (%s): %s",
			  strerrordesc_np(-fd),
			  is_locked_down() ? "the kernel is locked down (confidentiality)"
					   : "a security module forbids it");
}

/*
 * Where BPF memory counts against RLIMIT_MEMLOCK (before Linux 5.11), a small map can be had and a
 * ring of the real size cannot. libbpf raises the limit if it may.
 */
static void check_memlock(struct check *c)
{
	uint64_t bytes = 1u << 20;
	struct rlimit limit = {};
	int fd;

	while (2 * bytes <= c->config->ring_bytes)
		bytes *= 2;
	if (c->memory_short || !privileges_have(privileges_alias(CAP_BPF)) || c->bpf_refused)
		return;
	fd = bpf_map_create(BPF_MAP_TYPE_RINGBUF, "ps_check", 0, 0, (uint32_t)bytes, NULL);
	if (fd >= 0) {
		close(fd);
		check_row(c, CHECK_OK, "memlock", NULL, NULL,
			  "a ring of %" PRIu64 " bytes can be had", bytes);
		return;
	}
	getrlimit(RLIMIT_MEMLOCK, &limit);
	if (fd == -EPERM)
		check_row(c, check_no_bpf(c), "memlock", NULL,
			  "LimitMEMLOCK=infinity in systemd, `ulimit -l unlimited`, or "
			  "CAP_SYS_RESOURCE",
			  "a ring of %" PRIu64 " bytes is refused, RLIMIT_MEMLOCK is %" PRIu64
			  " bytes",
			  bytes, (uint64_t)limit.rlim_cur);
	else
		check_row(c, check_no_bpf(c), "memlock", NULL,
			  fd == -EINVAL ? "BPF ring buffers need Linux 5.8"
					: "make ringSize smaller",
			  "a ring of %" PRIu64 " bytes cannot be had: %s", bytes,
			  strerrordesc_np(-fd));
}

static void check_memory(struct check *c)
{
	uint64_t rings = c->config->ring_bytes;
	uint64_t queue = c->config->servers.n ? c->config->queue_bytes : 0;
	struct memory_left left = memory_left();

	c->memory_short = rings + queue > left.bytes;
	check_row(c, c->memory_short ? CHECK_FAILED : CHECK_OK, "memory", NULL,
		  c->memory_short
			  ? left.by_cgroup
				    ? "make ringSize or queueSize smaller, or raise the limit of "
				      "the cgroup (MemoryMax= in systemd, resources.limits in "
				      "Kubernetes)"
				    : "make ringSize or queueSize smaller"
			  : NULL,
		  "%" PRIu64 " MiB for rings and %" PRIu64 " MiB for the queue of %" PRIu64
		  " MiB that %s",
		  rings >> 20, queue >> 20, left.bytes >> 20,
		  left.by_cgroup ? "the cgroup's limit leaves" : "are available");
}

/*
 * In a time namespace CLOCK_BOOTTIME is not what BPF stamps packets with, nor what it measures the
 * heartbeat by.
 */
static bool has_shifted_boottime(void)
{
	FILE *f = fopen("/proc/self/timens_offsets", "re");
	long long seconds, nanoseconds;
	bool shifted = false;
	char name[32];

	while (f && fscanf(f, "%31s %lld %lld", name, &seconds, &nanoseconds) == 3)
		if (strcmp(name, "boottime") == 0 || strcmp(name, "7") == 0)
			shifted = seconds || nanoseconds;
	if (f)
		fclose(f);
	return shifted;
}

static void check_clock(struct check *c)
{
	struct timex t = {};
	nsec_t now = clock_realtime();
	int state = adjtimex(&t);

	if (has_shifted_boottime())
		check_row(c, CHECK_FAILED, "clock", NULL, "run it outside of the time namespace",
			  "this is a time namespace with another CLOCK_BOOTTIME than the kernel's: "
			  "packets would get a wrong time, or pass unseen");
	else if (now < YEAR_2020 || now < clock_boottime())
		check_row(c, CHECK_FAILED, "clock", NULL,
			  "set it: `date`, chrony, systemd-timesyncd",
			  "the clock says %" PRIu64 " s since 1970, which cannot be",
			  (uint64_t)(now / NSEC_PER_SEC));
	else if (state < 0)
		check_row(c, CHECK_WARN, "clock", NULL, NULL,
			  "whether it is synchronised cannot be known: %s", strerrordesc_np(errno));
	else if (state == TIME_ERROR || t.status & STA_UNSYNC)
		check_row(c, CHECK_WARN, "clock", NULL, "run chrony, ntpd or systemd-timesyncd",
			  "not synchronised: time stamps may differ from those of other hosts");
	else
		check_row(c, CHECK_OK, "clock", NULL, NULL, "synchronised, to within %ld us",
			  t.maxerror);
}

static int silence(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	(void)level, (void)fmt, (void)ap;
	return 0;
}

/* CAP_NET_RAW in a user namespace may count for this network namespace, or not. */
static bool can_open_packet_socket(void)
{
	_cleanup_close_ int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

	return fd >= 0;
}

void check_host(struct check *c)
{
	bool automatic = c->config && c->config->backend == BACKEND_AUTO;

	c->can_do_without = automatic && !c->config->taps.n && can_open_packet_socket();
	libbpf_set_print(silence);
	check_kernel(c);
	check_btf(c);
	check_capabilities(c);
	if (needs(c) & (RIGHTS_BPF | RIGHTS_XSK))
		check_bpf(c);
	if (c->config)
		check_memory(c);
	if (c->config && needs(c) & RIGHTS_BPF)
		check_memlock(c);
	check_clock(c);
}
