/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules of the attached interfaces, and the rate limits, where the capture programs
 * look for them: the maps `interfaces` and `buckets`, and the cells in .bss. One thread.
 */
#ifndef PS_RULE_TABLE_H
#define PS_RULE_TABLE_H

#include <stdbool.h>

#include "capture.h"
#include "programs.h"

struct rule_table {
	const struct programs *programs;
	struct shared *shared;  /* the programs' .bss, mapped */
	bool left[IFACE_CELLS]; /* cells that a running program may still be reading */
};

/* @key: IFACE_KEY(). The interface has no rule yet. */
int rule_table_add(struct rule_table *t, uint64_t key, const struct iface_rule *rule,
		   struct err *err);
/*
 * Another rule for the same interface. 1: before the next call of this function the caller has
 * to wait for running programs, rule_table_quiet().
 */
int rule_table_change(struct rule_table *t, uint64_t key, const struct iface_rule *rule,
		      struct err *err);
void rule_table_remove(struct rule_table *t, uint64_t key);
/* No program that ran before the last change is running still. */
void rule_table_quiet(struct rule_table *t);

/* What the limit is to a bucket. */
struct bucket rule_table_bucket(const struct capture_limit *limit);
/* Of the agent (@slot < 0) or of the counters' @slot. */
int rule_table_limit(struct rule_table *t, int64_t slot, const struct capture_limit *limit,
		     struct err *err);
/* What the budget asks of all. */
int rule_table_degrade(struct rule_table *t, const struct degrade *degrade);
/* As capture_ops.work; zeros when there is no memory to ask with. */
struct work rule_table_work(const struct rule_table *t, unsigned int cpus);

#endif
