/* SPDX-License-Identifier: Apache-2.0 */
/* From a compiled expression to a BPF program that runs it in the kernel. */
#ifndef PS_EBPF_H
#define PS_EBPF_H

#include <stdbool.h>
#include <stddef.h>

#include "err.h"

struct bpf_insn; /* linux/bpf.h */
struct expression;

enum ebpf_hook { EBPF_TC, EBPF_XDP };

struct ebpf_maps {
	int scratch_fd; /* per-CPU array of one struct scratch */
	int stages_fd;  /* program array; STAGE_DECIDED comes next */
};

struct ebpf_program {
	struct bpf_insn *insns;
	size_t n;
};

/*
 * The program for @hook. It is tail-called with this CPU's struct scratch filled in,
 * sets its pick, and tail-calls stages[STAGE_DECIDED]; when nothing is there the packet
 * passes. The descriptors of maps (the sets' too) are in the program, which keeps what
 * they name alive once it is loaded. -E2BIG: longer than a jump can be, or more sets than a
 * program may look into.
 */
int ebpf_translate(const struct expression *e, enum ebpf_hook hook, const struct ebpf_maps *maps,
		   struct ebpf_program *ret, struct err *err);
void ebpf_release(struct ebpf_program *p);

/*
 * Load it; the caller closes *ret_fd. @xdp_frags as the program that tail-calls it: all
 * of a program array are of one kind. The sentence has what the verifier says.
 */
int ebpf_load(const struct ebpf_program *p, enum ebpf_hook hook, bool xdp_frags, int *ret_fd,
	      struct err *err);

#endif
