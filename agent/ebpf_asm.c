// SPDX-License-Identifier: Apache-2.0
#include "ebpf_asm.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

/* Room for one more; false when there is none. */
static bool grow(void *array, size_t size, size_t n, size_t *cap)
{
	void **p = array;
	size_t more = *cap ? 2 * *cap : 256;
	void *grown;

	if (n < *cap)
		return true;
	grown = reallocarray(*p, more, size);
	if (!grown)
		return false;
	*p = grown;
	*cap = more;
	return true;
}

label asm_label(struct asm_text *t)
{
	if (!grow(&t->labels, sizeof(*t->labels), t->nlabels, &t->labels_cap)) {
		t->no_memory = true;
		return -1;
	}
	t->labels[t->nlabels] = (struct asm_label){.at = SIZE_MAX};
	return (label)t->nlabels++;
}

void asm_bind(struct asm_text *t, label l)
{
	if (l >= 0)
		t->labels[l].at = t->n;
}

bool asm_used(const struct asm_text *t, label l)
{
	return l >= 0 && t->labels[l].used;
}

void asm_emit(struct asm_text *t, struct bpf_insn insn)
{
	if (!grow(&t->insns, sizeof(*t->insns), t->n, &t->cap)) {
		t->no_memory = true;
		return;
	}
	t->insns[t->n++] = insn;
}

static void emit(struct asm_text *t, int code, int dst, int src, int off, int value)
{
	asm_emit(t, (struct bpf_insn){
			    .code = (uint8_t)code,
			    .dst_reg = (uint8_t)(dst & 0xf),
			    .src_reg = (uint8_t)(src & 0xf),
			    .off = (int16_t)off,
			    .imm = value,
		    });
}

void asm_mov(struct asm_text *t, int dst, int src)
{
	emit(t, BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0);
}

void asm_set(struct asm_text *t, int dst, int value)
{
	emit(t, BPF_ALU | BPF_MOV | BPF_K, dst, 0, 0, value);
}

void asm_alu(struct asm_text *t, int op, int dst, int src)
{
	emit(t, BPF_ALU | op | BPF_X, dst, src, 0, 0);
}

void asm_alu_value(struct asm_text *t, int op, int dst, int value)
{
	emit(t, BPF_ALU | op | BPF_K, dst, 0, 0, value);
}

void asm_alu64(struct asm_text *t, int op, int dst, int src)
{
	emit(t, BPF_ALU64 | op | BPF_X, dst, src, 0, 0);
}

void asm_alu64_value(struct asm_text *t, int op, int dst, int value)
{
	emit(t, BPF_ALU64 | op | BPF_K, dst, 0, 0, value);
}

void asm_be(struct asm_text *t, int dst, int bits)
{
	emit(t, BPF_ALU | BPF_END | BPF_TO_BE, dst, 0, 0, bits);
}

static int size_code(int size)
{
	return size == 8 ? BPF_DW : size == 4 ? BPF_W : size == 2 ? BPF_H : BPF_B;
}

void asm_load(struct asm_text *t, int size, int dst, int src, int off)
{
	emit(t, BPF_LDX | BPF_MEM | size_code(size), dst, src, off, 0);
}

void asm_store(struct asm_text *t, int size, int dst, int off, int src)
{
	emit(t, BPF_STX | BPF_MEM | size_code(size), dst, src, off, 0);
}

void asm_store_value(struct asm_text *t, int size, int dst, int off, int value)
{
	emit(t, BPF_ST | BPF_MEM | size_code(size), dst, 0, off, value);
}

void asm_map(struct asm_text *t, int dst, int fd)
{
	emit(t, BPF_LD | BPF_IMM | BPF_DW, dst, BPF_PSEUDO_MAP_FD, 0, fd);
	emit(t, 0, 0, 0, 0, 0);
}

void asm_call(struct asm_text *t, int helper)
{
	emit(t, BPF_JMP | BPF_CALL, 0, 0, 0, helper);
}

void asm_exit(struct asm_text *t)
{
	emit(t, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

static void jump(struct asm_text *t, int code, int dst, int src, int value, label to)
{
	if (to < 0 || !grow(&t->jumps, sizeof(*t->jumps), t->njumps, &t->jumps_cap)) {
		t->no_memory = true;
		return;
	}
	t->labels[to].used = true;
	t->jumps[t->njumps++] = (struct asm_jump){.at = t->n, .to = to};
	if (src < 0)
		emit(t, code | BPF_K, dst, 0, 0, value);
	else
		emit(t, code | BPF_X, dst, src, 0, 0);
}

void asm_goto(struct asm_text *t, label to)
{
	jump(t, BPF_JMP | BPF_JA, 0, -1, 0, to);
}

void asm_jump(struct asm_text *t, int op, int dst, int src, int value, label to)
{
	jump(t, BPF_JMP32 | op, dst, src, value, to);
}

void asm_jump64(struct asm_text *t, int op, int dst, int src, int value, label to)
{
	jump(t, BPF_JMP | op, dst, src, value, to);
}

int asm_finish(struct asm_text *t, struct err *err)
{
	if (t->no_memory)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < t->njumps; i++) {
		const struct asm_jump *j = &t->jumps[i];
		size_t to = t->labels[j->to].at;
		long distance = (long)to - (long)j->at - 1;

		if (to > t->n)
			return err_set(err, -EINVAL, "instruction %zu jumps nowhere", j->at);
		if (distance < INT16_MIN || distance > INT16_MAX)
			return err_set(
				err, -E2BIG,
				"the expression is too long (%zu instructions); many addresses "
				"belong in a named set",
				t->n);
		t->insns[j->at].off = (int16_t)distance;
	}
	return 0;
}

void asm_release(struct asm_text *t)
{
	free(t->insns);
	free(t->labels);
	free(t->jumps);
	*t = (struct asm_text){};
}
