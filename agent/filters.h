/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the configuration asks of packets beyond ports, as rules of interfaces; the
 * expressions among it in the kernel, one program for each text and link type. The loop
 * thread's.
 *
 * A program and the sets that it looks into never change. Another configuration has others where
 * they differ, and an interface goes from all old ones to all new ones with its rule.
 */
#ifndef PS_FILTERS_H
#define PS_FILTERS_H

#include "capture.h"
#include "config.h"

struct filters;
struct sets;

/*
 * Can the text be an expression of this configuration? A negative errno and a sentence. @sets is
 * a struct sets **: NULL there at first, then what was read of the sets, the caller's to free or to
 * hand on.
 */
int filters_check(void *sets, const struct config *config, const char *text, struct err *err);

/* Reads the sets. @config must outlive the filters, or the next filters_commit(). */
int filters_new(const struct config *config, const struct capture_ops *ops, struct capture *capture,
		struct filters **ret, struct err *err);
struct filters *filters_free(struct filters *f);

/*
 * Fill in what is asked of an interface: slice, sample and asks of *@rule, and *@limit. Its
 * expression is in the kernel after that. -EOPNOTSUPP and a sentence when it cannot be asked of
 * packets of @link_type; another -errno when it cannot be had at all.
 */
int filters_rule(struct filters *f, const char *name, uint32_t link_type, struct iface_rule *rule,
		 struct capture_limit *limit, struct err *err);
/* The text of the expression; NULL: none. */
const char *filters_text(const struct filters *f, const char *name);

/*
 * To go over to another configuration: filters_prepare(), then filters_rule() for every interface,
 * these rules in force, quiesce, filters_commit(). Up to the last step all of the former
 * configuration is still in the kernel, beside the new: filters_abort(), when its rules are (again)
 * the ones in force and the others quiet, cannot fail.
 *
 * @sets, what filters_check() read or NULL there, are taken over; they are read now when they have
 * not been. On an error everything is as it was.
 */
int filters_prepare(struct filters *f, const struct config *config, struct sets **sets,
		    struct err *err);
/* Between these: has the interface another text? */
bool filters_text_changed(const struct filters *f, const char *name);
void filters_commit(struct filters *f);
void filters_abort(struct filters *f);

#endif
