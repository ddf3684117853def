/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into a daemon, writes down what a power cut could not take away: a line for each
 * sync that succeeded, for each rename and each unlink, to the file $SYNCLOG.
 *
 *	S SIZE PATH    the file was synced; SIZE: what it had before the sync began
 *	R PATH PATH    about to be renamed
 *	U PATH         about to be unlinked
 *	T SIZE PATH    about to be cut off
 *
 * Lines are written at once and whole, so the end of the process loses none.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINE_MAX_ (3 * PATH_MAX)

__attribute__((format(printf, 1, 2))) static void note(const char *fmt, ...)
{
	static __thread char line[LINE_MAX_];
	const char *path = getenv("SYNCLOG");
	va_list ap;
	int fd, n;

	if (!path)
		return;
	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, line, (size_t)n) != n)
		abort();
	close(fd);
}

static void *real(const char *name)
{
	void *f = dlsym(RTLD_NEXT, name);

	if (!f)
		abort();
	return f;
}

/* The path of a descriptor, or of a folder and a name in it. */
static const char *path_of(int fd, const char *name, char *out)
{
	char link[64];
	ssize_t n = 0;

	if (!name || (name[0] != '/' && fd != AT_FDCWD)) {
		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		n = readlink(link, out, PATH_MAX - 1);
		if (n < 0)
			n = 0;
	} else if (name[0] != '/' && getcwd(out, PATH_MAX)) {
		n = (ssize_t)strlen(out);
	}
	out[n] = '\0';
	if (name)
		snprintf(out + n, PATH_MAX - (size_t)n, "%s%s", n ? "/" : "", name);
	return out;
}

static int sync_with(const char *how, int fd)
{
	int (*f)(int) = (int (*)(int))real(how);
	char path[PATH_MAX];
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return -1;
	r = f(fd);
	if (r == 0 && S_ISREG(st.st_mode))
		note("S %lld %s\n", (long long)st.st_size, path_of(fd, NULL, path));
	return r;
}

int fsync(int fd)
{
	return sync_with("fsync", fd);
}

int fdatasync(int fd)
{
	return sync_with("fdatasync", fd);
}

int ftruncate(int fd, off_t size)
{
	int (*f)(int, off_t) = (int (*)(int, off_t))real("ftruncate64");
	char path[PATH_MAX];

	note("T %lld %s\n", (long long)size, path_of(fd, NULL, path));
	return f(fd, size);
}

int rename(const char *from, const char *to)
{
	int (*f)(const char *, const char *) = (int (*)(const char *, const char *))real("rename");
	char a[PATH_MAX], b[PATH_MAX];

	note("R %s %s\n", path_of(AT_FDCWD, from, a), path_of(AT_FDCWD, to, b));
	return f(from, to);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
	int (*f)(int, const char *, int, const char *) =
		(int (*)(int, const char *, int, const char *))real("renameat");
	char a[PATH_MAX], b[PATH_MAX];

	note("R %s %s\n", path_of(from_fd, from, a), path_of(to_fd, to, b));
	return f(from_fd, from, to_fd, to);
}

int unlink(const char *name)
{
	int (*f)(const char *) = (int (*)(const char *))real("unlink");
	char path[PATH_MAX];

	note("U %s\n", path_of(AT_FDCWD, name, path));
	return f(name);
}

int unlinkat(int fd, const char *name, int flags)
{
	int (*f)(int, const char *, int) = (int (*)(int, const char *, int))real("unlinkat");
	char path[PATH_MAX];

	note("U %s\n", path_of(fd, name, path));
	return f(fd, name, flags);
}
