/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the translator share; ebpf.c explains it. */
#ifndef PS_EBPF_INTERNAL_H
#define PS_EBPF_INTERNAL_H

#include "cbpf.h"
#include "ebpf.h"
#include "ebpf_asm.h"

struct node;

/* Registers that outlive a call. */
#define R_CTX     BPF_REG_6
#define R_SCRATCH BPF_REG_7
#define R_A       BPF_REG_8
#define R_X       BPF_REG_9

/* The stack, by offset from r10. */
#define STACK_KEY    (-4)   /* u32 of the scratch map's key */
#define STACK_LOAD   (-16)  /* what a helper loaded, up to 4 bytes */
#define STACK_WINDOW (-32)  /* the bytes around a tag, see straddle() in ebpf_load_packet.c */
#define STACK_BACK   (-40)  /* u64: jumps back so far */
#define STACK_PREFIX (-64)  /* key of an address map: u32 bits, up to 16 bytes */
#define STACK_WORDS  (-128) /* M[16] */

/* Where code is being made: see "bodies" in ebpf.c. */
struct body {
	struct asm_text *t;
	enum ebpf_hook hook;
	bool tagged;     /* the packet's tag is in scratch->tag */
	bool pad;        /* for an old JIT: see pad() in ebpf_classic.c */
	bool load_bytes; /* there is a helper for what is not in the linear part */
	bool inner;      /* offsets count from scratch->inner */
	bool loops;      /* the program jumps back: see forget_x() */
};

/*
 * The load of @size bytes at the virtual offset k, or X + k with @indexed, to R_A; behind
 * the end of the packet it jumps to @fail. What is rare comes later: packet_rest().
 */
struct packet_load {
	uint32_t k;
	int size;
	bool indexed, msh;
	label slow, straddle, back, done;
};

struct packet_loads {
	struct packet_load *v;
	size_t n, cap;
};

void packet_load(const struct body *b, struct packet_loads *loads, struct packet_load l,
		 label fail);
void packet_rest(const struct body *b, const struct packet_loads *loads, label fail);

/*
 * Copy @size bytes (a multiple of 4) from the data offset in r3 to the stack; clobbers
 * r0 to r5.
 */
void packet_copy(const struct body *b, int size, int stack, label fail);

/* Has this kernel bpf_xdp_load_bytes() (Linux 5.18, commit 3f364222d032)? Asked once, by trying. */
bool ebpf_xdp_can_load(void);

/* One of libpcap's programs. */
void classic_gen(const struct body *body, const struct cbpf_program *p, label yes, label no);

#endif
