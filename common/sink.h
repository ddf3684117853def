/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One open pcap file or stream, for output.c. Not thread-safe: output.c has the lock.
 */
#ifndef PS_SINK_H
#define PS_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "err.h"

#define SINK_HEADER 24u /* bytes of the file header */

struct output_file;

struct sink {
	uint32_t link_type; /* 0: not chosen yet (a stream) */
	int fd;
	char *path; /* "-" for stdout; the sink's own */
	uint64_t device, inode;
	bool regular; /* a file: it can be cut */
	off_t size;   /* of a file, up to the end of the last whole run */
	off_t synced; /* so much of that is durable */
	bool torn;    /* bytes after `size` are still to be cut off */
};

/*
 * Open the file of @link_type for the configured @path: the first name that is free,
 * with a header written, or an earlier run's that has nothing else. output.h has the
 * names.
 */
int sink_open_file(const char *path, uint32_t link_type, bool micro, struct sink *ret,
		   struct err *err);

/*
 * Go on with @file of an earlier run, in the folder of @path: what is behind its size is cut off,
 * durably. < 0: that cannot be, as @err says.
 */
int sink_continue_file(const char *path, int folder_fd, const struct output_file *file, bool micro,
		       struct sink *ret, struct err *err);

/* The header of classic pcap, little-endian. */
void sink_header(uint8_t out[SINK_HEADER], bool micro, uint32_t link_type);

/*
 * All of @data or, in a file, nothing. A stream's slow reader is waited for until
 * @cancel_fd becomes readable. -ENOSPC, -EDQUOT, -EIO, -EPIPE, -ECANCELED.
 */
int sink_write(struct sink *s, const uint8_t *data, size_t n, int cancel_fd, struct err *err);

/* A sentence for the errno @e, and which of -ENOSPC, -EDQUOT, -EIO it counts as. */
int sink_error(const struct sink *s, int e, struct err *err);

/* What a file has goes to the disk; 0 for a stream. -errno when that failed. */
int sink_flush(struct sink *s, struct err *err);
/* Flush and close; @s may be all zeros with fd -1. */
void sink_close(struct sink *s);

#endif
