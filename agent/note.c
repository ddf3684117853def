/* SPDX-License-Identifier: Apache-2.0 */
#include "note.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "text.h"
#include "util.h"

int note_push(struct queue *q, enum stream_note_kind kind, const uint32_t *iface, const char *fmt,
	      ...)
{
	struct stream_note note = {.time = clock_realtime(), .kind = (uint8_t)kind};
	_cleanup_(buf_free) struct buf payload = {};
	_cleanup_free_ char *text = NULL;
	va_list ap;
	int n;

	if (!q)
		return 0;
	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (n < 0) {
		text = NULL;
		return -ENOMEM;
	}
	text_cut(note.text, sizeof(note.text), text);
	if (iface) {
		note.has_iface = true;
		note.iface = *iface;
	}
	stream_note_encode(&payload, &note);
	if (buf_failed(&payload))
		return -ENOMEM;
	return queue_push_control(q, STREAM_NOTE, payload.data, payload.len);
}
