// SPDX-License-Identifier: Apache-2.0
/*
 * Packet bytes for a translated program: see ebpf.c.
 *
 * A classic program names a VIRTUAL offset, one of the packet as it will be written. In
 * the kernel's data it is elsewhere:
 *
 *	plain body		the same
 *	tagged body		before 12 the same, from 16 on 4 less, between in the tag
 *	inner packet		scratch->inner more
 *
 * When virtual offset and body are known, so is the place, at translation time; for an
 * indexed load the program works it out. Then the fast path reads the linear part
 * directly, and the slow path, out of line, asks a helper.
 */
#include <errno.h>
#include <stddef.h>

#include "ebpf_internal.h"
#include "util.h"

#define TAG_AT  12
#define TAG_END 16
/* The verifier has a limit for offsets from a packet pointer; this is far below. */
#define DIRECT_MAX 0x3fff
/* Helpers take 31 bits of offset; no packet is that long. */
#define OFFSET_MAX 0x7fffffffu

static int data_field(const struct body *b)
{
	return b->hook == EBPF_TC ? (int)offsetof(struct __sk_buff, data)
				  : (int)offsetof(struct xdp_md, data);
}

static int data_end_field(const struct body *b)
{
	return b->hook == EBPF_TC ? (int)offsetof(struct __sk_buff, data_end)
				  : (int)offsetof(struct xdp_md, data_end);
}

/* r1 = the packet, where @off (plus r3, when @indexed) and @size bytes are linear. */
static void direct(const struct body *b, bool indexed, uint32_t off, int size, label slow)
{
	struct asm_text *t = b->t;

	if (indexed)
		asm_jump64(t, BPF_JGT, BPF_REG_3, -1, DIRECT_MAX, slow);
	asm_load(t, 4, BPF_REG_2, R_CTX, data_end_field(b));
	asm_load(t, 4, BPF_REG_1, R_CTX, data_field(b));
	if (indexed)
		asm_alu64(t, BPF_ADD, BPF_REG_1, BPF_REG_3);
	asm_mov(t, BPF_REG_0, BPF_REG_1);
	asm_alu64_value(t, BPF_ADD, BPF_REG_0, (int)off + size);
	asm_jump64(t, BPF_JGT, BPF_REG_0, BPF_REG_2, 0, slow);
}

/* r2 = the offset, stack[@stack] = @size bytes from there. */
static void helper(const struct body *b, int stack, int size, label fail)
{
	struct asm_text *t = b->t;

	asm_mov(t, BPF_REG_1, R_CTX);
	asm_mov(t, BPF_REG_3, BPF_REG_10);
	asm_alu64_value(t, BPF_ADD, BPF_REG_3, stack);
	if (size)
		asm_set(t, BPF_REG_4, size);
	asm_call(t, b->hook == EBPF_TC ? BPF_FUNC_skb_load_bytes : BPF_FUNC_xdp_load_bytes);
	asm_jump64(t, BPF_JNE, BPF_REG_0, -1, 0, fail);
}

/* What a load leaves in its register. */
static void finish(const struct body *b, const struct packet_load *l)
{
	if (l->size > 1)
		asm_be(b->t, R_A, 8 * l->size);
	if (!l->msh)
		return;
	asm_alu_value(b->t, BPF_AND, R_X, 0xf);
	asm_alu_value(b->t, BPF_LSH, R_X, 2);
}

static int target(const struct packet_load *l)
{
	return l->msh ? R_X : R_A;
}

/* Never there: a jump that is always taken, but leads on as well in the verifier's graph. */
static void load_nothing(const struct body *b, label fail)
{
	asm_set(b->t, BPF_REG_0, 0);
	asm_jump(b->t, BPF_JEQ, BPF_REG_0, -1, 0, fail);
}

/* A constant place in the data. */
static void load_at(const struct body *b, struct packet_load *l, uint32_t at)
{
	l->k = at;
	if (at > DIRECT_MAX) {
		asm_goto(b->t, l->slow);
	} else {
		direct(b, false, at, l->size, l->slow);
		asm_load(b->t, l->size, target(l), BPF_REG_1, (int)at);
	}
	asm_bind(b->t, l->back);
	finish(b, l);
}

/* The place is in r3, never above 2^33. */
static void load_indexed(const struct body *b, struct packet_load *l)
{
	direct(b, true, 0, l->size, l->slow);
	asm_load(b->t, l->size, target(l), BPF_REG_1, 0);
	asm_bind(b->t, l->back);
	finish(b, l);
}

/*
 * r3 = X, and the verifier knows nothing about it. An offset for a packet pointer it must
 * know precisely, and so it looks back to what X was made of; then every round of a loop is
 * a different one, and what it follows doubles with each. It does not look back beyond
 * what comes out of a map: so X goes through the scratch, in place of its length.
 */
static void forget_x(struct asm_text *t)
{
	const int len = offsetof(struct scratch, len);

	asm_load(t, 4, BPF_REG_1, R_SCRATCH, len);
	asm_store(t, 4, R_SCRATCH, len, R_X);
	asm_load(t, 4, BPF_REG_3, R_SCRATCH, len);
	asm_store(t, 4, R_SCRATCH, len, BPF_REG_1);
}

/* r3 = X + k, as it is in the data; what touches the tag goes to l->straddle. */
static void index_of(const struct body *b, const struct packet_load *l)
{
	struct asm_text *t = b->t;
	label before = asm_label(t);

	if (b->loops)
		forget_x(t);
	else
		asm_mov(t, BPF_REG_3, R_X);
	if (b->inner) {
		asm_load(t, 4, BPF_REG_1, R_SCRATCH, offsetof(struct scratch, inner));
		asm_alu64(t, BPF_ADD, BPF_REG_3, BPF_REG_1);
	}
	if (!b->tagged || b->inner) {
		asm_alu64_value(t, BPF_ADD, BPF_REG_3, (int)l->k);
		return;
	}
	if (l->k >= TAG_END) {
		asm_alu64_value(t, BPF_ADD, BPF_REG_3, (int)l->k - 4);
		return;
	}
	asm_alu64_value(t, BPF_ADD, BPF_REG_3, (int)l->k);
	asm_jump64(t, BPF_JLE, BPF_REG_3, -1, TAG_AT - l->size, before);
	asm_jump64(t, BPF_JLT, BPF_REG_3, -1, TAG_END, l->straddle);
	asm_alu64_value(t, BPF_SUB, BPF_REG_3, 4);
	asm_bind(t, before);
}

static void inner_constant(const struct body *b, struct packet_load *l)
{
	asm_load(b->t, 4, BPF_REG_3, R_SCRATCH, offsetof(struct scratch, inner));
	asm_alu64_value(b->t, BPF_ADD, BPF_REG_3, (int)l->k);
	l->indexed = true;
	load_indexed(b, l);
}

void packet_load(const struct body *b, struct packet_loads *loads, struct packet_load l, label fail)
{
	struct asm_text *t = b->t;
	uint64_t end = (uint64_t)l.k + (uint32_t)l.size;

	if (l.k > (b->load_bytes ? OFFSET_MAX - 4 : DIRECT_MAX)) {
		load_nothing(b, fail);
		return;
	}
	l.slow = b->load_bytes ? asm_label(t) : fail;
	l.straddle = asm_label(t);
	l.back = asm_label(t);
	l.done = asm_label(t);
	if (l.indexed) {
		index_of(b, &l);
		load_indexed(b, &l);
	} else if (b->inner) {
		inner_constant(b, &l);
	} else if (!b->tagged || end <= TAG_AT) {
		load_at(b, &l, l.k);
	} else if (l.k >= TAG_END) {
		load_at(b, &l, l.k - 4);
	} else {
		asm_set(t, BPF_REG_3, (int)l.k);
		asm_goto(t, l.straddle);
	}
	asm_bind(t, l.done);

	if (loads->n == loads->cap) {
		size_t cap = MAX(2 * loads->cap, 64u);
		struct packet_load *v = reallocarray(loads->v, cap, sizeof(*v));

		if (!v) {
			t->no_memory = true;
			return;
		}
		loads->v = v;
		loads->cap = cap;
	}
	loads->v[loads->n++] = l;
}

static void slow(const struct body *b, const struct packet_load *l, label fail)
{
	struct asm_text *t = b->t;

	asm_bind(t, l->slow);
	if (l->indexed) {
		asm_jump64(t, BPF_JGT, BPF_REG_3, -1, (int)OFFSET_MAX, fail);
		asm_mov(t, BPF_REG_2, BPF_REG_3);
	} else {
		asm_set(t, BPF_REG_2, (int)l->k);
	}
	helper(b, STACK_LOAD, l->size, fail);
	asm_load(t, l->size, target(l), BPF_REG_10, STACK_LOAD);
	asm_goto(t, l->back);
}

/*
 * The virtual offset v in r3, below 16, and some of the bytes wanted are the tag's. Two
 * windows of eight bytes cover every case: virtual 8..15 for what starts before 12, and
 * 12..19 for the rest, each a big-endian number in a register that is shifted so that
 * the wanted bytes are its lowest. Behind the tag as many bytes are fetched as are
 * wanted, for the packet may end there.
 */
static void straddle(const struct body *b, const struct packet_load *l, label fail)
{
	struct asm_text *t = b->t;
	label have = asm_label(t), upper = asm_label(t), cut = asm_label(t);
	int to = target(l);

	asm_bind(t, l->straddle);
	/* Nothing else is in the target yet, and it outlives the calls. */
	asm_mov(t, to, BPF_REG_3);
	asm_set(t, BPF_REG_2, 8);
	helper(b, STACK_WINDOW, 4, fail);
	asm_load(t, 4, BPF_REG_1, R_SCRATCH, offsetof(struct scratch, tag));
	asm_store(t, 4, BPF_REG_10, STACK_WINDOW + 4, BPF_REG_1);
	asm_store_value(t, 4, BPF_REG_10, STACK_WINDOW + 8, 0);
	asm_mov(t, BPF_REG_4, to);
	asm_alu64_value(t, BPF_ADD, BPF_REG_4, l->size - TAG_END);
	asm_jump64(t, BPF_JSLE, BPF_REG_4, -1, 0, have);
	/*
	 * The verifier of Linux 6.12 relates r4 to what it was made from, and takes what it
	 * learns of that for r4's bounds; masked, r4 stands by itself.
	 */
	asm_alu64_value(t, BPF_AND, BPF_REG_4, 7);
	asm_jump64(t, BPF_JSLT, BPF_REG_4, -1, 1, fail);
	asm_jump64(t, BPF_JSGT, BPF_REG_4, -1, 4, fail);
	asm_set(t, BPF_REG_2, TAG_AT);
	helper(b, STACK_WINDOW + 8, 0, fail);
	asm_bind(t, have);

	asm_jump64(t, BPF_JGE, to, -1, TAG_AT, upper);
	asm_load(t, 8, BPF_REG_0, BPF_REG_10, STACK_WINDOW);
	asm_be(t, BPF_REG_0, 64);
	asm_set(t, BPF_REG_1, TAG_END - l->size);
	asm_goto(t, cut);

	asm_bind(t, upper);
	asm_load(t, 4, BPF_REG_0, BPF_REG_10, STACK_WINDOW + 4);
	asm_be(t, BPF_REG_0, 32);
	asm_alu64_value(t, BPF_LSH, BPF_REG_0, 32);
	asm_load(t, 4, BPF_REG_1, BPF_REG_10, STACK_WINDOW + 8);
	asm_be(t, BPF_REG_1, 32);
	asm_alu64(t, BPF_OR, BPF_REG_0, BPF_REG_1);
	asm_set(t, BPF_REG_1, TAG_END + 4 - l->size);

	asm_bind(t, cut);
	asm_alu64(t, BPF_SUB, BPF_REG_1, to);
	asm_alu64_value(t, BPF_LSH, BPF_REG_1, 3);
	asm_alu64_value(t, BPF_AND, BPF_REG_1, 63);
	asm_alu64(t, BPF_RSH, BPF_REG_0, BPF_REG_1);
	asm_alu(t, BPF_MOV, to, BPF_REG_0);
	if (l->size < 4)
		asm_alu_value(t, BPF_AND, to, l->size == 2 ? 0xffff : 0xff);
	if (l->msh) {
		asm_alu_value(t, BPF_AND, to, 0xf);
		asm_alu_value(t, BPF_LSH, to, 2);
	}
	asm_goto(t, l->done);
}

void packet_rest(const struct body *b, const struct packet_loads *loads, label fail)
{
	for (size_t i = 0; i < loads->n; i++) {
		const struct packet_load *l = &loads->v[i];

		if (b->load_bytes && asm_used(b->t, l->slow))
			slow(b, l, fail);
		if (asm_used(b->t, l->straddle))
			straddle(b, l, fail);
	}
}

void packet_copy(const struct body *b, int size, int stack, label fail)
{
	struct asm_text *t = b->t;
	label far = asm_label(t), done = asm_label(t);

	direct(b, true, 0, size, b->load_bytes ? far : fail);
	for (int i = 0; i < size; i += 4) {
		asm_load(t, 4, BPF_REG_0, BPF_REG_1, i);
		asm_store(t, 4, BPF_REG_10, stack + i, BPF_REG_0);
	}
	if (!b->load_bytes)
		return;
	asm_goto(t, done);
	asm_bind(t, far);
	asm_jump64(t, BPF_JGT, BPF_REG_3, -1, (int)OFFSET_MAX, fail);
	asm_mov(t, BPF_REG_2, BPF_REG_3);
	helper(b, stack, size, fail);
	asm_bind(t, done);
}
