/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "output.h"
#include "packet.h"
#include "util.h"

/* fdatasync(2) fails with this errno; 0: it does not. */
static int fdatasync_fails;

int fdatasync(int fd)
{
	if (fdatasync_fails) {
		errno = fdatasync_fails;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

#define TIME 1700000000123456789ull

static char dir[64];

static const char *in_dir(const char *name)
{
	static char paths[4][128];
	static unsigned int next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
	return path;
}

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/ps-output-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	(void)state;
	while (d && (e = readdir(d)))
		unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
	return rmdir(dir);
}

static size_t slurp(const char *path, uint8_t *out, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	assert_true(fd >= 0);
	n = read(fd, out, size);
	assert_true(n >= 0);
	close(fd);
	return (size_t)n;
}

static struct output *must_open(const char *path, bool micro)
{
	const struct output_config config = {.path = path, .micro = micro};
	struct output *out = NULL;
	struct err err;

	if (output_new(&config, &out, &err) < 0)
		fail_msg("%s", err.text);
	return out;
}

/* A run of @n packets of @caplen bytes each. */
static size_t make_run(uint8_t *run, int n, uint32_t caplen)
{
	static const uint8_t data[1024] = {0xaa, 0xbb};
	size_t size = 0;

	for (int i = 0; i < n; i++) {
		const struct packet p = {.time = TIME,
					 .caplen = caplen,
					 .len = 300000,
					 .direction = 1,
					 .data = data};

		size += packet_write(run + size, &p);
	}
	return size;
}

static void assert_header(const uint8_t *file, uint32_t magic, uint32_t link_type)
{
	assert_int_equal(get_le32(file), magic);
	assert_int_equal(get_le16(file + 4), 2);
	assert_int_equal(get_le16(file + 6), 4);
	assert_int_equal(get_le64(file + 8), 0);
	assert_int_equal(get_le32(file + 16), 262144);
	assert_int_equal(get_le32(file + 20), link_type);
}

static void packets_become_records(void **state)
{
	struct output *out = must_open(in_dir("dump.pcap"), false);
	uint8_t run[256], file[256];
	struct packet first;
	struct stat st;
	size_t size;

	(void)state;
	make_run(run, 1, 2);
	assert_true(packet_next(run, sizeof(run), &first, NULL) > 0);
	/* What a record has no place for is left out. */
	first.has_offload = true;
	first.gso_size = 1448;
	first.data = (const uint8_t[]){0xaa, 0xbb};
	size = packet_write(run, &first);
	size += make_run(run + size, 1, 2);
	assert_int_equal(output_write(out, LINK_ETHERNET, run, size, NULL), 0);
	assert_string_equal(output_path(out, LINK_ETHERNET), in_dir("dump.pcap"));
	output_free(out);

	assert_int_equal(slurp(in_dir("dump.pcap"), file, sizeof(file)), 24 + 2 * 18);
	assert_header(file, 0xa1b23c4d, 1);
	for (int i = 0; i < 2; i++) {
		const uint8_t *record = file + 24 + i * 18;

		assert_int_equal(get_le32(record), 1700000000);
		assert_int_equal(get_le32(record + 4), 123456789);
		assert_int_equal(get_le32(record + 8), 2);
		/* Longer on the wire than any snap length: told as it is. */
		assert_int_equal(get_le32(record + 12), 300000);
		assert_int_equal(get_le16(record + 16), 0xbbaa);
	}
	assert_int_equal(stat(in_dir("dump.pcap"), &st), 0);
	assert_int_equal(st.st_mode & 07777 & ~0640, 0);
}

static void microseconds_have_the_old_magic(void **state)
{
	struct output *out = must_open(in_dir("dump.pcap"), true);
	uint8_t run[128], file[128];

	(void)state;
	assert_int_equal(output_write(out, LINK_ETHERNET, run, make_run(run, 1, 2), NULL), 0);
	output_free(out);
	assert_int_equal(slurp(in_dir("dump.pcap"), file, sizeof(file)), 24 + 18);
	assert_header(file, 0xa1b2c3d4, 1);
	assert_int_equal(get_le32(file + 28), 123456);
}

static void restart_never_touches_packets(void **state)
{
	uint8_t run[128], before[128], after[128];
	struct output *out;
	size_t n;

	(void)state;
	for (int i = 0; i < 2; i++) {
		out = must_open(in_dir("dump.pcap"), false);
		assert_int_equal(output_write(out, LINK_ETHERNET, run, make_run(run, 1, 2), NULL),
				 0);
		output_free(out);
		if (i == 0)
			n = slurp(in_dir("dump.pcap"), before, sizeof(before));
	}
	assert_int_equal(slurp(in_dir("dump.pcap"), after, sizeof(after)), n);
	assert_memory_equal(before, after, n);
	assert_int_equal(slurp(in_dir("dump.1.pcap"), after, sizeof(after)), n);
	out = must_open(in_dir("dump.pcap"), false);
	assert_string_equal(output_path(out, LINK_ETHERNET), in_dir("dump.2.pcap"));
	output_free(out);
}

static void unused_file_is_used_again(void **state)
{
	struct output *out = must_open(in_dir("dump.pcap"), false), *second;

	(void)state;
	/* While it is open it is somebody's, even if nothing is in it. */
	second = must_open(in_dir("dump.pcap"), false);
	assert_string_equal(output_path(second, LINK_ETHERNET), in_dir("dump.1.pcap"));
	output_free(second);
	output_free(out);

	out = must_open(in_dir("dump.pcap"), false);
	assert_string_equal(output_path(out, LINK_ETHERNET), in_dir("dump.pcap"));
	/* Another header is another file. */
	second = must_open(in_dir("dump.pcap"), true);
	assert_string_equal(output_path(second, LINK_ETHERNET), in_dir("dump.2.pcap"));
	output_free(second);
	output_free(out);
}

static void foreign_file_is_left_alone(void **state)
{
	struct output *out;
	uint8_t file[16];
	int fd;

	(void)state;
	fd = open(in_dir("plain"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	out = must_open(in_dir("plain"), false);
	assert_string_equal(output_path(out, LINK_ETHERNET), in_dir("plain.1"));
	output_free(out);
	assert_int_equal(slurp(in_dir("plain"), file, sizeof(file)), 0);
}

static void each_link_type_has_its_file(void **state)
{
	struct output *out = must_open(in_dir("dump.pcap"), false);
	uint8_t run[128], file[128];
	struct err err = {};
	size_t n = make_run(run, 1, 2);

	(void)state;
	assert_null(output_path(out, LINK_RAW));
	assert_int_equal(output_write(out, LINK_RAW, run, n, NULL), 0);
	assert_string_equal(output_path(out, LINK_RAW), in_dir("dump.raw.pcap"));
	assert_int_equal(output_write(out, 276, run, n, &err), -ENOTSUP);
	assert_true(err.text[0]);
	output_free(out);
	assert_int_equal(slurp(in_dir("dump.raw.pcap"), file, sizeof(file)), 24 + 18);
	assert_header(file, 0xa1b23c4d, 101);
	assert_int_equal(slurp(in_dir("dump.pcap"), file, sizeof(file)), 24);
}

static void full_disk_leaves_whole_runs_only(void **state)
{
	struct output *out = must_open(in_dir("dump.pcap"), false);
	struct rlimit old, small;
	uint8_t run[8192], file[8192];
	struct err err = {};
	size_t n;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	n = make_run(run, 2, 100);
	assert_int_equal(output_write(out, LINK_ETHERNET, run, n, NULL), 0);

	small = (struct rlimit){.rlim_cur = 1000, .rlim_max = old.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	n = make_run(run, 10, 500);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(output_write(out, LINK_ETHERNET, run, n, &err), -ENOSPC);
		assert_int_equal(slurp(in_dir("dump.pcap"), file, sizeof(file)), 24 + 2 * 116);
	}
	assert_true(err.text[0]);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);

	assert_int_equal(output_write(out, LINK_ETHERNET, run, n, NULL), 0);
	assert_int_equal(output_finish(out, &err), 0);
	output_free(out);
	assert_int_equal(slurp(in_dir("dump.pcap"), file, sizeof(file)), 24 + 2 * 116 + 10 * 516);
}

static void malformed_run_writes_nothing(void **state)
{
	struct output *out = must_open(in_dir("dump.pcap"), false);
	uint8_t run[256], file[256];
	size_t n = make_run(run, 2, 2);

	(void)state;
	assert_int_equal(output_write(out, LINK_ETHERNET, run, n - 4, NULL), -EBADMSG);
	output_free(out);
	assert_int_equal(slurp(in_dir("dump.pcap"), file, sizeof(file)), 24);
}

static void bad_paths_are_known_at_once(void **state)
{
	static const char *const bad[] = {"/nowhere/at/all/dump.pcap", "/tmp", "/proc/dump.pcap"};
	struct output *out = NULL;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		const struct output_config config = {.path = bad[i]};
		struct err err = {};

		assert_true(output_new(&config, &out, &err) < 0);
		assert_true(err.text[0]);
	}
	for (size_t i = 0; i < 2; i++) {
		const struct output_config config = {.path = bad[i]};
		struct err err = {};

		assert_true(output_check(&config, &err) < 0);
		assert_true(err.text[0]);
	}
}

static void check_leaves_nothing_behind(void **state)
{
	const struct output_config config = {.path = in_dir("dump.pcap")};

	(void)state;
	assert_int_equal(output_check(&config, NULL), 0);
	assert_int_equal(access(in_dir("dump.pcap"), F_OK), -1);
}

/* Standard output becomes @fd for the time of a test. */
static int replace_stdout(int fd)
{
	int saved = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);

	fflush(stdout);
	assert_true(saved >= 0);
	assert_true(dup2(fd, STDOUT_FILENO) >= 0);
	return saved;
}

static void restore_stdout(int saved)
{
	dup2(saved, STDOUT_FILENO);
	close(saved);
}

static void stdout_carries_its_first_link_type(void **state)
{
	uint8_t run[128], got[256];
	struct output *out;
	int pipe_fds[2], saved, refused;
	size_t n = make_run(run, 1, 2);

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	saved = replace_stdout(pipe_fds[1]);
	close(pipe_fds[1]);
	out = must_open("stdout", false);
	restore_stdout(saved);

	assert_int_equal(output_write(out, LINK_RAW, run, n, NULL), 0);
	refused = output_write(out, LINK_ETHERNET, run, n, NULL);
	assert_int_equal(refused, -ENOTSUP);
	assert_string_equal(output_path(out, LINK_RAW), "-");
	assert_int_equal(read(pipe_fds[0], got, sizeof(got)), 24 + 18);
	assert_header(got, 0xa1b23c4d, 101);
	close(pipe_fds[0]);
	assert_int_equal(output_write(out, LINK_RAW, run, n, NULL), -EPIPE);
	output_free(out);
}

static void *cancel_soon(void *out)
{
	output_cancel(out);
	return NULL;
}

static void slow_reader_is_waited_for_until_cancelled(void **state)
{
	static uint8_t run[1 << 20];
	struct output *out;
	int pipe_fds[2], saved;
	size_t n = make_run(run, 900, 1000);
	pthread_t thread;

	(void)state;
	assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
	saved = replace_stdout(pipe_fds[1]);
	out = must_open("-", false);
	restore_stdout(saved);
	assert_int_equal(pthread_create(&thread, NULL, cancel_soon, out), 0);
	assert_int_equal(output_write(out, LINK_ETHERNET, run, n, NULL), -ECANCELED);
	pthread_join(thread, NULL);
	assert_int_equal(output_write(out, LINK_ETHERNET, run, n, NULL), -ECANCELED);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	output_free(out);
}

static void redirected_stdout_is_cut_back_too(void **state)
{
	struct rlimit old, small;
	uint8_t run[8192], file[8192];
	struct output *out;
	int fd, saved;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	fd = open(in_dir("out"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	saved = replace_stdout(fd);
	out = must_open("stdout", false);
	restore_stdout(saved);
	close(fd);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = (struct rlimit){.rlim_cur = 1000, .rlim_max = old.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_int_equal(output_write(out, LINK_ETHERNET, run, make_run(run, 10, 500), NULL),
			 -ENOSPC);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(slurp(in_dir("out"), file, sizeof(file)), 24);
	assert_int_equal(output_write(out, LINK_ETHERNET, run, make_run(run, 10, 500), NULL), 0);
	output_free(out);
	assert_int_equal(slurp(in_dir("out"), file, sizeof(file)), 24 + 10 * 516);
}

static void each_reader_of_a_fifo_gets_a_header(void **state)
{
	struct output *out;
	uint8_t run[128], got[64];
	struct err err = {};
	size_t n = make_run(run, 1, 2);

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(mkfifo(in_dir("fifo"), 0600), 0);
	out = must_open(in_dir("fifo"), false);
	assert_int_equal(output_write(out, LINK_ETHERNET, run, n, &err), -EIO);
	assert_non_null(strstr(err.text, "nobody reads"));
	for (int i = 0; i < 2; i++) {
		int fd = open(in_dir("fifo"), O_RDONLY | O_NONBLOCK | O_CLOEXEC);

		assert_true(fd >= 0);
		assert_int_equal(output_write(out, LINK_ETHERNET, run, n, NULL), 0);
		assert_int_equal(read(fd, got, sizeof(got)), 24 + 18);
		assert_header(got, 0xa1b23c4d, 1);
		close(fd);
		assert_int_equal(output_write(out, LINK_ETHERNET, run, n, NULL), -EIO);
	}
	output_free(out);
}

/* What was written before a crash: two files and how far they are. */
#define BEFORE_RAW 0
#define BEFORE_ETH 1
static struct output_file before[OUTPUT_FILES_MAX];

/* A run of @n packets to @link_type. */
static void must_write(struct output *out, uint32_t link_type, int n)
{
	uint8_t run[4096];
	struct err err = {};

	if (output_write(out, link_type, run, make_run(run, n, 60), &err) < 0)
		fail_msg("%s", err.text);
}

/*
 * An earlier run: dump.1.pcap (another has dump.pcap) and dump.raw.pcap with two runs each, the
 * first of them committed. @before has the file of link type Ethernet last.
 */
static void crash(void)
{
	struct output *out;
	struct output_file files[OUTPUT_FILES_MAX];

	close(open(in_dir("dump.pcap"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	out = must_open(in_dir("dump.pcap"), false);
	must_write(out, LINK_RAW, 3);
	must_write(out, LINK_ETHERNET, 2);
	assert_int_equal(output_files(out, files), 2);
	before[BEFORE_ETH] = files[0];
	before[BEFORE_RAW] = files[1];
	assert_int_equal(output_sync(out, NULL), 0);
	must_write(out, LINK_RAW, 10);
	must_write(out, LINK_ETHERNET, 10);
	/* The kernel writes what a killed process had written. */
	output_free(out);
	assert_string_equal(before[BEFORE_ETH].name, "dump.1.pcap");
	assert_string_equal(before[BEFORE_RAW].name, "dump.raw.pcap");
	assert_int_equal(before[BEFORE_ETH].size, 24 + 2 * 76);
	assert_int_equal(before[BEFORE_RAW].size, 24 + 3 * 76);
}

static struct {
	char name[OUTPUT_NAME_MAX + 1];
	char why[512];
	int n;
} told;

static void tell(void *ctx, const struct output_file *file, const char *why)
{
	assert_ptr_equal(ctx, &told);
	snprintf(told.name, sizeof(told.name), "%s", file->name);
	snprintf(told.why, sizeof(told.why), "%s", why);
	told.n++;
}

/* Go on with the first @n of @before. */
static struct output *must_go_on(size_t n, bool micro)
{
	const struct output_config config = {.path = in_dir("dump.pcap"),
					     .micro = micro,
					     .files = before,
					     .n_files = n,
					     .left_alone = tell,
					     .ctx = &told};
	struct output *out = NULL;
	struct err err = {};

	memset(&told, 0, sizeof(told));
	if (output_new(&config, &out, &err) < 0)
		fail_msg("%s", err.text);
	return out;
}

static off_t file_size(const char *name)
{
	struct stat st;

	assert_int_equal(stat(in_dir(name), &st), 0);
	return st.st_size;
}

static void crash_is_survived_in_the_same_files(void **state)
{
	uint8_t expected[4096], file[4096];
	struct output_file after[OUTPUT_FILES_MAX];
	struct output *out;
	size_t n;

	(void)state;
	/* What there would be without a crash. */
	out = must_open(in_dir("plain"), false);
	must_write(out, LINK_ETHERNET, 2);
	must_write(out, LINK_ETHERNET, 5);
	output_free(out);
	n = slurp(in_dir("plain"), expected, sizeof(expected));

	crash();
	out = must_go_on(2, false);
	assert_int_equal(told.n, 0);
	assert_true(output_is_files(out));
	assert_string_equal(output_path(out, LINK_ETHERNET), in_dir("dump.1.pcap"));
	assert_string_equal(output_path(out, LINK_RAW), in_dir("dump.raw.pcap"));
	/* Cut back before anything is written. */
	assert_int_equal(file_size("dump.1.pcap"), before[BEFORE_ETH].size);
	assert_int_equal(file_size("dump.raw.pcap"), before[BEFORE_RAW].size);
	assert_int_equal(output_files(out, after), 2);
	for (size_t i = 0; i < 2; i++) {
		assert_string_equal(after[i].name, before[i].name);
		assert_int_equal(after[i].link_type, before[i].link_type);
		assert_int_equal(after[i].inode, before[i].inode);
		assert_int_equal(after[i].size, before[i].size);
	}
	must_write(out, LINK_ETHERNET, 5);
	assert_int_equal(output_sync(out, NULL), 0);
	output_free(out);
	assert_int_equal(slurp(in_dir("dump.1.pcap"), file, sizeof(file)), n);
	assert_memory_equal(file, expected, n);
	assert_int_equal(file_size("dump.raw.pcap"), before[BEFORE_RAW].size);
	assert_int_equal(file_size("dump.pcap"), 0);
	assert_int_equal(access(in_dir("dump.2.pcap"), F_OK), -1);
}

static void only_the_files_that_are_named_go_on(void **state)
{
	struct output *out;

	(void)state;
	crash();
	out = must_go_on(1, false);
	assert_int_equal(told.n, 0);
	assert_string_equal(output_path(out, LINK_RAW), in_dir("dump.raw.pcap"));
	assert_string_equal(output_path(out, LINK_ETHERNET), in_dir("dump.2.pcap"));
	assert_int_equal(file_size("dump.1.pcap"), 24 + 12 * 76);
	output_free(out);
}

/* Only the Ethernet file is left alone, which has @size bytes, for a reason with @why in it. */
static void assert_left_alone(const char *why, bool micro, off_t size)
{
	struct output *out = must_go_on(2, micro);

	assert_int_equal(told.n, 1);
	assert_string_equal(told.name, before[BEFORE_ETH].name);
	if (!strstr(told.why, why))
		fail_msg("%s: not because of \"%s\"", told.why, why);
	assert_string_equal(output_path(out, LINK_RAW), in_dir("dump.raw.pcap"));
	assert_string_equal(output_path(out, LINK_ETHERNET), in_dir("dump.2.pcap"));
	must_write(out, LINK_ETHERNET, 1);
	if (size >= 0)
		assert_int_equal(file_size("dump.1.pcap"), size);
	output_free(out);
}

static void shorter_file_is_left_alone(void **state)
{
	(void)state;
	crash();
	assert_int_equal(truncate(in_dir("dump.1.pcap"), 24 + 2 * 76 - 1), 0);
	assert_left_alone("it has 175 bytes, and had 176", false, 175);
}

static void replaced_file_is_left_alone(void **state)
{
	uint8_t file[4096];
	size_t n;
	int fd;

	(void)state;
	crash();
	n = slurp(in_dir("dump.1.pcap"), file, sizeof(file));
	fd = open(in_dir("copy"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, file, n), n);
	close(fd);
	assert_int_equal(rename(in_dir("copy"), in_dir("dump.1.pcap")), 0);
	assert_left_alone("another file", false, (off_t)n);
}

static void link_is_never_followed(void **state)
{
	(void)state;
	crash();
	assert_int_equal(rename(in_dir("dump.1.pcap"), in_dir("elsewhere")), 0);
	assert_int_equal(symlink("elsewhere", in_dir("dump.1.pcap")), 0);
	assert_left_alone("cannot open it", false, 24 + 12 * 76);
	assert_int_equal(file_size("elsewhere"), 24 + 12 * 76);
}

static void unused_file_behind_a_link_is_left_alone(void **state)
{
	struct output *out = must_open(in_dir("elsewhere"), false);

	(void)state;
	output_free(out);
	assert_int_equal(symlink("elsewhere", in_dir("dump.pcap")), 0);
	out = must_open(in_dir("dump.pcap"), false);
	assert_string_equal(output_path(out, LINK_ETHERNET), in_dir("dump.1.pcap"));
	output_free(out);
}

static void missing_file_is_made_anew_and_told(void **state)
{
	struct output *out;

	(void)state;
	crash();
	assert_int_equal(unlink(in_dir("dump.1.pcap")), 0);
	out = must_go_on(2, false);
	assert_int_equal(told.n, 1);
	assert_non_null(strstr(told.why, "cannot open it"));
	/* Its number is free again. */
	assert_int_equal(file_size("dump.1.pcap"), 24);
	output_free(out);
}

static void fifo_in_its_place_is_not_waited_for(void **state)
{
	(void)state;
	crash();
	assert_int_equal(unlink(in_dir("dump.1.pcap")), 0);
	assert_int_equal(mkfifo(in_dir("dump.1.pcap"), 0600), 0);
	assert_left_alone("not a regular file", false, -1);
}

static void name_with_a_path_is_refused(void **state)
{
	static const char *const names[] = {"../dump.1.pcap", "/etc/passwd", "", "..", "."};

	(void)state;
	crash();
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		strncpy(before[BEFORE_ETH].name, names[i], OUTPUT_NAME_MAX);
		assert_left_alone("", false, 24 + 12 * 76);
		unlink(in_dir("dump.2.pcap"));
	}
}

static void file_of_another_process_is_left_alone(void **state)
{
	int fd;

	(void)state;
	crash();
	fd = open(in_dir("dump.1.pcap"), O_RDONLY | O_CLOEXEC);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	assert_left_alone("another process", false, 24 + 12 * 76);
	close(fd);
}

static void other_header_is_another_file(void **state)
{
	struct output *out;
	int fd;

	(void)state;
	crash();
	before[BEFORE_RAW].micro = true;
	out = must_go_on(2, true);
	/* One has the wrong header although its entry says otherwise, the other says so itself. */
	assert_int_equal(told.n, 2);
	assert_non_null(strstr(told.why, "precision"));
	assert_string_equal(output_path(out, LINK_ETHERNET), in_dir("dump.2.pcap"));
	output_free(out);
	before[BEFORE_RAW].micro = false;
	unlink(in_dir("dump.2.pcap"));

	fd = open(in_dir("dump.1.pcap"), O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, "x", 1, 23), 1);
	close(fd);
	assert_left_alone("header", false, 24 + 12 * 76);
}

static void size_within_the_header_is_refused(void **state)
{
	(void)state;
	crash();
	before[BEFORE_ETH].size = 23;
	assert_left_alone("bytes", false, 24 + 12 * 76);
	unlink(in_dir("dump.2.pcap"));
	before[BEFORE_ETH].size = UINT64_MAX;
	assert_left_alone("bytes", false, 24 + 12 * 76);
}

static void second_file_of_a_link_type_is_refused(void **state)
{
	struct output *out;

	(void)state;
	crash();
	before[2] = before[BEFORE_ETH];
	before[3] = before[BEFORE_RAW];
	before[3].link_type = 276;
	out = must_go_on(4, false);
	assert_int_equal(told.n, 2);
	assert_non_null(strstr(told.why, "276"));
	assert_string_equal(output_path(out, LINK_ETHERNET), in_dir("dump.1.pcap"));
	output_free(out);
}

/* The device's number changes with the next mount. */
static void file_on_a_device_with_another_number_goes_on(void **state)
{
	struct output *out;

	(void)state;
	crash();
	before[BEFORE_ETH].device ^= 1;
	out = must_go_on(2, false);
	assert_int_equal(told.n, 0);
	assert_string_equal(output_path(out, LINK_ETHERNET), in_dir("dump.1.pcap"));
	output_free(out);
}

static void file_is_there_before_its_first_packet(void **state)
{
	struct output_file files[OUTPUT_FILES_MAX];
	struct output *out = must_open(in_dir("dump.pcap"), false);
	struct err err = {};

	(void)state;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(output_open(out, LINK_RAW, &err), 0);
		assert_int_equal(output_open(out, LINK_ETHERNET, &err), 0);
		assert_int_equal(output_files(out, files), 2);
		assert_string_equal(files[1].name, "dump.raw.pcap");
		assert_int_equal(files[1].size, 24);
	}
	assert_int_equal(output_open(out, 276, &err), -ENOTSUP);
	assert_true(err.text[0]);
	assert_int_equal(output_sync(out, NULL), 0);
	must_write(out, LINK_RAW, 1);
	output_free(out);
	assert_int_equal(file_size("dump.raw.pcap"), 24 + 76);
}

static void stream_has_no_files(void **state)
{
	struct output_file files[OUTPUT_FILES_MAX];
	struct output *out;

	(void)state;
	assert_int_equal(mkfifo(in_dir("fifo"), 0600), 0);
	out = must_open(in_dir("fifo"), false);
	assert_false(output_is_files(out));
	assert_int_equal(output_files(out, files), 0);
	assert_int_equal(output_open(out, LINK_RAW, NULL), 0);
	assert_int_equal(output_sync(out, NULL), 0);
	output_free(out);
}

static void failed_sync_stays_an_error(void **state)
{
	struct output *out = must_open(in_dir("dump.pcap"), false);
	struct err err = {};

	(void)state;
	must_write(out, LINK_ETHERNET, 1);
	fdatasync_fails = EIO;
	assert_int_equal(output_sync(out, &err), -EIO);
	assert_non_null(strstr(err.text, "dump.pcap"));
	fdatasync_fails = 0;
	/* The kernel would say that all is well now. */
	assert_int_equal(output_sync(out, &err), -EIO);
	output_free(out);
}

#define WRITERS 3
#define ROUNDS  300

static void *write_often(void *out)
{
	uint8_t run[1024];
	size_t n = make_run(run, 2, 60);

	for (int i = 0; i < ROUNDS; i++)
		if (output_write(out, i % 2 ? LINK_RAW : LINK_ETHERNET, run, n, NULL) < 0)
			return out;
	return NULL;
}

static void sync_lets_others_write(void **state)
{
	struct output *out = must_open(in_dir("dump.pcap"), false);
	struct output_file files[OUTPUT_FILES_MAX];
	pthread_t threads[WRITERS];
	uint64_t size = 0;
	void *failed;

	(void)state;
	for (size_t i = 0; i < WRITERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, write_often, out), 0);
	while (size < 2 * 24 + WRITERS * ROUNDS * 2 * 76) {
		size_t n = output_files(out, files);

		size = 0;
		for (size_t i = 0; i < n; i++) {
			/* Whole runs only. */
			assert_int_equal((files[i].size - 24) % (2 * 76), 0);
			size += files[i].size;
		}
		assert_int_equal(output_sync(out, NULL), 0);
	}
	for (size_t i = 0; i < WRITERS; i++) {
		pthread_join(threads[i], &failed);
		assert_null(failed);
	}
	assert_int_equal(output_sync(out, NULL), 0);
	output_free(out);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(packets_become_records),
		TEST(microseconds_have_the_old_magic),
		TEST(restart_never_touches_packets),
		TEST(unused_file_is_used_again),
		TEST(foreign_file_is_left_alone),
		TEST(each_link_type_has_its_file),
		TEST(full_disk_leaves_whole_runs_only),
		TEST(malformed_run_writes_nothing),
		TEST(bad_paths_are_known_at_once),
		TEST(check_leaves_nothing_behind),
		TEST(stdout_carries_its_first_link_type),
		TEST(slow_reader_is_waited_for_until_cancelled),
		TEST(redirected_stdout_is_cut_back_too),
		TEST(each_reader_of_a_fifo_gets_a_header),
		TEST(crash_is_survived_in_the_same_files),
		TEST(only_the_files_that_are_named_go_on),
		TEST(shorter_file_is_left_alone),
		TEST(replaced_file_is_left_alone),
		TEST(link_is_never_followed),
		TEST(unused_file_behind_a_link_is_left_alone),
		TEST(missing_file_is_made_anew_and_told),
		TEST(fifo_in_its_place_is_not_waited_for),
		TEST(name_with_a_path_is_refused),
		TEST(file_of_another_process_is_left_alone),
		TEST(other_header_is_another_file),
		TEST(size_within_the_header_is_refused),
		TEST(second_file_of_a_link_type_is_refused),
		TEST(file_on_a_device_with_another_number_goes_on),
		TEST(file_is_there_before_its_first_packet),
		TEST(stream_has_no_files),
		TEST(failed_sync_stays_an_error),
		TEST(sync_lets_others_write),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
