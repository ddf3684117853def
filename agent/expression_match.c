// SPDX-License-Identifier: Apache-2.0
/* An expression in user space: what the kernel's program answers, for the pcap back end. */
#include "dissect.h"
#include "expression.h"
#include "expression_tree.h"
#include "sets.h"

/* A packet, or the one inside it. */
struct subject {
	const uint8_t *data;
	uint32_t size, len;  /* bytes there are, and were on the wire */
	uint32_t l3, family; /* as in struct scratch */
	enum direction direction;
	const struct scratch *scratch; /* of the outer packet */
};

static bool match(const struct node *n, const struct subject *s);

static bool match_set(const struct node *n, const struct subject *s)
{
	uint32_t size = s->family == 4 ? 4 : 16;
	uint32_t off = s->l3 + (s->family == 4 ? 12 : 8);

	if (!s->family)
		return false;
	if (n->end & SET_SRC) {
		if (off + size > s->size)
			return false;
		if (set_has(n->set, (int)s->family, s->data + off))
			return true;
	}
	off += size;
	return (n->end & SET_DST) && off + size <= s->size &&
	       set_has(n->set, (int)s->family, s->data + off);
}

static bool match_inner(const struct node *n, const struct subject *s)
{
	const struct scratch *of = s->scratch;
	const struct node *tree = of->inner_type == INNER_ETHERNET ? n->a : n->b;
	struct subject below = *s;

	if (of->inner_type == INNER_NONE || of->inner > s->size)
		return false;
	below.data += of->inner;
	below.size -= of->inner;
	below.len -= of->inner;
	below.l3 = of->inner_l3 - of->inner;
	below.family = of->inner_family;
	return tree && match(tree, &below);
}

static bool match(const struct node *n, const struct subject *s)
{
	switch (n->kind) {
	case NODE_AND:
		return match(n->a, s) && match(n->b, s);
	case NODE_OR:
		return match(n->a, s) || match(n->b, s);
	case NODE_NOT:
		return !match(n->a, s);
	case NODE_SET:
		return match_set(n, s);
	case NODE_INNER:
		return match_inner(n, s);
	case NODE_CLASSIC:
		break;
	}
	return cbpf_match(&n->classic, s->direction, s->data, s->size, s->len);
}

bool expression_match(const struct expression *e, enum direction direction, const uint8_t *packet,
		      uint32_t caplen, uint32_t len)
{
	struct scratch scratch = {};
	struct subject s = {
		.data = packet,
		.size = caplen,
		.len = len,
		.direction = direction,
		.scratch = &scratch,
	};

	if (expression_needs_l3(e) || expression_needs_inner(e))
		dissect(packet, caplen, e->link_type, &scratch);
	s.l3 = scratch.l3;
	s.family = scratch.family;
	return match(e->root, &s);
}
