/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An assembler for eBPF: instructions one after another, and labels that may be
 * jumped to before they are bound. What goes wrong is remembered; asm_finish() tells.
 */
#ifndef PS_EBPF_ASM_H
#define PS_EBPF_ASM_H

#include <linux/bpf.h>
#include <stdbool.h>
#include <stddef.h>

#include "err.h"

typedef int label; /* as numbers go, but never added */

struct asm_label {
	size_t at; /* SIZE_MAX: not bound yet */
	bool used;
};

struct asm_jump {
	size_t at;
	label to;
};

struct asm_text {
	struct bpf_insn *insns;
	size_t n, cap;
	struct asm_label *labels;
	size_t nlabels, labels_cap;
	struct asm_jump *jumps;
	size_t njumps, jumps_cap;
	bool no_memory;
};

label asm_label(struct asm_text *t);
/* The label is here. */
void asm_bind(struct asm_text *t, label l);
/* Does a jump go there? The verifier takes no instruction that nothing leads to. */
bool asm_used(const struct asm_text *t, label l);

void asm_emit(struct asm_text *t, struct bpf_insn insn);

/* dst = src, all 64 bits; dst = value */
void asm_mov(struct asm_text *t, int dst, int src);
void asm_set(struct asm_text *t, int dst, int value);
/* dst OP= src / value: 32 bits (the upper ones become zero), or with _64 all. */
void asm_alu(struct asm_text *t, int op, int dst, int src);
void asm_alu_value(struct asm_text *t, int op, int dst, int value);
void asm_alu64(struct asm_text *t, int op, int dst, int src);
void asm_alu64_value(struct asm_text *t, int op, int dst, int value);
/* dst, of so many bits, from network order. */
void asm_be(struct asm_text *t, int dst, int bits);
/* dst = size bytes at [src + off], and the other way; sizes 1, 2, 4, 8. */
void asm_load(struct asm_text *t, int size, int dst, int src, int off);
void asm_store(struct asm_text *t, int size, int dst, int off, int src);
void asm_store_value(struct asm_text *t, int size, int dst, int off, int value);
void asm_map(struct asm_text *t, int dst, int fd);
void asm_call(struct asm_text *t, int helper);
void asm_exit(struct asm_text *t);

/* BPF_JEQ and the like: on 32 bits, or with 64 on all; @src < 0 compares with @value. */
void asm_goto(struct asm_text *t, label to);
void asm_jump(struct asm_text *t, int op, int dst, int src, int value, label to);
void asm_jump64(struct asm_text *t, int op, int dst, int src, int value, label to);

/* Put the distances in. -E2BIG: one is too long; -ENOMEM. The text stays the caller's. */
int asm_finish(struct asm_text *t, struct err *err);
void asm_release(struct asm_text *t);

#endif
