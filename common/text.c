/* SPDX-License-Identifier: Apache-2.0 */
#include "text.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "clock.h"
#include "util.h"

void text_put(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->out + t->len, t->size - t->len, fmt, ap);
	va_end(ap);
	if (n > 0)
		t->len = MIN(t->len + (size_t)n, t->size - 1);
}

/* The bytes of the UTF-8 character at @s (RFC 3629), or 0 when there is none. */
static size_t utf8_length(const char *s)
{
	const unsigned char *p = (const unsigned char *)s;
	size_t n = *p < 0x80   ? 1
		   : *p < 0xc2 ? 0
		   : *p < 0xe0 ? 2
		   : *p < 0xf0 ? 3
		   : *p < 0xf5 ? 4
			       : 0;

	/* Overlong forms, surrogates, and what is above U+10FFFF. */
	if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) ||
	    (*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f))
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

/* The number of the character of @n bytes at @s. */
static uint32_t utf8_number(const char *s, size_t n)
{
	const unsigned char *p = (const unsigned char *)s;
	uint32_t number = n == 1 ? *p : *p & (0x7fu >> n);

	for (size_t i = 1; i < n; i++)
		number = number << 6 | (p[i] & 0x3f);
	return number;
}

/* May it move the cursor, end the line, or be a command of a terminal? */
static bool is_control(uint32_t number)
{
	return number < 0x20 || (number >= 0x7f && number < 0xa0) || number == 0x2028 ||
	       number == 0x2029;
}

void text_json_string(struct text *j, const char *key, const char *value, size_t max)
{
	size_t end;

	text_put(j, "%s\"%s\":\"", j->len > 1 ? "," : "", key);
	end = j->len + max;
	while (*value && j->len < end) {
		size_t n = utf8_length(value);
		uint32_t number = n ? utf8_number(value, n) : 0xfffd;

		if (number == '"' || number == '\\')
			text_put(j, "\\%c", (char)number);
		else if (!n || is_control(number))
			text_put(j, "\\u%04x", number);
		else
			text_put(j, "%.*s", (int)n, value);
		value += MAX(n, 1u);
	}
	text_put(j, *value ? "...\"" : "\"");
}

size_t text_escape(char *out, size_t size, const char *s)
{
	size_t len = 0;

	while (*s) {
		size_t n = utf8_length(s), bytes = MAX(n, 1u);
		bool plain = n && !is_control(utf8_number(s, n));

		if (len + 4 * bytes + 1 >= size)
			break;
		for (size_t i = 0; i < bytes; i++) {
			unsigned char c = (unsigned char)s[i];

			if (plain)
				out[len++] = s[i];
			else
				len += (size_t)snprintf(out + len, size - len, "\\x%02x", c);
		}
		s += bytes;
	}
	out[len] = '\0';
	return len;
}

void text_time(struct text *t, uint64_t when)
{
	time_t seconds = (time_t)(when / NSEC_PER_SEC);
	unsigned int fraction = (unsigned int)(when % NSEC_PER_SEC), digits = 9;
	char date[32];
	struct tm tm;

	gmtime_r(&seconds, &tm);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
	text_put(t, "%s", date);
	while (fraction && fraction % 10 == 0) {
		fraction /= 10;
		digits--;
	}
	if (fraction)
		text_put(t, ".%0*u", (int)digits, fraction);
	text_put(t, "Z");
}

void text_cut(char *out, size_t size, const char *s)
{
	static const char mark[] = "...";
	size_t n = strlen(s);
	bool cut = n >= size;

	if (cut) {
		n = size - sizeof(mark);
		/* Not within a character. */
		while (n && ((unsigned char)s[n] & 0xc0) == 0x80)
			n--;
	}
	for (size_t i = 0; i < n; i++)
		out[i] = (unsigned char)s[i] < 0x20 || s[i] == 0x7f ? ' ' : s[i];
	memcpy(out + n, cut ? mark : "", cut ? sizeof(mark) : 1);
}
