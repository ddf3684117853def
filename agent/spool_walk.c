/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One segment from its beginning to its end, as a series of items: messages and holes, whose
 * numbers follow each other without exception. What the file does not have, or has damaged, is
 * a hole, so everybody who walks sees the same items, and nobody else has to think of damage.
 *
 * A hole whose TALLY is there has its counts. Behind a header that is damaged nobody knows
 * where the next message begins: it is searched for, byte by byte, and must have the right
 * checksums. Captured packets may hold what looks like our own messages; to search those for
 * ever is prevented by a budget.
 *
 * A walk reads the file through a window, and takes nothing from it twice unless asked to.
 */
#include <errno.h>
#include <fcntl.h>

#include "gzip.h"
#include "spool_internal.h"

/* Read ahead when every byte is wanted; and when only headers and TALLYs are. */
#define AHEAD_ALL  (1u << 20)
#define AHEAD_HEAD 4096u

#define MAGIC      "PS\1"
#define MAGIC_SIZE 3u
/* How often all bytes of a file may be checked in the search for messages. */
#define SEARCH_MAX 8u

int spool_walk_open(struct spool_walk *w, struct spool_epoch *e, const struct spool_segment *g)
{
	char name[SPOOL_NAME_SIZE];
	int fd;

	spool_walk_close(w);
	spool_segment_name(e, g->name, name);
	fd = spool_open_file(e->spool, name, O_RDONLY);
	/* Only what may be better next time is an error; a file that is gone stays gone. */
	if (fd == -EMFILE || fd == -ENFILE || fd == -ENOMEM || fd == -EINTR)
		return fd;
	w->fd = fd < 0 ? -1 : fd;
	w->epoch = e;
	w->segment = g;
	w->at = (struct spool_position){.seq = g->first};
	w->damaged = w->unreadable = fd < 0;
	w->good = 0;
	w->searched = 0;
	w->window_len = 0;
	return 0;
}

void spool_walk_close(struct spool_walk *w)
{
	if (w->segment && w->fd >= 0)
		close(w->fd);
	w->segment = NULL;
	w->fd = -1;
	w->pending = false;
}

void spool_walk_done(struct spool_walk *w)
{
	spool_walk_close(w);
	stream_gap_free(&w->tally);
	free(w->window);
	w->window = NULL;
	w->window_len = w->window_cap = 0;
}

/*
 * @n bytes at @offset, in the window: 1; 0: they are not there, or cannot be read; -errno.
 * @ret_n, unless NULL, is set to how many there are, @n or more.
 */
static int peek(struct spool_walk *w, uint64_t offset, size_t n, const uint8_t **ret, size_t *ret_n)
{
	uint64_t end = w->segment->bytes;
	size_t want, have = 0;

	if (w->fd < 0 || offset > end || n > end - offset)
		return 0;
	if (offset >= w->window_at && offset + n <= w->window_at + w->window_len)
		goto there;
	want = (size_t)MIN(MAX(n, w->scan ? AHEAD_ALL : AHEAD_HEAD), end - offset);
	w->window_len = 0;
	if (want > w->window_cap) {
		free(w->window);
		w->window = malloc(want);
		w->window_cap = w->window ? want : 0;
		if (!w->window)
			return -ENOMEM;
	}
	while (have < want) {
		ssize_t r = pread(w->fd, w->window + have, want - have, (off_t)(offset + have));

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			w->unreadable = true;
		if (r <= 0)
			break;
		have += (size_t)r;
	}
	w->window_at = offset;
	w->window_len = have;
	if (have < n)
		return 0;
there:
	*ret = w->window + (offset - w->window_at);
	if (ret_n)
		*ret_n = (size_t)(w->window_at + w->window_len - offset);
	return 1;
}

/* The header at @offset, of a message that is there with all its bytes: as peek(). */
static int header_at(struct spool_walk *w, uint64_t offset, struct stream_header *ret)
{
	const uint8_t *p;
	int r = peek(w, offset, STREAM_HEADER_SIZE, &p, NULL);

	if (r <= 0)
		return r;
	if (stream_header_decode(p, ret, NULL) < 0 || ret->seq > SPOOL_SEQ_MAX)
		return 0;
	return ret->payload_len <= w->segment->bytes - offset - STREAM_HEADER_SIZE;
}

int spool_walk_payload(struct spool_walk *w, uint64_t offset, const struct stream_header *h,
		       const uint8_t **ret)
{
	int r = peek(w, offset + STREAM_HEADER_SIZE, h->payload_len, ret, NULL);

	if (r > 0 && gzip_crc32(0, *ret, h->payload_len) != h->payload_crc)
		r = 0;
	return r;
}

int spool_walk_message(struct spool_walk *w, const struct spool_item *item, const uint8_t **ret)
{
	struct stream_header h;
	int r = peek(w, item->offset, item->size, ret, NULL);

	/* A scan has looked at it already. */
	if (r <= 0 || w->scan)
		return r;
	r = header_at(w, item->offset, &h);
	if (r > 0)
		r = spool_walk_payload(w, item->offset, &h, ret);
	if (r > 0)
		*ret -= STREAM_HEADER_SIZE;
	return r;
}

/* The TALLY or GAP at @offset into w->tally: as peek(). */
static int gap_at(struct spool_walk *w, uint64_t offset, const struct stream_header *h)
{
	const uint8_t *p;
	int r = spool_walk_payload(w, offset, h, &p);

	if (r <= 0)
		return r;
	stream_gap_free(&w->tally);
	if (stream_gap_decode(p, h->payload_len, &w->tally, NULL) < 0)
		return 0;
	return w->tally.last_seq <= SPOOL_SEQ_MAX &&
	       (h->type == STREAM_TALLY || w->tally.first_seq == h->seq);
}

static uint64_t limit(const struct spool_walk *w)
{
	return w->scan ? SPOOL_SEQ_MAX : w->segment->next;
}

/* Go to the next message that can be trusted, from the byte after w->at on: as peek(). */
static int search(struct spool_walk *w)
{
	uint64_t offset = w->at.offset + 1;

	while (w->searched <= SEARCH_MAX * w->segment->bytes) {
		struct stream_header h;
		const uint8_t *p, *hit;
		size_t n;
		int r = peek(w, offset, STREAM_HEADER_SIZE, &p, &n);

		if (r <= 0)
			return r;
		hit = memmem(p, n, MAGIC, MAGIC_SIZE);
		if (!hit) {
			offset += n - MAGIC_SIZE + 1;
			continue;
		}
		if (hit > p) {
			offset += (uint64_t)(hit - p);
			continue;
		}
		w->searched += STREAM_HEADER_SIZE;
		r = header_at(w, offset, &h);
		if (r > 0) {
			w->searched += h.payload_len;
			if (h.type == STREAM_TALLY || h.type == STREAM_GAP)
				r = gap_at(w, offset, &h) > 0 && w->tally.last_seq >= w->at.seq &&
				    w->tally.first_seq < limit(w);
			else if (stream_type_numbered(h.type) && h.seq >= w->at.seq &&
				 h.seq < limit(w))
				r = spool_walk_payload(w, offset, &h, &p);
			else
				r = 0;
		}
		if (r < 0)
			return r;
		if (r > 0) {
			w->at.offset = offset;
			return 1;
		}
		offset++;
	}
	return 0;
}

/* All up to @last is lost, and nobody knows what it was. */
static int unknown(struct spool_walk *w, uint64_t last, struct spool_item *ret)
{
	*ret = (struct spool_item){
		.first = w->at.seq,
		.last = MIN(last, limit(w) - 1),
		.type = STREAM_TALLY,
		.reason = STREAM_GAP_CORRUPT,
	};
	w->at.seq = ret->last + 1;
	w->pending = false;
	return 1;
}

/* The TALLY that was read has no message. */
static int hole(struct spool_walk *w, struct spool_item *ret)
{
	*ret = (struct spool_item){
		.first = w->at.seq,
		.last = w->tally.last_seq,
		.type = STREAM_TALLY,
		.reason = w->tally.reason,
		.tally = &w->tally,
	};
	w->at.seq = ret->last + 1;
	w->good = MAX(w->good, w->at.offset);
	w->pending = false;
	return 1;
}

/* At a TALLY. 1: *ret is an item; 0: go on; -errno. */
static int step_tally(struct spool_walk *w, const struct stream_header *h, struct spool_item *ret)
{
	int r;

	if (w->pending)
		return hole(w, ret);
	r = gap_at(w, w->at.offset, h);
	if (r < 0)
		return r;
	if (r > 0 && w->tally.first_seq > w->at.seq)
		return unknown(w, w->tally.first_seq - 1, ret);
	w->at.offset += STREAM_HEADER_SIZE + h->payload_len;
	if (r == 0) {
		w->damaged = true;
		return 0;
	}
	if (w->tally.last_seq < w->at.seq)
		return 0;
	if (w->tally.first_seq < w->at.seq || w->tally.last_seq >= limit(w))
		return unknown(w, w->tally.last_seq, ret);
	w->pending = true;
	return 0;
}

/* At a numbered message: likewise. */
static int step_message(struct spool_walk *w, const struct stream_header *h, struct spool_item *ret)
{
	struct spool_position at = w->at;
	uint64_t last = h->seq;
	const uint8_t *p;
	bool counted;
	int r = 1;

	if (h->seq > w->at.seq)
		return w->pending ? hole(w, ret) : unknown(w, h->seq - 1, ret);
	if (h->type == STREAM_GAP) {
		w->pending = false;
		r = gap_at(w, at.offset, h);
		if (r > 0)
			last = w->tally.last_seq;
	} else if (w->scan) {
		r = spool_walk_payload(w, at.offset, h, &p);
	}
	if (r < 0)
		return r;
	w->at.offset += STREAM_HEADER_SIZE + h->payload_len;
	if (last < w->at.seq)
		return 0;
	w->good = w->at.offset;
	if (h->seq < w->at.seq || last >= limit(w))
		return unknown(w, last, ret);
	counted = h->type == STREAM_GAP || (w->pending && w->tally.last_seq == h->seq);
	if (r == 0) {
		w->damaged = true;
		return counted && w->pending ? hole(w, ret) : unknown(w, last, ret);
	}
	*ret = (struct spool_item){
		.first = h->seq,
		.last = last,
		.type = h->type,
		.offset = at.offset,
		.size = STREAM_HEADER_SIZE + h->payload_len,
		.tally = counted ? &w->tally : NULL,
	};
	w->at.seq = last + 1;
	w->pending = false;
	return 1;
}

/* The bytes at w->at are no message: likewise; 0 with w->at.seq at the limit is the end. */
static int step_damage(struct spool_walk *w, struct spool_item *ret, bool *end)
{
	int r;

	if (w->at.offset < w->segment->bytes)
		w->damaged = true;
	if (w->pending)
		return hole(w, ret);
	r = search(w);
	if (r != 0)
		return MIN(r, 0);
	*end = w->scan;
	return w->scan ? 0 : unknown(w, limit(w) - 1, ret);
}

int spool_walk_next(struct spool_walk *w, struct spool_item *ret)
{
	bool end = false;
	int r = 0;

	while (r == 0 && !end && w->at.seq < limit(w)) {
		struct stream_header h;
		const uint8_t *p;

		r = header_at(w, w->at.offset, &h);
		if (r < 0)
			break;
		if (r == 0) {
			r = step_damage(w, ret, &end);
		} else if (h.type == STREAM_TALLY) {
			r = step_tally(w, &h, ret);
		} else if (stream_type_numbered(h.type)) {
			r = step_message(w, &h, ret);
		} else {
			r = 0;
			if (h.type == STREAM_HELLO && w->scan)
				r = spool_walk_payload(w, w->at.offset, &h, &p);
			if (r > 0)
				spool_learn_hello(w->epoch, p, h.payload_len);
			r = MIN(r, 0);
			w->at.offset += STREAM_HEADER_SIZE + h.payload_len;
		}
	}
	return r;
}
