/* SPDX-License-Identifier: Apache-2.0 */
/* What is tried on a folder after a power cut, and what was wrong. For powercut_*.c. */
#ifndef PS_TOOLS_POWERCUT_H
#define PS_TOOLS_POWERCUT_H

#include <stdarg.h>
#include <stdio.h>

#include "tools/tree.h"

#define FINDINGS_TOLD 20u

static struct {
	const char *folder;
	unsigned int cuts, tried, wrong;
	char what[256]; /* that is tried now */
} cut;

__attribute__((format(printf, 1, 2))) static void finding(const char *fmt, ...)
{
	va_list ap;

	if (cut.wrong++ > FINDINGS_TOLD)
		return;
	printf("%s: ", cut.what);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
}

#endif
