/* SPDX-License-Identifier: Apache-2.0 */
/* What output.c and output_open.c share. */
#ifndef PS_OUTPUT_INTERNAL_H
#define PS_OUTPUT_INTERNAL_H

#include <pthread.h>

#include "output.h"
#include "sink.h"

struct chunk;

enum target { TARGET_FILES, TARGET_FIFO, TARGET_STREAM };

struct output {
	enum target target;
	bool micro;
	char *path;
	int cancel_fd; /* readable once output_cancel() was called */
	int folder_fd; /* of the files; -1: it cannot be read, or there are none */

	pthread_mutex_t sync_lock; /* guards sync_failed, `synced` of the sinks, and closing */
	bool sync_failed;

	pthread_mutex_t lock; /* after the other; guards what follows, and the writing */
	struct sink sinks[OUTPUT_FILES_MAX];
	size_t n_sinks;
	bool new_names; /* the folder has names that are not durable */
	struct chunk *pool;
};

/* The file of @link_type, or NULL when none is open. */
struct sink *output_file_of(struct output *out, uint32_t link_type);
/* Open a new file for @link_type, of whatever number is free. */
int output_open_file(struct output *out, uint32_t link_type, struct err *err);

#endif
