/* SPDX-License-Identifier: Apache-2.0 */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "text.h"
#include "util.h"

/* Room for a ledger's JSON object, the longest text there is. */
#define LOG_TEXT_MAX 4832

static int log_fd = STDERR_FILENO;
static enum log_level max_level = LOG_LEVEL_INFO;

int log_open(const char *path, struct err *err)
{
	int fd;

	if (!path)
		return 0;
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	if (fd < 0)
		return err_sys(err, -errno, "cannot open the log file \"%s\"", path);
	log_fd = fd;
	return 0;
}

void log_set_level(enum log_level level)
{
	max_level = level;
}

void log_line(enum log_level level, const char *fmt, ...)
{
	static const char *const names[] = {"error", "warning", "info", "debug"};
	char text[LOG_TEXT_MAX], line[LOG_TEXT_MAX + 64];
	struct timespec now;
	struct tm tm;
	va_list ap;
	size_t n;

	if (level > max_level)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &tm);
	n = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
	n += (size_t)snprintf(line + n, sizeof(line) - n, ".%03ldZ %s ", now.tv_nsec / 1000000,
			      names[level]);
	n += text_escape(line + n, sizeof(line) - n - 1, text);
	line[n++] = '\n';
	/* A log that cannot be written has nobody left to tell. */
	if (write(log_fd, line, n) < 0)
		return;
}
