/* SPDX-License-Identifier: Apache-2.0 */
/* What there is to say of all feeds together: clocks, files, the total verdict. */
#include <stdio.h>

#include "registry_internal.h"
#include "util.h"

static const uint32_t link_types[FEED_FILES] = {LINK_ETHERNET, LINK_RAW, UINT32_MAX};

static void say(struct registry *r, const char *line)
{
	r->room.line(r->room.ctx, LOG_LEVEL_INFO, line);
}

struct timed {
	struct feed *feed;
	nsec_t when; /* of its best measurement */
};

static int compare_agents(const struct feed *a, const struct feed *b)
{
	int c = memcmp(a->agent_id, b->agent_id, sizeof(a->agent_id));

	return c ? c : strcmp(a->identity, b->identity);
}

static int compare_timed(const void *a, const void *b)
{
	const struct timed *x = a, *y = b;
	int c = compare_agents(x->feed, y->feed);

	return c ? c : (x->when > y->when) - (x->when < y->when);
}

/* The newest of each agent. */
static void report_clocks(struct registry *r)
{
	_cleanup_free_ struct timed *v = calloc(r->n_feeds + 1, sizeof(*v));
	struct feed_clock_sample best;
	size_t n = 0;

	if (!v)
		return;
	for (struct feed *f = r->feeds; f; f = f->next) {
		pthread_mutex_lock(&f->lock);
		v[n++] = (struct timed){f, feed_clock_best(f, &best)};
		pthread_mutex_unlock(&f->lock);
	}
	qsort(v, n, sizeof(*v), compare_timed);
	for (size_t i = 0; i < n; i++)
		if (i + 1 == n || compare_agents(v[i].feed, v[i + 1].feed))
			feed_report_clock(v[i].feed);
}

static void report_file(struct registry *r, const char *path, const struct feed_sum *sum,
			size_t agents)
{
	static const char prefix[] = "file ";
	const struct ledger_file file = {
		.file = path,
		.agents = agents,
		.streams = sum->feeds,
		.written = sum->ledger.c[LEDGER_COMMITTED],
		.packets = sum->packets,
		.lost = ledger_lost(&sum->ledger).packets + sum->missing,
		.verdict = sum->verdict,
	};
	char line[sizeof(prefix) + LEDGER_JSON_MAX];

	memcpy(line, prefix, sizeof(prefix));
	ledger_file_json(&file, line + sizeof(prefix) - 1, LEDGER_JSON_MAX);
	say(r, line);
}

/* stdout is one file for all. */
static void report_files(struct registry *r, struct feed_total *t)
{
	const char *paths[FEED_FILES] = {};

	for (unsigned int i = 0; r->output && i < FEED_FILES; i++) {
		unsigned int same = 0;

		paths[i] = output_path(r->output, link_types[i]);
		while (same < i && (!paths[i] || !paths[same] || strcmp(paths[same], paths[i])))
			same++;
		if (same == i)
			continue;
		feed_sum_add(&t->file[same], &t->file[i]);
		for (size_t k = 0; k < t->agents[i].n; k++)
			feed_agents_add(&t->agents[same], t->agents[i].v[k]);
		paths[i] = NULL;
	}
	for (unsigned int i = 0; i < FEED_FILES; i++)
		if (paths[i])
			report_file(r, paths[i], &t->file[i], t->agents[i].n);
}

void registry_report(struct registry *r)
{
	struct feed_total total = {};
	char text[FEED_TEXT_MAX];
	int n;

	pthread_mutex_lock(&r->lock);
	registry_drop_old(r);
	feed_total_add(&total, &r->loaded);
	feed_total_add(&total, &r->dropped);
	for (struct feed *f = r->feeds; f; f = f->next)
		feed_report(f, r->output, (struct feed_report_how){}, &total);
	report_clocks(r);
	n = snprintf(text, sizeof(text),
		     "verdict over %llu streams: ", (unsigned long long)total.all.feeds);
	feed_verdict_text(&total.all, text + n, sizeof(text) - (size_t)n);
	report_files(r, &total);
	pthread_mutex_unlock(&r->lock);
	say(r, text);
	feed_total_free(&total);
}
