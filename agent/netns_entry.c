// SPDX-License-Identifier: Apache-2.0
/*
 *	scratch.netns = NUMBER; tail_call(stages, STAGE_INGRESS or STAGE_EGRESS); return pass
 *
 * Written in instructions, because an object file takes a hundred times as long to load.
 */
#include "netns_entry.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>

#include "util.h"

#define INSN(code_, dst, src, off_, imm_)    \
	((struct bpf_insn){.code = (code_),  \
			   .dst_reg = (dst), \
			   .src_reg = (src), \
			   .off = (off_),    \
			   .imm = (imm_)})
#define MOV(dst, src)     INSN(BPF_ALU64 | BPF_MOV | BPF_X, dst, src, 0, 0)
#define MOV_IMM(dst, imm) INSN(BPF_ALU64 | BPF_MOV | BPF_K, dst, 0, 0, imm)
#define CALL(helper)      INSN(BPF_JMP | BPF_CALL, 0, 0, 0, helper)
/* Two instructions. */
#define LOAD_MAP(dst, fd) \
	INSN(BPF_LD | BPF_IMM | BPF_DW, dst, BPF_PSEUDO_MAP_FD, 0, fd), INSN(0, 0, 0, 0, 0)

static int load(const struct programs *p, enum direction direction, uint32_t netns)
{
	bool egress = direction == DIRECTION_EGRESS;
	enum { R0, R1, R2, R3, R6 = 6, R10 = 10 };
	const struct bpf_insn insns[] = {
		MOV(R6, R1),
		/* Who attaches it later looks there whether we live: hook.c. */
		LOAD_MAP(R1, p->map[MAP_HEARTBEAT]),
		LOAD_MAP(R1, p->map[MAP_SCRATCH]),
		INSN(BPF_ST | BPF_MEM | BPF_W, R10, 0, -4, 0),
		MOV(R2, R10),
		INSN(BPF_ALU64 | BPF_ADD | BPF_K, R2, 0, 0, -4),
		CALL(BPF_FUNC_map_lookup_elem),
		INSN(BPF_JMP | BPF_JEQ | BPF_K, R0, 0, 6, 0),
		INSN(BPF_ST | BPF_MEM | BPF_W, R0, 0, offsetof(struct scratch, netns),
		     (int32_t)netns),
		MOV(R1, R6),
		LOAD_MAP(R2, p->map[MAP_STAGES]),
		MOV_IMM(R3, egress ? STAGE_EGRESS : STAGE_INGRESS),
		CALL(BPF_FUNC_tail_call),
		MOV_IMM(R0, p->hook == PROGRAMS_TC ? -1 : XDP_PASS),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};
	/* A program of the kind that `stages` is for. */
	LIBBPF_OPTS(bpf_prog_load_opts, opts,
		    .expected_attach_type = p->hook == PROGRAMS_TC ? 0 : BPF_XDP,
		    .prog_flags = p->hook == PROGRAMS_XDP ? BPF_F_XDP_HAS_FRAGS : 0);

	if (p->hook != PROGRAMS_TC)
		return bpf_prog_load(BPF_PROG_TYPE_XDP, "ps_xdp", "Apache-2.0", insns,
				     ARRAY_SIZE(insns), &opts);
	return bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, egress ? "ps_tc_egress" : "ps_tc_ingress",
			     "Apache-2.0", insns, ARRAY_SIZE(insns), &opts);
}

int netns_entry_load(struct netns_entry *ret, const struct programs *p, uint32_t netns,
		     struct err *err)
{
	struct netns_entry e = {{-1, -1}};

	for (int i = 0; i < (p->hook == PROGRAMS_TC ? 2 : 1); i++) {
		e.fd[i] = load(p, i ? DIRECTION_EGRESS : DIRECTION_INGRESS, netns);
		if (e.fd[i] < 0) {
			int r = e.fd[i];

			netns_entry_close(&e);
			return err_sys(err, r, "cannot load a program for the namespace");
		}
	}
	*ret = e;
	return 0;
}

void netns_entry_close(struct netns_entry *e)
{
	for (int i = 0; i < 2; i++)
		if (e->fd[i] >= 0)
			close(e->fd[i]);
	*e = (struct netns_entry){{-1, -1}};
}
