// SPDX-License-Identifier: Apache-2.0
#include "filters.h"

#include <errno.h>

#include "expression.h"
#include "packet.h"
#include "sets.h"
#include "util.h"

struct filter {
	char *text; /* NULL: the slot is free */
	uint32_t link_type;
	struct expression *e;
	bool used;   /* by a rule that filters_rule() gave for this configuration */
	bool former; /* by one of the former configuration, while there are two */
};

struct filters {
	const struct config *config, *former;
	struct sets *sets, *former_sets;
	const struct capture_ops *ops;
	struct capture *capture;
	struct filter v[EXPRESSIONS]; /* by slot; 0 is none */
};

static int add_set(struct sets *sets, const struct yaml_block *block, struct err *err)
{
	const struct config_set *set = block->value;

	if (set->file)
		return sets_add_file(sets, block->name, set->file, err);
	return sets_add_list(sets, block->name, (const char *const *)set->addresses.v,
			     set->addresses.n, err);
}

/* What the configuration says that they are, in user space. */
static int read_sets(const struct config *config, struct sets **ret, struct err *err)
{
	struct sets *sets = sets_new((uint32_t)config->max_set_entries);
	int r = sets ? 0 : err_set(err, -ENOMEM, "out of memory");

	for (size_t i = 0; r == 0 && i < config->sets.n; i++)
		r = add_set(sets, &config->sets.v[i], err);
	if (r < 0)
		sets_free(sets);
	else
		*ret = sets;
	return r;
}

int filters_check(void *sets, const struct config *config, const char *text, struct err *err)
{
	struct sets **read = sets;
	struct expression *e = NULL;
	struct err ignored;
	int r = *read ? 0 : read_sets(config, read, err);

	if (r < 0)
		return r;
	r = expression_compile(text, LINK_ETHERNET, *read, &e, err);
	/* What makes no sense for Ethernet may be meant for a tunnel. */
	if (r == -EINVAL && expression_compile(text, LINK_RAW, *read, &e, &ignored) == 0)
		r = 0;
	expression_free(e);
	return r;
}

int filters_new(const struct config *config, const struct capture_ops *ops, struct capture *capture,
		struct filters **ret, struct err *err)
{
	struct filters *f = calloc(1, sizeof(*f));
	struct sets *sets = NULL;
	int r;

	if (!f)
		return err_set(err, -ENOMEM, "out of memory");
	f->ops = ops;
	f->capture = capture;
	r = filters_prepare(f, config, &sets, err);
	if (r < 0) {
		filters_free(f);
		return r;
	}
	filters_commit(f);
	*ret = f;
	return 0;
}

static void release(struct filter *filter)
{
	expression_free(filter->e);
	free(filter->text);
	*filter = (struct filter){};
}

struct filters *filters_free(struct filters *f)
{
	if (!f)
		return NULL;
	for (size_t i = 1; i < EXPRESSIONS; i++)
		release(&f->v[i]);
	sets_free(f->sets);
	sets_free(f->former_sets);
	free(f);
	return NULL;
}

static uint32_t asks_of(uint32_t slot, const struct expression *e)
{
	return slot | (expression_needs_l3(e) ? RULE_EXPRESSION_L3 : 0) |
	       (expression_needs_inner(e) ? RULE_EXPRESSION_INNER : 0);
}

/* One that a rule of this configuration has. */
static uint32_t find(const struct filters *f, const char *text, uint32_t link_type)
{
	for (uint32_t slot = 1; slot < EXPRESSIONS; slot++)
		if (f->v[slot].used && f->v[slot].link_type == link_type &&
		    strcmp(f->v[slot].text, text) == 0)
			return slot;
	return 0;
}

/* One of the former configuration that is the same in names and sets, too. */
static uint32_t find_same(const struct filters *f, const struct filter *filter)
{
	for (uint32_t slot = 1; slot < EXPRESSIONS; slot++)
		if (f->v[slot].text && f->v[slot].link_type == filter->link_type &&
		    strcmp(f->v[slot].text, filter->text) == 0 &&
		    expression_same(f->v[slot].e, filter->e))
			return slot;
	return 0;
}

static uint32_t find_free(const struct filters *f)
{
	for (uint32_t slot = 1; slot < EXPRESSIONS; slot++)
		if (!f->v[slot].text)
			return slot;
	return 0;
}

/* Into the kernel; takes the filter over on success. */
static int load(struct filters *f, struct filter *filter, uint32_t *ret_slot, struct err *err)
{
	uint32_t slot = find_free(f);
	int r;

	if (!slot)
		return err_set(err, -ENOSPC,
			       "more than %u different filters at a time, old and new together",
			       EXPRESSIONS - 1);
	r = f->ops->set_expression(f->capture, slot, filter->e, err);
	if (r < 0)
		return r;
	f->v[slot] = *filter;
	*filter = (struct filter){};
	*ret_slot = slot;
	return 0;
}

static int add(struct filters *f, const char *text, uint32_t link_type, uint32_t *ret_slot,
	       struct err *err)
{
	struct filter filter = {.text = strdup(text), .link_type = link_type};
	int r = filter.text ? 0 : err_set(err, -ENOMEM, "out of memory");

	if (r == 0)
		r = expression_compile(text, link_type, f->sets, &filter.e, err);
	if (r == -EINVAL)
		r = -EOPNOTSUPP;
	if (r == 0) {
		*ret_slot = find_same(f, &filter);
		if (!*ret_slot)
			r = load(f, &filter, ret_slot, err);
	}
	release(&filter);
	return r < 0 ? err_wrap(err, r, "filter") : 0;
}

static int ask(struct filters *f, const char *text, uint32_t link_type, uint32_t *ret_asks,
	       struct err *err)
{
	uint32_t slot = find(f, text, link_type);
	int r = slot ? 0 : add(f, text, link_type, &slot, err);

	if (r < 0)
		return r;
	f->v[slot].used = true;
	*ret_asks = asks_of(slot, f->v[slot].e);
	return 0;
}

int filters_rule(struct filters *f, const char *name, uint32_t link_type, struct iface_rule *rule,
		 struct capture_limit *limit, struct err *err)
{
	struct selection s = selection_for(&f->config->selection, &f->config->per_interface, name);
	uint32_t asks = 0;
	int r = s.filter ? ask(f, s.filter, link_type, &asks, err) : 0;

	if (r < 0)
		return r;
	*limit = (struct capture_limit){s.packets_per_s, s.bits_per_s};
	if (limit->packets_per_s || limit->bits_per_s)
		asks |= RULE_LIMIT;
	if (s.sample_flows)
		asks |= RULE_SAMPLE_FLOWS;
	if (f->config->dedup_window)
		asks |= RULE_DEDUP;
	rule->asks = asks;
	rule->sample = (uint32_t)MAX(s.sample, s.sample_flows);
	rule->slice = selection_slice(&s);
	return 0;
}

static const char *text_of(const struct config *config, const char *name)
{
	return selection_for(&config->selection, &config->per_interface, name).filter;
}

const char *filters_text(const struct filters *f, const char *name)
{
	return text_of(f->config, name);
}

bool filters_text_changed(const struct filters *f, const char *name)
{
	const char *was = text_of(f->former, name), *is = text_of(f->config, name);

	return was && is ? strcmp(was, is) != 0 : was || is;
}

int filters_prepare(struct filters *f, const struct config *config, struct sets **sets,
		    struct err *err)
{
	int r = *sets ? 0 : read_sets(config, sets, err);

	if (r == 0 && f->sets)
		sets_share(*sets, f->sets);
	if (r == 0 && !f->ops->user_space)
		r = sets_load(*sets, err);
	if (r < 0) {
		*sets = sets_free(*sets);
		return r;
	}
	f->former = f->config;
	f->former_sets = f->sets;
	f->config = config;
	f->sets = *sets;
	*sets = NULL;
	for (size_t i = 1; i < EXPRESSIONS; i++) {
		f->v[i].former = f->v[i].used;
		f->v[i].used = false;
	}
	return 0;
}

/* There is one configuration again, and no expression but its own. */
static void settle(struct filters *f)
{
	struct err ignored;

	f->former = NULL;
	for (uint32_t slot = 1; slot < EXPRESSIONS; slot++) {
		f->v[slot].former = false;
		if (!f->v[slot].text || f->v[slot].used)
			continue;
		f->ops->set_expression(f->capture, slot, NULL, &ignored);
		release(&f->v[slot]);
	}
	f->former_sets = sets_free(f->former_sets);
}

void filters_commit(struct filters *f)
{
	settle(f);
}

void filters_abort(struct filters *f)
{
	struct sets *sets = f->sets;

	f->config = f->former;
	f->sets = f->former_sets;
	f->former_sets = sets;
	for (size_t i = 1; i < EXPRESSIONS; i++)
		f->v[i].used = f->v[i].former;
	settle(f);
}
