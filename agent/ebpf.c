// SPDX-License-Identifier: Apache-2.0
/*
 * The translator from expressions to eBPF, a small compiler in four passes:
 *
 *	text  --libpcap-->  classic BPF		cbpf.c
 *	text  --expression.c-->  tree of AND, OR, NOT, whose leaves are classic programs,
 *				 address sets and tunnels	expression_tree.h
 *	tree  --ebpf.c, ebpf_classic.c, ebpf_packet.c-->  instructions with labels
 *	labels --ebpf_asm.c-->  distances
 *
 * RUN TIME. The entry program of the hook fills this CPU's struct scratch (abi.h) and
 * tail-calls us. We set scratch->pick and tail-call stages[STAGE_DECIDED]; should nothing
 * be there, we return the verdict that lets the packet pass, as all our programs do.
 *
 * REGISTERS	r6 context	r7 scratch	r8 A	r9 X	r0..r5 free between instructions
 * A and X are 32-bit values whose upper halves are zero: arithmetic is BPF_ALU, which
 * clears them, comparisons are BPF_JMP32.
 * STACK	M[16], a buffer for loads, a window around the tag, the key of an address
 *		map, the count of jumps back: ebpf_internal.h.
 *
 * BODIES. Offsets of a classic program are those of the packet as it will be written. If
 * the kernel keeps a VLAN tag beside the data, everything from byte 12 on is elsewhere, and
 * that is settled at translation time: a TC program has the whole expression twice, plain
 * and tagged, and chooses once. (XDP has no tags beside the data.)
 *
 * CONTROL FLOW. gen(node, yes, no) makes code that ends in a jump to one of two labels: so
 * AND, OR and NOT cost nothing but labels, and evaluation stops at the first leaf that
 * decides, in the order of the text. `ret #k` of a classic program, and its load behind the
 * packet's end, are jumps to the leaf's yes and no.
 *
 * PACKET LOADS read the linear part directly. The pointers are fetched from the context for
 * each load, a nanosecond, so that none is alive where paths meet: then states are equal
 * there whatever the path, the verifier prunes, and its work grows with the program, not
 * with the number of paths. What is not linear, or beyond DIRECT_MAX, is left to
 * bpf_skb_load_bytes() or bpf_xdp_load_bytes() out of line. Without the latter (before
 * Linux 5.18) XDP packets are linear, and a load that is not there rejects.
 *
 * LOOPS. A program of libpcap's that jumps back (`protochain`) has its jumps counted, and its
 * index hidden from the verifier (forget_x()), so that of each round it follows one only.
 *
 * INNER. Below inner(), offsets count from scratch->inner; `len` is what is left from
 * there: len - tag - inner. One tree for an Ethernet frame inside, one for an IP packet.
 *
 * INVARIANTS	Every instruction can be reached (the verifier insists): what follows a label
 *		that nothing jumps to is left out.
 *		A pointer to the packet lives for one load only.
 *		Only jump_back() jumps back, and counts.
 * LIMITS	A jump spans 32,767 instructions, and so does a body at most: longer is -E2BIG,
 *		more than some 240 single addresses, 4 KiB of text (OPTIMISE_MAX in cbpf.c);
 *		sets have no such limit. Of these, MAPS_MAX maps.
 *		The kernel's verifier looks at a million instructions.
 */
#include "ebpf.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "ebpf_internal.h"
#include "expression_tree.h"
#include "sets.h"
#include "util.h"

/* The verdicts that leave the packet to whoever comes next: TC_ACT_UNSPEC, XDP_PASS. */
#define TC_PASS (-1)

/* The kernel's MAX_USED_MAPS, less scratch and stages. */
#define MAPS_MAX 62u

struct translation {
	struct asm_text text;
	struct body body;
	const struct ebpf_maps *maps;
};

static void gen(struct translation *tr, const struct node *n, label yes, label no);

/* AND: @next goes on with the second; OR: it does not. */
static void gen_both(struct translation *tr, const struct node *n, label yes, label no)
{
	label next = asm_label(&tr->text);

	if (n->kind == NODE_AND)
		gen(tr, n->a, next, no);
	else
		gen(tr, n->a, yes, next);
	if (!asm_used(&tr->text, next))
		return;
	asm_bind(&tr->text, next);
	gen(tr, n->b, yes, no);
}

static void gen_inner(struct translation *tr, const struct node *n, label yes, label no)
{
	struct asm_text *t = &tr->text;
	label ethernet = asm_label(t), ip = asm_label(t);

	/* A tunnel's header may pass the packet's end. */
	asm_load(t, 4, BPF_REG_1, R_SCRATCH, offsetof(struct scratch, inner));
	asm_load(t, 4, BPF_REG_2, R_SCRATCH, offsetof(struct scratch, len));
	if (tr->body.tagged)
		asm_alu64_value(t, BPF_ADD, BPF_REG_1, 4);
	asm_jump64(t, BPF_JGT, BPF_REG_1, BPF_REG_2, 0, no);
	asm_load(t, 1, BPF_REG_1, R_SCRATCH, offsetof(struct scratch, inner_type));
	if (n->a)
		asm_jump(t, BPF_JEQ, BPF_REG_1, -1, INNER_ETHERNET, ethernet);
	if (n->b)
		asm_jump(t, BPF_JEQ, BPF_REG_1, -1, INNER_IP, ip);
	asm_goto(t, no);
	tr->body.inner = true;
	if (n->a) {
		asm_bind(t, ethernet);
		gen(tr, n->a, yes, no);
	}
	if (n->b) {
		asm_bind(t, ip);
		gen(tr, n->b, yes, no);
	}
	tr->body.inner = false;
}

/* Is the key at that place of the stack in the map? Else go on. */
static void gen_lookup(struct translation *tr, int fd, int key, label yes)
{
	struct asm_text *t = &tr->text;

	asm_map(t, BPF_REG_1, fd);
	asm_mov(t, BPF_REG_2, BPF_REG_10);
	asm_alu64_value(t, BPF_ADD, BPF_REG_2, key);
	asm_call(t, BPF_FUNC_map_lookup_elem);
	asm_jump64(t, BPF_JNE, BPF_REG_0, -1, 0, yes);
}

/* Is the address of @size bytes at @off of the IP header in the set? Else go on. */
static void gen_address(struct translation *tr, const struct node *n, int size, int off, label yes,
			label no)
{
	struct asm_text *t = &tr->text;
	int hosts = set_hosts_fd(n->set, size == 4 ? 4 : 6);
	int nets = set_nets_fd(n->set, size == 4 ? 4 : 6);
	int l3 = tr->body.inner ? (int)offsetof(struct scratch, inner_l3)
				: (int)offsetof(struct scratch, l3);

	asm_load(t, 4, BPF_REG_3, R_SCRATCH, l3);
	asm_alu64_value(t, BPF_ADD, BPF_REG_3, off);
	packet_copy(&tr->body, size, STACK_PREFIX + 4, no);
	if (hosts >= 0)
		gen_lookup(tr, hosts, STACK_PREFIX + 4, yes);
	if (nets < 0)
		return;
	asm_store_value(t, 4, BPF_REG_10, STACK_PREFIX, 8 * size);
	gen_lookup(tr, nets, STACK_PREFIX, yes);
}

static void gen_family(struct translation *tr, const struct node *n, int size, int src, label yes,
		       label no)
{
	if (n->end & SET_SRC)
		gen_address(tr, n, size, src, yes, no);
	if (n->end & SET_DST)
		gen_address(tr, n, size, src + size, yes, no);
	asm_goto(&tr->text, no);
}

static void gen_set(struct translation *tr, const struct node *n, label yes, label no)
{
	struct asm_text *t = &tr->text;
	label v4 = asm_label(t), v6 = asm_label(t);
	int family = tr->body.inner ? (int)offsetof(struct scratch, inner_family)
				    : (int)offsetof(struct scratch, family);

	asm_load(t, 1, BPF_REG_1, R_SCRATCH, family);
	if (set_count(n->set, 4))
		asm_jump(t, BPF_JEQ, BPF_REG_1, -1, 4, v4);
	if (set_count(n->set, 6))
		asm_jump(t, BPF_JEQ, BPF_REG_1, -1, 6, v6);
	asm_goto(t, no);
	if (set_count(n->set, 4)) {
		asm_bind(t, v4);
		gen_family(tr, n, 4, 12, yes, no);
	}
	if (set_count(n->set, 6)) {
		asm_bind(t, v6);
		gen_family(tr, n, 16, 8, yes, no);
	}
}

static void gen(struct translation *tr, const struct node *n, label yes, label no)
{
	switch (n->kind) {
	case NODE_AND:
	case NODE_OR:
		gen_both(tr, n, yes, no);
		break;
	case NODE_NOT:
		gen(tr, n->a, no, yes);
		break;
	case NODE_CLASSIC:
		classic_gen(&tr->body, &n->classic, yes, no);
		break;
	case NODE_SET:
		gen_set(tr, n, yes, no);
		break;
	case NODE_INNER:
		gen_inner(tr, n, yes, no);
		break;
	}
}

static void pass(struct translation *tr)
{
	struct asm_text *t = &tr->text;

	asm_set(t, BPF_REG_0, tr->body.hook == EBPF_TC ? TC_PASS : XDP_PASS);
	asm_exit(t);
}

/* The expression, and what comes after it. */
static void gen_body(struct translation *tr, const struct node *root, bool tagged)
{
	struct asm_text *t = &tr->text;
	label yes = asm_label(t), no = asm_label(t), decided = asm_label(t);

	tr->body.tagged = tagged;
	gen(tr, root, yes, no);
	if (asm_used(t, no)) {
		asm_bind(t, no);
		asm_store_value(t, 1, R_SCRATCH, offsetof(struct scratch, pick), 0);
		if (asm_used(t, yes))
			asm_goto(t, decided);
	}
	if (asm_used(t, yes)) {
		asm_bind(t, yes);
		asm_store_value(t, 1, R_SCRATCH, offsetof(struct scratch, pick), 1);
	}
	asm_bind(t, decided);
	asm_mov(t, BPF_REG_1, R_CTX);
	asm_map(t, BPF_REG_2, tr->maps->stages_fd);
	asm_set(t, BPF_REG_3, STAGE_DECIDED);
	asm_call(t, BPF_FUNC_tail_call);
	pass(tr);
}

static void gen_program(struct translation *tr, const struct node *root)
{
	struct asm_text *t = &tr->text;
	label found = asm_label(t), tagged = asm_label(t);

	asm_mov(t, R_CTX, BPF_REG_1);
	asm_store_value(t, 4, BPF_REG_10, STACK_KEY, 0);
	asm_map(t, BPF_REG_1, tr->maps->scratch_fd);
	asm_mov(t, BPF_REG_2, BPF_REG_10);
	asm_alu64_value(t, BPF_ADD, BPF_REG_2, STACK_KEY);
	asm_call(t, BPF_FUNC_map_lookup_elem);
	asm_jump64(t, BPF_JNE, BPF_REG_0, -1, 0, found);
	pass(tr);

	asm_bind(t, found);
	asm_mov(t, R_SCRATCH, BPF_REG_0);
	if (tr->body.hook == EBPF_TC) {
		asm_load(t, 4, BPF_REG_1, R_SCRATCH, offsetof(struct scratch, tag));
		asm_jump(t, BPF_JNE, BPF_REG_1, -1, 0, tagged);
	}
	gen_body(tr, root, false);
	if (tr->body.hook == EBPF_TC) {
		asm_bind(t, tagged);
		gen_body(tr, root, true);
	}
}

/* The maps of an expression, each once; -E2BIG: the kernel takes no more in one program. */
static int collect_maps(const struct node *n, int maps[MAPS_MAX], size_t *count)
{
	int e;

	if (!n)
		return 0;
	for (int i = 0; n->kind == NODE_SET && i < 4; i++) {
		int family = i < 2 ? 4 : 6;
		int fd = i % 2 ? set_hosts_fd(n->set, family) : set_nets_fd(n->set, family);
		size_t at = 0;

		while (at < *count && maps[at] != fd)
			at++;
		if (fd < 0 || at < *count)
			continue;
		if (*count == MAPS_MAX)
			return -E2BIG;
		maps[(*count)++] = fd;
	}
	e = collect_maps(n->a, maps, count);
	return e ? e : collect_maps(n->b, maps, count);
}

static int check_maps(const struct expression *e, struct err *err)
{
	int maps[MAPS_MAX];
	size_t n = 0;

	if (!collect_maps(e->root, maps, &n))
		return 0;
	return err_set(err, -E2BIG,
		       "too many different sets in one expression: the addresses and the networks "
		       "of a set count one each for IPv4 and for IPv6, and %u is the most",
		       MAPS_MAX);
}

int ebpf_translate(const struct expression *e, enum ebpf_hook hook, const struct ebpf_maps *maps,
		   struct ebpf_program *ret, struct err *err)
{
	struct translation tr = {.maps = maps};
	int e2 = check_maps(e, err);

	if (e2)
		return e2;
	tr.body = (struct body){
		.t = &tr.text,
		.hook = hook,
		.load_bytes = hook == EBPF_TC || ebpf_xdp_can_load(),
		/* Newer than what it is for. */
		.pad = !ebpf_xdp_can_load(),
	};
	gen_program(&tr, e->root);
	e2 = asm_finish(&tr.text, err);
	if (!e2) {
		*ret = (struct ebpf_program){.insns = tr.text.insns, .n = tr.text.n};
		tr.text.insns = NULL;
	}
	asm_release(&tr.text);
	return e2;
}

void ebpf_release(struct ebpf_program *p)
{
	free(p->insns);
	*p = (struct ebpf_program){};
}
