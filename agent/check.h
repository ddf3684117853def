/* SPDX-License-Identifier: Apache-2.0 */
/* --check: what a run needs, tried beforehand. */
#ifndef PS_CHECK_H
#define PS_CHECK_H

#include <stdbool.h>

/*
 * Try everything that a run with the configuration file @path needs, and undo it: rights, BPF,
 * hooks, network namespaces, interfaces, memory, clock, credentials, collectors, files. Prints a
 * table on stdout, or with @json one object; errors in the configuration go to stderr too. Nothing
 * stays attached and no file is made. True when a run would work.
 */
bool agent_check(const char *path, bool json);

#endif
