/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The running agent: builds the parts in order, runs the loop thread until a signal
 * asks it to stop, then takes everything down in the order that loses nothing.
 */
#ifndef PS_AGENT_H
#define PS_AGENT_H

#include "backend.h"
#include "capture.h"
#include "config.h"
#include "rules.h"

/*
 * Run with @config until SIGTERM or SIGINT. 0 after a clean stop, else -errno and a
 * sentence. The process's signal mask is changed.
 */
int agent_run(const struct config *config, struct err *err);

/* The back end, and the rules that it reads; both belong to the caller, on failure too. */
int agent_open_capture(const struct config *config, struct rules **ret_rules,
		       const struct capture_ops **ret_ops, struct capture **ret, struct err *report,
		       struct err *err);

#endif
