/* SPDX-License-Identifier: Apache-2.0 */
/* The whole daemon but for signals and options: output, registry, listener, workers. */
#ifndef PS_COLLECTOR_H
#define PS_COLLECTOR_H

#include <stdio.h>

#include "config.h"

struct collector;

/*
 * Loads credentials, opens the listener, the output and its journal, starts the workers. Signals
 * that the caller wants for itself are to be blocked before. @config outlives it.
 */
int collector_new(const struct config *config, struct collector **ret, struct err *err);

/* Where it listens, as text. */
const char *collector_address(const struct collector *c);
/* A descriptor that becomes readable when it cannot go on; the reason is in the log. */
int collector_failed_fd(const struct collector *c);
/*
 * Look at the files of the credentials, and use them if they have changed; with @force in any case.
 * What came of it goes to the log.
 */
void collector_reload(struct collector *c, bool force);
/* The ledgers and the verdict, to the log. */
void collector_report(struct collector *c);

/*
 * Stop: commit and acknowledge what is written, say goodbye to the agents, report, finish the
 * files. Takes a few seconds at most, whatever the agents and the reader of stdout do. -errno when
 * something that was written did not get to the disk; that is in the log.
 */
int collector_free(struct collector *c);

/*
 * Could it work with @config? A line for each check goes to @to; 0, or -errno of the
 * first that failed. Takes no connection and makes no file.
 */
int collector_check(const struct config *config, FILE *to);

#endif
