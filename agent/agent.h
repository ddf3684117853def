/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The running agent: builds the parts in order, runs the loop thread until a signal
 * asks it to stop, then takes everything down in the order that loses nothing.
 */
#ifndef PS_AGENT_H
#define PS_AGENT_H

#include "config.h"

/*
 * Run with @config until SIGTERM or SIGINT. 0 after a clean stop, else -errno and a
 * sentence. The process's signal mask is changed.
 */
int agent_run(const struct config *config, struct err *err);

/*
 * Try everything that a run needs and undo it: rights, BPF, interfaces, credentials.
 * Prints a table on stdout, attaches nothing. 0 when a run would work, else -errno.
 */
int agent_check(const struct config *config);

#endif
