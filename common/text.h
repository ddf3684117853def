/* SPDX-License-Identifier: Apache-2.0 */
/* A line of text that is put together piece by piece; what does not fit is left out. */
#ifndef PS_TEXT_H
#define PS_TEXT_H

#include <stddef.h>

struct text {
	char *out; /* always terminated after the first put */
	size_t len, size;
};

__attribute__((format(printf, 2, 3))) void text_put(struct text *t, const char *fmt, ...);

#endif
