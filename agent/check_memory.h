/* SPDX-License-Identifier: Apache-2.0 */
/* How much memory this process may still take. */
#ifndef PS_CHECK_MEMORY_H
#define PS_CHECK_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

struct memory_left {
	uint64_t bytes; /* UINT64_MAX: nobody says */
	bool by_cgroup; /* a limit of its cgroup, or of one above, is nearer than the machine's end
			 */
};

/* What the machine has available, or what the limits of control groups (v1 or v2) leave. */
struct memory_left memory_left(void);

#endif
