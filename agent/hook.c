// SPDX-License-Identifier: Apache-2.0
/*
 * TCX and XDP links, and clsact filters.
 *
 * A link dies with its descriptor, so nothing stays behind a killed agent. A
 * clsact filter stays. It goes inert by itself when the agent's heartbeat is stale
 * (bpf/capture_tc.bpf.c), and the next agent that comes to the interface removes
 * it: it finds filters by our priority, makes sure by the program's name that one
 * is ours, and reads in the program's `heartbeat` map whether its agent lives. Then
 * that one keeps its handle and the newcomer takes the next.
 *
 * The clsact qdisc is removed by the agent that made it, once no filter is left in
 * it. libbpf 1.1 knows nothing of TCX, hence bpf(2) by hand; drop that when
 * Debian 12 need not build this (libbpf 1.3 has bpf_program__attach_tcx()).
 *
 * One thread; no state but what is in struct hook.
 */
#include "hook.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "clock.h"
#include "tc.h"
#include "util.h"

/* <linux/bpf.h> of 6.6. */
#define TCX_INGRESS 46
#define TCX_EGRESS  47
#define TCX_BEFORE  (1u << 3) /* with no other program named: at the head */

#define TCX_PROGRAMS 64 /* BPF_MPROG_MAX, the most that the kernel takes */

struct link_create {
	uint32_t prog_fd, target_ifindex, attach_type, flags;
	uint32_t relative_fd, pad;
	uint64_t expected_revision;
	uint64_t rest[4];
};

struct prog_query {
	uint32_t target_ifindex, attach_type, query_flags, attach_flags;
	uint64_t prog_ids;
	uint32_t count, pad;
	uint64_t rest[3];
	uint64_t revision;
};

struct link_detach {
	uint32_t link_fd, pad[15];
};

static int bpf_call(int cmd, void *attr, size_t size)
{
	long r = syscall(SYS_bpf, cmd, attr, size);

	return r < 0 ? -errno : (int)r;
}

static uint32_t tcx_type(enum direction direction)
{
	return direction == DIRECTION_EGRESS ? TCX_EGRESS : TCX_INGRESS;
}

static int tcx_attach(int prog_fd, uint32_t ifindex, enum direction direction)
{
	struct link_create attr = {
		.prog_fd = (uint32_t)prog_fd,
		.target_ifindex = ifindex,
		.attach_type = tcx_type(direction),
		.flags = TCX_BEFORE,
	};

	return bpf_call(BPF_LINK_CREATE, &attr, sizeof(attr));
}

/*
 * A kernel with TCX looks for the interface and finds none of this index; one
 * without does not know the attach type.
 */
static int tcx_probe(struct err *err)
{
	static const struct bpf_insn pass[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = -1},
		{.code = BPF_JMP | BPF_EXIT},
	};
	_cleanup_close_ int prog = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "ps_probe", "Apache-2.0",
						 pass, ARRAY_SIZE(pass), NULL);
	int r;

	if (prog == -EPERM)
		return err_set(
			err, prog,
			"no right to load BPF programs: run as root or with the capabilities "
			"CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON");
	if (prog < 0)
		return err_sys(err, prog, "this kernel cannot run BPF programs on TC hooks");
	r = tcx_attach(prog, INT32_MAX, DIRECTION_INGRESS);
	if (r >= 0)
		close(r);
	return r >= 0 || r == -ENODEV;
}

int hook_choose(enum hook_mode mode, struct err *err)
{
	int tcx = tcx_probe(err);

	if (tcx < 0)
		return tcx;
	if (mode == HOOK_TCX && !tcx)
		return err_set(err, -EOPNOTSUPP, "this kernel has no TCX hooks (Linux 6.6 has)");
	return mode == HOOK_CLSACT || !tcx ? HOOK_CLSACT : HOOK_TCX;
}

/* 0: it cannot be known. */
static uint32_t program_id(int fd)
{
	struct bpf_prog_info info = {};
	uint32_t size = sizeof(info);

	return bpf_obj_get_info_by_fd(fd, &info, &size) ? 0 : info.id;
}

static bool owner_dead(const struct heartbeat *beat)
{
	nsec_t now = clock_boottime();
	struct stat ns;

	if (now > beat->boottime_ns && now - beat->boottime_ns >= HEARTBEAT_STALE_NS)
		return true;
	if (stat("/proc/self/ns/pid", &ns) || (uint32_t)ns.st_ino != beat->pid_ns)
		return false;
	return kill((pid_t)beat->pid, 0) && errno == ESRCH;
}

static bool read_heartbeat(uint32_t map_id, struct heartbeat *ret)
{
	_cleanup_close_ int fd = bpf_map_get_fd_by_id(map_id);
	struct bpf_map_info info = {};
	uint32_t size = sizeof(info), zero = 0;

	return fd >= 0 && !bpf_obj_get_info_by_fd(fd, &info, &size) &&
	       !strcmp(info.name, "heartbeat") && info.value_size == sizeof(*ret) &&
	       !bpf_map_lookup_elem(fd, &zero, ret);
}

/* In doubt it is not: others' programs can be looked at with CAP_SYS_ADMIN only. */
static bool is_ours(uint32_t prog_id, struct bpf_prog_info *ret)
{
	_cleanup_close_ int fd = bpf_prog_get_fd_by_id(prog_id);
	uint32_t size = sizeof(*ret);

	return fd >= 0 && !bpf_obj_get_info_by_fd(fd, ret, &size) &&
	       !strncmp(ret->name, "ps_tc_", strlen("ps_tc_"));
}

/* A program of ours whose agent is no more? In doubt it is not. */
static bool leftover(uint32_t prog_id)
{
	uint32_t maps[32];
	struct bpf_prog_info info = {
		.map_ids = (uintptr_t)maps,
		.nr_map_ids = ARRAY_SIZE(maps),
	};
	struct heartbeat beat;

	if (!is_ours(prog_id, &info))
		return false;
	for (uint32_t i = 0; i < MIN(info.nr_map_ids, ARRAY_SIZE(maps)); i++)
		if (read_heartbeat(maps[i], &beat))
			return owner_dead(&beat);
	return false;
}

static const char *direction_name(enum direction direction)
{
	return direction == DIRECTION_EGRESS ? "egress" : "ingress";
}

static enum bpf_tc_attach_point attach_point(enum direction direction)
{
	return direction == DIRECTION_EGRESS ? BPF_TC_EGRESS : BPF_TC_INGRESS;
}

static int clsact_detach(uint32_t ifindex, enum direction direction, uint32_t handle)
{
	LIBBPF_OPTS(bpf_tc_hook, tc, .ifindex = (int)ifindex,
		    .attach_point = attach_point(direction));
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = handle, .priority = HOOK_PRIORITY);

	return bpf_tc_detach(&tc, &opts);
}

static void clsact_clean(uint32_t ifindex, enum direction direction)
{
	for (uint32_t handle = 1; handle <= HOOK_HANDLES; handle++) {
		LIBBPF_OPTS(bpf_tc_hook, tc, .ifindex = (int)ifindex,
			    .attach_point = attach_point(direction));
		LIBBPF_OPTS(bpf_tc_opts, there, .handle = handle, .priority = HOOK_PRIORITY);

		if (!bpf_tc_query(&tc, &there) && leftover(there.prog_id))
			clsact_detach(ifindex, direction, handle);
	}
}

void hook_clean(uint32_t ifindex)
{
	struct tc_filters there;

	for (int d = DIRECTION_INGRESS; d <= DIRECTION_EGRESS; d++)
		if (!tc_filters(ifindex, (enum direction)d, &there) && there.n)
			clsact_clean(ifindex, (enum direction)d);
}

/*
 * Filters run in the order of their priorities. One that is ahead of ours and takes a packet
 * (any verdict but "go on") keeps us from seeing it.
 */
static uint16_t clsact_earlier(const struct hook *h)
{
	struct tc_filters there;

	if (tc_filters(h->ifindex, h->direction, &there) || there.first >= HOOK_PRIORITY)
		return 0;
	return there.first;
}

static int clsact_attach(struct hook *h, int prog_fd, struct err *err)
{
	LIBBPF_OPTS(bpf_tc_hook, qdisc, .ifindex = (int)h->ifindex,
		    .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
	LIBBPF_OPTS(bpf_tc_hook, tc, .ifindex = (int)h->ifindex,
		    .attach_point = attach_point(h->direction));
	const char *where = direction_name(h->direction);
	int r;

	r = bpf_tc_hook_create(&qdisc);
	if (r && r != -EEXIST)
		return err_sys(err, r, "cannot make a clsact qdisc");
	h->made_qdisc = !r;
	/* It takes filters for egress too, and runs them at ingress. */
	if (r && tc_old_ingress(h->ifindex))
		return err_set(err, r,
			       "it has a qdisc of the kind \"ingress\" in the place of \"clsact\", "
			       "which has no egress side");
	clsact_clean(h->ifindex, h->direction);
	for (uint32_t handle = 1; handle <= HOOK_HANDLES; handle++) {
		LIBBPF_OPTS(bpf_tc_opts, opts, .handle = handle, .priority = HOOK_PRIORITY,
			    .prog_fd = prog_fd);

		r = bpf_tc_attach(&tc, &opts);
		if (r == -EEXIST)
			continue;
		if (r)
			return err_sys(err, r, "cannot attach at %s", where);
		h->handle = handle;
		h->prog_id = opts.prog_id;
		h->earlier = clsact_earlier(h);
		return 0;
	}
	return err_set(err, -EBUSY, "all %d handles for capture filters are taken at %s",
		       HOOK_HANDLES, where);
}

/* Nobody's filter is left in the clsact qdisc? When that cannot be known, it is not so. */
static bool qdisc_unused(uint32_t ifindex)
{
	struct tc_filters in, out;

	return !tc_filters(ifindex, DIRECTION_INGRESS, &in) &&
	       !tc_filters(ifindex, DIRECTION_EGRESS, &out) && !in.n && !out.n;
}

/*
 * Programs run in this order until one takes the packet. False: ours is not among them. True
 * when that cannot be known.
 */
static bool tcx_look(struct hook *h)
{
	uint32_t ids[TCX_PROGRAMS];
	struct prog_query attr = {
		.target_ifindex = h->ifindex,
		.attach_type = tcx_type(h->direction),
		.prog_ids = (uintptr_t)ids,
		.count = ARRAY_SIZE(ids),
	};
	uint32_t earlier = 0;

	if (!h->prog_id || bpf_call(BPF_PROG_QUERY, &attr, sizeof(attr)) < 0)
		return true;
	for (uint32_t i = 0; i < MIN(attr.count, ARRAY_SIZE(ids)); i++) {
		struct bpf_prog_info info = {};

		if (ids[i] == h->prog_id) {
			h->earlier = earlier;
			return true;
		}
		if (!earlier && (ids[i] == h->earlier || !is_ours(ids[i], &info)))
			earlier = ids[i];
	}
	return false;
}

int hook_attach(struct hook *h, enum hook_mode mode, int prog_fd, uint32_t ifindex,
		enum direction direction, struct err *err)
{
	int r;

	*h = (struct hook){.ifindex = ifindex, .direction = direction, .link_fd = -1};
	if (mode == HOOK_TCX) {
		r = tcx_attach(prog_fd, ifindex, direction);
		if (r < 0)
			return err_sys(err, r, "cannot attach at %s", direction_name(direction));
		h->link_fd = r;
		h->prog_id = program_id(prog_fd);
		return 0;
	}
	r = clsact_attach(h, prog_fd, err);
	if (r)
		hook_detach(h);
	return r;
}

static int xdp_attach(int prog_fd, uint32_t ifindex, uint32_t flags)
{
	LIBBPF_OPTS(bpf_link_create_opts, opts, .flags = flags);
	int r = bpf_link_create(prog_fd, (int)ifindex, BPF_XDP, &opts);

	return r < 0 ? -errno : r;
}

static int no_place(struct err *err)
{
	return err_set(
		err, -EBUSY,
		"another XDP program is there, and XDP has room for one: take that one away, "
		"or capture without XDP (\"backend: tc\")");
}

int hook_xdp_room(uint32_t ifindex, struct err *err)
{
	uint32_t id = 0;

	return bpf_xdp_query_id((int)ifindex, 0, &id) || !id ? 0 : no_place(err);
}

int hook_attach_xdp(struct hook *h, enum xdp_mode mode, int native_fd, int generic_fd,
		    uint32_t ifindex, struct err *err)
{
	int native = -EOPNOTSUPP, r;

	*h = (struct hook){.ifindex = ifindex, .direction = DIRECTION_INGRESS, .link_fd = -1};
	if (mode != XDP_GENERIC)
		native = xdp_attach(native_fd, ifindex, XDP_FLAGS_DRV_MODE);
	r = native;
	/* Drivers have many words for what they cannot: only these leave no second try. */
	if (mode == XDP_GENERIC || (mode == XDP_AUTO && r < 0 && r != -EBUSY && r != -EEXIST &&
				    r != -ENODEV && r != -EPERM))
		r = xdp_attach(generic_fd, ifindex, XDP_FLAGS_SKB_MODE);
	if (r == -EBUSY || r == -EEXIST)
		return no_place(err);
	if (r < 0)
		return err_sys(err, r, "cannot attach an XDP program%s",
			       mode == XDP_NATIVE ? " in the driver (\"xdpMode: auto\" goes on "
						    "without its help)"
						  : "");
	h->link_fd = r;
	h->is_generic = r != native;
	return h->is_generic ? XDP_GENERIC : XDP_NATIVE;
}

bool hook_intact(struct hook *h)
{
	LIBBPF_OPTS(bpf_tc_hook, tc, .ifindex = (int)h->ifindex,
		    .attach_point = attach_point(h->direction));
	LIBBPF_OPTS(bpf_tc_opts, there, .handle = h->handle, .priority = HOOK_PRIORITY);
	int r;

	if (!h->ifindex)
		return true;
	if (h->link_fd >= 0)
		return tcx_look(h);
	r = h->handle ? bpf_tc_query(&tc, &there) : -ENOENT;
	if (!r && there.prog_id == h->prog_id)
		h->earlier = clsact_earlier(h);
	if (r ? r != -ENOENT && r != -EINVAL && r != -ENODEV : there.prog_id == h->prog_id)
		return true;
	/* What is there now, qdisc included, is somebody else's. */
	h->handle = 0;
	h->made_qdisc = false;
	return false;
}

/*
 * Closing the link would detach as well, but not always before close() returns,
 * and only if no child process holds a copy.
 */
static void link_detach(struct hook *h)
{
	struct link_detach attr = {.link_fd = (uint32_t)h->link_fd};

	bpf_call(BPF_LINK_DETACH, &attr, sizeof(attr));
	close(h->link_fd);
}

void hook_abandon(struct hook *h)
{
	if (h->ifindex && h->link_fd >= 0)
		link_detach(h);
	*h = (struct hook){.link_fd = -1};
}

void hook_detach(struct hook *h)
{
	LIBBPF_OPTS(bpf_tc_hook, tc, .ifindex = (int)h->ifindex,
		    .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);

	if (!h->ifindex)
		return;
	if (h->link_fd >= 0)
		link_detach(h);
	if (h->handle)
		clsact_detach(h->ifindex, h->direction, h->handle);
	if (h->made_qdisc && qdisc_unused(h->ifindex))
		bpf_tc_hook_destroy(&tc);
	*h = (struct hook){.link_fd = -1};
}
