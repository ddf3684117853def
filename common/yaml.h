/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A YAML file read into a struct by a table of keys. Every error has its place
 * (`FILE:LINE:COLUMN: key: what is wrong`), all of them are reported, an unknown
 * key names the nearest known one. Keys match in any letter case. A key without a
 * value (nothing, ~, null) counts as not given.
 *
 * Refused: anchors, aliases, tags, several documents, a key twice, nesting deeper
 * than YAML_DEPTH_MAX, files above YAML_FILE_MAX, other than UTF-8.
 */
#ifndef PS_YAML_H
#define PS_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define YAML_FILE_MAX  (4u << 20)
#define YAML_DEPTH_MAX 8

enum yaml_type {
	YAML_BOOL,      /* bool: true/false, yes/no, on/off */
	YAML_UINT,      /* uint64_t, min..max */
	YAML_SIZE,      /* uint64_t bytes: 10MB, 65KB, 1GiB, or plain, which counts `unit` bytes;
			   KB = 1024; min..max */
	YAML_DURATION,  /* uint64_t nanoseconds: 1m, 30s, 100ms; a plain number counts `unit` ns */
	YAML_RATE,      /* uint64_t bits per second: 10Mbit, 1Gbit, or plain; k = 1000; min..max */
	YAML_PERCENT,   /* uint64_t: 25% or 25; min..max */
	YAML_STRING,    /* char *: min..max bytes, max 0 = any; "" = not given */
	YAML_ENUM,      /* int: index into `names`, any letter case */
	YAML_PORTS,     /* struct yaml_ports: a list of 1..65535, or "8000-8100" */
	YAML_STRINGS,   /* struct yaml_strings: a list; min..max as for YAML_STRING */
	YAML_SERVERS,   /* struct yaml_servers: a list of "host:port", "[IPv6]:port" or
			   {address: host, port: number} */
	YAML_PORTS_MAP, /* struct yaml_ports_map: interface pattern -> list of ports */
	YAML_BLOCKS,    /* struct yaml_blocks: name -> block of the keys in `sub` */
	YAML_UNSUPPORTED, /* known, but this version cannot do it: an error that says so */
	YAML_FOREIGN,     /* a key of another program, named in `help`: an error that says so */
};

struct yaml_ports {
	bool set; /* the key was there, even with an empty list */
	uint64_t bits[65536 / 64];
	unsigned int count; /* distinct ports */
};

struct yaml_strings {
	char **v;
	size_t n;
};

struct yaml_servers {
	struct yaml_server {
		char *host;
		uint16_t port;
	} * v;
	size_t n;
};

struct yaml_ports_map {
	struct yaml_ports_entry {
		char *name;
		struct yaml_ports ports;
	} * v;
	size_t n;
};

struct yaml_blocks {
	struct yaml_block {
		char *name;
		void *value; /* sub_size bytes; zeros but for what the file says: no defaults */
	} * v;
	size_t n;
};

struct yaml_key {
	const char *path; /* "output.server.address" */
	enum yaml_type type;
	size_t offset; /* in the struct */
	uint64_t min, max;
	uint64_t unit; /* YAML_DURATION, YAML_SIZE: what a plain number counts; 0 = 1 */
	/* YAML_ENUM, NULL at the end; "!name" is known, but this version cannot do it */
	const char *const *names;
	const struct yaml_key *sub; /* YAML_BLOCKS: single keys, no blocks */
	size_t n_sub, sub_size;
	const char *fallback; /* default, in the file's own syntax; NULL: zero */
	const char *help;     /* one line */
};

struct yaml_errors; /* collects lines */

struct yaml_errors *yaml_errors_new(const char *file);
struct yaml_errors *yaml_errors_free(struct yaml_errors *e);
size_t yaml_errors_count(const struct yaml_errors *e);
/* One line each, in the order of the file. */
void yaml_errors_print(const struct yaml_errors *e, FILE *to);

/*
 * Set the defaults in @into, which comes zeroed, then read the @size bytes of @text.
 * Returns 0, or -EINVAL (-ENOMEM) with at least one line in @errors. @into may be half
 * filled then and is to be released all the same.
 */
int yaml_load(const char *text, size_t size, const struct yaml_key *keys, size_t n_keys, void *into,
	      struct yaml_errors *errors);
/* The same from the file that @errors was made for; also the -errno of reading it. */
int yaml_load_file(const char *path, const struct yaml_key *keys, size_t n_keys, void *into,
		   struct yaml_errors *errors);

/* The rules that span keys, and what follows from the values: called in any case. */
typedef int yaml_finish_fn(void *into, struct yaml_errors *errors);

/*
 * A daemon's configuration from beginning to end: from @text, or from the file @name
 * when @text is NULL; then @finish. Whatever is wrong is printed on @to.
 */
int yaml_read(const char *name, const char *text, size_t size, const struct yaml_key *keys,
	      size_t n_keys, void *into, yaml_finish_fn *finish, FILE *to);

/*
 * Was the key, or the block of keys, in the text with a value, be it a bad one? For
 * rules that span keys. Valid after yaml_load().
 */
bool yaml_was_set(const struct yaml_errors *e, const char *path);
/*
 * A rule that spans keys: at the place of @path, or of the nearest block above it, or
 * of the file. Does nothing when @path has an error already or the text could not be
 * read to its end, so that one mistake does not make two lines.
 */
__attribute__((format(printf, 3, 4))) void yaml_error(struct yaml_errors *e, const char *path,
						      const char *fmt, ...);

/*
 * Do two structs that were loaded by the same table have the same value of @key? Not for
 * YAML_BLOCKS, nor for what is not a value.
 */
bool yaml_same(const struct yaml_key *key, const void *a, const void *b);

/* Free what the table's keys own in @into. (yaml_free() is a symbol of libyaml.) */
void yaml_release(const struct yaml_key *keys, size_t n_keys, void *into);

static inline bool yaml_ports_has(const struct yaml_ports *p, unsigned int port)
{
	return p->bits[port / 64] >> (port % 64) & 1;
}

#endif
