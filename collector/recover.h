/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a commit says, and how a journal is put back after whatever ended the last run. The body of
 * a commit:
 *
 *	size
 *	   1  number of files that follow
 *	   4  link type of a file
 *	   1  1: its time stamps count microseconds
 *	   8  device
 *	   8  inode
 *	   8  bytes that the commit has of it
 *	   2  length of its name
 *	   n  name, in the folder of the output
 *	...   what registry_save() or feed_save() wrote, to the end
 *
 * All numbers are little-endian.
 */
#ifndef PS_COLLECTOR_RECOVER_H
#define PS_COLLECTOR_RECOVER_H

#include "journal.h"
#include "output.h"
#include "registry.h"

/* Append the files; the registry's bytes are to follow. */
void recover_put_files(struct buf *out, const struct output_file *files, size_t n);
/* Take them apart again; what is left is the registry's. -EBADMSG. */
int recover_get_files(const uint8_t **body, size_t *n, struct output_file ret[OUTPUT_FILES_MAX],
		      size_t *ret_n);

struct recovered {
	struct journal *journal;
	struct output_file files[OUTPUT_FILES_MAX]; /* to go on with */
	size_t n_files;
	uint64_t commits; /* that were found */
};

/*
 * Replay the journal of the output @path into @registry, up to the newest commit that all files
 * satisfy: a file that is the one of the commit has as many bytes as the commit says. Files that
 * are gone or were replaced are left to output_new(). When not even the oldest commit is
 * satisfied, or the journal is damaged, all that can be is replayed, and new files are to be taken.
 * What was given up is said in @warning (empty otherwise). Errors as journal_open().
 */
int recover(const char *path, struct registry *registry, struct recovered *ret, struct err *warning,
	    struct err *err);

#endif
