/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#define FEEDS_MAX 4u
#include "feed_internal.h"
#include "noise.h"
#include "registry_bench.h"
#include "registry_internal.h"

static void new_stream_starts_where_the_agent_is(void **state)
{
	struct stream_hello m = hello(1, 17, 20);
	struct registry_owner owner;
	struct feed *f = attach(&m, &owner, 17);

	(void)state;
	assert_string_equal(f->agent_id_text, "abcd0000-0000-0000-0000-000000000000");
	registry_detach(registry, f, &owner, FEED_LOST, 0);
}

static void known_stream_resumes_here(void **state)
{
	struct stream_hello m = hello(1, 1, 1);
	struct registry_owner owner;
	struct feed *f = attach(&m, &owner, 1);

	(void)state;
	feed_advance(f, 10);
	feed_commit(f, 9);
	registry_detach(registry, f, &owner, FEED_LOST, 0);
	report_has("unknown after ");

	m = hello(1, 8, 12);
	assert_ptr_equal(attach(&m, &owner, 10), f);
	report_has("verdict over 1 streams: complete");
	registry_detach(registry, f, &owner, FEED_LOST, 0);
}

static void epochs_and_identities_are_streams_of_their_own(void **state)
{
	struct stream_hello m = hello(1, 1, 1), n = hello(2, 1, 1);
	struct registry_owner owners[3];
	struct feed *a = attach(&m, &owners[0], 1), *b = attach(&n, &owners[1], 1), *c = NULL;
	uint64_t resume;

	(void)state;
	owners[2] = (struct registry_owner){.wake_fd = wake_fd};
	assert_int_equal(registry_attach(registry, "other", &m, &owners[2], &c, &resume, NULL), 0);
	assert_ptr_not_equal(a, b);
	assert_ptr_not_equal(a, c);
	assert_false(atomic_load(&owners[0].superseded));
	report_has("verdict over 3 streams: complete");
}

/* The number to resume at, or an error. */
static long attach_as(const char *identity, const char *name, uint64_t epoch,
		      struct registry_owner *owner, struct feed **ret)
{
	struct stream_hello m = hello(epoch, 1, 1);
	uint64_t resume;
	struct err err;
	int r;

	snprintf(m.agent_name, sizeof(m.agent_name), "%s", name);
	*owner = (struct registry_owner){.wake_fd = wake_fd};
	r = registry_attach(registry, identity, &m, owner, ret, &resume, &err);
	if (r == -EACCES)
		assert_non_null(strstr(err.text, "belongs to "));
	return r < 0 ? r : (long)resume;
}

static void a_name_belongs_to_one_identity(void **state)
{
	struct registry_owner a, b;
	struct feed *f, *g;

	(void)state;
	assert_int_equal(attach_as("spiffe://a/web1", "web1", 1, &a, &f), 1);
	assert_int_equal(attach_as("spiffe://b/web1", "web1", 2, &b, &g), -EACCES);
	assert_int_equal(attach_as("spiffe://b/web1", "WEB1", 2, &b, &g), -EACCES);
	assert_int_equal(attach_as("spiffe://b/web1", "web2", 2, &b, &g), 1);
	registry_detach(registry, g, &b, FEED_LOST, 0);
	/* Its own agent has it, in any number of streams, and those who share an identity. */
	assert_int_equal(attach_as("spiffe://a/web1", "web1", 3, &b, &g), 1);
	registry_detach(registry, g, &b, FEED_LOST, 0);
	assert_int_equal(attach_as("urn:ps:agent", "web1", 4, &b, &g), 1);
	registry_detach(registry, g, &b, FEED_ENDED, 0);

	registry_detach(registry, f, &a, FEED_LOST, 0);
	assert_int_equal(attach_as("spiffe://b/web1", "web1", 5, &b, &g), -EACCES);
	/* A goodbye, or an hour, sets it free. */
	for (f = registry->feeds; f; f = f->next) {
		if (f->epoch == 1)
			f->ended -= 3601 * NSEC_PER_SEC;
		else if (f->epoch == 3)
			f->state = FEED_ENDED;
	}
	assert_int_equal(attach_as("spiffe://b/web1", "web1", 5, &b, &g), 1);
	registry_detach(registry, g, &b, FEED_LOST, 0);
}

static void one_peer_cannot_push_out_the_streams_of_others(void **state)
{
	const struct registry_limits limits = {
		.feeds = 1000, .resting_ifaces = 1000, .ifaces = 1000};
	struct registry_owner o;
	struct feed *f;

	(void)state;
	registry_free(registry);
	registry = registry_new(&limits, output, collect_line, NULL);
	assert_int_equal(attach_as("spiffe://a/web1", "web1", 1, &o, &f), 1);
	registry_detach(registry, f, &o, FEED_LOST, 0);
	for (uint64_t epoch = 1; epoch <= REGISTRY_RESTING_MAX + 3; epoch++) {
		assert_int_equal(attach_as("spiffe://b/web2", "web2", epoch, &o, &f), 1);
		registry_detach(registry, f, &o, FEED_LOST, 0);
	}
	assert_int_equal(registry->n_feeds, 1 + REGISTRY_RESTING_MAX);
	/* The oldest of its own went. */
	for (f = registry->feeds; f; f = f->next)
		assert_true(f->epoch > 3 || !strcmp(f->identity, "spiffe://a/web1"));
}

/* All lose their connection at once. */
static void agents_that_share_a_wildcard_keep_their_streams(void **state)
{
	const struct registry_limits limits = {
		.feeds = 1000, .resting_ifaces = 1000, .ifaces = 1000};
	const uint64_t n = REGISTRY_RESTING_MAX + 20;
	struct registry_owner owner = {.wake_fd = wake_fd};
	struct feed *f;
	uint64_t resume;

	(void)state;
	registry_free(registry);
	registry = registry_new(&limits, output, collect_line, NULL);
	for (int round = 0; round < 2; round++) {
		for (uint64_t i = 1; i <= n; i++) {
			struct stream_hello m = hello(1, 1, round ? 100 : 1);

			put_le64(m.agent_id, i);
			snprintf(m.agent_name, sizeof(m.agent_name), "web%u", (unsigned int)i);
			assert_int_equal(registry_attach(registry, "*.berlin.example", &m, &owner,
							 &f, &resume, NULL),
					 0);
			assert_int_equal(resume, round ? 10 : 1);
			feed_advance(f, 10);
			feed_commit(f, 9);
			registry_detach(registry, f, &owner, FEED_LOST, 0);
		}
	}
}

static void the_committer_keeps_a_stream(void **state)
{
	struct registry_owner owners[FEEDS_MAX + 1];
	struct feed *feeds[FEEDS_MAX], *f;

	(void)state;
	for (uint64_t i = 0; i < FEEDS_MAX; i++) {
		assert_int_equal(attach_as("", "web1", i, &owners[i], &feeds[i]), 1);
		atomic_fetch_add(&feeds[i]->commits, 1);
		registry_detach(registry, feeds[i], &owners[i], FEED_ENDED, 0);
	}
	assert_int_equal(attach_as("", "web1", 99, &owners[FEEDS_MAX], &f), -ENOSPC);
	atomic_fetch_sub(&feeds[1]->commits, 1);
	assert_int_equal(attach_as("", "web1", 99, &owners[FEEDS_MAX], &f), 1);
	assert_null(registry_find(registry, 2));
	assert_ptr_equal(registry_find(registry, 1), feeds[0]);
}

static void a_recovered_stream_may_have_less_than_is_here(void **state)
{
	struct stream_hello m = hello(1, 1, 1);
	struct registry_owner owner, other = {.wake_fd = wake_fd};
	struct feed *f = attach(&m, &owner, 1);
	uint64_t resume;

	(void)state;
	feed_advance(f, 20);
	feed_commit(f, 14);
	registry_detach(registry, f, &owner, FEED_LOST, 0);
	m.first_unacked = 8;
	m.next_seq = 12;
	assert_int_equal(registry_attach(registry, "", &m, &other, &f, &resume, NULL), -EPROTO);
	m.recovered = true;
	f = attach(&m, &owner, 15);
	assert_int_equal(f->next_seq, 20);
	registry_detach(registry, f, &owner, FEED_BROKEN, 1);

	/* Committed elsewhere, though not here yet. */
	m = hello(1, 17, 25);
	f = attach(&m, &owner, 17);
	assert_int_equal(f->next_seq, 20);
	registry_detach(registry, f, &owner, FEED_LOST, 0);
}

static void a_commit_never_goes_back(void **state)
{
	struct stream_hello m = hello(1, 10, 10);
	struct registry_owner owner;
	struct feed *f = attach(&m, &owner, 10);

	(void)state;
	feed_commit(f, 5);
	assert_int_equal(atomic_load(&f->committed_seq), 9);
	m.first_unacked = m.next_seq = 30;
	registry_detach(registry, f, &owner, FEED_LOST, 0);
	f = attach(&m, &owner, 30);
	/* A group from before comes through. */
	feed_commit(f, 12);
	assert_int_equal(atomic_load(&f->committed_seq), 29);
	registry_detach(registry, f, &owner, FEED_LOST, 0);
}

static void counts_that_went_elsewhere_are_adopted(void **state)
{
	struct stream_iface iface = interface(1);
	struct stream_hello m = hello(1, 1, 1);
	struct registry_owner owner;
	struct feed *f;

	(void)state;
	m.ifaces = &iface;
	m.n_ifaces = 1;
	iface.committed[0] = (struct ledger_count){5, 500};
	f = attach(&m, &owner, 1);
	write_packets(f, 1, 2);
	feed_advance(f, 3);
	feed_commit(f, 2);
	report_has("7 packets (700 bytes) written");
	registry_detach(registry, f, &owner, FEED_LOST, 0);

	/* Known here: what the agent believes is behind what is so. */
	m.next_seq = 3;
	f = attach(&m, &owner, 3);
	report_has("7 packets (700 bytes) written");
	registry_detach(registry, f, &owner, FEED_LOST, 0);

	/* Messages 3 to 8 went to another collector. */
	iface.committed[0] = (struct ledger_count){20, 2000};
	m.first_unacked = m.next_seq = 9;
	f = attach(&m, &owner, 9);
	report_has("20 packets (2000 bytes) written");
	/* What the agent lost meanwhile it has yet to say. */
	report_has("verdict over 1 streams: unknown");
	stats(f, 1, 20, 20);
	report_has("verdict over 1 streams: complete");
	registry_detach(registry, f, &owner, FEED_LOST, 0);
}

static void refused_hello_leaves_no_trace(void **state)
{
	struct stream_iface ifaces[] = {interface(1), interface(1)};
	struct stream_hello m = hello(1, 1, 1), bad = hello(2, 1, 1);
	struct registry_owner owner, other = {.wake_fd = wake_fd};
	struct feed *f = attach(&m, &owner, 1), *none;
	uint64_t resume;

	(void)state;
	feed_advance(f, 10);
	registry_detach(registry, f, &owner, FEED_ENDED, 0);
	assert_int_equal(registry_attach(registry, "", &m, &other, &none, &resume, NULL), -EPROTO);
	ifaces[1].link_type = LINK_RAW;
	bad.ifaces = ifaces;
	bad.n_ifaces = 2;
	assert_int_equal(registry_attach(registry, "", &bad, &other, &none, &resume, NULL),
			 -EPROTO);
	report_has("verdict over 1 streams: complete");
}

/* Its session was superseded by a HELLO that was refused then. */
static void stream_of_a_refused_hello_is_lost_now(void **state)
{
	struct stream_hello m = hello(1, 1, 1);
	struct registry_owner owner, other = {.wake_fd = wake_fd};
	struct feed *f = attach(&m, &owner, 1), *none;
	uint64_t resume;

	(void)state;
	feed_advance(f, 10);
	assert_int_equal(registry_attach(registry, "", &m, &other, &none, &resume, NULL), -EPROTO);
	registry_detach(registry, f, &owner, FEED_LOST, 0);
	assert_int_equal(f->state, FEED_LOST);
	assert_in_range(f->ended, clock_realtime() - 60 * NSEC_PER_SEC, clock_realtime());
	report_has("unknown after ");
}

static void superseded_session_cannot_write(void **state)
{
	struct stream_hello m = hello(1, 1, 1);
	struct registry_owner first, second;
	struct feed *f = attach(&m, &first, 1);
	uint64_t count;

	(void)state;
	assert_true(registry_begin(f, &first));
	registry_end(f);
	attach(&m, &second, 1);
	assert_true(atomic_load(&first.superseded));
	assert_int_equal(read(wake_fd, &count, sizeof(count)), sizeof(count));
	assert_false(registry_begin(f, &first));
	assert_true(registry_begin(f, &second));
	registry_end(f);
	/* Its end says nothing about the stream. */
	registry_detach(registry, f, &first, FEED_LOST, 0);
	report_has("verdict over 1 streams: complete");
	registry_detach(registry, f, &second, FEED_LOST, 0);
	report_has("verdict over 1 streams: unknown");
}

struct late_writer {
	struct feed *f;
	struct registry_owner *owner;
	pthread_barrier_t writing;
};

/* Is in the middle of message 1 when the agent connects again. */
static void *write_late(void *arg)
{
	struct late_writer *w = arg;

	assert_true(registry_begin(w->f, w->owner));
	pthread_barrier_wait(&w->writing);
	while (!atomic_load(&w->owner->superseded))
		sched_yield();
	feed_advance(w->f, 2);
	feed_commit(w->f, 1);
	registry_end(w->f);
	registry_detach(registry, w->f, w->owner, FEED_LOST, 0);
	return NULL;
}

static void write_under_way_is_finished_before_the_resume(void **state)
{
	struct stream_hello m = hello(1, 1, 1), again = hello(1, 1, 2);
	struct registry_owner first, second;
	struct late_writer w = {.f = attach(&m, &first, 1), .owner = &first};
	pthread_t thread;

	(void)state;
	pthread_barrier_init(&w.writing, NULL, 2);
	assert_int_equal(pthread_create(&thread, NULL, write_late, &w), 0);
	pthread_barrier_wait(&w.writing);
	attach(&again, &second, 2);
	pthread_join(thread, NULL);
	pthread_barrier_destroy(&w.writing);
	registry_detach(registry, w.f, &second, FEED_LOST, 0);
}

static void stream_that_ended_goes_after_a_last_report(void **state)
{
	struct registry_owner owners[FEEDS_MAX + 2];
	struct feed *feeds[FEEDS_MAX];
	struct stream_hello m;
	struct feed *f;
	uint64_t resume;
	struct err err;

	(void)state;
	for (uint64_t i = 0; i < FEEDS_MAX; i++) {
		m = hello(100 + i, 1, 1);
		feeds[i] = attach(&m, &owners[i], 1);
	}
	/* All are connected: there is no room. */
	m = hello(200, 1, 1);
	owners[FEEDS_MAX] = (struct registry_owner){.wake_fd = wake_fd};
	assert_int_equal(registry_attach(registry, "", &m, &owners[FEEDS_MAX], &f, &resume, &err),
			 -ENOSPC);

	registry_detach(registry, feeds[1], &owners[1], FEED_LOST, 0);
	registry_detach(registry, feeds[0], &owners[0], FEED_ENDED, 0);
	free(lines);
	lines = NULL;
	attach(&m, &owners[FEEDS_MAX], 1);
	assert_non_null(lines);
	assert_non_null(strstr(lines, "epoch 100: complete"));
	assert_null(strstr(lines, "epoch 101"));
	/* It counts in the total for ever. */
	report_has("verdict over 5 streams: unknown");
}

/* A stream with three interfaces whose first message was taken. */
static struct feed *attach_three(uint64_t epoch, struct registry_owner *owner)
{
	const struct stream_hello m = hello(epoch, 1, 2);
	struct feed *f = attach(&m, owner, 1);

	for (uint32_t id = 1; id <= 3; id++) {
		const struct stream_iface iface = interface(id);

		assert_int_equal(feed_describe(f, &iface, NULL), 0);
	}
	feed_advance(f, 2);
	feed_commit(f, 1);
	return f;
}

static void interfaces_of_streams_at_rest_are_bounded(void **state)
{
	struct stream_hello m = hello(101, 1, 2);
	struct registry_owner owners[3];
	struct feed *feeds[3];

	(void)state;
	for (uint64_t i = 0; i < 3; i++)
		feeds[i] = attach_three(100 + i, &owners[i]);
	registry_detach(registry, feeds[0], &owners[0], FEED_LOST, 0);
	assert_null(lines);
	registry_detach(registry, feeds[1], &owners[1], FEED_LOST, 0);
	assert_non_null(strstr(lines, "epoch 100: unknown after"));
	assert_null(strstr(lines, "epoch 101"));

	/* The other is still known, and not at rest while it is carried. */
	feeds[1] = attach(&m, &owners[1], 2);
	registry_detach(registry, feeds[1], &owners[1], FEED_LOST, 0);
	assert_null(strstr(lines, "epoch 101"));

	/* One that said goodbye goes before it, though it ended later. */
	registry_detach(registry, feeds[2], &owners[2], FEED_ENDED, 0);
	assert_null(strstr(lines, "epoch 101"));
	attach(&m, &owners[1], 2);
	report_has("verdict over 3 streams: unknown");
}

static void goodbye_is_reported_and_checked(void **state)
{
	struct stream_hello m = hello(1, 1, 1);
	struct stream_iface iface = interface(1);
	struct registry_owner owner;
	struct feed *f = attach(&m, &owner, 1);

	(void)state;
	assert_int_equal(feed_describe(f, &iface, NULL), 0);
	write_packets(f, 1, 3);
	stats(f, 1, 3, 4);
	registry_detach(registry, f, &owner, FEED_ENDED, 0);
	assert_non_null(strstr(lines, "ledger {\"agent\":\"web1\""));
	assert_non_null(strstr(lines, "\"file\":\"/tmp/ps-registry-"));
	assert_non_null(strstr(lines, "warning: the ledger of agent \"web1\", interface \"eth1\""));
}

static void packets_not_yet_here_are_no_loss_while_connected(void **state)
{
	struct stream_hello m = hello(1, 1, 1);
	struct stream_iface iface = interface(1);
	struct registry_owner owner;
	struct feed *f = attach(&m, &owner, 1);

	(void)state;
	assert_int_equal(feed_describe(f, &iface, NULL), 0);
	stats(f, 1, 3, 3);
	report_has("complete: 0 packets (0 bytes) written, 0 lost, 3 under way");
	registry_detach(registry, f, &owner, FEED_ENDED, 0);
	report_has(
		"incomplete: 3 of 3 packets lost: 3 did not arrive; 0 packets (0 bytes) written");
}

static void interfaces_are_bounded(void **state)
{
	struct stream_hello m = hello(1, 1, 1);
	struct registry_owner owner;
	struct feed *f = attach(&m, &owner, 1);
	struct stream_iface iface;

	(void)state;
	/* Rising and falling, to exercise the order. */
	for (uint32_t i = 0; i < STREAM_INTERFACES_MAX; i++) {
		iface = interface(i % 2 ? 5000 - i : 5000 + i);
		assert_int_equal(feed_describe(f, &iface, NULL), 0);
	}
	for (uint32_t i = 0; i < STREAM_INTERFACES_MAX; i++)
		assert_non_null(feed_find(f, i % 2 ? 5000 - i : 5000 + i));
	iface = interface(1);
	assert_int_equal(feed_describe(f, &iface, NULL), -EPROTO);
	/* One that goes makes room. */
	iface = interface(5000);
	iface.gone = true;
	assert_int_equal(feed_describe(f, &iface, NULL), 0);
	iface = interface(1);
	assert_int_equal(feed_describe(f, &iface, NULL), 0);
	iface.link_type = LINK_RAW;
	assert_int_equal(feed_describe(f, &iface, NULL), -EPROTO);
}

static void interfaces_long_gone_are_summed_up(void **state)
{
	struct stream_hello m = hello(1, 1, 1);
	struct registry_owner owner;
	struct feed *f = attach(&m, &owner, 1);
	uint32_t n = FEED_GONE_MAX + 10;

	(void)state;
	for (uint32_t id = 1; id <= n; id++) {
		struct stream_iface iface = interface(id);

		assert_int_equal(feed_describe(f, &iface, NULL), 0);
		write_packets(f, id, 1);
		stats(f, id, 1, 1);
		iface.gone = true;
		assert_int_equal(feed_describe(f, &iface, NULL), 0);
	}
	assert_null(feed_find(f, 1));
	assert_non_null(feed_find(f, n));
	/* Its counters may be repeated; they are in the sum already. */
	stats(f, 1, 1, 1);
	registry_detach(registry, f, &owner, FEED_ENDED, 0);
	assert_non_null(strstr(lines, "\"interface\":\"(gone)\",\"direction\":\"ingress\","
				      "\"seen\":10,"));
	assert_null(strstr(lines, "does not add up"));
	report_has("complete: 266 packets (26600 bytes) written");
}

static void interfaces_that_hello_tells_to_be_gone_are_bounded(void **state)
{
	struct stream_iface *ifaces = calloc(STREAM_INTERFACES_MAX, sizeof(*ifaces));
	struct stream_hello m = hello(1, 1, 2);
	struct registry_owner owners[2];
	struct feed *f = NULL;

	(void)state;
	assert_non_null(ifaces);
	m.ifaces = ifaces;
	m.n_ifaces = STREAM_INTERFACES_MAX;
	/* Each supersedes the one before, so the stream is never at rest. */
	for (uint32_t i = 0; i < 4; i++) {
		for (uint32_t k = 0; k < m.n_ifaces; k++) {
			ifaces[k] = interface(1 + i * 1000 + k);
			ifaces[k].gone = true;
		}
		f = attach(&m, &owners[i % 2], 1);
		for (uint32_t k = 0; k < m.n_ifaces; k++)
			assert_non_null(feed_find(f, ifaces[k].id));
		assert_true(f->n_ifaces <= STREAM_INTERFACES_MAX);
		if (i)
			registry_detach(registry, f, &owners[(i + 1) % 2], FEED_LOST, 0);
	}
	free(ifaces);
}

static void interfaces_of_all_streams_are_bounded(void **state)
{
	struct registry_owner owners[3];
	struct stream_iface iface;
	struct feed *feeds[3];
	uint32_t id = 0;
	struct err err;
	int r = 0;

	(void)state;
	for (uint64_t i = 0; i < 3; i++) {
		struct stream_hello m = hello(i, 1, 1);

		feeds[i] = attach(&m, &owners[i], 1);
	}
	while (r == 0) {
		iface = interface(1 + id / 3);
		r = feed_describe(feeds[id % 3], &iface, &err);
		id += r == 0;
	}
	assert_int_equal(r, -ENOMEM);
	assert_int_equal(id, IFACES_MAX);
	/* The end of one makes room for another. */
	registry_detach(registry, feeds[(id + 1) % 3], &owners[(id + 1) % 3], FEED_LOST, 0);
	assert_int_equal(feed_describe(feeds[id % 3], &iface, &err), 0);
}

static void a_gap_that_is_refused_counts_nothing(void **state)
{
	struct stream_gap_part parts[] = {
		{.iface = 1, .direction = 1, .first = 5, .last = 6, .lost = {7, 700}},
		{.iface = IFACES_MAX + 1, .direction = 1, .first = 5, .last = 6, .lost = {1, 100}},
	};
	const struct stream_gap gap = {
		.first_seq = 1, .last_seq = 9, .reason = 1, .parts = parts, .n_parts = 2};
	struct registry_owner owners[3];
	struct stream_iface iface;
	struct feed *feeds[3];
	struct err err;

	(void)state;
	for (uint64_t i = 0; i < 3; i++) {
		struct stream_hello m = hello(i, 1, 1);

		feeds[i] = attach(&m, &owners[i], 1);
	}
	for (uint32_t id = 0; id < IFACES_MAX; id++) {
		iface = interface(1 + id / 3);
		assert_int_equal(feed_describe(feeds[id % 3], &iface, &err), 0);
	}
	assert_int_equal(feed_gap(feeds[0], &gap, &err), -ENOMEM);
	assert_int_equal(feed_gap(feeds[0], &gap, &err), -ENOMEM);
	/* The agent comes with it until there is room. */
	registry_detach(registry, feeds[1], &owners[1], FEED_LOST, 0);
	assert_int_equal(feed_gap(feeds[0], &gap, &err), 0);
	assert_int_equal(feed_find(feeds[0], 1)->side[0].gap.packets, 7);
}

static void an_interface_that_only_a_gap_names_is_counted(void **state)
{
	struct stream_gap_part part = {.iface = FEED_GONE_MAX + 100,
				       .direction = 1,
				       .first = 5,
				       .last = 6,
				       .lost = {7, 700}};
	const struct stream_gap gap = {
		.first_seq = 1, .last_seq = 9, .reason = 1, .parts = &part, .n_parts = 1};
	struct stream_hello m = hello(1, 1, 1);
	struct registry_owner owner;
	struct feed *f = attach(&m, &owner, 1);

	(void)state;
	for (uint32_t id = 1; id <= FEED_GONE_MAX + 10; id++) {
		struct stream_iface iface = interface(id);

		iface.gone = true;
		assert_int_equal(feed_describe(f, &iface, NULL), 0);
	}
	assert_true(f->folded_order);
	assert_int_equal(feed_gap(f, &gap, NULL), 0);
	report_has("7 of 7 packets lost at lost_spool");
	/* One that was summed up has its counts there. */
	part.iface = 1;
	assert_int_equal(feed_gap(f, &gap, NULL), 0);
	assert_null(feed_lookup(f, 1));
	report_has("14 of 14 packets lost at lost_spool");
}

/* Streams that come and go with many interfaces each. */
static void reports_of_ends_are_bounded(void **state)
{
	const uint32_t n = 1000;
	struct registry_owner owner;
	size_t written = 0;
	struct feed *f;

	(void)state;
	for (uint64_t epoch = 1; epoch <= 40; epoch++) {
		struct stream_hello m = hello(epoch, 1, 1);

		f = attach(&m, &owner, 1);
		for (uint32_t id = 1; id <= n; id++) {
			struct stream_iface iface = interface(id);

			assert_int_equal(feed_describe(f, &iface, NULL), 0);
		}
		registry_detach(registry, f, &owner, FEED_ENDED, 0);
	}
	for (const char *at = lines; (at = strchr(at, '\n')); at++)
		written++;
	assert_in_range(written, FEED_LINES_MAX - 3 * n, FEED_LINES_MAX + n);
	/* None is forgotten, and there is room again later. */
	report_has("verdict over 40 streams: complete");
	registry->room.counted -= 60 * NSEC_PER_SEC;
	assert_true(feed_may_say(&registry->room, 2 * n));
	assert_non_null(strstr(lines, " lines about streams were left out"));
}

static void noise_is_bounded_and_counted(void **state)
{
	unsigned int suppressed = 99, allowed = 0;
	struct noise n;

	(void)state;
	noise_init(&n);
	for (int i = 0; i < 100; i++)
		allowed += noise_allow(&n, 5 * NSEC_PER_SEC, &suppressed);
	assert_int_equal(allowed, NOISE_LINES_PER_SECOND);
	assert_true(noise_allow(&n, 6 * NSEC_PER_SEC, &suppressed));
	assert_int_equal(suppressed, 100 - NOISE_LINES_PER_SECOND);
	noise_destroy(&n);
}

static void noise_tells_the_same_of_an_address_once_a_minute(void **state)
{
	const nsec_t now = 500 * NSEC_PER_SEC;
	unsigned int suppressed;
	struct noise n;

	(void)state;
	noise_init(&n);
	assert_false(noise_repeats(&n, now, "192.0.2.1:1000", "", "no HELLO"));
	assert_true(noise_repeats(&n, now, "192.0.2.1:2000", "", "no HELLO"));
	assert_false(noise_repeats(&n, now, "192.0.2.2:1000", "", "no HELLO"));
	assert_false(noise_repeats(&n, now, "192.0.2.1:1000", "web1", "no HELLO"));
	assert_false(noise_repeats(&n, now, "192.0.2.1:1000", "", "TLS alert"));
	assert_false(noise_repeats(&n, now, "[2001:db8::1]:1000", "", "no HELLO"));
	assert_true(noise_repeats(&n, now + 59 * NSEC_PER_SEC, "192.0.2.1:1", "", "no HELLO"));
	assert_false(noise_repeats(&n, now + 60 * NSEC_PER_SEC, "192.0.2.1:1", "", "no HELLO"));
	assert_true(noise_allow(&n, now, &suppressed));
	assert_int_equal(suppressed, 2);
	noise_destroy(&n);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(new_stream_starts_where_the_agent_is),
		TEST(known_stream_resumes_here),
		TEST(epochs_and_identities_are_streams_of_their_own),
		TEST(a_name_belongs_to_one_identity),
		TEST(one_peer_cannot_push_out_the_streams_of_others),
		TEST(agents_that_share_a_wildcard_keep_their_streams),
		TEST(the_committer_keeps_a_stream),
		TEST(a_recovered_stream_may_have_less_than_is_here),
		TEST(a_commit_never_goes_back),
		TEST(counts_that_went_elsewhere_are_adopted),
		TEST(refused_hello_leaves_no_trace),
		TEST(stream_of_a_refused_hello_is_lost_now),
		TEST(superseded_session_cannot_write),
		TEST(write_under_way_is_finished_before_the_resume),
		TEST(stream_that_ended_goes_after_a_last_report),
		TEST(interfaces_of_streams_at_rest_are_bounded),
		TEST(goodbye_is_reported_and_checked),
		TEST(packets_not_yet_here_are_no_loss_while_connected),
		TEST(interfaces_are_bounded),
		TEST(interfaces_long_gone_are_summed_up),
		TEST(interfaces_that_hello_tells_to_be_gone_are_bounded),
		TEST(interfaces_of_all_streams_are_bounded),
		TEST(reports_of_ends_are_bounded),
		TEST(a_gap_that_is_refused_counts_nothing),
		TEST(an_interface_that_only_a_gap_names_is_counted),
		cmocka_unit_test(noise_is_bounded_and_counted),
		cmocka_unit_test(noise_tells_the_same_of_an_address_once_a_minute),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
