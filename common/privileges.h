/* SPDX-License-Identifier: Apache-2.0 */
/* Capabilities of this process: which there are, and giving them up for good. */
#ifndef PS_PRIVILEGES_H
#define PS_PRIVILEGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

/* A set of capabilities(7): the bit of each is its number. */
#define PRIVILEGE(cap) (1ull << (cap))

/*
 * The kernel's own word for what @cap allows: itself, or CAP_SYS_ADMIN where the kernel is too
 * old (before Linux 5.8) to have CAP_BPF and CAP_PERFMON.
 */
unsigned int privileges_alias(unsigned int cap);
/* Effective now? CAP_SYS_ADMIN does for CAP_BPF and CAP_PERFMON. */
bool privileges_have(unsigned int cap);

/* What privileges_drop() came to. */
struct privileges {
	uint64_t kept;
	const char *for_file; /* CAP_DAC_OVERRIDE had to stay, for this one; NULL: it did not */
};

/*
 * Give up all capabilities but those of @keep that are there, in every set, and with
 * no_new_privs whatever a program file could give. Of the calling thread: to be called before
 * others are made.
 *
 * A root process without CAP_DAC_OVERRIDE is shut out from other users' files. So when one of
 * @files (paths; NULL ones do not count) could be used before and could not any more, that
 * capability stays.
 */
int privileges_drop(uint64_t keep, const char *const *files, size_t n_files, struct privileges *ret,
		    struct err *err);

/* "CAP_BPF CAP_NET_ADMIN", or "none". */
void privileges_show(uint64_t caps, char *out, size_t size);

#endif
