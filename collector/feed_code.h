/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How feeds look in the journal: a series of TLVs, called entries, whose values are fixed
 * records of little-endian numbers; the string, where there is one, is last. One function per
 * entry both writes and reads it. All say what is so, not what was added, so that reading
 * an entry twice does no harm.
 *
 * RESET: forget everything that came before. TOTAL, FILE, AGENTS: of the feeds that were
 * dropped. AT chooses the feed that the entries after it speak of. NEW comes before the first
 * AT of a feed, and when all of it is told anew. DROP: an interface that was summed up; the
 * same id may come again after it. STATE is the last of its feed in a commit, because it judges
 * by the others.
 */
#ifndef PS_COLLECTOR_FEED_CODE_H
#define PS_COLLECTOR_FEED_CODE_H

#include "feed.h"
#include "tlv.h"
#include "util.h"

enum feed_entry {
	ENTRY_RESET = 1,
	ENTRY_TOTAL,
	ENTRY_FILE,
	ENTRY_AGENTS,
	ENTRY_FORGET,
	ENTRY_NEW,
	ENTRY_AT,
	ENTRY_DROP,
	ENTRY_STATE,
	ENTRY_META,
	ENTRY_WRITTEN,
	ENTRY_STATS,
	ENTRY_UNSEEN,
	ENTRY_LAST = ENTRY_UNSEEN,
};

/* Writes to `out`, or reads from `in` when that is NULL. */
struct code {
	struct buf *out;
	const uint8_t *in;
	size_t left;
	bool bad; /* too short, or a value out of range */
};

static inline const uint8_t *code_take(struct code *c, size_t n)
{
	const uint8_t *p = c->in;

	if (c->bad || c->left < n) {
		c->bad = true;
		return NULL;
	}
	c->in += n;
	c->left -= n;
	return p;
}

static inline void code_bytes(struct code *c, void *v, size_t n)
{
	const uint8_t *p;

	if (c->out) {
		buf_put(c->out, v, n);
		return;
	}
	p = code_take(c, n);
	if (p)
		memcpy(v, p, n);
}

static inline void code_u64(struct code *c, uint64_t *v)
{
	const uint8_t *p;

	if (c->out) {
		buf_put_le64(c->out, *v);
		return;
	}
	p = code_take(c, 8);
	if (p)
		*v = get_le64(p);
}

static inline void code_u32(struct code *c, uint32_t *v)
{
	const uint8_t *p;

	if (c->out) {
		buf_put_le32(c->out, *v);
		return;
	}
	p = code_take(c, 4);
	if (p)
		*v = get_le32(p);
}

/* A number from 0 to @max. */
static inline unsigned int code_small(struct code *c, unsigned int v, unsigned int max)
{
	const uint8_t *p;

	if (c->out) {
		buf_put_u8(c->out, (uint8_t)v);
		return v;
	}
	p = code_take(c, 1);
	if (!p || *p > max) {
		c->bad = true;
		return 0;
	}
	return *p;
}

static inline void code_bool(struct code *c, bool *v)
{
	*v = code_small(c, *v, 1);
}

/* All that is left. */
static inline void code_string(struct code *c, char *s, size_t size)
{
	if (c->out) {
		buf_put(c->out, s, strlen(s));
	} else if (c->bad || c->left >= size || memchr(c->in, 0, c->left)) {
		c->bad = true;
	} else {
		memcpy(s, c->in, c->left);
		memset(s + c->left, 0, size - c->left);
	}
}

static inline void code_count(struct code *c, struct ledger_count *v)
{
	code_u64(c, &v->packets);
	code_u64(c, &v->bytes);
}

static inline void code_span(struct code *c, struct ledger_span *v)
{
	code_u64(c, &v->from);
	code_u64(c, &v->to);
}

/*
 * The last of its entry: an entry of a version that knew fewer counters ends earlier, and has 0
 * of the others.
 */
static inline void code_ledger(struct code *c, struct ledger *l, struct ledger_span *lost)
{
	for (size_t i = 0; i <= LEDGER_COMMITTED; i++)
		code_count(c, &l->c[i]);
	for (size_t i = 0; i < LEDGER_LOSSES; i++)
		code_span(c, &lost[i]);
	for (size_t i = LEDGER_COMMITTED + 1; i < LEDGER_COUNTERS; i++) {
		if (c->out || c->left)
			code_count(c, &l->c[i]);
		else
			l->c[i] = (struct ledger_count){};
	}
}

void feed_code_number(struct code *c, uint64_t *number);
void feed_code_new(struct code *c, struct feed *f);
/* Is an entry from NEW on what it should be? 0 or -EBADMSG. */
int feed_check(const struct tlv *entry);
/*
 * Take an entry from AT on, which was checked, into @f. -ENOMEM: no memory, or no room for
 * another interface.
 */
int feed_load(struct feed *f, const struct tlv *entry);

#endif
