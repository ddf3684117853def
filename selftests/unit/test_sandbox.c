/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process can do no more once it is in the sandbox, and what it still can. Each test is a
 * child of its own, since there is no way back. Needs no rights: with some, more is tested.
 */
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netdb.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "privileges.h"
#include "util.h"

#define NO_FILTER 77 /* a child's way to say that it has none */

static struct err said;

/* The wait status of a child that enters the sandbox and then runs @fn, which returns its status.
 */
static int in_sandbox(const struct sandbox *s, int (*fn)(void))
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		if (sandbox_enter(s, &said) < 0)
			_exit(99);
		if (!strstr(said.text, "system calls that are kept"))
			_exit(NO_FILTER);
		_exit(fn());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == NO_FILTER)
		skip(); /* under a sanitizer or an emulator, or built without libseccomp */
	return status;
}

static void check_fine(const struct sandbox *s, int (*fn)(void))
{
	int status = in_sandbox(s, fn);

	assert_true(WIFEXITED(status));
	/* The line of the check that did not hold. */
	assert_int_equal(WEXITSTATUS(status), 0);
}

#define EXPECT(e)                                                   \
	do {                                                        \
		if (!(e))                                           \
			return __LINE__ % 128 ? __LINE__ % 128 : 1; \
	} while (0)

static void *set_flag(void *arg)
{
	*(bool *)arg = true;
	return NULL;
}

static int do_usual_things(void)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
	char path[] = "/tmp/ps-test-XXXXXX", byte = 1;
	pthread_t thread;
	bool ran = false;
	void *p;
	int fd;

	EXPECT(pthread_create(&thread, NULL, set_flag, &ran) == 0);
	EXPECT(pthread_join(thread, NULL) == 0 && ran);
	EXPECT(getaddrinfo("localhost", NULL, &hints, &list) == 0);
	freeaddrinfo(list);
	/* Wherever that goes: no sooner does it end than name servers say, or are not there. */
	getaddrinfo("nowhere.invalid", NULL, &hints, &list);
	fd = mkstemp(path);
	EXPECT(fd >= 0 && write(fd, &byte, 1) == 1 && fsync(fd) == 0 && ftruncate(fd, 0) == 0);
	EXPECT(unlink(path) == 0 && close(fd) == 0);
	p = malloc(64u << 20);
	EXPECT(p);
	free(p);
	EXPECT(kill(getpid(), 0) == 0);
	EXPECT(prctl(PR_SET_NAME, "sandboxed", 0, 0, 0) == 0);
	fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	EXPECT(fd >= 0 || errno == EAFNOSUPPORT);
	return 0;
}

static void the_usual_things_work(void **state)
{
	(void)state;
	check_fine(&(struct sandbox){}, do_usual_things);
}

static int try_what_is_refused(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	void *p = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	EXPECT(p != MAP_FAILED);
	EXPECT(mprotect(p, page, PROT_READ | PROT_WRITE | PROT_EXEC) < 0 && errno == ENOSYS);
	EXPECT(mprotect(p, page, PROT_READ | PROT_EXEC) == 0);
	EXPECT(mmap(NULL, page, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
		       MAP_FAILED &&
	       errno == ENOSYS);
	EXPECT(socket(AF_PACKET, SOCK_RAW, 0) < 0 && errno == ENOSYS);
	EXPECT(kill(getppid(), SIGTERM) < 0 && errno == ENOSYS);
	EXPECT(syscall(SYS_bpf, 0, NULL, 0) < 0 && errno == ENOSYS);
	EXPECT(syscall(SYS_io_uring_setup, 1, NULL) < 0 && errno == ENOSYS);
	EXPECT(syscall(SYS_unshare, 0) < 0 && errno == ENOSYS);
	EXPECT(syscall(SYS_setns, -1, 0) < 0 && errno == ENOSYS);
	EXPECT(inotify_add_watch(-1, "/", IN_CREATE) < 0 && errno == ENOSYS);
	EXPECT(syscall(SYS_clone3, NULL, 0) < 0 && errno == ENOSYS);
	EXPECT(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) < 0 && errno == ENOSYS);
	EXPECT(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 && errno == ENOSYS);
	return 0;
}

static void what_is_not_needed_is_not_there(void **state)
{
	(void)state;
	check_fine(&(struct sandbox){}, try_what_is_refused);
}

static int try_extras(void)
{
	EXPECT(syscall(SYS_bpf, -1, NULL, 0) < 0 && errno != ENOSYS);
	EXPECT(syscall(SYS_setns, -1, 0) < 0 && errno == EBADF);
	EXPECT(inotify_add_watch(-1, "/", IN_CREATE) < 0 && errno == EBADF);
	EXPECT(socket(AF_PACKET, SOCK_RAW, 0) >= 0 || errno != ENOSYS);
	return 0;
}

static void what_a_configuration_needs_is_there(void **state)
{
	(void)state;
	check_fine(&(struct sandbox){.bpf = true, .packet_sockets = true, .namespaces = true},
		   try_extras);
}

static int execute(void)
{
	char *argv[] = {NULL};

	execve("/bin/true", argv, argv);
	return 0;
}

static int trace(void)
{
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	return 0;
}

static int become_root(void)
{
	syscall(SYS_setuid, 0);
	return 0;
}

static void what_only_intruders_do_ends_the_process(void **state)
{
	static int (*const tries[])(void) = {execute, trace, become_root};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(tries); i++) {
		int status = in_sandbox(&(struct sandbox){}, tries[i]);

		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGSYS);
	}
}

static int has_nothing(void)
{
	EXPECT(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
	for (unsigned int cap = 0; cap <= CAP_LAST_CAP; cap++)
		EXPECT(!privileges_have(cap));
	return 0;
}

/* privileges_drop() alone: an emulator knows no filters, a sanitizer's run has none. */
static int run_drop(uint64_t keep, const char *const *files, size_t n, int (*fn)(void))
{
	struct privileges p;
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		_exit(privileges_drop(keep, files, n, &p, &said) < 0    ? 99
		      : p.for_file && strcmp(p.for_file, files[0]) != 0 ? 98
									: fn());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void all_capabilities_go(void **state)
{
	(void)state;
	assert_int_equal(run_drop(0, NULL, 0, has_nothing), 0);
}

static int has_net_admin_only(void)
{
	EXPECT(privileges_have(CAP_NET_ADMIN));
	EXPECT(!privileges_have(CAP_DAC_OVERRIDE) && !privileges_have(CAP_SYS_ADMIN));
	EXPECT(!privileges_have(CAP_SETPCAP));
	return 0;
}

static int has_dac_override(void)
{
	EXPECT(privileges_have(CAP_DAC_OVERRIDE) && !privileges_have(CAP_SYS_ADMIN));
	return 0;
}

static int has_no_dac_override(void)
{
	EXPECT(!privileges_have(CAP_DAC_OVERRIDE));
	return 0;
}

static void what_is_to_be_kept_stays(void **state)
{
	(void)state;
	if (!privileges_have(CAP_NET_ADMIN))
		skip();
	assert_int_equal(run_drop(PRIVILEGE(CAP_NET_ADMIN), NULL, 0, has_net_admin_only), 0);
}

/* Somebody else's folder, that root cannot use without CAP_DAC_OVERRIDE. */
static void files_of_others_stay_in_reach(void **state)
{
	char path[] = "/tmp/ps-test-XXXXXX";
	const char *const files[] = {path, NULL};

	(void)state;
	if (geteuid() != 0 || !privileges_have(CAP_DAC_OVERRIDE))
		skip();
	assert_non_null(mkdtemp(path));
	assert_int_equal(run_drop(0, files, ARRAY_SIZE(files), has_no_dac_override), 0);
	assert_int_equal(chown(path, 12345, 12345), 0);
	assert_int_equal(run_drop(0, files, ARRAY_SIZE(files), has_dac_override), 0);
	/* In nobody's reach, before either. */
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(run_drop(0, files, ARRAY_SIZE(files), has_no_dac_override), 0);
}

static void capabilities_have_their_names(void **state)
{
	char text[256];

	(void)state;
	privileges_show(0, text, sizeof(text));
	assert_string_equal(text, "none");
	privileges_show(PRIVILEGE(CAP_NET_ADMIN) | PRIVILEGE(CAP_BPF), text, sizeof(text));
	assert_string_equal(text, "CAP_NET_ADMIN CAP_BPF");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_usual_things_work),
		cmocka_unit_test(what_is_not_needed_is_not_there),
		cmocka_unit_test(what_a_configuration_needs_is_there),
		cmocka_unit_test(what_only_intruders_do_ends_the_process),
		cmocka_unit_test(all_capabilities_go),
		cmocka_unit_test(what_is_to_be_kept_stays),
		cmocka_unit_test(files_of_others_stay_in_reach),
		cmocka_unit_test(capabilities_have_their_names),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
