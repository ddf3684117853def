/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filter expressions, ps-filter(7): pcap-filter(7), and beyond it inner(EXPR) for what is
 * in a tunnel and `host @NAME` for sets of addresses.
 */
#ifndef PS_EXPRESSION_H
#define PS_EXPRESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "abi.h"
#include "err.h"

#define EXPRESSION_MAX 65536u /* bytes of text */

struct expression;
struct sets;

/*
 * Compile @text for packets of @link_type (1 Ethernet, 101 raw IP). @sets may be NULL, else
 * it outlives the expression. Host names are looked up here and now. -EINVAL: the sentence
 * says what is wrong, in libpcap's words where it is libpcap that refuses; -ENOENT: a host's
 * name has no address; -ENOMEM.
 */
int expression_compile(const char *text, uint32_t link_type, const struct sets *sets,
		       struct expression **ret, struct err *err);
struct expression *expression_free(struct expression *e);

/* Do both ask the same: after the same names were looked up, and of the very same sets? */
bool expression_same(const struct expression *a, const struct expression *b);

/* Must scratch->l3, family be filled in; inner, inner_type, inner_l3, inner_family? */
bool expression_needs_l3(const struct expression *e);
bool expression_needs_inner(const struct expression *e);

/*
 * Does it match the packet as it is written (tag in the data)? @caplen bytes of it are
 * there, @len were on the wire. Any number of threads at the same time.
 */
bool expression_match(const struct expression *e, enum direction direction, const uint8_t *packet,
		      uint32_t caplen, uint32_t len);

#endif
