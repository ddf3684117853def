/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What earlier runs left. Every segment is read once, from its first byte to its last, and
 * every checksum is looked at. Nothing that is found is a reason not to start:
 *
 *	behind the last good message of a segment   cut off; when a later segment or the end
 *	                                            mark says that there was more, a hole
 *	damage before that                          stays; spool_walk.c sees it as a hole
 *	a segment that is missing                   a hole
 *	numbers that two segments have              those of the older file (spool_evict.c)
 *	a segment that has nothing                  removed
 *	what the end mark says is acknowledged      forgotten
 *
 * What the disk refuses to give is treated as damage, but never cut off or removed. Files and
 * folders that are not ours by their names are left alone.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "gzip.h"
#include "spool_internal.h"

#define END_MAX (2u * (STREAM_HEADER_SIZE + STREAM_CONTROL_MAX))

struct names {
	uint64_t *v;
	size_t n, cap;
};

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The numbers that the names in @folder have, in order. */
static int list(const struct spool *s, const char *folder, const char *suffix, struct names *ret)
{
	int fd = openat(s->root, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct dirent *d;
	DIR *dir;
	int r = 0;

	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return -ENOMEM;
	}
	while (errno = 0, (d = readdir(dir))) {
		uint64_t number;

		if (!spool_parse_name(d->d_name, suffix, &number) || number > SPOOL_SEQ_MAX)
			continue;
		if (ret->n == ret->cap) {
			size_t cap = ret->cap ? 2 * ret->cap : 16;
			uint64_t *v = reallocarray(ret->v, cap, sizeof(*v));

			if (!v) {
				r = -ENOMEM;
				break;
			}
			ret->v = v;
			ret->cap = cap;
		}
		ret->v[ret->n++] = number;
	}
	if (r == 0)
		r = -errno;
	closedir(dir);
	if (ret->n)
		qsort(ret->v, ret->n, sizeof(*ret->v), compare);
	return r;
}

/* Remember what the session of this epoch has to say. */
static void learn(struct spool_walk *w, const struct spool_item *item)
{
	struct spool_epoch *e = w->epoch;
	struct stream_stats stats;
	struct stream_data data;
	const uint8_t *p;
	size_t n;

	if (item->type != STREAM_META && item->type != STREAM_STATS && item->type != STREAM_DATA)
		return;
	if (spool_walk_message(w, item, &p) <= 0)
		return;
	p += STREAM_HEADER_SIZE;
	n = item->size - STREAM_HEADER_SIZE;
	if (item->type == STREAM_META) {
		spool_learn_meta(e, p, n);
	} else if (item->type == STREAM_STATS && stream_stats_decode(p, n, &stats, NULL) == 0) {
		e->last_stats = MAX(e->last_stats, stats.time);
		stream_stats_free(&stats);
	} else if (item->type == STREAM_DATA && stream_data_decode(p, n, &data, NULL) == 0) {
		e->last_packet = MAX(e->last_packet, data.last);
	}
}

/* Read the file of @g and complete it. 0; -errno: not now. */
static int scan_segment(struct spool_walk *w, struct spool_epoch *e, struct spool_segment *g)
{
	bool messages = false;
	char name[SPOOL_NAME_SIZE];
	struct spool_item item;
	struct stat st;
	int fd, r;

	spool_segment_name(e, g->name, name);
	r = fstatat(e->spool->root, name, &st, AT_SYMLINK_NOFOLLOW);
	if (r == 0 && S_ISREG(st.st_mode)) {
		g->bytes = (uint64_t)st.st_size;
		g->written = (nsec_t)st.st_mtim.tv_sec * NSEC_PER_SEC + (nsec_t)st.st_mtim.tv_nsec;
	}
	r = spool_walk_open(w, e, g);
	while (r == 0 && (r = spool_walk_next(w, &item)) > 0) {
		messages = messages || item.type != STREAM_TALLY;
		learn(w, &item);
		r = 0;
	}
	if (r < 0)
		return r;
	g->next = w->at.seq;
	g->holes = !messages && !w->damaged;
	if (w->good < g->bytes && !w->unreadable) {
		/* Where it cannot be cut, what is behind is not looked at. */
		g->bytes = w->good;
		fd = spool_open_file(e->spool, name, O_RDWR);
		if (fd >= 0) {
			r = ftruncate(fd, (off_t)g->bytes);
			close(fd);
		}
	}
	/* It was made for one message at least. */
	if (g->next == g->first && w->unreadable)
		g->next++;
	return 0;
}

/* @bound: there was a message before it; 0: nobody says so. */
static int take_segment(struct spool_walk *w, struct spool_epoch *e, uint64_t name, uint64_t bound)
{
	struct spool_segment g = {.name = name, .first = MAX(name, e->next)};
	char path[SPOOL_NAME_SIZE];
	int r = scan_segment(w, e, &g);

	spool_walk_close(w);
	if (r < 0)
		return r;
	g.next = MAX(g.next, bound);
	if (g.next == g.first) {
		spool_segment_name(e, name, path);
		unlinkat(e->spool->root, path, 0);
		return 0;
	}
	if (!spool_add_segment(e, &g))
		return -ENOMEM;
	e->next = g.next;
	return 0;
}

static bool checked(const struct stream_header *h, const uint8_t *payload)
{
	return gzip_crc32(0, payload, h->payload_len) == h->payload_crc;
}

/* The end mark, if there is a good one. */
static int read_end(struct spool_epoch *e)
{
	struct buf file = {};
	struct stream_header hello, bye;
	char name[SPOOL_NAME_SIZE];
	size_t at = STREAM_HEADER_SIZE;
	int r;

	spool_end_name(e, name);
	r = spool_read_file(e->spool, name, &file, END_MAX);
	if (r == 0 && file.len >= at && stream_header_decode(file.data, &hello, NULL) == 0 &&
	    hello.type == STREAM_HELLO && hello.payload_len <= file.len - at &&
	    checked(&hello, file.data + at)) {
		spool_learn_hello(e, file.data + at, hello.payload_len);
		at += hello.payload_len;
		if (file.len - at >= STREAM_HEADER_SIZE &&
		    stream_header_decode(file.data + at, &bye, NULL) == 0 &&
		    bye.type == STREAM_BYE &&
		    bye.payload_len <= file.len - at - STREAM_HEADER_SIZE &&
		    checked(&bye, file.data + at + STREAM_HEADER_SIZE) &&
		    stream_bye_decode(file.data + at + STREAM_HEADER_SIZE, bye.payload_len, &e->bye,
				      NULL) == 0)
			e->ended = e->bye.last_seq < SPOOL_SEQ_MAX;
	}
	buf_free(&file);
	return r == -ENOMEM || r == -EMFILE || r == -ENFILE ? r : 0;
}

static int scan_epoch(struct spool_walk *w, struct spool_epoch *e)
{
	struct names names = {};
	char folder[SPOOL_NAME_SIZE];
	uint64_t end = 0, unacked = 0;
	int r;

	spool_epoch_name(e, folder);
	r = list(e->spool, folder, ".seg", &names);
	if (r == 0)
		r = read_end(e);
	if (r == 0 && e->ended) {
		end = e->bye.last_seq + 1;
		unacked = MIN(e->hello.first_unacked, end);
	}
	for (size_t i = 0; r == 0 && i < names.n; i++)
		r = take_segment(w, e, names.v[i], i + 1 < names.n ? names.v[i + 1] : end);
	free(names.v);
	e->next = MAX(e->next, end);
	e->first = e->n_segments ? MAX(e->segments[0]->first, unacked) : e->next;
	return r;
}

int spool_scan(struct spool *s, struct err *err)
{
	struct spool_walk w = {.fd = -1, .scan = true};
	struct names names = {};
	struct spool_epoch *e;
	char folder[SPOOL_NAME_SIZE];
	int r = list(s, ".", "", &names);

	for (size_t i = 0; r == 0 && i < names.n; i++) {
		struct stat st;

		e = spool_epoch_new(s, names.v[i]);
		if (!e) {
			r = -ENOMEM;
			break;
		}
		spool_epoch_name(e, folder);
		if (fstatat(s->root, folder, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    !S_ISDIR(st.st_mode)) {
			spool_epoch_free(e);
			continue;
		}
		r = scan_epoch(&w, e);
		if (r == 0 && !e->n_segments && !e->ended) {
			unlinkat(s->root, folder, AT_REMOVEDIR);
			spool_epoch_free(e);
		}
	}
	spool_walk_done(&w);
	free(names.v);
	return r < 0 ? spool_error(s, r, err) : 0;
}
