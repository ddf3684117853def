// SPDX-License-Identifier: Apache-2.0
#include "exprenv.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include <cmocka.h>

#include "bpfenv.h"
#include "ebpf.h"
#include "ebpf_asm.h"
#include "util.h"

#define TAP        "exprtap"
#define FRAGS_MAX  16
#define PIECE_MAX  4096u /* of a fragment: a page */
#define TAG_OFFSET 12
#define PACKET_MAX 65535u

const char *const bench_layout_names[BENCH_LAYOUTS] = {
	"TC linear", "TC, tag in metadata", "TC non-linear", "XDP linear", "XDP fragments",
};

/* Shared with the entry and stage programs. */
struct control {
	uint32_t len;           /* XDP: of the packet */
	uint32_t trim;          /* XDP: bytes of pad in front */
	uint32_t push_protocol; /* TC: of a tag to push, network order; 0: none */
	uint32_t push_tci;
	uint32_t linear; /* what the entry program saw */
	uint32_t runs;
	uint32_t next; /* expression */
	uint8_t picks[BENCH_BATCH];
};

/* Everything for one kind of program. */
struct chain {
	bool usable;
	int entry, stage;
	int expressions, stages; /* program arrays */
};

enum chain_kind { CHAIN_TC, CHAIN_XDP, CHAIN_XDP_FRAGS, CHAINS };

static struct bench {
	int scratch, control_fd;
	struct control *control; /* mapped */
	int cpus;
	/* For each CPU, as the kernel wants them: each rounded up to eight bytes. */
	union {
		struct scratch scratch;
		uint64_t words[(sizeof(struct scratch) + 7) / 8];
	} * values;
	struct chain chains[CHAINS];
	int tap;
	uint32_t xdp_linear; /* bytes of the linear part in a test run */
	size_t n;            /* expressions loaded */
} bench;

static enum chain_kind chain_of(enum bench_layout layout)
{
	return layout == BENCH_XDP         ? CHAIN_XDP
	       : layout == BENCH_XDP_FRAGS ? CHAIN_XDP_FRAGS
					   : CHAIN_TC;
}

/* @dst = the only value of a map; when there is none the program ends. */
static void emit_lookup(struct asm_text *t, int fd, int dst, label end)
{
	asm_store_value(t, 4, BPF_REG_10, -4, 0);
	asm_map(t, BPF_REG_1, fd);
	asm_mov(t, BPF_REG_2, BPF_REG_10);
	asm_alu64_value(t, BPF_ADD, BPF_REG_2, -4);
	asm_call(t, BPF_FUNC_map_lookup_elem);
	asm_jump64(t, BPF_JEQ, BPF_REG_0, -1, 0, end);
	asm_mov(t, dst, BPF_REG_0);
}

/* Tail-call the next expression; when there is no more, the packet ends here. */
static void emit_next(struct asm_text *t, const struct chain *c, bool xdp, label end)
{
	asm_load(t, 4, BPF_REG_3, BPF_REG_7, offsetof(struct control, next));
	asm_mov(t, BPF_REG_1, BPF_REG_6);
	asm_map(t, BPF_REG_2, c->expressions);
	asm_call(t, BPF_FUNC_tail_call);
	asm_bind(t, end);
	asm_set(t, BPF_REG_0, xdp ? XDP_DROP : 2 /* TC_ACT_SHOT */);
	asm_exit(t);
}

static int finish(struct asm_text *t, const char *what, bool xdp, bool frags)
{
	struct ebpf_program p;
	struct err err = {};
	int fd;

	if (asm_finish(t, &err))
		fail_msg("%s: %s", what, err.text);
	p = (struct ebpf_program){.insns = t->insns, .n = t->n};
	if (ebpf_load(&p, xdp ? EBPF_XDP : EBPF_TC, frags, &fd, &err))
		fd = -1;
	asm_release(t);
	return fd;
}

static int load_stage(const struct chain *c, bool xdp, bool frags)
{
	struct asm_text t = {};
	label end = asm_label(&t);

	asm_mov(&t, BPF_REG_6, BPF_REG_1);
	emit_lookup(&t, bench.control_fd, BPF_REG_7, end);
	emit_lookup(&t, bench.scratch, BPF_REG_8, end);
	asm_load(&t, 4, BPF_REG_1, BPF_REG_7, offsetof(struct control, next));
	asm_jump64(&t, BPF_JGE, BPF_REG_1, -1, BENCH_BATCH, end);
	asm_load(&t, 1, BPF_REG_2, BPF_REG_8, offsetof(struct scratch, pick));
	/* So that an expression that forgets to answer is seen. */
	asm_store_value(&t, 1, BPF_REG_8, offsetof(struct scratch, pick), 77);
	asm_mov(&t, BPF_REG_3, BPF_REG_7);
	asm_alu64(&t, BPF_ADD, BPF_REG_3, BPF_REG_1);
	asm_store(&t, 1, BPF_REG_3, offsetof(struct control, picks), BPF_REG_2);
	asm_alu64_value(&t, BPF_ADD, BPF_REG_1, 1);
	asm_store(&t, 4, BPF_REG_7, offsetof(struct control, next), BPF_REG_1);
	emit_next(&t, c, xdp, end);
	return finish(&t, "stage", xdp, frags);
}

static void emit_seen(struct asm_text *t, int data, int data_end)
{
	asm_load(t, 4, BPF_REG_2, BPF_REG_6, data_end);
	asm_load(t, 4, BPF_REG_1, BPF_REG_6, data);
	asm_alu64(t, BPF_SUB, BPF_REG_2, BPF_REG_1);
	asm_store(t, 4, BPF_REG_7, offsetof(struct control, linear), BPF_REG_2);
	asm_load(t, 4, BPF_REG_1, BPF_REG_7, offsetof(struct control, runs));
	asm_alu64_value(t, BPF_ADD, BPF_REG_1, 1);
	asm_store(t, 4, BPF_REG_7, offsetof(struct control, runs), BPF_REG_1);
	asm_store_value(t, 4, BPF_REG_7, offsetof(struct control, next), 0);
}

static int load_entry_tc(const struct chain *c)
{
	struct asm_text t = {};
	label end = asm_label(&t), no_push = asm_label(&t), no_tag = asm_label(&t);

	asm_mov(&t, BPF_REG_6, BPF_REG_1);
	emit_lookup(&t, bench.control_fd, BPF_REG_7, end);
	emit_lookup(&t, bench.scratch, BPF_REG_8, end);
	asm_load(&t, 4, BPF_REG_2, BPF_REG_7, offsetof(struct control, push_protocol));
	asm_jump(&t, BPF_JEQ, BPF_REG_2, -1, 0, no_push);
	asm_load(&t, 4, BPF_REG_3, BPF_REG_7, offsetof(struct control, push_tci));
	asm_mov(&t, BPF_REG_1, BPF_REG_6);
	asm_call(&t, BPF_FUNC_skb_vlan_push);
	asm_jump64(&t, BPF_JNE, BPF_REG_0, -1, 0, end);
	asm_bind(&t, no_push);
	emit_seen(&t, offsetof(struct __sk_buff, data), offsetof(struct __sk_buff, data_end));

	asm_load(&t, 4, BPF_REG_1, BPF_REG_6, offsetof(struct __sk_buff, len));
	asm_set(&t, BPF_REG_2, 0);
	asm_load(&t, 4, BPF_REG_3, BPF_REG_6, offsetof(struct __sk_buff, vlan_present));
	asm_jump(&t, BPF_JEQ, BPF_REG_3, -1, 0, no_tag);
	asm_alu64_value(&t, BPF_ADD, BPF_REG_1, 4);
	asm_load(&t, 4, BPF_REG_2, BPF_REG_6, offsetof(struct __sk_buff, vlan_proto));
	asm_be(&t, BPF_REG_2, 16);
	asm_alu_value(&t, BPF_LSH, BPF_REG_2, 16);
	asm_load(&t, 4, BPF_REG_3, BPF_REG_6, offsetof(struct __sk_buff, vlan_tci));
	asm_alu(&t, BPF_OR, BPF_REG_2, BPF_REG_3);
	asm_be(&t, BPF_REG_2, 32);
	asm_bind(&t, no_tag);
	asm_store(&t, 4, BPF_REG_8, offsetof(struct scratch, len), BPF_REG_1);
	asm_store(&t, 4, BPF_REG_8, offsetof(struct scratch, tag), BPF_REG_2);
	emit_next(&t, c, false, end);
	return finish(&t, "entry", false, false);
}

static int load_entry_xdp(const struct chain *c, bool frags)
{
	struct asm_text t = {};
	label end = asm_label(&t);

	asm_mov(&t, BPF_REG_6, BPF_REG_1);
	emit_lookup(&t, bench.control_fd, BPF_REG_7, end);
	emit_lookup(&t, bench.scratch, BPF_REG_8, end);
	asm_load(&t, 4, BPF_REG_2, BPF_REG_7, offsetof(struct control, trim));
	asm_mov(&t, BPF_REG_1, BPF_REG_6);
	asm_call(&t, BPF_FUNC_xdp_adjust_head);
	asm_jump64(&t, BPF_JNE, BPF_REG_0, -1, 0, end);
	emit_seen(&t, offsetof(struct xdp_md, data), offsetof(struct xdp_md, data_end));
	asm_load(&t, 4, BPF_REG_1, BPF_REG_7, offsetof(struct control, len));
	asm_store(&t, 4, BPF_REG_8, offsetof(struct scratch, len), BPF_REG_1);
	asm_store_value(&t, 4, BPF_REG_8, offsetof(struct scratch, tag), 0);
	emit_next(&t, c, true, end);
	return finish(&t, "entry", true, frags);
}

static void open_chain(enum chain_kind kind)
{
	struct chain *c = &bench.chains[kind];
	bool xdp = kind != CHAIN_TC, frags = kind == CHAIN_XDP_FRAGS;
	uint32_t decided = STAGE_DECIDED;

	c->expressions =
		bpf_map_create(BPF_MAP_TYPE_PROG_ARRAY, "expressions", 4, 4, BENCH_BATCH + 1, NULL);
	c->stages = bpf_map_create(BPF_MAP_TYPE_PROG_ARRAY, "stages", 4, 4, 1, NULL);
	assert_true(c->expressions >= 0 && c->stages >= 0);
	c->entry = xdp ? load_entry_xdp(c, frags) : load_entry_tc(c);
	c->stage = load_stage(c, xdp, frags);
	c->usable = c->entry >= 0 && c->stage >= 0;
	if (!c->usable && kind != CHAIN_XDP_FRAGS)
		fail_msg("%s does not load", bench_layout_names[kind == CHAIN_TC ? 0 : BENCH_XDP]);
	if (c->usable)
		assert_int_equal(bpf_map_update_elem(c->stages, &decided, &c->stage, BPF_ANY), 0);
}

static void open_tap(void)
{
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_NAPI | IFF_NAPI_FRAGS};
	struct ethtool_value off = {.cmd = ETHTOOL_SGRO};
	int fd;

	bench.tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (bench.tap < 0)
		fail_msg("/dev/net/tun: %s", strerror(errno));
	memcpy(ifr.ifr_name, TAP, sizeof(TAP));
	if (ioctl(bench.tap, TUNSETIFF, &ifr))
		fail_msg("TAP: %s", strerror(errno));
	env_run("ip", "link", "set", TAP, "mtu", "65000", "up", NULL);
	/* Without it headers stay where they are. */
	ifr.ifr_data = (void *)&off;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(ioctl(fd, SIOCETHTOOL, &ifr), 0);
	close(fd);
}

/* At the ingress hook of the TAP interface, by the classic way that every kernel has. */
static void attach_tap(void)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)if_nametoindex(TAP),
		    .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = bench.chains[CHAIN_TC].entry);

	assert_int_equal(bpf_tc_hook_create(&hook), 0);
	assert_int_equal(bpf_tc_attach(&hook, &opts), 0);
}

/* How much of a long packet is linear in a test run. */
static void find_xdp_linear(void)
{
	static uint8_t data[2 * PIECE_MAX];
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = data, .data_size_in = sizeof(data),
		    .repeat = 1);

	bench.control->trim = 0;
	if (bpf_prog_test_run_opts(bench.chains[CHAIN_XDP_FRAGS].entry, &run))
		bench.chains[CHAIN_XDP_FRAGS].usable = false;
	bench.xdp_linear = bench.control->linear;
}

void bench_open(void)
{
	LIBBPF_OPTS(bpf_map_create_opts, mapped, .map_flags = BPF_F_MMAPABLE);
	cpu_set_t cpu;

	bench = (struct bench){};
	/* One processor, so that one value of the scratch map is the one. */
	CPU_ZERO(&cpu);
	CPU_SET(sched_getcpu(), &cpu);
	assert_int_equal(sched_setaffinity(0, sizeof(cpu), &cpu), 0);
	bench.cpus = libbpf_num_possible_cpus();
	assert_true(bench.cpus > 0);
	bench.values = calloc((size_t)bench.cpus, sizeof(*bench.values));
	assert_non_null(bench.values);
	bench.scratch = bpf_map_create(BPF_MAP_TYPE_PERCPU_ARRAY, "scratch", 4,
				       sizeof(struct scratch), 1, NULL);
	bench.control_fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "control", 4, sizeof(struct control),
					  1, &mapped);
	assert_true(bench.scratch >= 0 && bench.control_fd >= 0);
	bench.control = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED,
			     bench.control_fd, 0);
	assert_true(bench.control != MAP_FAILED);
	for (int i = 0; i < CHAINS; i++)
		open_chain((enum chain_kind)i);
	if (bench.chains[CHAIN_XDP_FRAGS].usable)
		find_xdp_linear();
	open_tap();
	attach_tap();
}

void bench_close(void)
{
	for (int i = 0; i < CHAINS; i++) {
		struct chain *c = &bench.chains[i];
		const int fds[] = {c->entry, c->stage, c->expressions, c->stages};

		for (size_t f = 0; f < ARRAY_SIZE(fds); f++) {
			if (fds[f] >= 0)
				close(fds[f]);
		}
	}
	munmap(bench.control, sizeof(struct control));
	close(bench.scratch);
	close(bench.control_fd);
	close(bench.tap);
	free(bench.values);
}

bool bench_has(enum bench_layout layout)
{
	return bench.chains[chain_of(layout)].usable;
}

void bench_load(struct expression *const *e, const char *const *texts, size_t n)
{
	for (int kind = 0; kind < CHAINS; kind++) {
		const struct chain *c = &bench.chains[kind];
		struct ebpf_maps maps = {.scratch_fd = bench.scratch, .stages_fd = c->stages};
		enum ebpf_hook hook = kind == CHAIN_TC ? EBPF_TC : EBPF_XDP;

		for (uint32_t i = 0; c->usable && i < BENCH_BATCH; i++) {
			struct ebpf_program p;
			struct err err = {};
			int fd;

			if (i >= n) {
				bpf_map_delete_elem(c->expressions, &i);
				continue;
			}
			if (ebpf_translate(e[i], hook, &maps, &p, &err) ||
			    ebpf_load(&p, hook, kind == CHAIN_XDP_FRAGS, &fd, &err))
				fail_msg("\"%s\": %s", texts[i], err.text);
			ebpf_release(&p);
			assert_int_equal(bpf_map_update_elem(c->expressions, &i, &fd, BPF_ANY), 0);
			close(fd);
		}
	}
	bench.n = n;
}

/* Offsets in the data count without the tag in the metadata. */
static void fill_scratch(const struct bench_packet *p, uint32_t tag)
{
	struct scratch s = {
		.l3 = p->l3 - (p->l3 ? tag : 0),
		.inner = p->inner - (p->inner ? tag : 0),
		.family = p->family,
		.inner_type = p->inner_type,
		.direction = (uint8_t)p->direction,
		.pick = 77,
		.inner_l3 = p->inner_l3 - (p->inner_l3 ? tag : 0),
		.inner_family = p->inner_family,
	};
	uint32_t key = 0;

	for (int i = 0; i < bench.cpus; i++)
		bench.values[i].scratch = s;
	assert_int_equal(bpf_map_update_elem(bench.scratch, &key, bench.values, BPF_ANY), 0);
}

/* What fits of the kinds of packets: a test run's linear part, its fragments, the TAP's. */
static bool write_tap(const struct bench_packet *p, uint32_t split)
{
	struct iovec pieces[FRAGS_MAX] = {{(void *)(uintptr_t)p->data, MIN(split, p->len)}};
	uint32_t at = MIN(split, p->len), n = 1;

	while (at < p->len) {
		/* The first ones are tiny, so that what is read lies across them. */
		uint32_t len = n < 8 ? 5 + 2 * n : PIECE_MAX;

		if (n == FRAGS_MAX)
			return false;
		pieces[n++] =
			(struct iovec){(void *)(uintptr_t)(p->data + at), MIN(len, p->len - at)};
		at += MIN(len, p->len - at);
	}
	return writev(bench.tap, pieces, (int)n) == (ssize_t)p->len;
}

static bool test_run(enum bench_layout layout, const struct bench_packet *p, uint32_t split,
		     uint32_t repeat, uint32_t *ret_ns)
{
	static uint8_t padded[PACKET_MAX + 2 * PIECE_MAX];
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = p->data, .data_size_in = p->len,
		    .repeat = (int)repeat);
	struct control *c = bench.control;

	if (p->len > PACKET_MAX)
		return false;
	c->trim = 0;
	c->push_protocol = 0;
	if (layout == BENCH_TC_TAG) {
		/* The packet without its outermost tag. */
		memcpy(padded, p->data, TAG_OFFSET);
		memcpy(padded + TAG_OFFSET, p->data + TAG_OFFSET + 4, p->len - TAG_OFFSET - 4);
		run.data_in = padded;
		run.data_size_in -= 4;
		c->push_protocol = (uint32_t)(p->data[12] | p->data[13] << 8);
		c->push_tci = (uint32_t)(p->data[14] << 8 | p->data[15]);
	} else if (layout == BENCH_XDP_FRAGS) {
		c->trim = bench.xdp_linear - split;
		memcpy(padded + c->trim, p->data, p->len);
		run.data_in = padded;
		run.data_size_in += c->trim;
	}
	if (bpf_prog_test_run_opts(bench.chains[chain_of(layout)].entry, &run))
		return false;
	if (ret_ns)
		*ret_ns = run.duration;
	return true;
}

bool bench_run(enum bench_layout layout, const struct bench_packet *p, uint32_t split,
	       uint32_t *ret_picks)
{
	volatile struct control *c = bench.control;
	bool tagged = p->len >= 18 && (p->data[12] << 8 | p->data[13]) == 0x8100;
	uint32_t tag = 0;

	tagged |= p->len >= 18 && (p->data[12] << 8 | p->data[13]) == 0x88a8;
	if (layout == BENCH_TC_TAG && !tagged)
		return false;
	if (layout == BENCH_TC_TAG || (layout == BENCH_TC_FRAGS && tagged))
		tag = 4;
	/* Only what is longer than its linear part has others. */
	if ((layout == BENCH_TC_FRAGS || layout == BENCH_XDP_FRAGS) && p->len <= split)
		return false;
	fill_scratch(p, tag);
	c->len = p->len;
	c->runs = 0;
	c->next = 0;
	c->linear = 0;
	if (layout == BENCH_TC_FRAGS) {
		c->push_protocol = 0;
		if (!write_tap(p, split))
			return false;
	} else if (!test_run(layout, p, split, 1, NULL)) {
		return false;
	}
	/* The TAP's driver drops what it finds malformed. */
	if (layout == BENCH_TC_FRAGS && !c->runs)
		return false;
	assert_int_equal(c->runs, 1);
	assert_int_equal(c->next, bench.n);
	/* On the way from the TAP the kernel may have pulled all of a short packet together. */
	if (layout == BENCH_TC_FRAGS && c->linear >= p->len - tag)
		return false;
	if (layout == BENCH_XDP_FRAGS)
		assert_true(c->linear < p->len);
	*ret_picks = 0;
	for (size_t i = 0; i < bench.n; i++) {
		if (c->picks[i] > 1)
			fail_msg("expression %zu says %u", i, c->picks[i]);
		*ret_picks |= (uint32_t)c->picks[i] << i;
	}
	return true;
}

uint32_t bench_cost(enum bench_layout layout, const struct bench_packet *p, uint32_t repeat)
{
	uint32_t ns = 0;

	fill_scratch(p, 0);
	bench.control->len = p->len;
	assert_true(test_run(layout, p, 0, repeat, &ns));
	return ns;
}
