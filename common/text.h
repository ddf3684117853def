/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of text that are put together piece by piece; what does not fit is left out. */
#ifndef PS_TEXT_H
#define PS_TEXT_H

#include <stddef.h>
#include <stdint.h>

struct text {
	char *out; /* always terminated after the first put */
	size_t len, size;
};

__attribute__((format(printf, 2, 3))) void text_put(struct text *t, const char *fmt, ...);

/*
 * A member of a JSON object, with the comma before it unless it is the first. @value may hold any
 * byte, and the object has to stay valid: what is no UTF-8 shows as U+FFFD, a control character or
 * separator of lines as \uNNNN, and of what takes more than @max bytes in the object (and a
 * character) the rest shows as "...".
 */
void text_json_string(struct text *t, const char *key, const char *value, size_t max);
/*
 * Copy @s, which anybody may have sent, to @out of @size bytes (6 at least): the bytes of control
 * characters (U+0080 to U+009F too), of separators of lines, and what is no UTF-8, show as
 * \xNN. What does not fit is left out. Returns the length.
 */
size_t text_escape(char *out, size_t size, const char *s);
/* @when (CLOCK_REALTIME, ns) in ISO 8601, UTC, with as many digits as it takes. */
void text_time(struct text *t, uint64_t when);

/*
 * Copy @s to @out of @size bytes (4 at least), control characters as blanks. What is longer ends in
 * "...", and no UTF-8 character is cut in two.
 */
void text_cut(char *out, size_t size, const char *s);

#endif
