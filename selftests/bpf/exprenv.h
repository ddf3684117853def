/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bench for expression programs: the maps that they work with, small entry and stage
 * programs in place of the capture's own, and every layout that a packet can have.
 *
 *	entry: lays the packet out, fills struct scratch, tail-calls expression 0
 *	expression i: sets scratch->pick, tail-calls stages[STAGE_DECIDED]
 *	stage: notes pick, tail-calls expression i + 1
 *
 * So one run of the kernel asks up to BENCH_BATCH expressions about one packet. The
 * layouts, and how they are made for real:
 *
 *	BENCH_TC	BPF_PROG_TEST_RUN; a tag that the packet has is in the data
 *	BENCH_TC_TAG	the same; the entry program takes the packet without its outermost tag
 *			and calls bpf_skb_vlan_push(), which puts it into the metadata
 *	BENCH_TC_FRAGS	a packet written to a TAP interface with IFF_NAPI_FRAGS, in pieces: the
 *			first becomes the linear part, each other a page fragment. The program is at
 *			its ingress hook, in front of which the kernel has put an outermost
 *			tag into the metadata.
 *	BENCH_XDP	BPF_PROG_TEST_RUN, programs without BPF_F_XDP_HAS_FRAGS
 *	BENCH_XDP_FRAGS	BPF_PROG_TEST_RUN with a long pad in front, which fills up the linear part
 *			but for a few bytes; the entry program drops it by bpf_xdp_adjust_head()
 */
#ifndef PS_EXPRENV_H
#define PS_EXPRENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi.h"
#include "expression.h"

#define BENCH_BATCH 16

enum bench_layout {
	BENCH_TC,
	BENCH_TC_TAG,
	BENCH_TC_FRAGS,
	BENCH_XDP,
	BENCH_XDP_FRAGS,
	BENCH_LAYOUTS,
};

extern const char *const bench_layout_names[BENCH_LAYOUTS];

/* In the new network namespace that env_enter() made. False: this kernel has not that layout. */
void bench_open(void);
void bench_close(void);
bool bench_has(enum bench_layout layout);

/* Load @n expressions for every layout there is; fails with the text of the one that cannot be. */
void bench_load(struct expression *const *e, const char *const *texts, size_t n);

/* A packet as it is written, and what the entry program cannot know. */
struct bench_packet {
	const uint8_t *data;
	uint32_t len;
	enum direction direction;
	uint32_t l3, inner, inner_l3; /* as in struct scratch, but in the packet as written */
	uint8_t family, inner_type, inner_family;
};

/*
 * Ask the loaded expressions; bit i of *ret_picks is the answer of the i-th. @split: bytes
 * of the linear part where the layout has another, at least 14. False: such a packet cannot
 * be had in this layout.
 */
bool bench_run(enum bench_layout layout, const struct bench_packet *p, uint32_t split,
	       uint32_t *ret_picks);
/* Nanoseconds per run of a program chain with the packet, over @repeat runs. */
uint32_t bench_cost(enum bench_layout layout, const struct bench_packet *p, uint32_t repeat);

#endif
