/* SPDX-License-Identifier: Apache-2.0 */
/* What everything stands on: buf, err, log, text, clock, the little-endian access of util.h. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "buf.h"
#include "clock.h"
#include "err.h"
#include "log.h"
#include "text.h"
#include "util.h"

static void buf_grows_and_keeps_its_bytes(void **state)
{
	struct buf b = {};

	(void)state;
	for (uint32_t i = 0; i < 10000; i++)
		buf_put_le32(&b, i);
	assert_false(buf_failed(&b));
	assert_int_equal(b.len, 40000);
	assert_true(b.cap >= b.len);
	for (uint32_t i = 0; i < 10000; i++)
		assert_int_equal(get_le32(b.data + 4 * (size_t)i), i);
	buf_free(&b);
	assert_null(b.data);
	assert_int_equal(b.len + b.cap, 0);
}

static void buf_puts_little_endian(void **state)
{
	static const uint8_t expected[] = {1, 3, 2, 7, 6, 5, 4, 15, 14, 13, 12, 11, 10, 9, 8};
	struct buf b = {};

	(void)state;
	buf_put_u8(&b, 1);
	buf_put_le16(&b, 0x0203);
	buf_put_le32(&b, 0x04050607);
	buf_put_le64(&b, 0x08090a0b0c0d0e0f);
	assert_int_equal(b.len, sizeof(expected));
	assert_memory_equal(b.data, expected, sizeof(expected));
	assert_int_equal(get_le16(b.data + 1), 0x0203);
	assert_int_equal(get_le64(b.data + 7), 0x08090a0b0c0d0e0f);
	buf_free(&b);
}

static void buf_failure_is_sticky_until_reset(void **state)
{
	struct buf b = {};

	(void)state;
	buf_put(&b, "abc", 3);
	assert_null(buf_reserve(&b, SIZE_MAX));
	assert_true(buf_failed(&b));
	buf_put(&b, "def", 3);
	assert_null(buf_reserve(&b, 1));
	assert_int_equal(b.len, 3);
	buf_reset(&b);
	assert_false(buf_failed(&b));
	assert_int_equal(b.len, 0);
	buf_put(&b, "ghi", 3);
	assert_memory_equal(b.data, "ghi", 3);
	buf_free(&b);
}

static void buf_takes_nothing_and_reserves_without_growing(void **state)
{
	struct buf b = {};

	(void)state;
	buf_put(&b, NULL, 0);
	assert_int_equal(b.len, 0);
	assert_non_null(buf_reserve(&b, 1000));
	assert_int_equal(b.len, 0);
	assert_true(b.cap >= 1000);
	buf_free(&b);
	buf_free(&b);
}

static void err_returns_the_code_and_writes_the_sentence(void **state)
{
	struct err err = {};

	(void)state;
	assert_int_equal(err_set(&err, -EINVAL, "port %d is above %d", 70000, 65535), -EINVAL);
	assert_string_equal(err.text, "port 70000 is above 65535");
	assert_int_equal(err_sys(&err, -ENOENT, "cannot open \"%s\"", "x"), -ENOENT);
	assert_string_equal(err.text, "cannot open \"x\": No such file or directory");
	assert_int_equal(err_wrap(&err, -EIO, "agent.yaml"), -EIO);
	assert_string_equal(err.text, "agent.yaml: cannot open \"x\": No such file or directory");
	assert_int_equal(err_set(NULL, -EINVAL, "%s", "x"), -EINVAL);
	assert_int_equal(err_sys(NULL, -EIO, "%s", "x"), -EIO);
	assert_int_equal(err_wrap(NULL, -EBADMSG, "%s", "x"), -EBADMSG);
}

static void err_cuts_what_is_too_long(void **state)
{
	char longer[2000];
	struct err err = {};

	(void)state;
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	err_set(&err, -EINVAL, "%s", longer);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
	err_sys(&err, -EINVAL, "%s", longer);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
	err_wrap(&err, -EINVAL, "prefix");
	assert_memory_equal(err.text, "prefix: xxx", 11);
	err_wrap(&err, -EINVAL, "%s", longer);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
}

/* The log goes to a file for the rest of the program. */
static char log_path[] = "/tmp/ps-test-log-XXXXXX";
static int log_read_fd = -1;

static int open_log(void **state)
{
	(void)state;
	log_read_fd = mkstemp(log_path);
	return log_read_fd < 0 ? -1 : log_open(log_path, NULL);
}

static int remove_log(void **state)
{
	(void)state;
	close(log_read_fd);
	return unlink(log_path);
}

/* What was logged since the last call. */
static const char *logged(void)
{
	static char text[1 << 20];
	ssize_t n = read(log_read_fd, text, sizeof(text) - 1);

	assert_true(n >= 0);
	text[n] = '\0';
	return text;
}

/* Is @line `2026-01-02T03:04:05.678Z LEVEL TEXT\n`? */
static void assert_line(const char *line, const char *level_and_text)
{
	static const char form[] = "dddd-dd-ddTdd:dd:dd.dddZ ";

	for (size_t i = 0; form[i]; i++)
		assert_true(form[i] == 'd' ? line[i] >= '0' && line[i] <= '9' : line[i] == form[i]);
	assert_string_equal(line + sizeof(form) - 1, level_and_text);
}

static void log_writes_one_line_per_event(void **state)
{
	(void)state;
	log_error("cannot open \"%s\"", "x");
	assert_line(logged(), "error cannot open \"x\"\n");
	log_warn("%d", 1);
	assert_line(logged(), "warning 1\n");
	log_info("b\xc3\xbc");
	assert_line(logged(), "info b\xc3\xbc\n");
}

static void log_leaves_out_what_is_below_its_level(void **state)
{
	(void)state;
	log_debug("unseen");
	assert_string_equal(logged(), "");
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug("seen");
	assert_line(logged(), "debug seen\n");
	log_set_level(LOG_LEVEL_ERROR);
	log_warn("unseen");
	assert_string_equal(logged(), "");
	log_set_level(LOG_LEVEL_INFO);
}

static void log_escapes_control_characters(void **state)
{
	(void)state;
	log_info("a%sb", "\n2026 error forged\r\x1b[2J\x7f\t");
	assert_line(logged(), "info a\\x0a2026 error forged\\x0d\\x1b[2J\\x7f\\x09b\n");
	/* CSI and NEL as a terminal takes them, a lone byte of the old sort, separators of lines.
	 */
	log_info("\xc2\x9b\x32J\xc2\x85|\x9b|\xe2\x80\xa8\xe2\x80\xa9");
	assert_line(logged(), "info \\xc2\\x9b2J\\xc2\\x85|\\x9b|"
			      "\\xe2\\x80\\xa8\\xe2\\x80\\xa9\n");
	/* Their neighbours stay, of two, three and four bytes. */
	log_info("\xc2\xa0\xe2\x80\xa7\xe2\x80\xaa\xf0\x9f\xa6\x8a");
	assert_line(logged(), "info \xc2\xa0\xe2\x80\xa7\xe2\x80\xaa\xf0\x9f\xa6\x8a\n");
}

static void json_strings_escape_control_characters(void **state)
{
	char out[256];
	struct text t = {.out = out, .size = sizeof(out)};

	(void)state;
	text_put(&t, "{");
	text_json_string(&t, "a", "\x1b\x7f\xc2\x80\xc2\x9b\xc2\x9f\xe2\x80\xa8\xe2\x80\xa9", 100);
	text_json_string(&t, "b", "\xc2\xa0\xe2\x80\xa7\xe2\x80\xaa\xf0\x9f\xa6\x8a\x9b\"\\", 100);
	assert_string_equal(out, "{\"a\":\"\\u001b\\u007f\\u0080\\u009b\\u009f\\u2028\\u2029\","
				 "\"b\":\"\xc2\xa0\xe2\x80\xa7\xe2\x80\xaa\xf0\x9f\xa6\x8a"
				 "\\ufffd\\\"\\\\\"");
}

static void log_cuts_long_lines_but_ends_them(void **state)
{
	char longer[20000];

	(void)state;
	for (int c = 'x'; c >= 1; c -= 'x' - 1) {
		const char *line;
		size_t n;

		memset(longer, c, sizeof(longer) - 1);
		longer[sizeof(longer) - 1] = '\0';
		log_info("%s", longer);
		line = logged();
		n = strlen(line);
		assert_in_range(n, 4096, sizeof(longer) / 2);
		assert_ptr_equal(strchr(line, '\n'), line + n - 1);
	}
}

static void *log_many(void *arg)
{
	char text[200];

	memset(text, *(const char *)arg, sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	for (int i = 0; i < 300; i++)
		log_info("%s", text);
	return NULL;
}

static void log_lines_of_threads_do_not_mix(void **state)
{
	char letters[] = "abcd";
	pthread_t threads[4];
	const char *line;
	int lines = 0;

	(void)state;
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, log_many, &letters[i]), 0);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	for (line = logged(); *line; line = strchr(line, '\n') + 1, lines++) {
		const char *text = strstr(line, " info ") + 6;

		assert_int_equal(strspn(text, (char[]){*text, '\0'}), 199);
		assert_int_equal(text[199], '\n');
	}
	assert_int_equal(lines, 1200);
}

static void log_that_cannot_be_opened_is_an_error(void **state)
{
	struct err err = {};

	(void)state;
	assert_int_equal(log_open("/nonexistent/ps.log", &err), -ENOENT);
	assert_string_equal(err.text, "cannot open the log file \"/nonexistent/ps.log\": "
				      "No such file or directory");
	assert_int_equal(log_open(NULL, NULL), 0);
	log_info("still here");
	assert_line(logged(), "info still here\n");
}

static void clocks_go_forward_and_agree(void **state)
{
	nsec_t mono = clock_monotonic(), boot = clock_boottime(), real = clock_realtime();
	struct clock_bracket b;

	(void)state;
	clock_read_bracket(&b);
	assert_true(clock_monotonic() >= mono);
	assert_true(boot >= mono);
	assert_true(real > 1577836800 * NSEC_PER_SEC); /* 2020 */
	assert_true(b.boot_before >= boot && b.boot_after >= b.boot_before);
	assert_in_range(clock_realtime() - b.real, 0, 3600 * NSEC_PER_SEC);
}

static void take_fd_hands_on_the_descriptor(void **state)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), taken;

	(void)state;
	assert_true(fd >= 0);
	{
		_cleanup_close_ int owner = fd;

		taken = take_fd(&owner);
		assert_int_equal(owner, -1);
	}
	assert_true(fcntl(taken, F_GETFD) >= 0);
	{
		_cleanup_close_ int owner = taken;

		(void)owner;
	}
	assert_int_equal(fcntl(taken, F_GETFD), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buf_grows_and_keeps_its_bytes),
		cmocka_unit_test(buf_puts_little_endian),
		cmocka_unit_test(buf_failure_is_sticky_until_reset),
		cmocka_unit_test(buf_takes_nothing_and_reserves_without_growing),
		cmocka_unit_test(err_returns_the_code_and_writes_the_sentence),
		cmocka_unit_test(err_cuts_what_is_too_long),
		cmocka_unit_test(log_writes_one_line_per_event),
		cmocka_unit_test(log_leaves_out_what_is_below_its_level),
		cmocka_unit_test(log_escapes_control_characters),
		cmocka_unit_test(json_strings_escape_control_characters),
		cmocka_unit_test(log_cuts_long_lines_but_ends_them),
		cmocka_unit_test(log_lines_of_threads_do_not_mix),
		cmocka_unit_test(log_that_cannot_be_opened_is_an_error),
		cmocka_unit_test(clocks_go_forward_and_agree),
		cmocka_unit_test(take_fd_hands_on_the_descriptor),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, open_log, remove_log);
}
