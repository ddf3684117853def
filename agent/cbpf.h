/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Classic BPF: the programs that libpcap makes of a filter expression, and their
 * meaning. (pcap.h and linux/bpf.h each have a struct bpf_insn, so libpcap stays
 * inside cbpf.c.) The virtual machine is that of McCanne and Jacobson (1993): an
 * accumulator A, an index register X, sixteen words of memory, all 32 bits, packet
 * loads in network order; a load behind the packet's end rejects the packet.
 */
#ifndef PS_CBPF_H
#define PS_CBPF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi.h"
#include "err.h"

#define CBPF_WORDS 16u

/*
 * libpcap makes loops for `protochain`, and with some packets they never end. After
 * this many jumps back the packet is rejected, as in libpcap 1.11.
 */
#define CBPF_JUMPS_BACK 64u

/* Of the loads at SKF_AD_OFF, the only one we have: outgoing or not. */
#define CBPF_PACKET_TYPE     0xfffff004u
#define CBPF_PACKET_INCOMING 0u
#define CBPF_PACKET_OUTGOING 4u

struct cbpf_insn {
	uint16_t code;
	uint8_t jt, jf;
	uint32_t k;
};

/*
 * What the translator and cbpf_match() rely on: every code is a known one, every jump
 * lands inside, memory words are below CBPF_WORDS, the last instruction is a return,
 * and constants neither divide by zero nor shift by more than 31.
 */
struct cbpf_program {
	struct cbpf_insn *insns;
	uint32_t n;
	bool direction; /* it asks for the packet's direction: `inbound`, `outbound` */
	bool loops;     /* it jumps back */
};

/*
 * Compile pcap-filter(7) @text for packets of @link_type (1 Ethernet, 101 raw IP).
 * Names of hosts are looked up here and now, as libpcap's users expect, for as long
 * as the resolver takes. -EINVAL: the sentence has libpcap's own words; -ENOENT: so it has, a
 * host has no address.
 */
int cbpf_compile(const char *text, uint32_t link_type, struct cbpf_program *ret, struct err *err);
void cbpf_release(struct cbpf_program *p);

/* What libpcap's bpf_filter() says, but for endless loops and the direction. */
bool cbpf_match(const struct cbpf_program *p, enum direction direction, const uint8_t *packet,
		uint32_t caplen, uint32_t len);

#endif
