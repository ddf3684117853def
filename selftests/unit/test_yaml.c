// SPDX-License-Identifier: Apache-2.0
/* The YAML reader against a small table: values, places of errors, wild texts. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "clock.h"
#include "util.h"
#include "yaml.h"

struct sample {
	bool flag;
	uint64_t number, size, wait, wait_sec;
	char *text, *name;
	int mode;
	uint64_t share;
	struct yaml_ports ports;
	struct yaml_strings list;
	struct yaml_servers servers;
	struct yaml_ports_map map;
};

#define AT(m) offsetof(struct sample, m)

static const char *const modes[] = {"one", "two", "!three", NULL};
static const struct yaml_key keys[] = {
	{"flag", YAML_BOOL, .offset = AT(flag)},
	{"number", YAML_UINT, .offset = AT(number), .min = 5, .max = 500, .fallback = "50"},
	{"size", YAML_SIZE, .offset = AT(size), .min = 1024, .max = 1 << 20, .unit = 1024},
	{"wait", YAML_DURATION, .offset = AT(wait), .max = 3600 * NSEC_PER_SEC, .fallback = "1s"},
	{"waitSec", YAML_DURATION, .offset = AT(wait_sec), .max = 90 * NSEC_PER_SEC,
	 .unit = NSEC_PER_SEC},
	{"block.text", YAML_STRING, .offset = AT(text), .min = 3, .max = 10, .fallback = "hello"},
	{"block.deep.name", YAML_STRING, .offset = AT(name)},
	{"mode", YAML_ENUM, .offset = AT(mode), .names = modes},
	{"share", YAML_PERCENT, .offset = AT(share), .min = 1, .max = 200},
	{"ports", YAML_PORTS, .offset = AT(ports)},
	{"list", YAML_STRINGS, .offset = AT(list), .max = 8},
	{"servers", YAML_SERVERS, .offset = AT(servers)},
	{"map", YAML_PORTS_MAP, .offset = AT(map)},
	{"later.thing", YAML_UNSUPPORTED, .help = "not yet"},
	{"theirs", YAML_FOREIGN, .help = "another"},
};

/* The result of one yaml_load(), and its errors as one text. */
struct run {
	struct sample s;
	struct yaml_errors *errors;
	char *lines;
	int r;
};

static void lines_of(struct run *run)
{
	size_t size;
	FILE *f;

	free(run->lines);
	f = open_memstream(&run->lines, &size);
	assert_non_null(f);
	yaml_errors_print(run->errors, f);
	fclose(f);
}

static struct run *load_bytes(const char *text, size_t size)
{
	struct run *run = calloc(1, sizeof(*run));

	assert_non_null(run);
	run->errors = yaml_errors_new("f");
	assert_non_null(run->errors);
	run->r = yaml_load(text, size, keys, ARRAY_SIZE(keys), &run->s, run->errors);
	assert_int_equal(run->r<0, yaml_errors_count(run->errors)> 0);
	lines_of(run);
	return run;
}

static struct run *load(const char *text)
{
	return load_bytes(text, strlen(text));
}

static void done(struct run *run)
{
	yaml_release(keys, ARRAY_SIZE(keys), &run->s);
	yaml_release(keys, ARRAY_SIZE(keys), &run->s);
	yaml_errors_free(run->errors);
	free(run->lines);
	free(run);
}

static void expect_bytes(const char *text, size_t size, const char *lines)
{
	struct run *run = load_bytes(text, size);

	assert_string_equal(run->lines, lines);
	assert_int_equal(run->r, *lines ? -EINVAL : 0);
	done(run);
}

static void expect(const char *text, const char *lines)
{
	expect_bytes(text, strlen(text), lines);
}

struct pair {
	const char *text, *lines;
};

static void expect_all(const struct pair *pairs, size_t n)
{
	for (size_t i = 0; i < n; i++)
		expect(pairs[i].text, pairs[i].lines);
}

static void defaults_stand_where_nothing_is_given(void **state)
{
	static const char *const empties[] = {
		"",
		"\n",
		"# only a comment\n",
		"---\n",
		"---\n...\n",
		"~",
		"null",
		"{}",
		"number:\nwait: ~\nblock: null\nmap:\nports: ~\nlater: ~\ntheirs:\n",
		"block: {text: ''}\n",
		"\xef\xbb\xbf",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(empties); i++) {
		struct run *run = load(empties[i]);

		assert_string_equal(run->lines, "");
		assert_int_equal(run->s.number, 50);
		assert_int_equal(run->s.wait, NSEC_PER_SEC);
		assert_string_equal(run->s.text, "hello");
		assert_null(run->s.name);
		assert_false(run->s.ports.set);
		assert_int_equal(run->s.map.n, 0);
		assert_false(yaml_was_set(run->errors, "number"));
		done(run);
	}
}

static void every_type_is_read(void **state)
{
	struct run *run = load("Flag: Yes\nNUMBER: 7\nsize: 64KB\nwait: 1m30s\nwaitsec: 5\n"
			       "Block:\n  Text: \"a b\"\n  deep: {name: ü}\nmode: TWO\n"
			       "ports: [1, 65535, 8000-8002, 8001]\nlist:\n- a*\n- '!b'\n"
			       "map:\n  eth0: [1]\n  Eth0: []\n  'wg*':\n");

	(void)state;
	assert_string_equal(run->lines, "");
	assert_true(run->s.flag);
	assert_int_equal(run->s.number, 7);
	assert_int_equal(run->s.size, 65536);
	assert_int_equal(run->s.wait, 90 * NSEC_PER_SEC);
	assert_int_equal(run->s.wait_sec, 5 * NSEC_PER_SEC);
	assert_string_equal(run->s.text, "a b");
	assert_string_equal(run->s.name, "ü");
	assert_int_equal(run->s.mode, 1);
	assert_int_equal(run->s.ports.count, 5);
	assert_true(run->s.ports.set);
	assert_true(yaml_ports_has(&run->s.ports, 1));
	assert_true(yaml_ports_has(&run->s.ports, 8002));
	assert_true(yaml_ports_has(&run->s.ports, 65535));
	assert_false(yaml_ports_has(&run->s.ports, 8003));
	assert_int_equal(run->s.list.n, 2);
	assert_string_equal(run->s.list.v[0], "a*");
	assert_string_equal(run->s.list.v[1], "!b");
	assert_int_equal(run->s.map.n, 3);
	assert_string_equal(run->s.map.v[1].name, "Eth0");
	assert_int_equal(run->s.map.v[0].ports.count, 1);
	assert_true(run->s.map.v[2].ports.set);
	assert_true(yaml_was_set(run->errors, "number"));
	assert_true(yaml_was_set(run->errors, "block.deep"));
	assert_false(yaml_was_set(run->errors, "block.dee"));
	done(run);
}

static void sizes_and_durations_take_units(void **state)
{
	static const struct {
		const char *text;
		uint64_t size, wait;
	} table[] = {
		{"size: 1", 1024, NSEC_PER_SEC},
		{"size: 1024B", 1024, NSEC_PER_SEC},
		{"size: 2 kb", 2048, NSEC_PER_SEC},
		{"size: 2KiB", 2048, NSEC_PER_SEC},
		{"size: 2k", 2048, NSEC_PER_SEC},
		{"size: 1MB", 1 << 20, NSEC_PER_SEC},
		{"size: 1mib", 1 << 20, NSEC_PER_SEC},
		{"wait: 7", 0, 7},
		{"wait: 7ns", 0, 7},
		{"wait: 7us", 0, 7000},
		{"wait: 7ms", 0, 7 * NSEC_PER_MSEC},
		{"wait: 1h", 0, 3600 * NSEC_PER_SEC},
		{"wait: 59m59s1000ms", 0, 3600 * NSEC_PER_SEC},
		{"wait: 0", 0, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		struct run *run = load(table[i].text);

		assert_string_equal(run->lines, "");
		assert_int_equal(run->s.size, table[i].size);
		assert_int_equal(run->s.wait, table[i].wait);
		done(run);
	}
}

static void shares_are_percent_with_and_without_the_sign(void **state)
{
	static const char *const texts[] = {"share: 150%", "share: '150 %'", "share: 150"};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct run *run = load(texts[i]);

		assert_string_equal(run->lines, "");
		assert_int_equal(run->s.share, 150);
		done(run);
	}
}

static void bad_values_are_named_at_their_place(void **state)
{
	static const struct pair pairs[] = {
		{"share: 201%\n", "f:1:8: share: 201% is above 200\n"},
		{"share: 5$\n", "f:1:8: share: \"5$\" is not a share such as 25%\n"},
		{"flag: 1\n", "f:1:7: flag: \"1\" is neither true nor false\n"},
		{"flag: [a]\n", "f:1:7: flag: a single value is needed\n"},
		{"\n  number:   4\n", "f:2:13: number: 4 is below 5\n"},
		{"number: 501", "f:1:9: number: 501 is above 500\n"},
		{"number: -7", "f:1:9: number: \"-7\" is not a whole number\n"},
		{"number: 7.0", "f:1:9: number: \"7.0\" is not a whole number\n"},
		{"number: 0x10", "f:1:9: number: \"0x10\" is not a whole number\n"},
		{"number: '7 '", "f:1:9: number: \"7 \" is not a whole number\n"},
		{"number: \"\"", "f:1:9: number: \"\" is not a whole number\n"},
		{"number: 010", "f:1:9: number: \"010\" has a leading zero\n"},
		{"number: 99999999999999999999999",
		 "f:1:9: number: 99999999999999999999999 is above 500\n"},
		{"number: \"7\\0\"", "f:1:9: number: \"7...\" has a control character\n"},
		{"size: 2000", "f:1:7: size: 2000KB is above 1MB\n"},
		{"size: 0", "f:1:7: size: 0KB is below 1KB\n"},
		{"size: 5B", "f:1:7: size: 5B is below 1KB\n"},
		{"size: 99999999999GB", "f:1:7: size: 99999999999GB is above 1MB\n"},
		{"size: 1.5MB", "f:1:7: size: \"1.5MB\" is not a size such as 64KB, 10MB or 1GB\n"},
		{"size: 10XB", "f:1:7: size: \"10XB\" is not a size such as 64KB, 10MB or 1GB\n"},
		{"size: MB", "f:1:7: size: \"MB\" is not a size such as 64KB, 10MB or 1GB\n"},
		{"wait: 61m", "f:1:7: wait: 61m is above 1h\n"},
		{"waitSec: 100", "f:1:10: waitSec: 100s is above 90s\n"},
		{"wait: 1m30",
		 "f:1:7: wait: \"1m30\" is not a duration such as 100ms, 30s or 1m30s\n"},
		{"wait: 99999999999999999999h", "f:1:7: wait: 99999999999999999999h is above 1h\n"},
		{"block: {text: ab}", "f:1:15: block.text: shorter than 3 characters\n"},
		{"block: {text: abcdefghijk}", "f:1:15: block.text: longer than 10 characters\n"},
		{"block: {text: \"ab\\0cd\"}", "f:1:15: block.text: has a control character\n"},
		{"block: {text: \"ab\\ncd\"}", "f:1:15: block.text: has a control character\n"},
		{"block: {text: \"ab\\ecd\"}", "f:1:15: block.text: has a control character\n"},
		{"block: {text: \"ab\\Ncd\"}", "f:1:15: block.text: has a control character\n"},
		{"block: 5", "f:1:8: block: a block of keys is needed, such as block.text\n"},
		{"block: {deep: [1]}",
		 "f:1:15: block.deep: a block of keys is needed, such as block.deep.name\n"},
		{"mode: four", "f:1:7: mode: \"four\" is none of: one, two\n"},
		{"mode: Three",
		 "f:1:7: mode: \"Three\" is not supported by this version (only: one, two)\n"},
		{"mode: '!three'", "f:1:7: mode: \"!three\" is none of: one, two\n"},
		{"list: a", "f:1:7: list: a list is needed, such as [a, b]\n"},
		{"list: [a, [b], '', ~]", "f:1:11: list: each item must be a text\n"
					  "f:1:16: list: each item must be a text\n"
					  "f:1:20: list: each item must be a text\n"},
		{"list: [abcdefghi]", "f:1:8: list: longer than 8 characters\n"},
		{"map: [1]", "f:1:6: map: a block of `interface: [ports]` is needed\n"},
		{"map: {a: 5}",
		 "f:1:10: map.a: a list of ports is needed, such as [80, 8000-8100]\n"},
		{"map: {a: [0]}", "f:1:11: map.a: 0 is not within 1 and 65535\n"},
		{"map: {a: [], a: [1]}", "f:1:14: map.a: given twice\n"},
		{"map: {'': []}", "f:1:7: map.: not a possible name\n"},
		{"later: {thing: {a: 1, b: {c: 2}}}",
		 "f:1:9: later.thing: not supported by this version\n"},
		{"theirs: {a: 1, b: {c: 2}}", "f:1:1: theirs: belongs to another\n"},
		{"- a", "f:1:1: syntax: a block of keys is needed\n"},
		{"hello", "f:1:1: syntax: a block of keys is needed\n"},
	};

	(void)state;
	expect_all(pairs, ARRAY_SIZE(pairs));
}

static void bad_ports_are_named_at_their_place(void **state)
{
	static const char malformed[] = "is neither a port nor a range such as 8000-8100";
	static const char *const words[] = {"http", "-80", "80-", "80-90-", "080", "8 0", "1.5"};
	char text[64], lines[200];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		snprintf(text, sizeof(text), "ports: [1, '%s']", words[i]);
		snprintf(lines, sizeof(lines), "f:1:12: ports: \"%s\" %s\n", words[i], malformed);
		expect(text, lines);
	}
	expect("ports: [0, 65536, 9-3, 5-65536, [1], ~]",
	       "f:1:9: ports: 0 is not within 1 and 65535\n"
	       "f:1:12: ports: 65536 is not within 1 and 65535\n"
	       "f:1:19: ports: 9-3 ends before it begins\n"
	       "f:1:24: ports: 5-65536 is not within 1 and 65535\n"
	       "f:1:33: ports: each item must be a port or a range such as 8000-8100\n"
	       "f:1:38: ports: each item must be a port or a range such as 8000-8100\n");
	expect("ports: 80", "f:1:8: ports: a list of ports is needed, such as [80, 8000-8100]\n");
}

static void unknown_keys_name_the_nearest(void **state)
{
	static const struct pair pairs[] = {
		{"numbr: 1", "f:1:1: numbr: unknown key, the nearest known one is number\n"},
		{"nubmer: 1", "f:1:1: nubmer: unknown key, the nearest known one is number\n"},
		{"text: 1", "f:1:1: text: unknown key, the nearest known one is block.text\n"},
		{"deep: 1", "f:1:1: deep: unknown key, the nearest known one is block.deep\n"},
		{"block: {nme: 1}",
		 "f:1:9: block.nme: unknown key, the nearest known one is block.deep.name\n"},
		{"\"a\\e[1m\": 1",
		 "f:1:1: a\\x1b[1m: unknown key, the nearest known one is flag\n"},
		{"block.text: abc", "f:1:1: block.text: a name with dots is to be written as "
				    "blocks, one in the other\n"},
	};
	char text[300] = "";

	(void)state;
	expect_all(pairs, ARRAY_SIZE(pairs));
	memset(text, 'x', 200);
	memcpy(text + 200, ": 1", 4);
	memset(text + 250, 0, 50);
	{
		struct run *run = load(text);

		assert_non_null(strstr(run->lines, "xxx...: unknown key\n"));
		done(run);
	}
}

static void a_key_twice_is_refused(void **state)
{
	(void)state;
	expect("number: 7\nflag: on\nNumber: 8\n", "f:3:1: Number: given twice, first in line 1\n");
	expect("block:\n  text: abc\n\nblock:\n  text: def\n",
	       "f:4:1: block: given twice, first in line 1\n");
	expect("block: {text: abc, deep: {}, TEXT: abc}",
	       "f:1:30: block.TEXT: given twice, first in line 1\n");
	expect("number: ~\nnumber: 7", "f:2:1: number: given twice, first in line 1\n");
}

static void all_errors_come_at_once_in_the_files_order(void **state)
{
	struct run *run = load("mode: x\nbolck: 1\nnumber: 4\nblock:\n  text: a\nports: [0]\n");

	(void)state;
	yaml_error(run->errors, "flag", "is missing");
	yaml_error(run->errors, "block.deep.name", "is missing");
	yaml_error(run->errors, "number", "a second error at one key is one too many");
	lines_of(run);
	assert_string_equal(run->lines,
			    "f:1:1: flag: is missing\n"
			    "f:1:7: mode: \"x\" is none of: one, two\n"
			    "f:2:1: bolck: unknown key, the nearest known one is block\n"
			    "f:3:9: number: 4 is below 5\n"
			    "f:4:1: block.deep.name: is missing\n"
			    "f:5:9: block.text: shorter than 3 characters\n"
			    "f:6:9: ports: 0 is not within 1 and 65535\n");
	done(run);
}

static void anchors_aliases_and_tags_are_refused(void **state)
{
	(void)state;
	expect("number: &a 7\nsize: *a\n",
	       "f:1:9: syntax: \"&a\": anchors are not supported\n"
	       "f:2:7: syntax: \"*a\" is a YAML alias: put quotes around a value that begins "
	       "with '*'\n");
	expect("list: [!eth0, *wg]\n",
	       "f:1:8: syntax: \"!eth0\" is a YAML tag: put quotes around a value that begins "
	       "with '!'\n"
	       "f:1:15: syntax: \"*wg\" is a YAML alias: put quotes around a value that begins "
	       "with '*'\n");
	expect("number: !!int 7\n",
	       "f:1:9: syntax: \"tag:yaml.org,2002:int\" is a YAML tag: put quotes around a value "
	       "that begins with '!'\n");
	expect("block: &b {text: abc}\nports: &p [1]\n",
	       "f:1:8: syntax: \"&b\": anchors are not supported\n"
	       "f:2:8: syntax: \"&p\": anchors are not supported\n");
	expect("? [a, b]\n: 1\n? {a: b}\n: 2\n", "f:1:3: syntax: a key must be a plain word\n"
						 "f:3:3: syntax: a key must be a plain word\n");
	expect("\"a\\0b\": 1\n~: 1\n", "f:1:1: syntax: a key must be a plain word\n"
				       "f:2:1: syntax: a key must be a plain word\n");
}

/* Only the place and the beginning: the rest of the line is libyaml's. */
static void text_that_is_no_yaml_is_refused_at_its_place(void **state)
{
	static const struct pair pairs[] = {
		{"flag: on\n\tnumber: 7\n", "f:2:1: syntax: a tab, where YAML takes only spaces\n"},
		{"block:\n\ttext: abc\n", "f:2:1: syntax: a tab, where YAML takes only spaces\n"},
		{"number: 7\nlist: [a\nflag: on\n", "f:3:5: syntax: "},
		{"list: [*]", "f:1:9: syntax: "},
		{"mode: @x", "f:1:7: syntax: "},
		{"mode: 'x", "f:1:9: syntax: "},
		{"a: b: c", "f:1:5: syntax: "},
		{"number: 7\n---\nnumber: 8\n", "f:2:1: syntax: a second document"},
		{"number: 7\n...\n---\n", "f:3:1: syntax: a second document"},
		{"number: 7\n]\n", "f:2:1: syntax: "},
		{"ü: \xff\n", "f:1:4: syntax: invalid leading UTF-8 octet"},
		{"ok: 1\nü: \xc3\x28\n", "f:2:5: syntax: invalid trailing UTF-8 octet"},
		{"a: \xed\xa0\x80\n", "f:1:4: syntax: "},
		{"a: \x01\n", "f:1:4: syntax: control characters are not allowed"},
		{"\xff\xfe"
		 "a:",
		 "f:1:1: syntax: invalid leading UTF-8 octet"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
		struct run *run = load(pairs[i].text);

		if (strncmp(run->lines, pairs[i].lines, strlen(pairs[i].lines)) != 0)
			assert_string_equal(run->lines, pairs[i].lines);
		assert_int_equal(run->r, -EINVAL);
		/* A rule that spans keys cannot be judged: nothing is added. */
		yaml_error(run->errors, "number", "is missing");
		assert_int_equal(yaml_errors_count(run->errors), 1);
		done(run);
	}
	expect_bytes("a: \0b", 5,
		     "f:1:4: syntax: control characters are not allowed (the file must be UTF-8 "
		     "text)\n");
}

static void a_byte_order_mark_does_not_move_columns(void **state)
{
	(void)state;
	expect("\xef\xbb\xbfnumber: 4", "f:1:9: number: 4 is below 5\n");
	expect("block: {deep: {name: üüü}, text: ü}",
	       "f:1:34: block.text: shorter than 3 characters\n");
}

static char *repeat(const char *head, const char *part, size_t n, const char *tail)
{
	char *text = malloc(strlen(head) + n * strlen(part) + strlen(tail) + 1);
	char *p;

	assert_non_null(text);
	p = stpcpy(text, head);
	for (size_t i = 0; i < n; i++)
		p = stpcpy(p, part);
	stpcpy(p, tail);
	return text;
}

static void depth_is_limited(void **state)
{
	static const char *const opens[] = {"[", "{a: ", "? "};
	char *text;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(opens); i++) {
		struct run *run;

		text = repeat("flag: ", opens[i], 50000, "");
		if (i == 2)
			memcpy(text, "flag:\n", 6);
		run = load(text);
		assert_int_equal(run->r, -EINVAL);
		assert_non_null(strstr(run->lines, "syntax: "));
		done(run);
		free(text);
	}
	expect("later: {thing: [[[[[[1]]]]]]}",
	       "f:1:9: later.thing: not supported by this version\n");
	expect("later: {thing: [[[[[[[1]]]]]]]}", "f:1:23: syntax: nested deeper than 8 levels\n");
}

static void servers_are_read_in_every_form(void **state)
{
	struct run *run = load("servers:\n- a.example:1\n- '[::1]:65535'\n"
			       "- {address: '2001:db8::1', port: 3}\n"
			       "- Address: b\n  PORT: '4'\n- [c:5]\n");

	(void)state;
	assert_string_equal(run->lines, "f:7:3: servers: each item must be host:port or {address: "
					"host, port: number}\n");
	assert_int_equal(run->s.servers.n, 5);
	assert_string_equal(run->s.servers.v[1].host, "::1");
	assert_int_equal(run->s.servers.v[1].port, 65535);
	assert_string_equal(run->s.servers.v[2].host, "2001:db8::1");
	assert_string_equal(run->s.servers.v[3].host, "b");
	assert_int_equal(run->s.servers.v[3].port, 4);
	done(run);
	run = load("servers: [a.example:1, {address: b, port: 2}, 192.0.2.1:3]");
	assert_string_equal(run->lines, "");
	assert_int_equal(run->s.servers.n, 3);
	done(run);
	expect("servers: []", "");
	expect("servers: ~", "");
}

static void bad_servers_are_told(void **state)
{
	static const struct pair pairs[] = {
		{"servers: a:1", "f:1:10: servers: a list is needed, such as [a.example:8081, "
				 "b.example:8081]\n"},
		{"servers: [a]", "f:1:11: servers: \"a\" has no port, such as "
				 "collector.example:8081\n"},
		{"servers: ['a:']", "f:1:11: servers: \"a:\" has no port, such as "
				    "collector.example:8081\n"},
		{"servers: [':5']",
		 "f:1:11: servers: \":5\" has no name or address before the port\n"},
		{"servers: ['[]:5']",
		 "f:1:11: servers: \"[]:5\" has no name or address before the port\n"},
		{"servers: ['a:http']",
		 "f:1:11: servers: \"a:http\": port: \"http\" is not a whole number\n"},
		{"servers: ['a:65536']",
		 "f:1:11: servers: \"a:65536\": port: 65536 is above 65535\n"},
		{"servers: ['a:0']", "f:1:11: servers: \"a:0\": port: 0 is below 1\n"},
		{"servers: ['::1']",
		 "f:1:11: servers: \"::1\": an IPv6 address needs brackets, such "
		 "as [2001:db8::1]:8081\n"},
		{"servers: ['::1:5']",
		 "f:1:11: servers: \"::1:5\": an IPv6 address needs brackets, "
		 "such as [2001:db8::1]:8081\n"},
		{"servers: ['[::1]']",
		 "f:1:11: servers: \"[::1]\" has no port, such as [2001:db8::1]:8081\n"},
		{"servers: ['[::1]:']",
		 "f:1:11: servers: \"[::1]:\" has no port, such as collector.example:8081\n"},
		{"servers: ['[']", "f:1:11: servers: \"[\" has no port, such as "
				   "[2001:db8::1]:8081\n"},
		{"servers: ['']", "f:1:11: servers: each item must be host:port or {address: host, "
				  "port: number}\n"},
		{"servers: [\"a\\0:1\"]", "f:1:11: servers: has a control character\n"},
		{"servers: [A:1, a:2, a:1]", "f:1:21: servers: given twice\n"},
		{"servers: [{address: a}]", "f:1:11: servers: port is missing\n"},
		{"servers: [{port: 5, address: ''}]", "f:1:11: servers: address is missing\n"},
		{"servers: [{}]", "f:1:11: servers: address is missing\n"
				  "f:1:11: servers: port is missing\n"},
		{"servers: [{address: a, port: 5, weight: 3}]",
		 "f:1:33: servers.weight: unknown key, address and port are known\n"},
		{"servers: [{address: a, address: b, port: 5}]",
		 "f:1:24: servers.address: given twice\n"},
		{"servers: [{address: a, port: [5]}]",
		 "f:1:30: servers.port: a single value is needed\n"},
		{"servers: [{address: a, port: 0}]", "f:1:30: servers.port: 0 is below 1\n"},
	};
	char *text = repeat("servers: ['", "a", 300, ":1']");

	(void)state;
	expect_all(pairs, ARRAY_SIZE(pairs));
	expect(text, "f:1:11: servers: longer than 261 characters\n");
	free(text);
	text = repeat("servers: [", "a:1,", 257, "]");
	expect(text, "f:1:10: servers: 257 items, at most 256 are possible\n");
	free(text);
}

static void huge_lists_of_ports_are_read(void **state)
{
	struct run *run;
	size_t size;
	char *text;
	FILE *f = open_memstream(&text, &size);

	(void)state;
	assert_non_null(f);
	fprintf(f, "ports:\n");
	for (int p = 1; p <= 60000; p++)
		fprintf(f, "- %d\n", p);
	fclose(f);
	run = load_bytes(text, size);
	assert_string_equal(run->lines, "");
	assert_int_equal(run->s.ports.count, 60000);
	assert_false(yaml_ports_has(&run->s.ports, 60001));
	done(run);
	free(text);
	run = load("ports: [1-65535]");
	assert_int_equal(run->s.ports.count, 65535);
	assert_false(yaml_ports_has(&run->s.ports, 0));
	done(run);
}

static void memory_is_limited(void **state)
{
	char *text = repeat("list: [", "a,", 1025, "]");
	struct run *run;
	FILE *f;

	(void)state;
	expect(text, "f:1:7: list: 1025 items, at most 1024 are possible\n");
	free(text);

	text = repeat("ports: [", "1,", 262144, "]");
	run = load(text);
	assert_non_null(strstr(run->lines, "more than 262144 values in one file\n"));
	done(run);
	free(text);

	text = repeat("", "k: 1\n", 1025, "");
	run = load(text);
	assert_non_null(strstr(run->lines, "f:1025:1: syntax: more than 1024 keys in one block\n"));
	done(run);
	free(text);

	text = repeat("#", "x", YAML_FILE_MAX, "");
	expect(text, "f: larger than 4 MiB\n");
	/* The same from a file. */
	f = tmpfile();
	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, YAML_FILE_MAX + 1, f), YAML_FILE_MAX + 1);
	assert_int_equal(fflush(f), 0);
	free(text);
	run = calloc(1, sizeof(*run));
	assert_non_null(run);
	run->errors = yaml_errors_new("f");
	text = malloc(64);
	assert_non_null(text);
	snprintf(text, 64, "/proc/self/fd/%d", fileno(f));
	assert_int_equal(yaml_load_file(text, keys, ARRAY_SIZE(keys), &run->s, run->errors),
			 -EINVAL);
	lines_of(run);
	assert_string_equal(run->lines, "f: larger than 4 MiB\n");
	free(text);
	fclose(f);
	done(run);
}

static void errors_are_limited_and_counted(void **state)
{
	char *text = repeat("ports: [", "x,", 5000, "]");
	struct run *run = load(text);

	(void)state;
	assert_int_equal(yaml_errors_count(run->errors), 5000);
	assert_non_null(strstr(run->lines, "\nf: 4000 more errors\n"));
	done(run);
	free(text);
}

static void a_file_that_cannot_be_read_is_said(void **state)
{
	struct run *run = calloc(1, sizeof(*run));

	(void)state;
	assert_non_null(run);
	run->errors = yaml_errors_new("/nonexistent/f");
	assert_int_equal(
		yaml_load_file("/nonexistent/f", keys, ARRAY_SIZE(keys), &run->s, run->errors),
		-ENOENT);
	yaml_error(run->errors, "number", "is missing");
	lines_of(run);
	assert_string_equal(run->lines,
			    "/nonexistent/f: cannot be read: No such file or directory\n");
	done(run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults_stand_where_nothing_is_given),
		cmocka_unit_test(every_type_is_read),
		cmocka_unit_test(sizes_and_durations_take_units),
		cmocka_unit_test(shares_are_percent_with_and_without_the_sign),
		cmocka_unit_test(bad_values_are_named_at_their_place),
		cmocka_unit_test(bad_ports_are_named_at_their_place),
		cmocka_unit_test(unknown_keys_name_the_nearest),
		cmocka_unit_test(a_key_twice_is_refused),
		cmocka_unit_test(all_errors_come_at_once_in_the_files_order),
		cmocka_unit_test(anchors_aliases_and_tags_are_refused),
		cmocka_unit_test(text_that_is_no_yaml_is_refused_at_its_place),
		cmocka_unit_test(a_byte_order_mark_does_not_move_columns),
		cmocka_unit_test(depth_is_limited),
		cmocka_unit_test(servers_are_read_in_every_form),
		cmocka_unit_test(bad_servers_are_told),
		cmocka_unit_test(huge_lists_of_ports_are_read),
		cmocka_unit_test(memory_is_limited),
		cmocka_unit_test(errors_are_limited_and_counted),
		cmocka_unit_test(a_file_that_cannot_be_read_is_said),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
