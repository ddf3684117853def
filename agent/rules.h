/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration's capture rules as the kernel side wants them (bpf/abi.h). */
#ifndef PS_RULES_H
#define PS_RULES_H

#include <stdbool.h>

#include "abi.h"
#include "config.h"

struct rules;

/* Keeps @config, which must outlive it. NULL when out of memory. */
struct rules *rules_new(const struct config *config);
struct rules *rules_free(struct rules *r);

/* Does any rule look at ports? If so, the 65,536 masks; else NULL. */
const uint64_t *rules_port_masks(const struct rules *r);

/* The mask and invert of an interface by its name; the caller fills in the rest. */
struct iface_rule rules_for(const struct rules *r, const char *name);

#endif
