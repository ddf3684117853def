/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Has the budgets kept: measures what the agent uses, lets budget.h decide, hands that to the
 * hooks, and tells of the steps of the ladder in log and stream. Belongs to the loop thread, as
 * do its wake-ups, ten a second, when there is a budget.
 */
#ifndef PS_GOVERNOR_H
#define PS_GOVERNOR_H

#include "capture.h"
#include "config.h"
#include "queue.h"
#include "reader.h"
#include "uplink.h"

struct governor;

struct governor_config {
	const struct capture_ops *ops;
	struct capture *capture;
	struct reader *reader;
	struct queue *queue;   /* NULL: no collector */
	struct uplink *uplink; /* as queue */
};

/* With the budgets of @budgets. */
int governor_new(const struct governor_config *config, const struct config *budgets,
		 struct governor **ret, struct err *err);
struct governor *governor_free(struct governor *g);

/* Those of @config from now on. */
void governor_use(struct governor *g, const struct config *config);
/* When it is readable, governor_tick(). */
int governor_fd(const struct governor *g);
void governor_tick(struct governor *g);

#endif
