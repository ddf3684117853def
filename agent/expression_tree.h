/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A compiled expression, for those who run it: expression_match() here, ebpf.c in the
 * kernel. AND, OR and NOT join; the leaves are
 *
 *	CLASSIC	a program of libpcap's, run on the whole packet, or on the inner one
 *	SET	is an address of the packet in a set?
 *	INNER	the packet inside a tunnel, with a tree for each thing it can be
 */
#ifndef PS_EXPRESSION_TREE_H
#define PS_EXPRESSION_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include "cbpf.h"

struct set;

enum node_kind { NODE_CLASSIC, NODE_SET, NODE_AND, NODE_OR, NODE_NOT, NODE_INNER };

enum set_end { SET_SRC = 1, SET_DST = 2, SET_EITHER = 3 };

struct node {
	enum node_kind kind;
	bool inner; /* below an INNER: CLASSIC and SET look at the inner packet */
	/*
	 * AND, OR: both; NOT: a. INNER: a when an Ethernet frame is inside, b when an IP
	 * packet is; NULL: what was asked cannot be true there.
	 */
	struct node *a, *b;
	struct cbpf_program classic;
	const struct set *set;
	enum set_end end;
};

struct expression {
	struct node *root;
	uint32_t link_type;
	bool needs_l3, needs_inner;
};

#endif
