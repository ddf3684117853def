/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens to the capture while it runs, told to the collector in the stream: another filter,
 * a step of the degradation ladder, a limit, a clock that was set. Thread-safe.
 */
#ifndef PS_NOTE_H
#define PS_NOTE_H

#include "queue.h"
#include "stream.h"

/*
 * Append a NOTE of this moment to @q (NULL: an agent that writes files only, nothing is done).
 * @iface: the id of the interface that it is about, NULL for the whole agent. What is longer than
 * STREAM_NOTE_MAX ends in "...". 0; -ENOBUFS: the queue has no room; -ENOMEM.
 *
 * The caller writes its own log, too, and bounds how often this can happen: a note takes of the
 * room that control messages have in a full queue, and collectors log one per second and stream for
 * long.
 */
__attribute__((format(printf, 4, 5))) int note_push(struct queue *q, enum stream_note_kind kind,
						    const uint32_t *iface, const char *fmt, ...);

#endif
