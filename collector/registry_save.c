/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All feeds in the journal, and back. The format: feed_code.h. A commit is checked as a whole
 * before anything of it is taken. What is in order but makes no sense (an entry of a feed that
 * is not there) is passed over: nothing better can be done with it.
 */
#include <errno.h>

#include "feed_code.h"
#include "registry_internal.h"

#define AGENTS_PER_ENTRY 8000u

static void code_sum(struct code *c, struct feed_sum *s)
{
	code_u64(c, &s->feeds);
	code_u64(c, &s->missing);
	s->verdict = code_small(c, s->verdict, VERDICT_UNKNOWN);
	code_u64(c, &s->unknown_after);
	code_u64(c, &s->unknown_until);
	code_span(c, &s->packets);
	code_ledger(c, &s->ledger, s->lost);
}

static void save_agents(struct buf *out, unsigned int file, const struct feed_agents *a)
{
	for (size_t i = 0; i < a->n;) {
		size_t mark = tlv_begin(out, ENTRY_AGENTS);

		buf_put_u8(out, (uint8_t)file);
		do
			buf_put_le64(out, a->v[i++]);
		while (i % AGENTS_PER_ENTRY && i < a->n);
		tlv_end(out, mark);
	}
}

static void save_total(struct registry *r, struct buf *out)
{
	struct feed_total t = {};
	struct code c = {.out = out};
	size_t mark;

	feed_total_add(&t, &r->loaded);
	feed_total_add(&t, &r->dropped);
	mark = tlv_begin(out, ENTRY_TOTAL);
	code_u64(&c, &r->last_number);
	code_sum(&c, &t.all);
	tlv_end(out, mark);
	for (unsigned int i = 0; i < FEED_FILES; i++) {
		mark = tlv_begin(out, ENTRY_FILE);
		code_small(&c, i, FEED_FILES - 1);
		code_sum(&c, &t.file[i]);
		tlv_end(out, mark);
		save_agents(out, i, &t.agents[i]);
	}
	feed_total_free(&t);
	r->total_changed = false;
}

void registry_save(struct registry *r, struct buf *out)
{
	pthread_mutex_lock(&r->lock);
	registry_drop_old(r);
	tlv_end(out, tlv_begin(out, ENTRY_RESET));
	save_total(r, out);
	for (struct feed *f = r->feeds; f; f = f->next)
		feed_save(f, true, out);
	buf_free(&r->forgotten);
	pthread_mutex_unlock(&r->lock);
}

void registry_save_changes(struct registry *r, struct buf *out)
{
	pthread_mutex_lock(&r->lock);
	for (size_t i = 0; i < r->forgotten.len; i += 8) {
		size_t mark = tlv_begin(out, ENTRY_FORGET);

		buf_put(out, r->forgotten.data + i, 8);
		tlv_end(out, mark);
	}
	/* A commit that cannot be whole is none. */
	out->failed |= buf_failed(&r->forgotten);
	if (r->total_changed)
		save_total(r, out);
	buf_reset(&r->forgotten);
	pthread_mutex_unlock(&r->lock);
}

static int check_entry(const struct tlv *entry)
{
	struct code c = {.in = entry->value, .left = entry->len};
	struct feed_sum sum = {};
	uint64_t number = 0;

	switch (entry->type) {
	case 0:
		return -EBADMSG;
	case ENTRY_RESET:
		break;
	case ENTRY_TOTAL:
		code_u64(&c, &number);
		code_sum(&c, &sum);
		c.bad |= number == UINT64_MAX;
		break;
	case ENTRY_FILE:
		code_small(&c, 0, FEED_FILES - 1);
		code_sum(&c, &sum);
		break;
	case ENTRY_AGENTS:
		code_small(&c, 0, FEED_FILES - 1);
		c.bad |= c.left % 8 > 0;
		break;
	case ENTRY_FORGET:
		feed_code_number(&c, &number);
		break;
	default:
		/* A newer version may have more to say. */
		return entry->type <= ENTRY_LAST ? feed_check(entry) : 0;
	}
	return c.bad ? -EBADMSG : 0;
}

static int check(const uint8_t *in, size_t n, struct err *err)
{
	struct tlv_reader reader = {in, n};
	struct tlv entry;
	int more;

	while ((more = tlv_next(&reader, &entry)) > 0)
		if (check_entry(&entry) < 0)
			return err_set(err, -EBADMSG, "entry at byte %zu, of type %u, is damaged",
				       (size_t)(entry.value - in) - 4, entry.type);
	return more < 0 ? err_set(err, -EBADMSG, "the entries are cut short") : 0;
}

static void reset(struct registry *r)
{
	struct feed *next;

	for (struct feed *f = r->feeds; f; f = next) {
		next = f->next;
		if (!f->refs)
			registry_remove(r, f);
	}
	feed_total_free(&r->loaded);
	feed_total_free(&r->dropped);
	r->loaded = r->dropped = (struct feed_total){};
	buf_free(&r->forgotten);
}

static void load_agents(struct registry *r, struct code *c)
{
	unsigned int file = code_small(c, 0, FEED_FILES - 1);
	uint64_t id = 0;

	while (c->left) {
		code_u64(c, &id);
		feed_agents_add(&r->loaded.agents[file], id);
	}
}

static int load_new(struct registry *r, struct code *c, struct err *err)
{
	struct stream_hello hello = {};
	struct feed key = {}, *f;

	feed_code_new(c, &key);
	hello.epoch = key.epoch;
	hello.first_unacked = 1;
	memcpy(hello.agent_id, key.agent_id, sizeof(hello.agent_id));
	for (f = r->feeds; f && !feed_is(f, key.identity, &hello);)
		f = f->next;
	/* All of it is told anew. */
	if (f && f->number == key.number) {
		f->saved = false; /* it is not to be forgotten */
		registry_remove(r, f);
	} else if (f || registry_find(r, key.number)) {
		return 0;
	}
	if (r->n_feeds >= r->limits.feeds && registry_evict(r, NULL, true) < 0)
		return 0;
	f = feed_new(key.identity, &hello, &r->room);
	if (!f)
		return err_set(err, -ENOMEM, "out of memory");
	f->number = key.number;
	f->state = FEED_LOST;
	f->loaded = true;
	f->saved = true;
	registry_add(r, f);
	return 0;
}

/* Its interfaces may have to take the place of another feed's. */
static int load_into(struct registry *r, struct feed *f, const struct tlv *entry, struct err *err)
{
	int e;

	do
		e = feed_load(f, entry);
	while (e == -ENOMEM && atomic_load(&r->room.used) >= r->room.max &&
	       registry_evict(r, NULL, true) == 0);
	if (e == -ENOMEM && atomic_load(&r->room.used) < r->room.max)
		return err_set(err, -ENOMEM, "out of memory");
	return 0;
}

struct load {
	struct feed *current; /* held */
};

static void choose(struct registry *r, struct load *load, struct feed *f)
{
	if (load->current)
		registry_let_go(r, load->current);
	load->current = f;
	if (f)
		registry_hold(r, f);
}

static int load_entry(struct registry *r, struct load *load, const struct tlv *entry,
		      struct err *err)
{
	struct code c = {.in = entry->value, .left = entry->len};
	uint64_t number = 0;
	struct feed *f;

	switch (entry->type) {
	case ENTRY_RESET:
		choose(r, load, NULL);
		reset(r);
		return 0;
	case ENTRY_TOTAL:
		code_u64(&c, &number);
		r->last_number = MAX(r->last_number, number);
		code_sum(&c, &r->loaded.all);
		return 0;
	case ENTRY_FILE:
		number = code_small(&c, 0, FEED_FILES - 1);
		code_sum(&c, &r->loaded.file[number]);
		return 0;
	case ENTRY_AGENTS:
		load_agents(r, &c);
		return 0;
	case ENTRY_FORGET:
		choose(r, load, NULL);
		feed_code_number(&c, &number);
		f = registry_find(r, number);
		if (f) {
			f->saved = false; /* no need to tell again */
			registry_remove(r, f);
		}
		return 0;
	case ENTRY_NEW:
		choose(r, load, NULL);
		return load_new(r, &c, err);
	case ENTRY_AT:
		feed_code_number(&c, &number);
		choose(r, load, registry_find(r, number));
		break;
	default:
		break;
	}
	if (!load->current || entry->type > ENTRY_LAST)
		return 0;
	return load_into(r, load->current, entry, err);
}

int registry_load(struct registry *r, const uint8_t *in, size_t n, struct err *err)
{
	struct tlv_reader reader = {in, n};
	struct load load = {};
	struct tlv entry;
	int e = check(in, n, err);

	if (e < 0)
		return e;
	pthread_mutex_lock(&r->lock);
	while (e == 0 && tlv_next(&reader, &entry) > 0)
		e = load_entry(r, &load, &entry, err);
	choose(r, &load, NULL);
	pthread_mutex_unlock(&r->lock);
	return e;
}
