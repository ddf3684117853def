// SPDX-License-Identifier: Apache-2.0
/*
 * Real interfaces: a veth pair in a network namespace of our own, fed through
 * AF_PACKET sockets, with TCX links and with clsact filters.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "bpfenv.h"
#include "shapes.h"
#include "util.h"

#define A       "psa"
#define B       "psb"
#define BIG_MTU 65535

static const struct iface_rule rule_a = {.id = 10, .slot = 0, .invert = 1};
static const struct iface_rule rule_b = {.id = 11, .slot = 1, .invert = 1};

static int setup(void **state)
{
	(void)state;
	if (env_skip_reason)
		return 0;
	env_run("ip", "link", "add", A, "mtu", "65535", "type", "veth", "peer", "name", B, "mtu",
		"65535", NULL);
	env_run("ip", "link", "set", A, "up", NULL);
	env_run("ip", "link", "set", B, "up", NULL);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (!env_skip_reason)
		env_run("ip", "link", "del", A, NULL);
	return 0;
}

static void open_mode(struct env *e, enum hook_mode mode)
{
	struct capture_config config = {
		.snaplen = SNAPLEN_MAX, .ring_bytes = 8 << 20, .hook_mode = mode};

	env_open(e, &config);
}

static void skip_without(enum hook_mode mode)
{
	struct err err;

	if (hook_choose(mode, &err) >= 0)
		return;
	print_message("# skipped: %s\n", err.text);
	skip();
}

static int packet_socket(const char *name, bool vnet_hdr)
{
	struct sockaddr_ll to = {
		.sll_family = AF_PACKET,
		.sll_ifindex = (int)if_nametoindex(name),
	};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), one = 1;

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	if (vnet_hdr)
		assert_int_equal(setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof(one)), 0);
	return fd;
}

static void send_on(const char *name, const uint8_t *data, size_t len)
{
	_cleanup_close_ int fd = packet_socket(name, false);

	assert_int_equal(send(fd, data, len, 0), len);
}

/* The first block of interface @id and @direction. */
static const struct env_block *block_of(const struct env *e, uint32_t id, enum direction direction)
{
	for (size_t i = 0; i < e->nblocks; i++) {
		const struct env_block *b = &e->blocks[i];
		struct epb_trailer trailer;

		memcpy(&trailer, b->rest + b->header.total_len - EPB_HEADER - EPB_TRAILER,
		       sizeof(trailer));
		if (b->header.interface_id == id && trailer.flags == direction)
			return b;
	}
	fail_msg("no block of interface %u, direction %d", id, direction);
	return NULL;
}

static void check_both(struct env *e, const uint8_t *data, size_t len)
{
	env_expect(e, 2);
	env_check_block(block_of(e, 10, DIRECTION_EGRESS), 10, data, len, len, DIRECTION_EGRESS);
	env_check_block(block_of(e, 11, DIRECTION_INGRESS), 11, data, len, len, DIRECTION_INGRESS);
}

static void packets_of_every_size_are_whole_on_both_ends(void **state)
{
	enum hook_mode mode = *(const enum hook_mode *)*state;
	static const size_t sizes[] = {14,   15,   16,    17,    60,    72,    76,    1514, 1518,
				       4096, 9014, 16384, 32768, 43000, 65000, 65535, 65549};
	static uint8_t data[70000];

	ENV_SKIP();
	skip_without(mode);
	for (size_t i = 12; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 31 + i / 251);
	data[12] = 0x88;
	data[13] = 0xb5;
	struct env e;

	open_mode(&e, mode);
	env_attach(&e, A, &rule_a);
	env_attach(&e, B, &rule_b);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		send_on(A, data, sizes[i]);
		check_both(&e, data, sizes[i]);
	}
	env_close(&e);
}

/* The kernel moves the outer tag into the metadata before the ingress hook. */
static void tags_are_put_back_in_their_place(void **state)
{
	enum hook_mode mode = *(const enum hook_mode *)*state;
	struct capture_config cut = {.ring_bytes = 1 << 20};
	uint8_t packet[6][SHAPE_MAX];
	size_t len[6];
	struct env e;

	ENV_SKIP();
	skip_without(mode);
	for (unsigned int i = 0; i < 6; i++) {
		struct shape s;

		shape_ethernet(&s, i % 2 ? 0x88a8 : 0x8100);
		for (unsigned int inner = 0; inner < i / 2; inner++)
			shape_tag(&s, 0xe000 + 100 * inner, 0x8100);
		shape_tag(&s, i ? 0x6fff : 0, 0x800);
		shape_ipv4(&s, 17, 0, 0, 1);
		shape_ports(&s);
		len[i] = s.len;
		memcpy(packet[i], s.data, s.len);
	}
	open_mode(&e, mode);
	env_attach(&e, A, &rule_a);
	env_attach(&e, B, &rule_b);
	for (int i = 0; i < 6; i++) {
		send_on(A, packet[i], len[i]);
		check_both(&e, packet[i], len[i]);
	}
	env_close(&e);
	for (cut.snaplen = 10; cut.snaplen < 22; cut.snaplen++) {
		env_open(&e, &cut);
		env_attach(&e, B, &rule_b);
		send_on(A, packet[4], len[4]);
		env_expect(&e, 1);
		env_check_block(&e.blocks[0], 11, packet[4], cut.snaplen, len[4],
				DIRECTION_INGRESS);
		assert_int_equal(env_counts(&e, 1, DIRECTION_INGRESS).bytes[CAPTURE_CAPTURED],
				 len[4]);
		env_close(&e);
	}
}

/* A filter in front of ours that pushes a tag: it is in the metadata at egress, then. */
static void a_tag_in_the_metadata_at_egress_is_put_back(void **state)
{
	static const struct bpf_insn push[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 2, .imm = 0x0081},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 3, .imm = 77},
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_skb_vlan_push},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = -1},
		{.code = BPF_JMP | BPF_EXIT},
	};
	LIBBPF_OPTS(bpf_tc_hook, hook, .attach_point = BPF_TC_EGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = 1, .priority = 1);
	struct shape s, tagged;
	struct env e;

	(void)state;
	ENV_SKIP();
	opts.prog_fd =
		bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "push", "GPL", push, ARRAY_SIZE(push), NULL);
	assert_true(opts.prog_fd >= 0);
	hook.ifindex = (int)if_nametoindex(A);
	open_mode(&e, HOOK_CLSACT);
	env_attach(&e, A, &rule_a);
	assert_int_equal(bpf_tc_attach(&hook, &opts), 0);
	close(opts.prog_fd);
	shape_ethernet(&s, 0x800);
	shape_ipv4(&s, 6, 0, 0, 1);
	shape_ports(&s);
	shape_ethernet(&tagged, 0x8100);
	shape_tag(&tagged, 77, 0x800);
	shape_bytes(&tagged, s.data + 14, s.len - 14);
	send_on(A, s.data, s.len);
	env_expect(&e, 1);
	env_check_block(&e.blocks[0], 10, tagged.data, tagged.len, tagged.len, DIRECTION_EGRESS);
	env_close(&e);
}

/* A filter in front of ours says so, as drivers do. */
static void a_verified_checksum_is_told(void **state)
{
	static const struct bpf_insn verified[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 2, .imm = BPF_CSUM_LEVEL_INC},
		{.code = BPF_JMP | BPF_CALL, .imm = BPF_FUNC_csum_level},
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = -1},
		{.code = BPF_JMP | BPF_EXIT},
	};
	static const struct epb_offload offload = {
		.code = 2989, .len = 12, .pen = 32473, .csum = EPB_CSUM_UNNECESSARY, .version = 1};
	LIBBPF_OPTS(bpf_tc_hook, hook, .attach_point = BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = 1, .priority = 1);
	struct shape s;
	struct env e;

	(void)state;
	ENV_SKIP();
	opts.prog_fd = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "verified", "GPL", verified,
				     ARRAY_SIZE(verified), NULL);
	assert_true(opts.prog_fd >= 0);
	hook.ifindex = (int)if_nametoindex(B);
	shape_ethernet(&s, 0x800);
	shape_ipv4(&s, 6, 0, 0, 1);
	shape_ports(&s);
	open_mode(&e, HOOK_CLSACT);
	env_attach(&e, B, &rule_b);
	assert_int_equal(bpf_tc_attach(&hook, &opts), 0);
	close(opts.prog_fd);
	/* With every padding: the option is behind that. */
	for (size_t len = s.len; len < s.len + 4; len++) {
		send_on(A, s.data, len);
		env_expect(&e, 1);
		env_check_offload(&e.blocks[0], 11, s.data, len, len, DIRECTION_INGRESS, &offload);
	}
	env_close(&e);
}

static void a_gso_super_packet_is_kept_whole(void **state)
{
	/* From user space: older kernels do not count the segments before the device does. */
	struct epb_offload offload = {
		.code = 2989,
		.len = 12,
		.pen = 32473,
		.gso_size = 1400,
		.csum = EPB_CSUM_PARTIAL,
		.version = 1,
	};
	enum hook_mode mode = *(const enum hook_mode *)*state;
	static struct {
		struct virtio_net_hdr vnet;
		uint8_t data[60054];
	} __attribute__((packed)) p;
	const struct env_block *out;
	struct epb_offload told;
	struct shape s;
	struct env e;

	ENV_SKIP();
	skip_without(mode);
	shape_ethernet(&s, 0x800);
	shape_ipv4(&s, 6, 0, 0x4000, 1);
	s.data[16] = (sizeof(p.data) - 14) >> 8;
	s.data[17] = (sizeof(p.data) - 14) & 0xff;
	shape_ports(&s);
	s.data[14 + 20 + 12] = 0x50;
	memcpy(p.data, s.data, s.len);
	p.vnet = (struct virtio_net_hdr){
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
		.hdr_len = 54,
		.gso_size = 1400,
		.csum_start = 34,
		.csum_offset = 16,
	};
	_cleanup_close_ int fd = packet_socket(A, true);

	open_mode(&e, mode);
	env_attach(&e, A, &rule_a);
	env_attach(&e, B, &rule_b);
	assert_int_equal(send(fd, &p, sizeof(p), 0), sizeof(p));
	close(fd);
	env_expect(&e, 2);
	out = block_of(&e, 10, DIRECTION_EGRESS);
	memcpy(&told, out->rest + ALIGN4(sizeof(p.data)), sizeof(told));
	offload.gso_segs = told.gso_segs ? 43 : 0;
	env_check_offload(out, 10, p.data, sizeof(p.data), sizeof(p.data), DIRECTION_EGRESS,
			  &offload);
	offload.gso_segs = 43;
	env_check_offload(block_of(&e, 11, DIRECTION_INGRESS), 11, p.data, sizeof(p.data),
			  sizeof(p.data), DIRECTION_INGRESS, &offload);
	env_close(&e);
}

static void headers_cut_short_pass_on_a_real_interface(void **state)
{
	static uint64_t masks[65536];
	struct capture_config config = {
		.snaplen = 65535, .ring_bytes = 1 << 20, .need_ports = true, .port_masks = masks};
	struct iface_rule rule = {.id = 11, .slot = 1, .mask = PORT_CAPTURE};
	struct capture_counts counts;
	struct env e;
	size_t sent = 0, wanted = 0;

	(void)state;
	ENV_SKIP();
	masks[DPORT] = PORT_CAPTURE;
	env_open(&e, &config);
	env_attach(&e, B, &rule);
	for (int v6 = 0; v6 < 2; v6++) {
		struct shape s;

		shape_ethernet(&s, v6 ? 0x86dd : 0x800);
		if (v6)
			shape_ipv6(&s, 6);
		else
			shape_ipv4(&s, 6, 0, 0, 1);
		shape_ports(&s);
		for (size_t len = 14; len <= s.len; len++, sent++) {
			send_on(A, s.data, len);
			wanted += len >= s.ports_end;
		}
	}
	env_expect(&e, wanted);
	counts = env_counts(&e, 1, DIRECTION_INGRESS);
	assert_int_equal(counts.packets[CAPTURE_SEEN], sent);
	assert_int_equal(counts.packets[CAPTURE_CAPTURED], wanted);
	assert_int_equal(counts.packets[CAPTURE_RULED_OUT], sent - wanted);
	env_close(&e);
}

static bool filter_there(const char *name, enum direction direction, uint32_t handle)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)if_nametoindex(name),
		    .attach_point = direction == DIRECTION_EGRESS ? BPF_TC_EGRESS : BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = handle, .priority = HOOK_PRIORITY);

	return bpf_tc_query(&hook, &opts) == 0;
}

static bool qdisc_there(const char *name)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)if_nametoindex(name),
		    .attach_point = BPF_TC_INGRESS);
	int r = bpf_tc_hook_create(&hook);

	if (r == -EEXIST)
		return true;
	assert_int_equal(r, 0);
	hook.attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS;
	assert_int_equal(bpf_tc_hook_destroy(&hook), 0);
	return false;
}

static void two_agents_live_side_by_side(void **state)
{
	enum hook_mode mode = *(const enum hook_mode *)*state;
	uint8_t data[100] = {[12] = 0x88, 0xb5};
	struct env first, second;

	ENV_SKIP();
	skip_without(mode);
	open_mode(&first, mode);
	env_attach(&first, B, &rule_b);
	open_mode(&second, mode);
	env_attach(&second, B, &rule_b);
	/* All of this may take an emulated processor longer than a heart may rest. */
	capture_ringbuf.beat(first.capture);
	capture_ringbuf.beat(second.capture);
	send_on(A, data, sizeof(data));
	env_expect(&first, 1);
	env_expect(&second, 1);
	if (mode == HOOK_CLSACT) {
		assert_true(filter_there(B, DIRECTION_INGRESS, 1));
		assert_true(filter_there(B, DIRECTION_INGRESS, 2));
	}
	env_close(&first);
	capture_ringbuf.beat(second.capture);
	send_on(A, data, sizeof(data));
	env_expect(&second, 1);
	env_close(&second);
}

static void nothing_stays_after_detach(void **state)
{
	struct env e;

	(void)state;
	ENV_SKIP();
	open_mode(&e, HOOK_CLSACT);
	env_attach(&e, A, &rule_a);
	assert_true(filter_there(A, DIRECTION_INGRESS, 1));
	assert_true(filter_there(A, DIRECTION_EGRESS, 1));
	capture_ringbuf.detach(e.capture, if_nametoindex(A));
	assert_false(qdisc_there(A));
	capture_ringbuf.detach(e.capture, if_nametoindex(A));
	env_attach(&e, A, &rule_a);
	env_close(&e);
	assert_false(qdisc_there(A));
}

/* A filter of somebody else on A that leaves packets alone. */
static void other_filter(enum bpf_tc_attach_point where, uint32_t priority)
{
	static const struct bpf_insn pass[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = -1},
		{.code = BPF_JMP | BPF_EXIT},
	};
	LIBBPF_OPTS(bpf_tc_hook, qdisc, .ifindex = (int)if_nametoindex(A),
		    .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)if_nametoindex(A), .attach_point = where);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = 1, .priority = priority);
	int r = bpf_tc_hook_create(&qdisc);

	assert_true(r == 0 || r == -EEXIST);
	opts.prog_fd =
		bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "pass", "GPL", pass, ARRAY_SIZE(pass), NULL);
	assert_true(opts.prog_fd >= 0);
	assert_int_equal(bpf_tc_attach(&hook, &opts), 0);
	close(opts.prog_fd);
}

/* Attach to A; what attach() returns, and says when that is not 0. */
static int try_attach(struct env *e, struct err *err)
{
	struct capture_iface iface = {.ifindex = if_nametoindex(A), .name = A, .rule = rule_a};

	return capture_ringbuf.attach(e->capture, &iface, err);
}

static void a_filter_that_runs_before_ours_is_told_of(void **state)
{
	struct err err = {};
	struct env e;

	(void)state;
	ENV_SKIP();
	open_mode(&e, HOOK_CLSACT);
	other_filter(BPF_TC_INGRESS, HOOK_PRIORITY + 1);
	assert_int_equal(try_attach(&e, &err), 0);
	capture_ringbuf.detach(e.capture, if_nametoindex(A));
	other_filter(BPF_TC_EGRESS, 7);
	assert_int_equal(try_attach(&e, &err), 1);
	assert_string_equal(err.text, "another filter (priority 7) runs first on egress of " A
				      ": packets that it takes are not seen");
	capture_ringbuf.detach(e.capture, if_nametoindex(A));
	other_filter(BPF_TC_INGRESS, 5);
	assert_int_equal(try_attach(&e, &err), 1);
	assert_non_null(strstr(err.text, "(priority 5) runs first on ingress and egress of"));
	/* One that comes later is told of once. */
	other_filter(BPF_TC_INGRESS, 4);
	assert_int_equal(capture_ringbuf.intact(e.capture, if_nametoindex(A), &err), 2);
	assert_non_null(strstr(err.text, "(priority 4) runs first on ingress and egress of"));
	assert_int_equal(capture_ringbuf.intact(e.capture, if_nametoindex(A), &err), 1);
	env_close(&e);
}

static void a_filter_on_a_chain_apart_is_not_before_ours(void **state)
{
	struct err err = {};
	struct env e;

	(void)state;
	ENV_SKIP();
	env_run("tc", "qdisc", "add", "dev", A, "clsact", NULL);
	env_run("tc", "filter", "add", "dev", A, "ingress", "chain", "3", "pref", "1", "protocol",
		"all", "u32", "match", "u32", "0", "0", NULL);
	open_mode(&e, HOOK_CLSACT);
	assert_int_equal(try_attach(&e, &err), 0);
	env_close(&e);
}

/* Such a qdisc takes our egress filter, but runs it at ingress. */
static void a_qdisc_without_egress_is_refused(void **state)
{
	struct err err = {};
	struct env e;

	(void)state;
	ENV_SKIP();
	env_run("tc", "qdisc", "add", "dev", A, "ingress", NULL);
	open_mode(&e, HOOK_CLSACT);
	assert_int_equal(try_attach(&e, &err), -EEXIST);
	assert_non_null(strstr(err.text, "no egress side"));
	assert_false(filter_there(A, DIRECTION_INGRESS, 1));
	env_close(&e);
}

static void a_hook_that_somebody_removed_is_missed(void **state)
{
	enum hook_mode mode = *(const enum hook_mode *)*state;
	uint32_t a = if_nametoindex(A);
	struct env e, other;
	struct err err;

	ENV_SKIP();
	skip_without(mode);
	open_mode(&e, mode);
	assert_false(capture_ringbuf.intact(e.capture, a, &err));
	env_attach(&e, A, &rule_a);
	assert_true(capture_ringbuf.intact(e.capture, a, &err));
	env_run("tc", "qdisc", "replace", "dev", A, "clsact", NULL);
	env_run("tc", "qdisc", "del", "dev", A, "clsact", NULL);
	assert_int_equal(capture_ringbuf.intact(e.capture, a, &err), mode == HOOK_TCX);
	/* What comes in its place is not touched, not even with our priority and handle. */
	open_mode(&other, mode);
	env_attach(&other, A, &rule_a);
	assert_int_equal(capture_ringbuf.intact(e.capture, a, &err), mode == HOOK_TCX);
	capture_ringbuf.detach(e.capture, a);
	assert_true(capture_ringbuf.intact(other.capture, a, &err));
	env_attach(&e, A, &rule_a);
	assert_true(capture_ringbuf.intact(e.capture, a, &err));
	env_close(&e);
	env_close(&other);
}

static void another_ones_qdisc_and_filters_stay(void **state)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .attach_point = BPF_TC_EGRESS);
	LIBBPF_OPTS(bpf_tc_opts, query, .handle = 1, .priority = 1);
	struct env e;

	(void)state;
	ENV_SKIP();
	hook.ifindex = (int)if_nametoindex(A);
	open_mode(&e, HOOK_CLSACT);
	env_attach(&e, A, &rule_a);
	other_filter(BPF_TC_EGRESS, 1);
	env_close(&e);
	assert_false(filter_there(A, DIRECTION_INGRESS, 1));
	assert_int_equal(bpf_tc_query(&hook, &query), 0);
	assert_true(qdisc_there(A));
}

/* Attach to A in a child of ours, and kill that. */
static void kill_an_agent(enum hook_mode mode)
{
	int ready[2], status;
	char c = 1;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		struct env e;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		open_mode(&e, mode);
		env_attach(&e, A, &rule_a);
		if (write(ready[1], &c, 1) == 1)
			pause();
		_exit(1);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
}

static void what_a_killed_agent_left_is_removed(void **state)
{
	struct env e;

	(void)state;
	ENV_SKIP();
	kill_an_agent(HOOK_CLSACT);
	assert_true(filter_there(A, DIRECTION_INGRESS, 1));
	assert_true(filter_there(A, DIRECTION_EGRESS, 1));
	open_mode(&e, HOOK_CLSACT);
	env_attach(&e, A, &rule_a);
	assert_true(filter_there(A, DIRECTION_INGRESS, 1));
	assert_false(filter_there(A, DIRECTION_INGRESS, 2));
	assert_false(filter_there(A, DIRECTION_EGRESS, 2));
	env_close(&e);
	assert_false(filter_there(A, DIRECTION_INGRESS, 1));
}

static void an_interface_that_is_gone_is_an_error_only_to_attach(void **state)
{
	enum hook_mode mode = *(const enum hook_mode *)*state;
	struct capture_iface iface = {.ifindex = 9999, .name = "gone", .rule = rule_a};
	struct err err = {};
	struct env e;

	ENV_SKIP();
	skip_without(mode);
	open_mode(&e, mode);
	assert_int_equal(capture_ringbuf.attach(e.capture, &iface, &err), -ENODEV);
	assert_non_null(strstr(err.text, "gone"));
	env_run("ip", "link", "add", "psc", "type", "veth", "peer", "name", "psd", NULL);
	iface.rule.slot = IFACE_SLOTS;
	iface.ifindex = if_nametoindex("psc");
	assert_int_equal(capture_ringbuf.attach(e.capture, &iface, &err), -ENOSPC);
	iface.rule.slot = 3;
	assert_int_equal(capture_ringbuf.attach(e.capture, &iface, &err), 0);
	env_run("ip", "link", "del", "psc", NULL);
	capture_ringbuf.detach(e.capture, iface.ifindex);
	env_close(&e);
}

static enum hook_mode tcx = HOOK_TCX, clsact = HOOK_CLSACT;

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define TEST_IN(mode, f)                                \
	{                                               \
#f "_" #mode, f, setup, teardown, &mode \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_IN(tcx, packets_of_every_size_are_whole_on_both_ends),
		TEST_IN(clsact, packets_of_every_size_are_whole_on_both_ends),
		TEST_IN(tcx, tags_are_put_back_in_their_place),
		TEST_IN(clsact, tags_are_put_back_in_their_place),
		TEST(a_tag_in_the_metadata_at_egress_is_put_back),
		TEST(a_verified_checksum_is_told),
		TEST_IN(tcx, a_gso_super_packet_is_kept_whole),
		TEST_IN(clsact, a_gso_super_packet_is_kept_whole),
		TEST(headers_cut_short_pass_on_a_real_interface),
		TEST_IN(tcx, two_agents_live_side_by_side),
		TEST_IN(clsact, two_agents_live_side_by_side),
		TEST(nothing_stays_after_detach),
		TEST(another_ones_qdisc_and_filters_stay),
		TEST(a_filter_that_runs_before_ours_is_told_of),
		TEST(a_filter_on_a_chain_apart_is_not_before_ours),
		TEST(a_qdisc_without_egress_is_refused),
		TEST_IN(tcx, a_hook_that_somebody_removed_is_missed),
		TEST_IN(clsact, a_hook_that_somebody_removed_is_missed),
		TEST(what_a_killed_agent_left_is_removed),
		TEST_IN(tcx, an_interface_that_is_gone_is_an_error_only_to_attach),
		TEST_IN(clsact, an_interface_that_is_gone_is_an_error_only_to_attach),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	env_enter();
	return cmocka_run_group_tests_name("bpf_hook", tests, NULL, NULL);
}
