/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the registry gives to the journal, and makes of it again. The model is the registry
 * itself: one that did the work, and one that was loaded, save the same.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */
#include <errno.h>

#define FEEDS_MAX   12u
#define RESTING_MAX 100000u
#include "feed_code.h"
#include "feed_internal.h"
#include "registry_bench.h"
#include "registry_internal.h"

static const struct registry_limits wide = {
	.feeds = FEEDS_MAX, .resting_ifaces = 100000, .ifaces = 100000};

static void load(struct registry *r, const struct buf *b)
{
	struct err err = {};

	if (registry_load(r, b->data, b->len, &err) < 0)
		fail_msg("%s", err.text);
}

static struct registry *fresh(void)
{
	struct registry *r = registry_new(&wide, NULL, collect_line, NULL);

	assert_non_null(r);
	registry_set_output(r, output);
	return r;
}

/* The registry as its own journal would have it after a crash now. */
static struct registry *reload(void)
{
	struct registry *r = fresh();
	struct buf b = {};

	registry_save(registry, &b);
	assert_false(buf_failed(&b));
	load(r, &b);
	buf_free(&b);
	return r;
}

/* Go on with what was loaded. */
static void restart(void)
{
	struct registry *r = reload();

	registry_free(registry);
	registry = r;
}

static struct feed *only_feed(void)
{
	assert_non_null(registry->feeds);
	assert_null(registry->feeds->next);
	return registry->feeds;
}

static void everything_comes_back(void **state)
{
	struct stream_iface iface = interface(7);
	struct stream_hello m = hello(5, 3, 3);
	const struct packet p = {.len = 100, .direction = 2, .time = 1234};
	struct registry_owner owner;
	struct feed_clock_sample best;
	struct feed *f;

	(void)state;
	m.clock_state = STREAM_CLOCK_SYNCED;
	m.clock_error_ns = 99;
	f = attach(&m, &owner, 3);
	iface.ifindex = 4;
	iface.netns = 5;
	iface.speed_mbps = 6;
	memset(iface.mac, 7, sizeof(iface.mac));
	assert_int_equal(feed_describe(f, &iface, NULL), 0);
	feed_tally(f, feed_find(f, 7), &p);
	feed_settle(f, FEED_WRITTEN, 0);
	feed_advance(f, 9);
	feed_tally(f, feed_find(f, 7), &p);
	feed_settle(f, FEED_WRITTEN, 777);
	feed_clock(f, 1000, 6000, 3000);
	restart();

	f = only_feed();
	assert_int_equal(f->next_seq, 9);
	assert_int_equal(f->partial, 777);
	assert_int_equal(atomic_load(&f->committed_seq), 8);
	assert_int_equal(f->state, FEED_LOST);
	/* No STATS came: the last packet. */
	assert_int_equal(f->unknown_after, 1234);
	assert_string_equal(f->agent_name, "web1");
	assert_string_equal(f->agent_id_text, "abcd0000-0000-0000-0000-000000000000");
	assert_memory_equal(&feed_find(f, 7)->meta, &iface, sizeof(iface));
	assert_int_equal(feed_find(f, 7)->side[1].committed.bytes, 200);
	assert_int_equal(feed_find(f, 7)->side[1].packets.from, 1234);
	assert_int_equal(feed_clock_best(f, &best), 3000);
	assert_int_equal(best.offset, 4000);
	assert_int_equal(best.rtt, 2000);
	assert_int_equal(f->clock_state, STREAM_CLOCK_SYNCED);
	assert_int_equal(f->clock_error, 99);
	assert_int_equal(f->highest_id, 7);

	/* The agent comes back and goes on. */
	m.next_seq = 20;
	assert_ptr_equal(attach(&m, &owner, 9), f);
	stats(f, 7, 0, 0);
	registry_detach(registry, f, &owner, FEED_CONNECTED, 0);
	report_has("\"synchronized\":true,\"error_ns\":99");
}

static void only_what_changed_is_saved(void **state)
{
	struct stream_hello m = hello(1, 1, 1);
	struct registry_owner owner;
	struct feed *f = attach(&m, &owner, 1);
	struct buf b = {};

	(void)state;
	for (uint32_t id = 1; id <= 100; id++) {
		struct stream_iface iface = interface(id);

		assert_int_equal(feed_describe(f, &iface, NULL), 0);
	}
	feed_save(f, false, &b);
	assert_true(b.len > 100 * 100);
	buf_reset(&b);
	write_packets(f, 50, 3);
	feed_advance(f, 2);
	feed_save(f, false, &b);
	assert_true(b.len < 120);
	buf_reset(&b);
	feed_save(f, false, &b);
	assert_true(b.len < 32);
	buf_free(&b);
	registry_detach(registry, f, &owner, FEED_LOST, 0);
}

static void a_dropped_stream_is_forgotten_and_counted_once(void **state)
{
	struct registry_owner owners[FEEDS_MAX + 1];
	struct registry *r = fresh();
	struct buf first = {}, second = {};
	struct feed *f = NULL;

	(void)state;
	for (uint64_t i = 0; i < FEEDS_MAX; i++) {
		const struct stream_hello m = hello(100 + i, 1, 1);
		const struct stream_iface iface = interface(1);

		f = attach(&m, &owners[i], 1);
		assert_int_equal(feed_describe(f, &iface, NULL), 0);
		write_packets(f, 1, 2);
		stats(f, 1, 2, 2);
		registry_detach(registry, f, &owners[i], FEED_ENDED, 0);
		registry_save_changes(registry, &first);
		feed_save(f, false, &first);
	}
	load(r, &first);
	assert_int_equal(r->n_feeds, FEEDS_MAX);

	/* One more pushes the first out. */
	f = attach(&(struct stream_hello){.epoch = 1, .first_unacked = 1, .next_seq = 1},
		   &owners[FEEDS_MAX], 1);
	registry_save_changes(registry, &second);
	feed_save(f, false, &second);
	load(r, &second);
	assert_int_equal(r->n_feeds, FEEDS_MAX);
	assert_null(registry_find(r, 1));
	assert_int_equal(r->last_number, FEEDS_MAX + 1);
	assert_int_equal(r->loaded.all.feeds, 1);
	assert_int_equal(r->loaded.file[0].ledger.c[LEDGER_COMMITTED].packets, 2);
	assert_int_equal(r->loaded.agents[0].n, 1);
	/* The same again changes nothing. */
	load(r, &second);
	assert_int_equal(r->loaded.all.feeds, 1);
	assert_int_equal(r->n_feeds, FEEDS_MAX);

	registry_detach(registry, f, &owners[FEEDS_MAX], FEED_ENDED, 0);
	registry_free(registry);
	registry = r;
	report_has("\"agents\":2,\"streams\":13,\"packets\":24,\"bytes\":2400,");
	buf_free(&first);
	buf_free(&second);
}

static void streams_that_ended_long_ago_only_count(void **state)
{
	const struct stream_iface iface = interface(1);
	const struct stream_hello m = hello(1, 1, 1), n = hello(2, 1, 1);
	struct registry_owner owner;
	struct feed *f = attach(&m, &owner, 1);

	(void)state;
	assert_int_equal(feed_describe(f, &iface, NULL), 0);
	write_packets(f, 1, 5);
	stats(f, 1, 5, 5);
	registry_detach(registry, f, &owner, FEED_ENDED, 0);
	/* Not yet: its agent may not have heard that all is well. */
	restart();
	report_has("epoch 1: complete");
	only_feed()->ended -= 3601 * NSEC_PER_SEC;
	f = attach(&n, &owner, 1);
	assert_ptr_equal(only_feed(), f);
	registry_detach(registry, f, &owner, FEED_LOST, 0);
	report_has("verdict over 2 streams: unknown");
	report_has("\"agents\":1,\"streams\":2,\"packets\":5,");
}

static void a_full_save_replaces_everything(void **state)
{
	const struct stream_hello m = hello(1, 1, 1), n = hello(2, 1, 1);
	struct registry *r = fresh();
	struct registry_owner owner;
	struct buf a = {}, b = {};

	(void)state;
	registry_detach(registry, attach(&m, &owner, 1), &owner, FEED_LOST, 0);
	registry_save(registry, &a);
	assert_int_equal(registry_evict(registry, NULL, true), 0);
	registry_detach(registry, attach(&n, &owner, 1), &owner, FEED_LOST, 0);
	registry_save(registry, &b);
	load(r, &a);
	assert_non_null(registry_find(r, 1));
	load(r, &b);
	assert_null(registry_find(r, 1));
	assert_int_equal(registry_find(r, 2)->epoch, 2);
	buf_free(&a);
	buf_free(&b);
	registry_free(r);
}

/* Everything that a random agent may do. */

static uint64_t seed;

static uint32_t rnd(uint32_t below)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(seed >> 33) % below;
}

#define PLAYERS 4u
struct player {
	struct feed *feed;
	struct registry_owner owner;
	uint32_t next_iface;
};

struct game {
	struct player players[PLAYERS];
	struct feed *touched[64];
	size_t n_touched;
	struct buf journal[2]; /* since the last full save: that, and what changed */
	bool folded;
	size_t last; /* where the last commit begins in the second */
};

static void touch(struct game *g, struct feed *f)
{
	for (size_t i = 0; i < g->n_touched; i++)
		if (g->touched[i] == f)
			return;
	atomic_fetch_add(&f->commits, 1);
	g->touched[g->n_touched++] = f;
}

static void play_session(struct game *g, struct player *p)
{
	static const enum feed_state states[] = {FEED_LOST,  FEED_LOST,   FEED_LOST,
						 FEED_ENDED, FEED_BROKEN, FEED_CONNECTED};
	char identity[16];
	uint64_t resume;

	if (p->feed) {
		registry_detach(registry, p->feed, &p->owner, states[rnd(ARRAY_SIZE(states))],
				rnd(2) * 5000);
		p->feed = NULL;
		return;
	}
	for (int tries = 0; tries < 3 && !p->feed; tries++) {
		struct stream_hello m = hello(rnd(20), 1, UINT32_MAX);

		m.agent_id[5] = (uint8_t)rnd(3);
		snprintf(identity, sizeof(identity), "%s", rnd(2) ? "psk" : "");
		if (rnd(10) == 0)
			m.first_unacked = 1 + rnd(500);
		p->owner = (struct registry_owner){.wake_fd = wake_fd};
		if (registry_attach(registry, identity, &m, &p->owner, &p->feed, &resume, NULL) < 0)
			p->feed = NULL;
	}
	if (!p->feed)
		return;
	/* Superseded by ourselves: that player's session is over. */
	for (size_t i = 0; i < PLAYERS; i++) {
		struct player *other = &g->players[i];

		if (other != p && other->feed == p->feed) {
			registry_detach(registry, other->feed, &other->owner, FEED_LOST, 0);
			other->feed = NULL;
		}
	}
	p->next_iface = 1 + (p->feed->n_ifaces ? p->feed->ifaces[p->feed->n_ifaces - 1]->meta.id
					       : (uint32_t)p->feed->folded_order * 3);
}

static uint32_t some_iface(const struct player *p)
{
	return p->next_iface > 1 ? p->next_iface - 1 - rnd(MIN(p->next_iface - 1, 6)) : 1;
}

/* Interfaces come and go until the oldest are summed up. */
static void play_crowd(struct player *p)
{
	for (uint32_t i = 0; i < FEED_GONE_MAX / 2; i++) {
		struct stream_iface iface = interface(p->next_iface++);

		iface.link_type = 1 + rnd(3) * 50;
		iface.gone = true;
		feed_describe(p->feed, &iface, NULL);
	}
}

static void play_meta(struct player *p)
{
	struct stream_iface iface = interface(some_iface(p));
	const struct feed_iface *known;

	if (rnd(2))
		iface = interface(p->next_iface++);
	known = feed_find(p->feed, iface.id);
	iface.link_type = known ? known->meta.link_type : rnd(3) ? LINK_ETHERNET : LINK_RAW;
	iface.gone = rnd(2);
	iface.speed_mbps = rnd(100000);
	feed_describe(p->feed, &iface, NULL);
}

static void play_data(struct player *p)
{
	struct feed_iface *iface = feed_find(p->feed, some_iface(p));

	for (uint32_t i = 0; iface && i < rnd(5); i++)
		feed_tally(p->feed, iface,
			   &(struct packet){.len = rnd(9000),
					    .direction = 1 + (int)rnd(2),
					    .time = rnd(1000000)});
	feed_settle(p->feed,
		    rnd(4)   ? FEED_WRITTEN
		    : rnd(2) ? FEED_UNSUPPORTED
			     : FEED_FORGET,
		    rnd(3) ? 0 : rnd(10000));
}

static void play_stats(struct player *p)
{
	struct stream_stats_part parts[2] = {};
	const struct stream_stats m = {.time = rnd(1000000), .parts = parts, .n_parts = 1 + rnd(2)};

	for (size_t i = 0; i < m.n_parts; i++) {
		parts[i].iface = some_iface(p);
		parts[i].direction = (uint8_t)(1 + rnd(2));
		for (size_t c = 0; c < LEDGER_COUNTERS; c++)
			parts[i].counts.c[c] = (struct ledger_count){rnd(1000), rnd(100000)};
	}
	feed_stats(p->feed, &m, NULL);
}

static void play_gap(struct player *p)
{
	struct stream_gap_part part = {.iface = some_iface(p),
				       .direction = (uint8_t)(1 + rnd(2)),
				       .first = rnd(1000),
				       .last = 1000 + rnd(1000),
				       .lost = {rnd(100), rnd(10000)}};
	const struct stream_gap m = {.reason = 1 + rnd(3), .parts = &part, .n_parts = rnd(10) > 0};

	feed_gap(p->feed, &m, NULL);
}

static void play(struct game *g)
{
	struct player *p = &g->players[rnd(PLAYERS)];

	if (!p->feed || rnd(40) == 0) {
		struct feed *before = p->feed;

		/* As the session does: it is touched before it may be gone. */
		if (before)
			touch(g, before);
		play_session(g, p);
		if (p->feed)
			touch(g, p->feed);
		return;
	}
	touch(g, p->feed);
	if (rnd(100) == 0)
		play_crowd(p);
	switch (rnd(7)) {
	case 0:
	case 1:
		play_meta(p);
		break;
	case 2:
		play_data(p);
		break;
	case 3:
		play_stats(p);
		break;
	case 4:
		play_gap(p);
		break;
	case 5:
		feed_clock(p->feed, 1000 + rnd(100), rnd(100000), 2000 + rnd(1000));
		break;
	default:
		feed_advance(p->feed, p->feed->next_seq + 1 + rnd(3));
		break;
	}
}

static void commit_game(struct game *g)
{
	bool all = rnd(8) == 0 || !g->journal[0].len;

	if (all) {
		buf_reset(&g->journal[0]);
		buf_reset(&g->journal[1]);
		registry_save(registry, &g->journal[0]);
	}
	g->last = g->journal[1].len;
	if (!all)
		registry_save_changes(registry, &g->journal[1]);
	for (size_t i = 0; i < g->n_touched; i++) {
		struct feed *f = g->touched[i];

		if (!all)
			feed_save(f, false, &g->journal[1]);
		feed_commit(f, f->next_seq - 1);
		atomic_fetch_sub(&f->commits, 1);
	}
	g->n_touched = 0;
}

static void compare_feeds(struct feed *is, struct feed *was)
{
	struct buf a = {}, b = {};

	/* That is another state after a crash. */
	if (was->state == FEED_CONNECTED) {
		assert_int_equal(is->state, FEED_LOST);
		is->state = FEED_CONNECTED;
		is->ended = was->ended;
		is->unknown_after = was->unknown_after;
	}
	assert_int_equal(atomic_load(&is->committed_seq), was->next_seq - 1);
	assert_int_equal(is->n_gone, was->n_gone);
	feed_save(is, true, &a);
	feed_save(was, true, &b);
	assert_int_equal(a.len, b.len);
	assert_memory_equal(a.data, b.data, a.len);
	buf_free(&a);
	buf_free(&b);
}

/* What precedes the feeds. */
static size_t totals_size(const struct buf *b)
{
	struct tlv_reader reader = {b->data, b->len};
	struct tlv entry;

	while (tlv_next(&reader, &entry) > 0 && entry.type < ENTRY_NEW)
		;
	return (size_t)(entry.value - b->data) - 4;
}

static void compare_with_loaded(struct game *g)
{
	struct registry *r = fresh();
	struct buf a = {}, b = {};

	load(r, &g->journal[0]);
	load(r, &g->journal[1]);
	/* To read a commit again does no harm. */
	assert_int_equal(
		registry_load(r, g->journal[1].data + g->last, g->journal[1].len - g->last, NULL),
		0);
	assert_int_equal(r->n_feeds, registry->n_feeds);
	assert_int_equal(atomic_load(&r->room.used), atomic_load(&registry->room.used));
	for (struct feed *f = registry->feeds; f; f = f->next) {
		g->folded |= f->folded_order > 0;
		assert_non_null(registry_find(r, f->number));
		compare_feeds(registry_find(r, f->number), f);
	}
	registry_save(r, &a);
	registry_save(registry, &b);
	if (registry->feeds) {
		assert_int_equal(totals_size(&a), totals_size(&b));
		/* last_number is only as high as the journal knows. */
		assert_memory_equal(a.data + 16, b.data + 16, totals_size(&a) - 16);
	}
	buf_free(&a);
	buf_free(&b);
	registry_free(r);
}

static void what_is_loaded_is_what_was_saved(void **state)
{
	struct game g = {};

	(void)state;
	seed = 20261122;
	for (int i = 0; i < 30000; i++) {
		play(&g);
		if (g.n_touched > 40 || rnd(20) == 0)
			commit_game(&g);
		if (rnd(150) == 0) {
			commit_game(&g);
			compare_with_loaded(&g);
		}
	}
	assert_true(g.folded);
	assert_int_not_equal(registry->dropped.all.feeds, 0);
	assert_int_not_equal(registry->dropped.agents[1].n, 0);
	for (size_t i = 0; i < PLAYERS; i++)
		if (g.players[i].feed)
			registry_detach(registry, g.players[i].feed, &g.players[i].owner, FEED_LOST,
					0);
	buf_free(&g.journal[0]);
	buf_free(&g.journal[1]);
}

static size_t saved_size(void)
{
	struct buf b = {};
	size_t n;

	registry_save(registry, &b);
	n = b.len;
	buf_free(&b);
	return n;
}

static void what_is_saved_has_its_bounds(void **state)
{
	size_t empty = saved_size(), with_feed;
	struct stream_iface iface = interface(1);
	struct stream_hello m = hello(1, 1, 1);
	struct registry_owner owner = {.wake_fd = wake_fd};
	char identity[FEED_IDENTITY_MAX];
	struct feed *f;
	uint64_t resume;

	(void)state;
	memset(identity, 'i', sizeof(identity) - 1);
	identity[sizeof(identity) - 1] = '\0';
	memset(m.agent_name, 'n', STREAM_NAME_MAX);
	memset(iface.name, 'e', STREAM_NAME_MAX);
	assert_int_equal(registry_attach(registry, identity, &m, &owner, &f, &resume, NULL), 0);
	for (unsigned int i = 0; i < FEED_FILES; i++)
		feed_sum_of_gone(f, i);
	with_feed = saved_size();
	assert_in_range(with_feed - empty, 2000, REGISTRY_FEED_BYTES);
	assert_int_equal(feed_describe(f, &iface, NULL), 0);
	for (int d = 0; d < 2; d++)
		feed_find(f, 1)->side[d].unseen.to = 1;
	assert_in_range(saved_size() - with_feed, 700, REGISTRY_IFACE_BYTES);
}

/* A feed with something in every part. */
static void make_sample(struct buf *out)
{
	const struct stream_iface a = interface(1), b = interface(2);
	struct registry_owner owner;
	struct stream_hello m = hello(1, 1, 1);
	struct feed *f = attach(&m, &owner, 1);

	assert_int_equal(feed_describe(f, &a, NULL), 0);
	assert_int_equal(feed_describe(f, &b, NULL), 0);
	write_packets(f, 1, 3);
	stats(f, 2, 1, 1);
	registry_detach(registry, f, &owner, FEED_LOST, 0);
	m.epoch++;
	f = attach(&m, &owner, 1);
	registry_evict(registry, NULL, true);
	registry_save(registry, out);
	registry_detach(registry, f, &owner, FEED_ENDED, 0);
	registry_save_changes(registry, out);
	feed_save(f, false, out);
}

/* Journals of versions that knew fewer counters: the entries with ledgers end earlier. */
static void entries_without_the_newest_counters_are_taken(void **state)
{
	const size_t newer = (LEDGER_COUNTERS - 1 - LEDGER_COMMITTED) * 16;
	const struct stream_iface iface = interface(1);
	const struct stream_hello m = hello(1, 1, 1);
	struct registry *now = fresh(), *then = fresh();
	struct buf full = {}, old = {};
	struct tlv_reader reader;
	struct registry_owner owner;
	struct feed *f = attach(&m, &owner, 1);
	struct feed_side *side;
	struct tlv t;

	(void)state;
	assert_int_equal(feed_describe(f, &iface, NULL), 0);
	write_packets(f, 1, 3);
	stats(f, 1, 3, 1);
	side = &feed_find(f, 1)->side[0];
	side->stats.c[LEDGER_SLICED].packets = 2;
	side->unseen = (struct ledger_span){5, 7};
	feed_save(f, true, &full);
	reader = (struct tlv_reader){full.data, full.len};
	while (tlv_next(&reader, &t) > 0) {
		size_t mark = tlv_begin(&old, t.type);

		buf_put(&old, t.value, t.len - (t.type == ENTRY_STATS ? newer : 0));
		tlv_end(&old, mark);
	}
	load(now, &full);
	load(then, &old);
	assert_memory_equal(&feed_find(now->feeds, 1)->side[0].unseen, &side->unseen,
			    sizeof(side->unseen));
	assert_true(ledger_equal(&feed_find(now->feeds, 1)->side[0].stats, &side->stats));
	side->stats.c[LEDGER_SLICED].packets = 0;
	assert_true(ledger_equal(&feed_find(then->feeds, 1)->side[0].stats, &side->stats));
	assert_memory_equal(feed_find(then->feeds, 1)->side[0].lost, side->lost,
			    sizeof(side->lost));

	registry_free(now);
	registry_free(then);
	buf_free(&full);
	buf_free(&old);
	registry_detach(registry, f, &owner, FEED_LOST, 0);
}

/* An exact copy, so that a read behind it is seen. */
static int load_copy(const uint8_t *data, size_t n, struct registry *r)
{
	uint8_t *copy = malloc(n ? n : 1);
	int e;

	assert_non_null(copy);
	memcpy(copy, data, n);
	e = registry_load(r, copy, n, NULL);
	free(copy);
	return e;
}

static void a_commit_that_is_cut_is_refused_whole(void **state)
{
	struct tlv_reader reader;
	struct buf b = {};
	struct tlv entry;
	size_t at = 0;

	(void)state;
	make_sample(&b);
	reader = (struct tlv_reader){b.data, b.len};
	for (size_t n = 0; n < b.len; n++) {
		struct registry *r = fresh();
		int e = load_copy(b.data, n, r);

		/* Between two entries there is nothing to see; the journal's checksum is. */
		if (n == at) {
			assert_int_equal(e, 0);
			assert_int_equal(tlv_next(&reader, &entry), 1);
			at = (size_t)(entry.value - b.data) + entry.len;
		} else {
			assert_int_equal(e, -EBADMSG);
			assert_null(r->feeds);
			assert_int_equal(r->last_number, 0);
		}
		registry_free(r);
	}
	buf_free(&b);
}

static void flipped_bits_do_no_harm(void **state)
{
	struct buf b = {};

	(void)state;
	make_sample(&b);
	for (size_t i = 0; i < b.len; i++) {
		for (unsigned int bit = 0; bit < 8; bit++) {
			struct registry *r = fresh();

			b.data[i] ^= (uint8_t)(1u << bit);
			if (load_copy(b.data, b.len, r) == 0) {
				load_copy(b.data, b.len, r);
				registry_report(r);
				free(lines);
				lines = NULL;
			}
			b.data[i] ^= (uint8_t)(1u << bit);
			registry_free(r);
		}
	}
	buf_free(&b);
}

static void bounds_apply_to_what_is_loaded(void **state)
{
	const struct registry_limits narrow = {.feeds = 3, .resting_ifaces = 5, .ifaces = 7};
	struct registry *r = registry_new(&narrow, output, collect_line, NULL);
	struct buf b = {};

	(void)state;
	for (uint64_t i = 0; i < FEEDS_MAX; i++) {
		const struct stream_hello m = hello(i, 1, 1);
		struct registry_owner owner;
		struct feed *f = attach(&m, &owner, 1);

		for (uint32_t id = 0; id < 4; id++) {
			const struct stream_iface iface = interface(id);

			assert_int_equal(feed_describe(f, &iface, NULL), 0);
			write_packets(f, id, 1);
		}
		registry_detach(registry, f, &owner, FEED_LOST, 0);
		feed_save(f, false, &b);
	}
	free(lines);
	lines = NULL;
	load(r, &b);
	assert_true(r->n_feeds <= 3);
	assert_true(atomic_load(&r->room.used) <= 7);
	/* Nothing is told before there is an output, and nothing is missing in the sum. */
	assert_null(lines);
	registry_free(registry);
	registry = r;
	report_has("verdict over 12 streams: unknown");
	report_has("48 packets (4800 bytes) written");
	buf_free(&b);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(everything_comes_back),
		TEST(only_what_changed_is_saved),
		TEST(a_dropped_stream_is_forgotten_and_counted_once),
		TEST(streams_that_ended_long_ago_only_count),
		TEST(a_full_save_replaces_everything),
		TEST(what_is_loaded_is_what_was_saved),
		TEST(what_is_saved_has_its_bounds),
		TEST(entries_without_the_newest_counters_are_taken),
		TEST(a_commit_that_is_cut_is_refused_whole),
		TEST(flipped_bits_do_no_harm),
		TEST(bounds_apply_to_what_is_loaded),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
