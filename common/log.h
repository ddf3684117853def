/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemons' log: one line per event, `TIME LEVEL text`, on stderr or in a
 * file. Lines are written whole with one write(2), so threads never mix them.
 * What could disturb a terminal in a text (a peer may have sent it) is shown as \xNN.
 */
#ifndef PS_LOG_H
#define PS_LOG_H

#include <stdbool.h>

#include "err.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Send the log to @path (opened for appending); NULL means stderr. */
int log_open(const char *path, struct err *err);
void log_set_level(enum log_level level);

__attribute__((format(printf, 2, 3))) void log_line(enum log_level level, const char *fmt, ...);

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
