// SPDX-License-Identifier: Apache-2.0
#include "rule_table.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>

#include "clock.h"
#include "util.h"

#define LIMIT_BURST (100 * NSEC_PER_MSEC)

static struct iface_cell *cell_of(struct rule_table *t, uint64_t key)
{
	return &t->shared->cells[IFACE_CELL(key)];
}

int rule_table_add(struct rule_table *t, uint64_t key, const struct iface_rule *rule,
		   struct err *err)
{
	struct iface_cell *cell = cell_of(t, key);

	if (bpf_map_update_elem(t->programs->map[MAP_INTERFACES], &key, rule, BPF_NOEXIST))
		return err_sys(err, -errno, "cannot set the capture rule");
	if (!cell->key && !t->left[IFACE_CELL(key)]) {
		cell->rule = *rule;
		__atomic_store_n(&cell->key, key, __ATOMIC_RELEASE);
	}
	return 0;
}

int rule_table_change(struct rule_table *t, uint64_t key, const struct iface_rule *rule,
		      struct err *err)
{
	struct iface_cell *cell = cell_of(t, key);

	if (bpf_map_update_elem(t->programs->map[MAP_INTERFACES], &key, rule, BPF_EXIST))
		return err_sys(err, -errno, "cannot change the capture rule");
	/* The map may give the place of the old rule to the next one that is changed. */
	if (cell->key != key)
		return 1;
	__atomic_store_n(&cell->rule.slice, rule->slice, __ATOMIC_RELAXED);
	__atomic_store_n(&cell->rule.sample, rule->sample, __ATOMIC_RELAXED);
	__atomic_store_n(&cell->rule.asks, rule->asks, __ATOMIC_RELEASE);
	return 0;
}

void rule_table_remove(struct rule_table *t, uint64_t key)
{
	struct iface_cell *cell = cell_of(t, key);

	bpf_map_delete_elem(t->programs->map[MAP_INTERFACES], &key);
	if (cell->key != key)
		return;
	__atomic_store_n(&cell->key, 0, __ATOMIC_RELAXED);
	t->left[IFACE_CELL(key)] = true;
}

void rule_table_quiet(struct rule_table *t)
{
	memset(t->left, 0, sizeof(t->left));
}

struct bucket rule_table_bucket(const struct capture_limit *limit)
{
	struct bucket b = {.burst_ns = LIMIT_BURST};

	/* Rounded up, so that it never adds up to more than the limit. */
	if (limit->packets_per_s)
		b.ns_per_packet = (NSEC_PER_SEC - 1) / limit->packets_per_s + 1;
	if (limit->bits_per_s)
		b.ns_per_byte = 1 + (uint64_t)(8.0 * (double)NSEC_PER_SEC * (1 << BUCKET_FRACTION) /
					       (double)limit->bits_per_s);
	return b;
}

int rule_table_limit(struct rule_table *t, int64_t slot, const struct capture_limit *limit,
		     struct err *err)
{
	uint32_t key = slot < 0 ? BUCKET_AGENT : BUCKET_IFACE((uint32_t)slot);
	struct bucket b = rule_table_bucket(limit), was;

	/* A limit that stays gives no new burst. */
	if (bpf_map_lookup_elem_flags(t->programs->map[MAP_BUCKETS], &key, &was, BPF_F_LOCK) == 0 &&
	    was.ns_per_packet == b.ns_per_packet && was.ns_per_byte == b.ns_per_byte &&
	    was.burst_ns == b.burst_ns)
		return 0;
	if (bpf_map_update_elem(t->programs->map[MAP_BUCKETS], &key, &b, BPF_F_LOCK))
		return err_sys(err, -errno, "cannot set a rate limit");
	return 0;
}

int rule_table_degrade(struct rule_table *t, const struct degrade *degrade)
{
	struct degrade *to = &t->shared->degrade;
	uint32_t key = BUCKET_BUDGET;
	struct bucket empty = {};
	int r = 0;

	/* What is owed at another rate says nothing at this one. */
	if (degrade->burst_ns != to->burst_ns &&
	    bpf_map_update_elem(t->programs->map[MAP_BUCKETS], &key, &empty, BPF_F_LOCK))
		r = -errno;
	__atomic_store_n(&to->slice, degrade->slice, __ATOMIC_RELAXED);
	__atomic_store_n(&to->sample_flows, degrade->sample_flows, __ATOMIC_RELAXED);
	__atomic_store_n(&to->burst_ns, degrade->burst_ns, __ATOMIC_RELAXED);
	__atomic_store_n(&to->ns_per_byte, degrade->ns_per_byte, __ATOMIC_RELAXED);
	return r;
}

struct work rule_table_work(const struct rule_table *t, unsigned int cpus)
{
	_cleanup_free_ struct work *of = calloc(cpus, sizeof(*of));
	struct work sum = {};
	uint32_t zero = 0;

	if (!of || bpf_map_lookup_elem(t->programs->map[MAP_WORK], &zero, of))
		return sum;
	for (unsigned int cpu = 0; cpu < cpus; cpu++) {
		sum.timed_ns += of[cpu].timed_ns;
		sum.refused += of[cpu].refused;
	}
	return sum;
}
