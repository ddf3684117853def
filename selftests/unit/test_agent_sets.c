// SPDX-License-Identifier: Apache-2.0
/* Named sets of addresses in user space: what a file may say, and what is found. */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "sets.h"
#include "util.h"

static struct sets *sets;
static char path[64];

static int setup(void **state)
{
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "/tmp/ps-sets-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	sets = sets_new(1000);
	assert_non_null(sets);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	sets = sets_free(sets);
	unlink(path);
	return 0;
}

static void write_file(const char *text)
{
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	fputs(text, f);
	assert_int_equal(fclose(f), 0);
}

static bool has(const char *name, const char *address)
{
	const struct set *set = sets_find(sets, name, strlen(name));
	int family = strchr(address, ':') ? 6 : 4;
	uint8_t bytes[16];

	assert_non_null(set);
	assert_int_equal(inet_pton(family == 6 ? AF_INET6 : AF_INET, address, bytes), 1);
	return set_has(set, family, bytes);
}

static void a_file_has_an_address_or_network_per_line(void **state)
{
	const struct set *set;
	struct err err = {};

	(void)state;
	write_file("# bad ones\n"
		   "10.1.2.3\n"
		   "\n"
		   "  192.0.2.0/24  # documentation\n"
		   "\t2001:db8::/32\r\n"
		   "fd00::7#and no blank\n"
		   "0.0.0.0/32\n"
		   "128.0.0.0/1\n"
		   "172.16.0.0/12");
	if (sets_add_file(sets, "bad", path, &err))
		fail_msg("%s", err.text);
	set = sets_find(sets, "bad and more", 3);
	assert_non_null(set);
	assert_string_equal(set_name(set), "bad");
	/* 192.0.2.0/24 and 172.16.0.0/12 are in 128.0.0.0/1. */
	assert_int_equal(set_count(set, 4), 3);
	assert_int_equal(set_count(set, 6), 2);
	assert_int_equal(set_hosts_fd(set, 4), -1);
	assert_int_equal(set_nets_fd(set, 6), -1);

	assert_true(has("bad", "10.1.2.3"));
	assert_false(has("bad", "10.1.2.2"));
	assert_false(has("bad", "10.1.2.4"));
	assert_true(has("bad", "192.0.2.200"));
	assert_true(has("bad", "0.0.0.0"));
	assert_false(has("bad", "0.0.0.1"));
	assert_true(has("bad", "255.255.255.255"));
	assert_false(has("bad", "127.255.255.255"));
	assert_true(has("bad", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"));
	assert_false(has("bad", "2001:db9::"));
	assert_true(has("bad", "fd00::7"));
	assert_false(has("bad", "::"));
}

static void everything_and_nothing_are_sets(void **state)
{
	static const char *const all[] = {"0.0.0.0/0", "::/0", "10.0.0.1", "::1"};
	struct err err;

	(void)state;
	assert_int_equal(sets_add_list(sets, "all", all, ARRAY_SIZE(all), &err), 0);
	assert_int_equal(sets_add_list(sets, "nothing", NULL, 0, &err), 0);
	assert_int_equal(set_count(sets_find(sets, "all", 3), 4), 1);
	assert_true(has("all", "0.0.0.0"));
	assert_true(has("all", "255.255.255.255"));
	assert_true(has("all", "ff02::1"));
	assert_false(has("nothing", "0.0.0.0"));
	assert_false(has("nothing", "::"));
	assert_null(sets_find(sets, "al", 2));
}

static void bad_lines_are_named_at_their_place(void **state)
{
	static const struct {
		const char *text, *why;
	} cases[] = {
		{"10.0.0.1\nnonsense\n", ":2: \"nonsense\" is no address or network"},
		{"10.0.0\n", ":1: \"10.0.0\" is no address"},
		{"10.0.0.256\n", ":1: \"10.0.0.256\" is no address"},
		{"10.0.0.1 10.0.0.2\n", ":1: \"10.0.0.1 10.0.0.2\" is no address"},
		{"fe80::1%eth0\n", ":1: \"fe80::1%eth0\" is no address"},
		{"example.com\n", ":1: \"example.com\" is no address"},
		{"10.0.0.0/33\n", ":1: \"10.0.0.0/33\": the length must be 0 to 32"},
		{"fd00::/129\n", ":1: \"fd00::/129\": the length must be 0 to 128"},
		{"10.0.0.0/\n", "the length must be"},
		{"10.0.0.0/-1\n", "the length must be"},
		{"10.0.0.0/8x\n", "the length must be"},
		{"10.0.0.0/ 8\n", "the length must be"},
		{"10.0.0.0/255.0.0.0\n", "the length must be"},
		{"\n\n10.0.0.1/8\n", ":3: \"10.0.0.1/8\": bits behind the first 8 are set"},
		{"fd00::1/64\n", ":1: \"fd00::1/64\": bits behind the first 64 are set"},
		{"1.0.0.0/0\n", "bits behind the first 0 are set"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct err err = {};

		write_file(cases[i].text);
		assert_int_equal(sets_add_file(sets, "x", path, &err), -EINVAL);
		if (strncmp(err.text, path, strlen(path)) || !strstr(err.text, cases[i].why))
			fail_msg("%s", err.text);
		assert_null(sets_find(sets, "x", 1));
	}
}

static void names_and_sizes_are_limited(void **state)
{
	static const char *const names[] = {"",
					    "a b",
					    "@a",
					    "a/b",
					    "\xc3\xa9",
					    "a234567890123456789012345678901234567890123456789012"
					    "34567890123"};
	static const char *const one[] = {"10.0.0.1"};
	char line[300];
	struct err err;
	FILE *f;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		bool long_enough = i == ARRAY_SIZE(names) - 1;

		assert_int_equal(sets_add_list(sets, names[i], one, 1, &err),
				 long_enough ? 0 : -EINVAL);
	}
	assert_int_equal(sets_add_list(sets, "a", one, 1, &err), 0);
	assert_int_equal(sets_add_list(sets, "a", one, 1, &err), -EEXIST);
	assert_string_equal(err.text, "set \"a\" occurs twice");

	memset(line, ' ', sizeof(line) - 1);
	line[sizeof(line) - 1] = '\0';
	write_file(line);
	assert_int_equal(sets_add_file(sets, "b", path, &err), -EINVAL);
	assert_non_null(strstr(err.text, ":1: a line of more than 254 bytes"));

	f = fopen(path, "we");
	assert_non_null(f);
	for (int i = 0; i < 1001; i++)
		fprintf(f, "10.0.%d.%d\nfd00::%x\n", i / 256, i % 256, i);
	fclose(f);
	assert_int_equal(sets_add_file(sets, "b", path, &err), -E2BIG);
	assert_non_null(strstr(err.text, ":2001: more than 1000 IPv4 addresses"));
	unlink(path);
	assert_int_equal(sets_add_file(sets, "b", path, &err), -ENOENT);
	assert_non_null(strstr(err.text, ": cannot be read: No such file"));

	for (int i = 0; i < 62; i++) {
		snprintf(line, sizeof(line), "n%d", i);
		assert_int_equal(sets_add_list(sets, line, one, 1, &err), 0);
	}
	assert_int_equal(sets_add_list(sets, "onemore", one, 1, &err), -ENOSPC);
}

static void a_file_is_a_regular_file_of_text(void **state)
{
	static const char nul[] = "10.0.0.1\n10.0.0.2\0junk\n";
	char fifo[80], long_comment[600] = "10.0.0.7 # ";
	struct err err = {};
	FILE *f = fopen(path, "we");

	(void)state;
	assert_non_null(f);
	fwrite(nul, 1, sizeof(nul) - 1, f);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(sets_add_file(sets, "nul", path, &err), -EINVAL);
	assert_non_null(strstr(err.text, ":2: a byte of 0: this is no text"));
	/* What has no writer does not block, what has no end is not begun. */
	snprintf(fifo, sizeof(fifo), "%s.fifo", path);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	assert_int_equal(sets_add_file(sets, "fifo", fifo, &err), -EINVAL);
	unlink(fifo);
	assert_non_null(strstr(err.text, ".fifo: is no regular file"));
	assert_int_equal(sets_add_file(sets, "zero", "/dev/zero", &err), -EINVAL);
	assert_int_equal(sets_add_file(sets, "folder", "/tmp", &err), -EINVAL);

	memset(long_comment + 11, 'x', sizeof(long_comment) - 12);
	write_file(long_comment);
	assert_int_equal(sets_add_file(sets, "comment", path, &err), 0);
	assert_true(has("comment", "10.0.0.7"));
}

static void an_error_shows_little_of_a_line_and_only_what_can_be_printed(void **state)
{
	struct err err = {};

	(void)state;
	write_file("root:$y$j9T$secret\33[31mmore of it\n");
	assert_int_equal(sets_add_file(sets, "x", path, &err), -EINVAL);
	assert_non_null(strstr(err.text, ":1: \"root:$y$j9T$secret?[...\" is no address"));
}

static void an_ipv4_address_may_be_written_as_ipv6(void **state)
{
	static const char *const items[] = {"::ffff:192.0.2.7", "::ffff:10.0.0.0/104", "::7",
					    "2001:db8::/95"};
	struct err err;

	(void)state;
	assert_int_equal(sets_add_list(sets, "mapped", items, ARRAY_SIZE(items), &err), 0);
	assert_true(has("mapped", "192.0.2.7"));
	assert_false(has("mapped", "192.0.2.6"));
	assert_true(has("mapped", "10.255.0.1"));
	assert_int_equal(set_count(sets_find(sets, "mapped", 6), 4), 2);
	assert_int_equal(set_count(sets_find(sets, "mapped", 6), 6), 2);
}

static void what_is_the_same_as_before_is_shared(void **state)
{
	static const char *const first[] = {"10.0.0.1", "fd00::/64"}, *const second[] = {
									      "10.0.0.2"};
	static const char *const again[] = {"fd00::/64", "10.0.0.1/32", "fd00::5"};
	struct sets *new = sets_new(1000);
	const struct set *same;
	struct err err;

	(void)state;
	assert_int_equal(sets_add_list(sets, "same", first, 2, &err), 0);
	assert_int_equal(sets_add_list(sets, "other", first, 2, &err), 0);
	assert_int_equal(sets_add_list(sets, "old", first, 2, &err), 0);
	assert_int_equal(sets_add_list(new, "same", again, 3, &err), 0);
	assert_int_equal(sets_add_list(new, "other", second, 1, &err), 0);
	assert_int_equal(sets_add_list(new, "new", first, 2, &err), 0);
	sets_share(new, sets);
	same = sets_find(sets, "same", 4);
	assert_ptr_equal(same, sets_find(new, "same", 4));
	assert_ptr_not_equal(sets_find(sets, "other", 5), sets_find(new, "other", 5));
	assert_null(sets_find(new, "old", 3));
	sets_free(sets);
	sets = new;
	assert_true(has("same", "10.0.0.1"));
	assert_true(has("other", "10.0.0.2"));
	assert_false(has("other", "10.0.0.1"));
}

/* Against a list that is searched from one end to the other. */
static void random_prefixes_are_found_as_one_by_one(void **state)
{
	static uint32_t networks[1000], masks[1000];
	static char texts[1000][24];
	const char *items[1000];
	uint32_t x = 1;
	struct err err;

	(void)state;
	for (int i = 0; i < 1000; i++) {
		uint32_t bits = 1 + (x >> 8) % 32, network;

		x = x * 1103515245 + 12345;
		masks[i] = ~0u << (32 - bits);
		/* Few of the short ones, which would have everything. */
		if (bits < 8 && i % 50)
			masks[i] = ~0u << 8;
		networks[i] = x & masks[i];
		network = htonl(networks[i]);
		snprintf(texts[i], sizeof(texts[i]), "%s/%d", inet_ntoa((struct in_addr){network}),
			 __builtin_popcount(masks[i]));
		items[i] = texts[i];
	}
	assert_int_equal(sets_add_list(sets, "random", items, 1000, &err), 0);
	for (int i = 0; i < 20000; i++) {
		uint32_t address, be;
		bool found = false;

		x = x * 1103515245 + 12345;
		address = i % 2 ? x : networks[i % 1000] + (x >> 30) - 1;
		for (int n = 0; n < 1000; n++)
			found |= (address & masks[n]) == networks[n];
		be = htonl(address);
		assert_int_equal(set_has(sets_find(sets, "random", 6), 4, (uint8_t *)&be), found);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_file_has_an_address_or_network_per_line),
		TEST(everything_and_nothing_are_sets),
		TEST(bad_lines_are_named_at_their_place),
		TEST(names_and_sizes_are_limited),
		TEST(a_file_is_a_regular_file_of_text),
		TEST(an_error_shows_little_of_a_line_and_only_what_can_be_printed),
		TEST(an_ipv4_address_may_be_written_as_ipv6),
		TEST(what_is_the_same_as_before_is_shared),
		TEST(random_prefixes_are_found_as_one_by_one),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
