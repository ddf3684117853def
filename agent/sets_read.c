// SPDX-License-Identifier: Apache-2.0
/*
 * Addresses and networks as text. The process that reads a file may have more rights than
 * whoever put it there, so what is no regular file is refused, and little of a line is shown.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sets_internal.h"
#include "util.h"

#define LINE_MAX 256u
#define FILE_MAX (1u << 30)
#define SHOWN    20

/* True when bits behind the first @bits are set. */
static bool has_host_bits(const uint8_t *address, size_t size, unsigned long bits)
{
	for (size_t i = 8 * size; i > bits; i--) {
		if (address[(i - 1) / 8] >> (7 - (i - 1) % 8) & 1)
			return true;
	}
	return false;
}

/* ::ffff:192.0.2.7 in a header would be that IPv4 address, which is where to look for it. */
static bool is_mapped(const uint8_t *address, unsigned long bits)
{
	static const uint8_t prefix[12] = {[10] = 0xff, [11] = 0xff};

	return bits >= 96 && !memcmp(address, prefix, sizeof(prefix));
}

struct shown {
	char text[SHOWN + 4];
};

static struct shown show(const char *text)
{
	struct shown s = {};
	size_t n = strnlen(text, SHOWN);

	for (size_t i = 0; i < n; i++)
		s.text[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
	if (text[n])
		memcpy(s.text + n, "...", 4);
	return s;
}

/* An address or network; @where begins the sentence: "FILE:LINE: ". */
static int add(struct prefixes *to, uint32_t max, const char *text, const char *where,
	       struct err *err)
{
	const char *slash = strchr(text, '/');
	struct prefixes *p = &to[strchr(text, ':') != NULL];
	char address[INET6_ADDRSTRLEN] = "", *end = NULL;
	size_t len = slash ? (size_t)(slash - text) : strlen(text);
	uint8_t bytes[16], *from = bytes;
	unsigned long bits = 8 * p->size;

	if (len < sizeof(address))
		memcpy(address, text, len);
	if (len >= sizeof(address) ||
	    inet_pton(p->size == 4 ? AF_INET : AF_INET6, address, bytes) != 1)
		return err_set(err, -EINVAL, "%s\"%s\" is no address or network", where,
			       show(text).text);
	if (slash)
		bits = strtoul(slash + 1, &end, 10);
	if (slash && (slash[1] < '0' || slash[1] > '9' || *end || bits > 8 * p->size))
		return err_set(err, -EINVAL, "%s\"%s\": the length must be 0 to %zu", where,
			       show(text).text, 8 * p->size);
	if (has_host_bits(bytes, p->size, bits))
		return err_set(err, -EINVAL, "%s\"%s\": bits behind the first %lu are set", where,
			       show(text).text, bits);
	if (p->size == 16 && is_mapped(bytes, bits)) {
		p = &to[0];
		from += 12;
		bits -= 96;
	}
	if (p->n == max)
		return err_set(err, -E2BIG, "%smore than %u IPv%d addresses", where, max,
			       p->size == 4 ? 4 : 6);
	if (!prefixes_add(p, from, (uint8_t)bits))
		return err_set(err, -ENOMEM, "out of memory");
	return 0;
}

/* The next line, without comment and blanks behind. 1; 0: there is none. */
static int next_line(FILE *f, char *line, const char *where, struct err *err)
{
	bool comment = false;
	size_t n = 0;
	int c;

	while ((c = getc_unlocked(f)) != EOF && c != '\n') {
		if (c == '\0')
			return err_set(err, -EINVAL, "%sa byte of 0: this is no text", where);
		comment |= c == '#';
		if (comment)
			continue;
		if (n == LINE_MAX - 2)
			return err_set(err, -EINVAL, "%sa line of more than %u bytes", where,
				       LINE_MAX - 2);
		line[n++] = (char)c;
	}
	while (n && strchr(" \t\r", line[n - 1]))
		n--;
	line[n] = '\0';
	return c != EOF || n;
}

static int read_lines(struct prefixes *to, uint32_t max, FILE *f, const char *path, struct err *err)
{
	char line[LINE_MAX], where[512], *from;
	int more, e = 0;

	for (size_t n = 1; !e; n++) {
		snprintf(where, sizeof(where), "%.400s:%zu: ", path, n);
		more = next_line(f, line, where, err);
		if (more <= 0)
			return !more && ferror(f) ? err_sys(err, -EIO, "%s: cannot be read", path)
						  : more;
		from = line + strspn(line, " \t");
		if (*from)
			e = add(to, max, from, where, err);
	}
	return e;
}

static int open_file(const char *path, FILE **ret, struct err *err)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat st;
	int e = 0;

	if (fd < 0 || fstat(fd, &st) < 0)
		e = err_sys(err, -errno, "%s: cannot be read", path);
	else if (!S_ISREG(st.st_mode))
		e = err_set(err, -EINVAL, "%s: is no regular file", path);
	else if (st.st_size > FILE_MAX)
		e = err_set(err, -EFBIG, "%s: has more than %u bytes", path, FILE_MAX);
	else if (!(*ret = fdopen(fd, "r")))
		e = err_set(err, -ENOMEM, "out of memory");
	if (e && fd >= 0)
		close(fd);
	return e;
}

int sets_read_file(struct prefixes *to, uint32_t max, const char *path, struct err *err)
{
	FILE *f;
	int e = open_file(path, &f, err);

	if (e)
		return e;
	e = read_lines(to, max, f, path, err);
	fclose(f);
	return e;
}

int sets_read_list(struct prefixes *to, uint32_t max, const char *const *items, size_t n,
		   struct err *err)
{
	int e = 0;

	for (size_t i = 0; !e && i < n; i++)
		e = add(to, max, items[i], "", err);
	return e;
}
