// SPDX-License-Identifier: Apache-2.0
/* One of libpcap's programs, instruction by instruction: see ebpf.c. */
#include <errno.h>
#include <linux/filter.h>
#include <stddef.h>

#include "ebpf_internal.h"
#include "util.h"

/* Of one program. */
struct state {
	const struct body *b;
	const struct cbpf_program *p;
	label *labels; /* of each instruction; a return's is yes or no */
	label yes, no;
	struct packet_loads loads;
};

static void load(struct state *s, const struct cbpf_insn *i)
{
	int size = BPF_SIZE(i->code) == BPF_W ? 4 : BPF_SIZE(i->code) == BPF_H ? 2 : 1;
	int to = BPF_CLASS(i->code) == BPF_LD ? R_A : R_X;
	const struct body *b = s->b;

	switch (BPF_MODE(i->code)) {
	case BPF_IMM:
		asm_set(b->t, to, (int)i->k);
		return;
	case BPF_MEM:
		asm_load(b->t, 4, to, BPF_REG_10, STACK_WORDS + 4 * (int)i->k);
		return;
	case BPF_LEN:
		asm_load(b->t, 4, to, R_SCRATCH, offsetof(struct scratch, len));
		if (!b->inner)
			return;
		asm_load(b->t, 4, BPF_REG_1, R_SCRATCH, offsetof(struct scratch, inner));
		asm_alu(b->t, BPF_SUB, to, BPF_REG_1);
		if (b->tagged)
			asm_alu_value(b->t, BPF_SUB, to, 4);
		return;
	}
	if (BPF_MODE(i->code) == BPF_ABS && i->k == CBPF_PACKET_TYPE) {
		/* 1 and 2 are ingress and egress; wanted are 0 and 4. */
		asm_load(b->t, 1, to, R_SCRATCH, offsetof(struct scratch, direction));
		asm_alu_value(b->t, BPF_AND, to, DIRECTION_EGRESS);
		asm_alu_value(b->t, BPF_LSH, to, 1);
		return;
	}
	packet_load(b, &s->loads,
		    (struct packet_load){
			    .k = i->k,
			    .size = size,
			    .indexed = BPF_MODE(i->code) == BPF_IND,
			    .msh = BPF_MODE(i->code) == BPF_MSH,
		    },
		    s->no);
}

/* A shift by 32 or more leaves nothing; eBPF would shift by the lowest five bits. */
static void shift_by_x(struct asm_text *t, int op)
{
	label far = asm_label(t), done = asm_label(t);

	asm_jump(t, BPF_JGT, R_X, -1, 31, far);
	asm_alu(t, op, R_A, R_X);
	asm_goto(t, done);
	asm_bind(t, far);
	asm_set(t, R_A, 0);
	asm_bind(t, done);
}

static void alu(struct state *s, const struct cbpf_insn *i)
{
	struct asm_text *t = s->b->t;
	int op = BPF_OP(i->code);

	if (op == BPF_NEG) {
		asm_alu_value(t, BPF_NEG, R_A, 0);
	} else if (BPF_SRC(i->code) == BPF_K) {
		asm_alu_value(t, op, R_A, (int)i->k);
	} else if (op == BPF_LSH || op == BPF_RSH) {
		shift_by_x(t, op);
	} else {
		if (op == BPF_DIV || op == BPF_MOD)
			asm_jump(t, BPF_JEQ, R_X, -1, 0, s->no);
		asm_alu(t, op, R_A, R_X);
	}
}

/* The opposite, 0 when there is none. */
static int inverse(int op)
{
	switch (op) {
	case BPF_JEQ:
		return BPF_JNE;
	case BPF_JGT:
		return BPF_JLE;
	case BPF_JGE:
		return BPF_JLT;
	}
	return 0;
}

/* True when what comes next can be reached from here. */
static bool conditional(struct state *s, const struct cbpf_insn *i, uint32_t at)
{
	label yes = s->labels[at + 1 + i->jt], no = s->labels[at + 1 + i->jf];
	int op = BPF_OP(i->code), x = BPF_SRC(i->code) == BPF_X ? R_X : -1, k = (int)i->k;
	struct asm_text *t = s->b->t;

	if (i->jt == i->jf) {
		if (i->jt)
			asm_goto(t, yes);
		return !i->jt;
	}
	if (!i->jt && inverse(op)) {
		asm_jump(t, inverse(op), R_A, x, k, no);
		return true;
	}
	asm_jump(t, op, R_A, x, k, yes);
	if (i->jf)
		asm_goto(t, no);
	/* With jt == 0 (there is no "not set") the label there is bound to what is next. */
	return !i->jf;
}

/*
 * The verifier wants an end to every loop, so jumps back are counted; it follows the
 * program once for each count.
 */
static void jump_back(struct state *s, label to)
{
	struct asm_text *t = s->b->t;

	asm_load(t, 8, BPF_REG_1, BPF_REG_10, STACK_BACK);
	asm_jump64(t, BPF_JGE, BPF_REG_1, -1, CBPF_JUMPS_BACK, s->no);
	asm_alu64_value(t, BPF_ADD, BPF_REG_1, 1);
	asm_store(t, 8, BPF_REG_10, STACK_BACK, BPF_REG_1);
	asm_goto(t, to);
}

static bool jump(struct state *s, const struct cbpf_insn *i, uint32_t at)
{
	if (BPF_OP(i->code) != BPF_JA)
		return conditional(s, i, at);
	if ((int32_t)i->k < 0)
		jump_back(s, s->labels[at + 1 + i->k]);
	else if (i->k)
		asm_goto(s->b->t, s->labels[at + 1 + i->k]);
	else
		return true;
	return false;
}

/* True when what comes next can be reached from here. */
static bool instruction(struct state *s, uint32_t at)
{
	const struct cbpf_insn *i = &s->p->insns[at];
	struct asm_text *t = s->b->t;

	switch (BPF_CLASS(i->code)) {
	case BPF_LD:
	case BPF_LDX:
		load(s, i);
		return true;
	case BPF_ST:
		asm_store(t, 4, BPF_REG_10, STACK_WORDS + 4 * (int)i->k, R_A);
		return true;
	case BPF_STX:
		asm_store(t, 4, BPF_REG_10, STACK_WORDS + 4 * (int)i->k, R_X);
		return true;
	case BPF_ALU:
		alu(s, i);
		return true;
	case BPF_JMP:
		return jump(s, i, at);
	case BPF_MISC:
		if (BPF_MISCOP(i->code) == BPF_TAX)
			asm_mov(t, R_X, R_A);
		else
			asm_mov(t, R_A, R_X);
		return true;
	}
	if (BPF_RVAL(i->code) == BPF_A) {
		asm_jump(t, BPF_JNE, R_A, -1, 0, s->yes);
		asm_goto(t, s->no);
	} else {
		asm_goto(t, i->k ? s->yes : s->no);
	}
	return false;
}

/*
 * The JIT of x86 works out by passes which jumps are short, and before Linux 5.12 (commit
 * 93c5aecc35c6) it gave up when each pass made one more so, as many jumps to code that
 * is just behind make it do. A program left to the interpreter cannot be in an array with
 * others. So there what is out of line is put out of a short jump's reach, behind code that
 * never runs: no packet has the length 0, but the verifier does not know that.
 */
static void pad(const struct body *b, label here, label no)
{
	/* Each is ten bytes of x86. */
	asm_bind(b->t, here);
	for (int i = 0; i < 14; i++) {
		asm_emit(b->t, (struct bpf_insn){.code = BPF_LD | BPF_IMM | BPF_DW});
		asm_emit(b->t, (struct bpf_insn){.imm = 1});
	}
	asm_goto(b->t, no);
}

/* A classic program starts with zeros everywhere. */
static void start(struct state *s)
{
	struct asm_text *t = s->b->t;
	uint32_t words = 0;

	asm_set(t, R_A, 0);
	asm_set(t, R_X, 0);
	for (uint32_t i = 0; i < s->p->n; i++) {
		const struct cbpf_insn *insn = &s->p->insns[i];
		int class = BPF_CLASS(insn->code);

		if ((class == BPF_LD || class == BPF_LDX) && BPF_MODE(insn->code) == BPF_MEM)
			words |= 1u << insn->k;
	}
	for (int i = 0; i < (int)CBPF_WORDS; i++) {
		if (words & 1u << i)
			asm_store_value(t, 4, BPF_REG_10, STACK_WORDS + 4 * i, 0);
	}
	if (s->p->loops) {
		asm_set(t, BPF_REG_1, 0);
		asm_store(t, 8, BPF_REG_10, STACK_BACK, BPF_REG_1);
	}
}

void classic_gen(const struct body *body, const struct cbpf_program *p, label yes, label no)
{
	struct body with_loops = *body;
	const struct body *b = p->loops ? &with_loops : body;
	struct state s = {.b = b, .p = p, .yes = yes, .no = no};
	label behind = asm_label(body->t);
	bool reached = true;

	with_loops.loops = true;
	s.labels = calloc(p->n, sizeof(*s.labels));
	if (!s.labels) {
		b->t->no_memory = true;
		return;
	}
	for (uint32_t i = 0; i < p->n; i++) {
		const struct cbpf_insn *insn = &p->insns[i];

		if (insn->code == (BPF_RET | BPF_K))
			s.labels[i] = insn->k ? yes : no;
		else
			s.labels[i] = asm_label(b->t);
	}
	start(&s);
	if (b->pad) {
		asm_load(b->t, 4, BPF_REG_1, R_SCRATCH, offsetof(struct scratch, len));
		asm_jump(b->t, BPF_JEQ, BPF_REG_1, -1, 0, behind);
	}
	for (uint32_t i = 0; i < p->n; i++) {
		bool is_return = p->insns[i].code == (BPF_RET | BPF_K);

		if (!is_return && asm_used(b->t, s.labels[i]))
			reached = true;
		if (!reached)
			continue;
		if (!is_return)
			asm_bind(b->t, s.labels[i]);
		reached = instruction(&s, i);
	}
	if (b->pad)
		pad(b, behind, no);
	packet_rest(b, &s.loads, no);
	free(s.loads.v);
	free(s.labels);
}
