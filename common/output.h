/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where packets end up: classic pcap in a file or on stdout. Takes runs of
 * Enhanced Packet Blocks from many threads. One file per link type: Ethernet goes
 * to the path as given, another type to the path with its name before the suffix
 * (`dump.pcap`, `dump.raw.pcap`). A file that exists is never touched unless it
 * has nothing but the very header: the next free number is taken
 * (`dump.1.pcap`).
 *
 * stdout, a FIFO and a device carry the link type of their first packet; packets of
 * another are refused. A FIFO that nobody reads is -EIO until somebody does, and each
 * reader gets a header of its own.
 */
#ifndef PS_OUTPUT_H
#define PS_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

struct output;

/* A file and how much of it there is: what a journal has to know about an output. */
#define OUTPUT_FILES_MAX 4u
#define OUTPUT_NAME_MAX  255u
struct output_file {
	char name[OUTPUT_NAME_MAX + 1]; /* in the folder of the output's path */
	uint32_t link_type;
	bool micro;
	uint64_t device; /* for people: a volume has another number when it is mounted again */
	uint64_t inode;
	uint64_t size; /* up to the end of the last whole run */
};

struct output_config {
	const char *path; /* "stdout" or "-": standard output */
	bool micro;       /* microsecond time stamps and the old magic */
	/*
	 * Files of an earlier run to go on with, one for a link type. One that is there, is the
	 * same (inode and header), has `size` bytes or more and is nobody's else is cut back to
	 * them, durably, and continued. Others are left alone: a file with the next free number
	 * takes their place, at once for Ethernet. For stdout and its like they do not count.
	 */
	const struct output_file *files;
	size_t n_files;
	/* Which of them is left alone, and why. May be NULL; called by output_new() only. */
	void (*left_alone)(void *ctx, const struct output_file *file, const char *why);
	void *ctx;
};

/* Is that name of a file standard output? */
bool output_is_stdout(const char *path);
/* Could output_new() work? Makes nothing and leaves nothing behind. */
int output_check(const struct output_config *config, struct err *err);

/*
 * Opens the Ethernet file at once, so that a path that cannot be written is known now, and the
 * files to go on with.
 */
int output_new(const struct output_config *config, struct output **ret, struct err *err);
/*
 * Nobody writes any more: see what was written to the disk. What a file system took and
 * cannot keep (a quota, a network that is gone) comes out here; the first error is told.
 */
int output_finish(struct output *out, struct err *err);
/* Does that too, for those who do not ask, and closes. */
struct output *output_free(struct output *out);

/*
 * Append the @size bytes of blocks at @run, all of @link_type: all or nothing. The
 * blocks were checked with packet_next(). 0; -ENOSPC, -EDQUOT or -EIO: the file is
 * as it was before (cut back to the last whole run), try again later; -ENOTSUP: this
 * output cannot carry the link type; -EPIPE: the reader of stdout is gone.
 * Thread-safe.
 */
int output_write(struct output *out, uint32_t link_type, const uint8_t *run, size_t size,
		 struct err *err);

/*
 * Make the file of @link_type, if there is none yet, with its header only: so a journal can name it
 * before there is a packet in it. Errors as output_write(). 0 for what is not a file.
 */
int output_open(struct output *out, uint32_t link_type, struct err *err);

/* Are packets kept in files, which can be made durable and continued? */
bool output_is_files(const struct output *out);
/* The files that are open, as they are now; returns their number, at most OUTPUT_FILES_MAX. */
size_t output_files(struct output *out, struct output_file ret[OUTPUT_FILES_MAX]);
/*
 * fdatasync what was written so far, in every file, and the folder after a new file. Others may
 * write meanwhile. An error means that what was written since the last output_sync() may be
 * gone: the kernel says so once and may have dropped it, so it stays an error from then on.
 */
int output_sync(struct output *out, struct err *err);

/* Writes that wait for a slow reader of stdout, and all after, fail with -ECANCELED. */
void output_cancel(struct output *out);

/* The file that @link_type goes to ("-" for stdout), or NULL when none is open yet. */
const char *output_path(struct output *out, uint32_t link_type);

#endif
