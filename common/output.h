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

struct output_config {
	const char *path; /* "stdout" or "-": standard output */
	bool micro;       /* microsecond time stamps and the old magic */
};

/* Could output_new() work? Makes nothing and leaves nothing behind. */
int output_check(const struct output_config *config, struct err *err);

/* Opens the Ethernet file at once, so that a path that cannot be written is known now. */
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

/* Writes that wait for a slow reader of stdout, and all after, fail with -ECANCELED. */
void output_cancel(struct output *out);

/* The file that @link_type goes to ("-" for stdout), or NULL when none is open yet. */
const char *output_path(struct output *out, uint32_t link_type);

#endif
