/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the files of the spool:
 *
 *	spool.c         the folder and its epochs
 *	spool_append.c  writing and syncing
 *	spool_scan.c    what an earlier run left: checks segments, cuts off torn ends
 *	spool_walk.c    one segment, item by item, past any damage
 *	spool_read.c    reading and acknowledging
 *	spool_evict.c   making room: segments become holes, acknowledged ones go
 *	spool_counts.c  what holes and messages hold, and whom to tell
 *	spool_hello.c   how a recovered epoch begins and ends
 *	spool_file.c    names, and writing so that it is durable
 *
 * Two locks. `writer` is for those who change files: it is held from the first byte to the
 * last sync, and taken first. `lock` guards all that is in memory and is what readers take; it
 * is given up for syncs. The list of segments changes with both held, so either is enough to
 * look at it.
 */
#ifndef PS_SPOOL_INTERNAL_H
#define PS_SPOOL_INTERNAL_H

#include <pthread.h>

#include "spool.h"
#include "util.h"

/* No number is as large; there is room for sums above it. */
#define SPOOL_SEQ_MAX (UINT64_MAX / 2)
/* As many as stream_gap_decode() takes; their bytes are about half of STREAM_CONTROL_MAX. */
#define SPOOL_PARTS_MAX (2u * STREAM_INTERFACES_MAX)

/* A file of numbered messages and holes. */
struct spool_segment {
	uint64_t name;  /* FIRST of its name */
	uint64_t first; /* above `name` when an older file has those before */
	uint64_t next;  /* after the last */
	uint64_t bytes; /* of whole messages; what is after them does not count */
	nsec_t written; /* CLOCK_REALTIME of the last write */
	bool holes;     /* and nothing else: there is nothing to evict */
};

/* Packets by interface, direction and time. */
struct spool_counts {
	struct stream_gap gap;
	size_t cap;
};

struct spool_range {
	uint64_t first, last;
};

/* A message or a hole. */
struct spool_item {
	uint64_t first, last;
	uint8_t type;                   /* STREAM_TALLY: a hole */
	uint32_t reason;                /* of a hole */
	uint64_t offset;                /* of a message */
	uint32_t size;                  /* of a message, header and payload */
	const struct stream_gap *tally; /* until the next step; NULL: not known */
};

/* A position between two items. */
struct spool_position {
	uint64_t offset; /* in the file */
	uint64_t seq;    /* of the item that follows */
};

struct spool_walk {
	struct spool_epoch *epoch;
	const struct spool_segment *segment; /* NULL: nowhere */
	int fd;                              /* -1: the file is gone, all of it is a hole */
	struct spool_position at;
	bool scan;         /* an unknown file: check every payload, stop where it ends */
	bool damaged;      /* something was not as it should be */
	bool unreadable;   /* the disk refused to give something */
	uint64_t good;     /* scan: after the last item that is worth keeping */
	uint64_t searched; /* bytes that were checked in search of a message */
	bool pending;      /* `tally` was read, and its message is still to come */
	struct stream_gap tally;
	/* A piece of the file. */
	uint8_t *window;
	size_t window_len, window_cap;
	uint64_t window_at;
};

struct spool_epoch {
	struct spool *spool;
	struct spool_epoch *newer;
	uint64_t number;
	bool live;                       /* of this run */
	bool made;                       /* has a folder */
	uint64_t first, next;            /* what is not acknowledged */
	uint64_t sent;                   /* up to it, messages may have been sent */
	struct spool_segment **segments; /* oldest first, none missing between */
	size_t n_segments, segments_cap;
	struct spool_walk reader, acker;

	/* Live only. */
	int fd;         /* of the last segment while it grows, else -1 */
	int sync_error; /* of a segment that is closed, for spool_sync() to tell */
	spool_hello_fn *hello_fn;
	spool_settle_fn *settle_fn;
	void *ctx;
	struct spool_range *lost; /* booked as lost already; sorted */
	size_t n_lost, lost_cap;

	/* Recovered only. */
	struct stream_hello hello; /* name "": no HELLO could be read */
	bool ended;
	struct stream_bye bye; /* when it was */
	nsec_t last_stats, last_packet, began;
};

struct spool {
	struct spool_config config;
	char *path;
	uint8_t agent_id[16];
	int root, lock_fd;
	int spare; /* a file with room on the disk, to be the next that replaces others */
	pthread_mutex_t writer, lock;
	struct spool_epoch *epochs; /* oldest first, the live one last */
	bool hold;                  /* appending evicts nothing */
	uint64_t bytes;             /* of all segments */
	uint64_t free, free_age;    /* of the file system, and bytes written since it said so */
	struct buf scratch;         /* of those who have `writer` */
};

/* spool_file.c. Names are in the spool's folder. */
#define SPOOL_NAME_SIZE 40
void spool_epoch_name(const struct spool_epoch *e, char out[SPOOL_NAME_SIZE]);
void spool_segment_name(const struct spool_epoch *e, uint64_t first, char out[SPOOL_NAME_SIZE]);
void spool_end_name(const struct spool_epoch *e, char out[SPOOL_NAME_SIZE]);
/* 16 hexadecimal digits, then @suffix and nothing else; not 0. */
bool spool_parse_name(const char *name, const char *suffix, uint64_t *ret);
/* A regular file, or -errno. */
int spool_open_file(const struct spool *s, const char *name, int flags);
/* The folder @name ("." for the spool's). 0 or -errno. */
int spool_sync_folder(const struct spool *s, const char *name);
/* All of it or -errno. */
int spool_write_at(int fd, uint64_t offset, const struct buf *a, const uint8_t *b, size_t n);
int spool_make_epoch(struct spool_epoch *e);
/*
 * Make the spare when there is none: empty, with some room. Then: write to it, sync it, rename
 * it; or drop it.
 */
int spool_spare(struct spool *s);
int spool_spare_sync(struct spool *s, uint64_t size);
int spool_spare_rename(struct spool *s, const char *name);
void spool_spare_drop(struct spool *s);
/* Write @data as the file @name, replacing what was there. Durable. */
int spool_write_file(struct spool *s, const char *name, const char *folder, const struct buf *data);
/* The first @max bytes of the file @name. 0 or -errno. */
int spool_read_file(const struct spool *s, const char *name, struct buf *out, size_t max);
int spool_error(const struct spool *s, int e, struct err *err);

/* spool_walk.c */
/* Go to the beginning of @g. 0; -errno: it cannot be opened now. */
int spool_walk_open(struct spool_walk *w, struct spool_epoch *e, const struct spool_segment *g);
void spool_walk_close(struct spool_walk *w);
/* Close and free. */
void spool_walk_done(struct spool_walk *w);
/* The next item, which begins with w->at.seq: 1; 0: the end; -errno. */
int spool_walk_next(struct spool_walk *w, struct spool_item *ret);
static inline void spool_walk_rewind(struct spool_walk *w, const struct spool_position *at)
{
	w->at = *at;
	w->pending = false;
}
/* The payload of the message at @offset, when it is whole: 1; 0: it is not; -errno. */
int spool_walk_payload(struct spool_walk *w, uint64_t offset, const struct stream_header *h,
		       const uint8_t **ret);
/* The whole message of an item likewise. */
int spool_walk_message(struct spool_walk *w, const struct spool_item *item, const uint8_t **ret);

/* spool_read.c */
/* The segment that has @seq, or NULL. */
struct spool_segment *spool_find(const struct spool_epoch *e, uint64_t seq);

/* spool_counts.c */
/* Add what @from has. False: no memory. */
bool spool_counts_add(struct spool_counts *c, const struct stream_gap *from);
void spool_counts_reset(struct spool_counts *c);
void spool_counts_free(struct spool_counts *c);
/* Can @c with @from added still be sent as one GAP? */
static inline bool spool_counts_fit(const struct spool_counts *c, const struct stream_gap *from)
{
	return c->gap.n_parts + from->n_parts <= SPOOL_PARTS_MAX;
}
/* Append a message with @gap for payload: a TALLY, or a GAP with the number gap->first_seq. */
void spool_put_gap(struct buf *out, uint8_t type, const struct stream_gap *gap);
/* The TALLY that stands before @wire. */
void spool_put_tally(struct buf *out, const struct backlog_message *m, const uint8_t *wire,
		     const struct tally *tally);
/* Tell whoever keeps the book; nobody for a recovered epoch. */
void spool_settle(struct spool_epoch *e, const struct stream_gap *counts,
		  enum ledger_counter counter);
/* Which messages were booked as lost. */
void spool_lost_add(struct spool_epoch *e, uint64_t first, uint64_t last);
bool spool_lost_has(const struct spool_epoch *e, uint64_t seq);
void spool_lost_forget(struct spool_epoch *e, uint64_t below);

/* spool_hello.c, for recovered epochs */
void spool_learn_hello(struct spool_epoch *e, const uint8_t *payload, size_t n);
void spool_learn_meta(struct spool_epoch *e, const uint8_t *payload, size_t n);
/* Are all interfaces that @head and @tally name known? */
bool spool_knows(const struct spool_epoch *e, const struct stream_data *head,
		 const struct stream_gap *tally);
/* Append the HELLO message that a file of @e begins with. Of any epoch. */
void spool_put_hello(struct spool_epoch *e, uint64_t first, struct buf *out);

/* spool_scan.c */
/* All epochs in the folder. */
int spool_scan(struct spool *s, struct err *err);

/* spool_evict.c; `writer` and `lock` are held, `lock` is given up at times. */
/* Remove the oldest files that are acknowledged; with @growing also one that is being written. */
void spool_remove_acked(struct spool *s, bool growing);
/* Turn the oldest segment into holes: 1; 0: there is none; -errno. */
int spool_evict(struct spool *s);
/* Until @need bytes can be written, with @evict by evicting. 0; -ENOSPC; -errno. */
int spool_make_room(struct spool *s, uint64_t need, bool evict);

/* spool.c */
struct spool_epoch *spool_epoch_new(struct spool *s, uint64_t number);
/* Out of the list, and gone from memory. */
void spool_epoch_free(struct spool_epoch *e);
/* Append to the list. False: no memory. */
bool spool_add_segment(struct spool_epoch *e, const struct spool_segment *g);
/* From memory. */
void spool_drop_segment(struct spool_epoch *e, size_t i);
/* Nothing is appended to the last segment any more. */
void spool_close_growing(struct spool_epoch *e, bool sync);

#endif
