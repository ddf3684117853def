/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The key netns: paths of network namespaces, the last part of which may be a pattern,
 * "!path" for what is left out, and "!self" for our own namespace.
 */
#ifndef PS_NETNS_LIST_H
#define PS_NETNS_LIST_H

#include <stdbool.h>

#include "yaml.h"

void netns_list_check(const struct yaml_strings *list, struct yaml_errors *errors);
/* Is our own namespace one of them? */
bool netns_list_own(const struct yaml_strings *list);
/* Are there others? */
bool netns_list_others(const struct yaml_strings *list);

typedef void netns_list_fn(void *ctx, const char *path, bool is_pattern);
/*
 * Call @fn for every path that the list stands for now, some perhaps twice: what is in the folders
 * of its patterns, and those without a pattern whether something is there or not.
 */
void netns_list_find(const struct yaml_strings *list, netns_list_fn *fn, void *ctx);
/* Call @fn for the folder of every path. */
void netns_list_folders(const struct yaml_strings *list, netns_list_fn *fn, void *ctx);

#endif
