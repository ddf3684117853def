// SPDX-License-Identifier: Apache-2.0
/* libpcap's compiler, and a check that its programs are what we know how to run. */
#include "cbpf.h"

#include <errno.h>
#include <pcap/pcap.h>
#include <string.h>

#include "packet.h"
#include "util.h"

/*
 * Of longer texts libpcap's program is taken as it comes: its optimiser needs the third
 * power of the length, for 256 ports three seconds, for 600 eighty. (For the kernel such
 * programs are mostly too long then; sets are for that.)
 */
#define OPTIMISE_MAX   4096u
#define OPTIMISE_WORDS 512u /* `or` is one, too */
/* How much of a text an error repeats. */
#define SHOWN  100
#define BLANKS " \t\r\n|"
/* The first of the loads of what is not in the packet, as the kernel numbers them. */
#define ANCILLARY 0xfffff000u

static bool jumps_inside(const struct cbpf_insn *i, uint32_t at, uint32_t n)
{
	uint32_t left = n - 1 - at;

	if (BPF_CLASS(i->code) != BPF_JMP)
		return true;
	if (BPF_OP(i->code) != BPF_JA)
		return i->jt < left && i->jf < left;
	/* Backward distances are negative numbers. */
	return (int32_t)i->k < 0 ? 0 - i->k <= at + 1 : i->k < left;
}

static bool is_known(const struct cbpf_insn *i)
{
	switch (i->code) {
	case BPF_LD | BPF_W | BPF_ABS:
	case BPF_LD | BPF_H | BPF_ABS:
	case BPF_LD | BPF_B | BPF_ABS:
		return i->k < ANCILLARY || i->k == CBPF_PACKET_TYPE;
	case BPF_LD | BPF_W | BPF_IND:
	case BPF_LD | BPF_H | BPF_IND:
	case BPF_LD | BPF_B | BPF_IND:
	case BPF_LDX | BPF_B | BPF_MSH:
	case BPF_LD | BPF_W | BPF_LEN:
	case BPF_LDX | BPF_W | BPF_LEN:
	case BPF_LD | BPF_IMM:
	case BPF_LDX | BPF_IMM:
	case BPF_MISC | BPF_TAX:
	case BPF_MISC | BPF_TXA:
	case BPF_RET | BPF_K:
	case BPF_RET | BPF_A:
	case BPF_ALU | BPF_NEG:
		return true;
	case BPF_LD | BPF_MEM:
	case BPF_LDX | BPF_MEM:
	case BPF_ST:
	case BPF_STX:
		return i->k < CBPF_WORDS;
	case BPF_ALU | BPF_DIV | BPF_K:
	case BPF_ALU | BPF_MOD | BPF_K:
		return i->k != 0;
	case BPF_ALU | BPF_LSH | BPF_K:
	case BPF_ALU | BPF_RSH | BPF_K:
		return i->k < 32;
	}
	if (BPF_CLASS(i->code) == BPF_ALU)
		return BPF_OP(i->code) <= BPF_RSH || BPF_OP(i->code) == BPF_MOD ||
		       BPF_OP(i->code) == BPF_XOR;
	return BPF_CLASS(i->code) == BPF_JMP && BPF_OP(i->code) <= BPF_JSET;
}

static int check(struct cbpf_program *p, const char *text, struct err *err)
{
	for (uint32_t i = 0; i < p->n; i++) {
		const struct cbpf_insn *insn = &p->insns[i];

		if (BPF_CLASS(insn->code) == BPF_LD && BPF_MODE(insn->code) == BPF_ABS &&
		    insn->k >= ANCILLARY && insn->k != CBPF_PACKET_TYPE)
			return err_set(err, -EINVAL,
				       "\"%.*s\": asks for what is not in the packet; of that only "
				       "inbound and outbound can be had",
				       SHOWN, text);
		if (!is_known(insn) || !jumps_inside(insn, i, p->n))
			return err_set(
				err, -EINVAL,
				"\"%.*s\": libpcap's instruction %u (code %#x, %u) is unknown",
				SHOWN, text, i, insn->code, insn->k);
		p->direction |= BPF_CLASS(insn->code) == BPF_LD &&
				BPF_MODE(insn->code) == BPF_ABS && insn->k == CBPF_PACKET_TYPE;
		p->loops |= insn->code == (BPF_JMP | BPF_JA) && (int32_t)insn->k < 0;
	}
	if (!p->n || BPF_CLASS(p->insns[p->n - 1].code) != BPF_RET)
		return err_set(err, -EINVAL, "\"%.*s\": libpcap's program has no end", SHOWN, text);
	return 0;
}

static int copy(const struct bpf_program *from, struct cbpf_program *to)
{
	to->insns = calloc(from->bf_len, sizeof(*to->insns));
	if (!to->insns)
		return -ENOMEM;
	to->n = from->bf_len;
	for (uint32_t i = 0; i < to->n; i++) {
		const struct bpf_insn *insn = &from->bf_insns[i];

		to->insns[i] = (struct cbpf_insn){insn->code, insn->jt, insn->jf, insn->k};
	}
	return 0;
}

static bool is_short(const char *text)
{
	size_t words = 0;

	if (strlen(text) > OPTIMISE_MAX)
		return false;
	for (text += strspn(text, BLANKS); *text; text += strspn(text, BLANKS)) {
		text += strcspn(text, BLANKS);
		words++;
	}
	return words <= OPTIMISE_WORDS;
}

/* That the resolver has nothing to say is no fault of the text. */
static int refusal(const char *why)
{
	return strncmp(why, "unknown host", strlen("unknown host")) ? -EINVAL : -ENOENT;
}

int cbpf_compile(const char *text, uint32_t link_type, struct cbpf_program *ret, struct err *err)
{
	int dlt = link_type == LINK_RAW ? DLT_RAW : DLT_EN10MB;
	struct cbpf_program p = {};
	struct bpf_program code;
	pcap_t *pcap = pcap_open_dead(dlt, SNAPLEN_MAX);
	int e;

	if (!pcap)
		return err_set(err, -ENOMEM, "out of memory");
	if (pcap_compile(pcap, &code, text, is_short(text), PCAP_NETMASK_UNKNOWN)) {
		e = err_set(err, refusal(pcap_geterr(pcap)), "\"%.*s\": %s", SHOWN, text,
			    pcap_geterr(pcap));
	} else {
		e = copy(&code, &p);
		pcap_freecode(&code);
		e = e ? err_set(err, e, "out of memory") : check(&p, text, err);
	}
	pcap_close(pcap);
	if (e)
		cbpf_release(&p);
	else
		*ret = p;
	return e;
}

void cbpf_release(struct cbpf_program *p)
{
	free(p->insns);
	*p = (struct cbpf_program){};
}

/* The machine's state between two instructions. */
struct machine {
	uint32_t a, x, words[CBPF_WORDS];
	const uint8_t *packet;
	uint32_t caplen, len;
	enum direction direction;
};

static bool load(const struct machine *m, uint64_t off, uint32_t size, uint32_t *ret)
{
	uint32_t v = 0;

	if (off + size > m->caplen)
		return false;
	while (size--)
		v = v << 8 | m->packet[off++];
	*ret = v;
	return true;
}

static bool run_load(struct machine *m, const struct cbpf_insn *i)
{
	uint32_t size = BPF_SIZE(i->code) == BPF_W ? 4 : BPF_SIZE(i->code) == BPF_H ? 2 : 1;
	uint32_t *to = BPF_CLASS(i->code) == BPF_LD ? &m->a : &m->x;

	switch (BPF_MODE(i->code)) {
	case BPF_IMM:
		*to = i->k;
		return true;
	case BPF_MEM:
		*to = m->words[i->k];
		return true;
	case BPF_LEN:
		*to = m->len;
		return true;
	case BPF_IND:
		return load(m, (uint64_t)m->x + i->k, size, to);
	case BPF_MSH:
		if (!load(m, i->k, 1, to))
			return false;
		*to = (*to & 0xf) << 2;
		return true;
	default:
		if (i->k != CBPF_PACKET_TYPE)
			return load(m, i->k, size, to);
		*to = m->direction == DIRECTION_EGRESS ? CBPF_PACKET_OUTGOING
						       : CBPF_PACKET_INCOMING;
		return true;
	}
}

static bool run_alu(struct machine *m, const struct cbpf_insn *i)
{
	uint32_t v = BPF_SRC(i->code) == BPF_X ? m->x : i->k;

	switch (BPF_OP(i->code)) {
	case BPF_ADD:
		m->a += v;
		return true;
	case BPF_SUB:
		m->a -= v;
		return true;
	case BPF_MUL:
		m->a *= v;
		return true;
	case BPF_DIV:
		m->a = v ? m->a / v : 0;
		return v != 0;
	case BPF_MOD:
		m->a = v ? m->a % v : 0;
		return v != 0;
	case BPF_AND:
		m->a &= v;
		return true;
	case BPF_OR:
		m->a |= v;
		return true;
	case BPF_XOR:
		m->a ^= v;
		return true;
	case BPF_LSH:
		m->a = v < 32 ? m->a << v : 0;
		return true;
	case BPF_RSH:
		m->a = v < 32 ? m->a >> v : 0;
		return true;
	default:
		m->a = 0 - m->a;
		return true;
	}
}

static uint32_t jump_distance(const struct machine *m, const struct cbpf_insn *i)
{
	uint32_t v = BPF_SRC(i->code) == BPF_X ? m->x : i->k;

	switch (BPF_OP(i->code)) {
	case BPF_JEQ:
		return m->a == v ? i->jt : i->jf;
	case BPF_JGT:
		return m->a > v ? i->jt : i->jf;
	case BPF_JGE:
		return m->a >= v ? i->jt : i->jf;
	case BPF_JSET:
		return m->a & v ? i->jt : i->jf;
	default:
		return i->k;
	}
}

bool cbpf_match(const struct cbpf_program *p, enum direction direction, const uint8_t *packet,
		uint32_t caplen, uint32_t len)
{
	struct machine m = {.packet = packet, .caplen = caplen, .len = len, .direction = direction};
	uint32_t back = 0;

	for (uint32_t pc = 0;; pc++) {
		const struct cbpf_insn *i = &p->insns[pc];

		switch (BPF_CLASS(i->code)) {
		case BPF_LD:
		case BPF_LDX:
			if (!run_load(&m, i))
				return false;
			break;
		case BPF_ST:
			m.words[i->k] = m.a;
			break;
		case BPF_STX:
			m.words[i->k] = m.x;
			break;
		case BPF_ALU:
			if (!run_alu(&m, i))
				return false;
			break;
		case BPF_JMP:
			if (BPF_OP(i->code) == BPF_JA && (int32_t)i->k < 0 &&
			    back++ == CBPF_JUMPS_BACK)
				return false;
			pc += jump_distance(&m, i);
			break;
		case BPF_MISC:
			if (BPF_MISCOP(i->code) == BPF_TAX)
				m.x = m.a;
			else
				m.a = m.x;
			break;
		default:
			return BPF_RVAL(i->code) == BPF_A ? m.a != 0 : i->k != 0;
		}
	}
}
