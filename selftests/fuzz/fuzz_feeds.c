/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The feeds of a journal. The input is one commit, as its checksum vouches for it. Whatever is
 * taken stays within bounds, can be reported, and is saved in a form that is taken too, and
 * saved the same then.
 */
#include <string.h>

#include "fuzz.h"
#include "registry_internal.h"

#define FEEDS  4u
#define IFACES 12u

/* Nobody has a file. */
const char *output_path(struct output *out, uint32_t link_type)
{
	(void)out;
	(void)link_type;
	return NULL;
}

static void line(void *ctx, enum log_level level, const char *text)
{
	(void)ctx;
	(void)level;
	FUZZ_ASSERT(text[0]);
}

static struct registry *load(const uint8_t *data, size_t size)
{
	static const struct registry_limits limits = {
		.feeds = FEEDS, .resting_ifaces = IFACES, .ifaces = IFACES};
	struct registry *r = registry_new(&limits, NULL, line, NULL);
	struct err err = {};

	FUZZ_ASSERT(r);
	if (registry_load(r, data, size, &err) == 0)
		return r;
	FUZZ_ASSERT(err.text[0] && !r->feeds && !r->last_number);
	return registry_free(r);
}

static void save(struct registry *r, struct buf *out)
{
	registry_save(r, out);
	FUZZ_ASSERT(!buf_failed(out));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct registry *r = load(data, size), *again;
	struct buf once = {}, twice = {};

	if (!r)
		return 0;
	FUZZ_ASSERT(r->n_feeds <= FEEDS && atomic_load(&r->room.used) <= IFACES);
	FUZZ_ASSERT(r->n_resting == atomic_load(&r->room.used));
	registry_report(r);
	save(r, &once);
	again = load(once.data, once.len);
	FUZZ_ASSERT(again && again->n_feeds == r->n_feeds);
	FUZZ_ASSERT(atomic_load(&again->room.used) == atomic_load(&r->room.used));
	/* The order of feeds is turned round each time. */
	save(again, &twice);
	FUZZ_ASSERT(once.len == twice.len);
	registry_free(again);
	again = load(twice.data, twice.len);
	buf_reset(&twice);
	save(again, &twice);
	FUZZ_ASSERT(once.len == twice.len && memcmp(once.data, twice.data, once.len) == 0);
	registry_free(again);
	registry_free(r);
	buf_free(&once);
	buf_free(&twice);
	return 0;
}
