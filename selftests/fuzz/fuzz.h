/* SPDX-License-Identifier: Apache-2.0 */
/* What every fuzz target has; libFuzzer calls it, and so does replay.c. */
#ifndef PS_FUZZ_H
#define PS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Returns 0; crashes, or aborts by FUZZ_ASSERT(), on a finding. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Holds in every build, NDEBUG or not. */
#define FUZZ_ASSERT(condition)                                                            \
	do {                                                                              \
		if (!(condition)) {                                                       \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, \
				#condition);                                              \
			abort();                                                          \
		}                                                                         \
	} while (0)

#endif
