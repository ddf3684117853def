/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A daemon that has started gives up what it will not need again: capabilities
 * (privileges.h), and by a seccomp filter system calls. For good, and for all threads: those that
 * are made later inherit it.
 */
#ifndef PS_SANDBOX_H
#define PS_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

struct sandbox {
	uint64_t keep; /* capabilities, as in privileges.h */
	/* That must stay in reach, as for privileges_drop(); NULL ones do not count. */
	const char *const *files;
	size_t n_files;

	/* Beside what both daemons need: */
	bool bpf;            /* bpf(2) */
	bool packet_sockets; /* AF_PACKET, AF_XDP */
	bool namespaces;     /* setns(2), inotify_add_watch(2) */
};

/*
 * To be called before there are other threads. A call that is not in the list fails with ENOSYS, as
 * on a kernel that has not got it, and the kernel's audit log names it; one that only an
 * intruder makes (execve, ptrace, ...) ends the process. @said gets the sentence for the log:
 * what was kept, and why there is no filter when there is none, which is no error.
 */
int sandbox_enter(const struct sandbox *s, struct err *said);

#endif
