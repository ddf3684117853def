/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lists are what strace(1) saw over the end-to-end tests, and what glibc, its name services,
 * GnuTLS and libbpf do elsewhere: on older kernels and on arm64, for want of memory, at an exit.
 * A name that a processor does not have is passed over.
 *
 * ENOSYS and not EPERM for the rest: a library that comes to use a newer call falls back
 * to an older one then, as on an older kernel, where EPERM would make it fail. So that
 * thread creation does without clone3(2), whose flags no filter can see.
 */
#include "sandbox.h"

#include <errno.h>
#include <stdio.h>

#include "privileges.h"
#include "text.h"
#include "util.h"

#if defined(HAVE_SECCOMP) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

#include <linux/sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41 /* glibc names its memory, Linux 5.17 */
#endif

static const char *const allowed[] = {
	/* files */
	"access",
	"chmod",
	"close",
	"close_range",
	"copy_file_range",
	"dup",
	"dup2",
	"dup3",
	"faccessat",
	"faccessat2",
	"fallocate",
	"fadvise64",
	"fchmod",
	"fchmodat",
	"fchown",
	"fcntl",
	"fdatasync",
	"flock",
	"fstat",
	"fstatfs",
	"fsync",
	"ftruncate",
	"getcwd",
	"getdents64",
	"link",
	"linkat",
	"lseek",
	"lstat",
	"mkdir",
	"mkdirat",
	"newfstatat",
	"open",
	"openat",
	"pipe2",
	"pread64",
	"preadv",
	"pwrite64",
	"pwritev",
	"read",
	"readlink",
	"readlinkat",
	"readv",
	"rename",
	"renameat",
	"renameat2",
	"rmdir",
	"stat",
	"statfs",
	"statx",
	"sync_file_range",
	"truncate",
	"umask",
	"unlink",
	"unlinkat",
	"utimensat",
	"write",
	"writev",
	/* sockets, but for making them */
	"accept",
	"accept4",
	"bind",
	"connect",
	"getpeername",
	"getsockname",
	"getsockopt",
	"listen",
	"recvfrom",
	"recvmmsg",
	"recvmsg",
	"sendmmsg",
	"sendmsg",
	"sendto",
	"setsockopt",
	"shutdown",
	"socketpair",
	/* waiting */
	"clock_nanosleep",
	"epoll_create1",
	"epoll_ctl",
	"epoll_pwait",
	"epoll_pwait2",
	"epoll_wait",
	"eventfd2",
	"nanosleep",
	"pause",
	"poll",
	"ppoll",
	"pselect6",
	"select",
	"signalfd4",
	"timerfd_create",
	"timerfd_gettime",
	"timerfd_settime",
	/* memory, but for making it executable */
	"brk",
	"madvise",
	"membarrier",
	"memfd_create",
	"mincore",
	"mlock",
	"mlock2",
	"mremap",
	"msync",
	"munlock",
	"munmap",
	"get_mempolicy",
	/* threads and signals */
	"exit",
	"exit_group",
	"futex",
	"futex_waitv",
	"get_robust_list",
	"gettid",
	"restart_syscall",
	"rseq",
	"rt_sigaction",
	"rt_sigpending",
	"rt_sigprocmask",
	"rt_sigreturn",
	"rt_sigtimedwait",
	"sched_getaffinity",
	"sched_getparam",
	"sched_getscheduler",
	"sched_setaffinity",
	"sched_yield",
	"set_robust_list",
	"set_tid_address",
	"sigaltstack",
	"tgkill",
	/* who and where we are */
	"adjtimex",
	"clock_adjtime",
	"clock_getres",
	"clock_gettime",
	"getcpu",
	"getegid",
	"geteuid",
	"getgid",
	"getgroups",
	"getpgrp",
	"getpid",
	"getppid",
	"getpriority",
	"getrandom",
	"getresgid",
	"getresuid",
	"getrlimit",
	"getrusage",
	"gettimeofday",
	"getuid",
	"prlimit64",
	"setrlimit",
	"sysinfo",
	"time",
	"times",
	"uname",
	"capget",
	"ioctl",
	"arch_prctl",
};

/* Of no use to us, of much to who has broken in. */
static const char *const hostile[] = {
	"chroot",          "delete_module",    "execve",
	"execveat",        "finit_module",     "init_module",
	"kexec_file_load", "kexec_load",       "open_by_handle_at",
	"pivot_root",      "process_vm_readv", "process_vm_writev",
	"ptrace",          "reboot",           "setgid",
	"setgroups",       "setregid",         "setresgid",
	"setresuid",       "setreuid",         "setuid",
	"swapoff",         "swapon",
};

struct filter {
	scmp_filter_ctx ctx;
	unsigned int calls;
	int r; /* the first error */
};

/* With @n comparisons of arguments, all of which must hold. */
static void rule(struct filter *f, uint32_t action, const char *name, unsigned int n,
		 const struct scmp_arg_cmp *args)
{
	int call = seccomp_syscall_resolve_name(name);
	int r;

	/* Negative numbers are those that this processor does not have. */
	if (call < 0 || f->r < 0)
		return;
	r = seccomp_rule_add_array(f->ctx, action, call, n, args);
	if (r < 0)
		f->r = r;
	f->calls += action == SCMP_ACT_ALLOW && n == 0;
}

static void allow(struct filter *f, const char *name)
{
	rule(f, SCMP_ACT_ALLOW, name, 0, NULL);
}

static void allow_if(struct filter *f, const char *name, struct scmp_arg_cmp arg)
{
	rule(f, SCMP_ACT_ALLOW, name, 1, &arg);
}

/* Memory may be writable or executable, not both. */
static void allow_memory(struct filter *f)
{
	static const char *const names[] = {"mmap", "mprotect"};
	static const uint64_t fine[] = {0, PROT_WRITE, PROT_EXEC};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		for (size_t k = 0; k < ARRAY_SIZE(fine); k++)
			allow_if(f, names[i],
				 SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_WRITE | PROT_EXEC, fine[k]));
}

static void allow_sockets(struct filter *f, const struct sandbox *s)
{
	static const int families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};
	static const int more[] = {AF_PACKET, AF_XDP};

	for (size_t i = 0; i < ARRAY_SIZE(families); i++)
		allow_if(f, "socket", SCMP_A0(SCMP_CMP_EQ, (uint64_t)families[i]));
	for (size_t i = 0; s->packet_sockets && i < ARRAY_SIZE(more); i++)
		allow_if(f, "socket", SCMP_A0(SCMP_CMP_EQ, (uint64_t)more[i]));
}

static void allow_prctl(struct filter *f)
{
	static const int options[] = {PR_SET_NAME, PR_GET_NAME, PR_SET_VMA, PR_GET_DUMPABLE,
				      PR_CAPBSET_READ};

	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		allow_if(f, "prctl", SCMP_A0(SCMP_CMP_EQ, (uint64_t)options[i]));
}

static void fill(struct filter *f, const struct sandbox *s)
{
	for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
		allow(f, allowed[i]);
	for (size_t i = 0; i < ARRAY_SIZE(hostile); i++)
		rule(f, SCMP_ACT_KILL_PROCESS, hostile[i], 0, NULL);
	allow_memory(f);
	allow_sockets(f, s);
	allow_prctl(f);
	/* Threads, but no processes and no namespaces. */
	allow_if(f, "clone", SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
	/* Whether a process is there, no more. */
	allow_if(f, "kill", SCMP_A1(SCMP_CMP_EQ, 0));
	if (s->bpf)
		allow(f, "bpf");
	if (s->namespaces) {
		allow(f, "setns");
		/* They come and go in folders that may come later too. */
		allow(f, "inotify_add_watch");
	}
}

static int filter_calls(const struct sandbox *s, struct text *said, struct err *err)
{
	struct filter f = {.ctx = seccomp_init(SCMP_ACT_ERRNO(ENOSYS))};

	if (!f.ctx)
		return err_set(err, -ENOMEM, "out of memory for a filter of system calls");
	/* The names of what is refused go to the kernel's log, where that is possible. */
	seccomp_attr_set(f.ctx, SCMP_FLTATR_CTL_LOG, 1);
	seccomp_attr_set(f.ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	/* A tree instead of a list: packets of the stream cost calls. */
	seccomp_attr_set(f.ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	fill(&f, s);
	if (f.r == 0)
		f.r = seccomp_load(f.ctx);
	seccomp_release(f.ctx);
	if (f.r == 0)
		text_put(said, "system calls that are kept: %u", f.calls);
	else
		text_put(said, "this kernel takes no filter of system calls: %s",
			 strerrordesc_np(-f.r));
	return 0;
}

#else

static int filter_calls(const struct sandbox *s, struct text *said, struct err *err)
{
	(void)s, (void)err;
	text_put(said, "this program was built without a filter of system calls");
	return 0;
}

#endif

int sandbox_enter(const struct sandbox *s, struct err *said)
{
	struct text t = {.out = said->text, .size = sizeof(said->text)};
	struct privileges privileges;
	char caps[256];
	int r = privileges_drop(s->keep, s->files, s->n_files, &privileges, said);

	if (r < 0)
		return r;
	privileges_show(privileges.kept, caps, sizeof(caps));
	text_put(&t, "capabilities that are kept: %s", caps);
	if (privileges.for_file)
		text_put(&t, " (CAP_DAC_OVERRIDE for \"%.200s\", which is somebody else's)",
			 privileges.for_file);
	text_put(&t, "; ");
	return filter_calls(s, &t, said);
}
