// SPDX-License-Identifier: Apache-2.0
#include "programs.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wcast-qual" /* of bpftool's making */
#include "capture_tc.skel.h"
#include "capture_xdp.skel.h"
#include "tap_xdp.skel.h"
#pragma GCC diagnostic pop
#include "ebpf.h"
#include "util.h"

/* By enum programs_map; libbpf puts a part of the object's name before the last one. */
static const char *const map_names[PROGRAMS_MAPS] = {
	[MAP_INTERFACES] = "interfaces",
	[MAP_PORTS] = "ports",
	[MAP_FRAGMENTS] = "fragments",
	[MAP_COUNTERS] = "counters",
	[MAP_RINGS] = "rings",
	[MAP_UNREAD] = "unread",
	[MAP_OWN_FLOWS] = "own_flows",
	[MAP_HEARTBEAT] = "heartbeat",
	[MAP_BUCKETS] = "buckets",
	[MAP_RECENT] = "recent",
	[MAP_WORK] = "work",
	[MAP_BSS] = ".bss",
	[MAP_SCRATCH] = "scratch",
	[MAP_EXPRESSIONS] = "expressions",
	[MAP_STAGES] = "stages",
	[MAP_SOCKETS] = "sockets",
	[MAP_SENT] = "sent",
	[MAP_TAPS] = "taps",
};

/* What differs between the objects. */
static const struct {
	const char *object;
	const void *(*bytes)(size_t *ret_size);
	const char *entry[2];
	const char *stages[STAGES]; /* NULL: there is none */
	bool frags;                 /* takes packets in several buffers */
} names[] = {
	[PROGRAMS_TC] = {"capture_tc",
			 capture_tc__elf_bytes,
			 {"ps_tc_ingress", "ps_tc_egress"},
			 {"ps_tc_decided", "ps_tc_find_inner", "ps_tc_ingress_in",
			  "ps_tc_egress_in"}},
	[PROGRAMS_XDP] = {"capture_xdp",
			  capture_xdp__elf_bytes,
			  {"ps_xdp"},
			  {"ps_xdp_decided", "ps_xdp_find_inner", "ps_xdp_in"},
			  .frags = true},
	[PROGRAMS_XDP_GENERIC] = {"capture_xdp",
				  capture_xdp__elf_bytes,
				  {"ps_xdp"},
				  {"ps_xdp_decided", "ps_xdp_find_inner", "ps_xdp_in"}},
	[PROGRAMS_TAP] = {"tap_xdp",
			  tap_xdp__elf_bytes,
			  {"ps_tap"},
			  {"ps_tap_decided", "ps_tap_find_inner"},
			  .frags = true},
	[PROGRAMS_TAP_GENERIC] = {"tap_xdp",
				  tap_xdp__elf_bytes,
				  {"ps_tap"},
				  {"ps_tap_decided", "ps_tap_find_inner"}},
};

/*
 * libbpf's messages: silence, but keep what it last complained of, for the sentence.
 * A refusing verifier's reason is the last line of its log but for the statistics.
 */
static _Thread_local char complaint[256];

static void keep_line(const char *line, size_t len)
{
	len = MIN(len, sizeof(complaint) - 1);
	memcpy(complaint, line, len);
	complaint[len] = '\0';
}

static void keep_verdict(const char *log)
{
	static const char *const noise[] = {"processed ", "-- END", "verification time",
					    "stack depth"};

	for (const char *end; (end = strchr(log, '\n')); log = end + 1) {
		bool skip = end == log;

		for (size_t i = 0; i < ARRAY_SIZE(noise); i++)
			skip |= !strncmp(log, noise[i], strlen(noise[i]));
		if (!skip)
			keep_line(log, (size_t)(end - log));
	}
}

__attribute__((format(printf, 2, 0))) static int on_message(enum libbpf_print_level level,
							    const char *fmt, va_list ap)
{
	_cleanup_free_ char *text = NULL;
	char *log;

	if (level != LIBBPF_WARN || vasprintf(&text, fmt, ap) < 0)
		return 0;
	log = strstr(text, "-- BEGIN PROG LOAD LOG --\n");
	if (log)
		keep_verdict(strchr(log, '\n') + 1);
	else if (!complaint[0])
		keep_line(text, strcspn(text, "\n"));
	return 0;
}

static struct bpf_map *find_map(struct bpf_object *object, const char *name)
{
	struct bpf_map *map;

	bpf_object__for_each_map(map, object)
	{
		const char *found = bpf_map__name(map);
		size_t len = strlen(found), want = strlen(name);

		if (len >= want && strcmp(found + len - want, name) == 0)
			return map;
	}
	return NULL;
}

static int open_object(struct programs *p, struct err *err)
{
	size_t size;
	const void *bytes = names[p->hook].bytes(&size);
	LIBBPF_OPTS(bpf_object_open_opts, opts, .object_name = names[p->hook].object);

	struct bpf_program *program;

	libbpf_set_print(on_message);
	complaint[0] = '\0';
	p->object = bpf_object__open_mem(bytes, size, &opts);
	if (!p->object)
		return err_sys(err, -errno, "cannot open the capture programs");
	if (!names[p->hook].frags)
		return 0;
	bpf_object__for_each_program(program, p->object)
	{
		int r = bpf_program__set_flags(program, BPF_F_XDP_HAS_FRAGS);

		if (r)
			return err_sys(err, r, "cannot prepare the capture programs");
	}
	return 0;
}

/* Maps that nobody asks for get the smallest size. */
static int set_knobs(struct programs *p, const struct knobs *knobs, struct err *err)
{
	struct bpf_map *rodata = find_map(p->object, ".rodata");
	size_t size = 0;
	const void *value = bpf_map__initial_value(rodata, &size);
	int r = bpf_map__set_max_entries(find_map(p->object, "rings"), knobs->nrings);

	if (!value || size != sizeof(*knobs))
		return err_set(err, -EINVAL, "the capture programs have other knobs");
	if (!r)
		r = bpf_map__set_initial_value(rodata, knobs, sizeof(*knobs));
	if (!r && !knobs->need_ports)
		r = bpf_map__set_max_entries(find_map(p->object, "ports"), 1);
	if (!r && !knobs->need_ports)
		r = bpf_map__set_max_entries(find_map(p->object, "fragments"), 1);
	if (!r && !knobs->dedup_window)
		r = bpf_map__set_max_entries(find_map(p->object, "recent"), 1);
	return r ? err_sys(err, r, "cannot size the BPF maps") : 0;
}

/*
 * Verifying an entry program takes long, so there are either those that are attached
 * themselves or those that programs of other namespaces, and then of ours too, go on with.
 */
static const char *entry_name(const struct programs *p, int i, const struct knobs *knobs)
{
	return knobs->other_netns ? NULL : names[p->hook].entry[i];
}

static const char *stage_name(const struct programs *p, uint32_t stage, const struct knobs *knobs)
{
	bool entry = stage == STAGE_INGRESS || stage == STAGE_EGRESS;

	return entry && !knobs->other_netns ? NULL : names[p->hook].stages[stage];
}

static void choose_programs(struct programs *p, const struct knobs *knobs)
{
	const char *leave_out[2 + STAGES];
	size_t n = 0;

	for (int i = 0; i < 2; i++)
		if (names[p->hook].entry[i] && !entry_name(p, i, knobs))
			leave_out[n++] = names[p->hook].entry[i];
	for (uint32_t i = 0; i < STAGES; i++)
		if (names[p->hook].stages[i] && !stage_name(p, i, knobs))
			leave_out[n++] = names[p->hook].stages[i];
	while (n--)
		bpf_program__set_autoload(bpf_object__find_program_by_name(p->object, leave_out[n]),
					  false);
}

static int share_maps(struct programs *p, const struct programs *share, struct err *err)
{
	for (int i = 0; i < MAPS_SHARED; i++) {
		int r = 0;

		if (share->map[i] >= 0)
			r = bpf_map__reuse_fd(find_map(p->object, map_names[i]), share->map[i]);
		if (r)
			return err_sys(err, r, "cannot share the BPF map \"%s\"", map_names[i]);
	}
	return 0;
}

static int load(struct programs *p, struct err *err)
{
	int r = bpf_object__load(p->object);

	if (!r)
		return 0;
	if (r == -EINVAL && p->hook != PROGRAMS_TC &&
	    libbpf_probe_bpf_helper(BPF_PROG_TYPE_XDP, BPF_FUNC_xdp_load_bytes, NULL) == 0)
		return err_set(err, -EOPNOTSUPP,
			       "capture at XDP and taps need a kernel with bpf_xdp_load_bytes() "
			       "(Linux 5.18)");
	if (r == -EPERM)
		return err_set(err, r,
			       "no right to load the capture programs (CAP_BPF, CAP_NET_ADMIN and "
			       "CAP_PERFMON are needed): %s",
			       complaint);
	if (r == -EACCES)
		return err_set(err, r, "the kernel refuses the capture programs%s: %s",
			       strstr(complaint, "!root") ? " for want of CAP_PERFMON" : "",
			       complaint);
	return err_sys(err, r, "cannot load the capture programs: %s", complaint);
}

static int program_fd(const struct programs *p, const char *name)
{
	return name ? bpf_program__fd(bpf_object__find_program_by_name(p->object, name)) : -1;
}

static int link_stages(struct programs *p, const struct knobs *knobs, struct err *err)
{
	for (uint32_t i = 0; i < STAGES; i++) {
		const char *name = stage_name(p, i, knobs);
		int fd = program_fd(p, name);

		if (!name)
			continue;
		if (bpf_map_update_elem(p->map[MAP_STAGES], &i, &fd, BPF_ANY))
			return err_sys(err, -errno, "cannot link the capture programs");
	}
	return 0;
}

int programs_open(struct programs *p, enum programs_hook hook, const struct knobs *knobs,
		  const struct programs *share, struct err *err)
{
	int r;

	*p = (struct programs){.hook = hook, .by_netns = knobs->other_netns};
	r = open_object(p, err);
	if (!r)
		r = set_knobs(p, knobs, err);
	if (!r)
		choose_programs(p, knobs);
	if (!r && share)
		r = share_maps(p, share, err);
	if (!r)
		r = load(p, err);
	for (int i = 0; !r && i < PROGRAMS_MAPS; i++)
		p->map[i] = bpf_map__fd(find_map(p->object, map_names[i]));
	for (int i = 0; !r && i < 2; i++)
		p->entry[i] = program_fd(p, entry_name(p, i, knobs));
	if (!r)
		r = link_stages(p, knobs, err);
	if (r)
		programs_close(p);
	return r;
}

int programs_set_expression(struct programs *p, uint32_t slot, const struct expression *e,
			    struct err *err)
{
	struct ebpf_maps maps = {
		.scratch_fd = p->map[MAP_SCRATCH],
		.stages_fd = p->map[MAP_STAGES],
	};
	enum ebpf_hook hook = p->hook == PROGRAMS_TC ? EBPF_TC : EBPF_XDP;
	struct ebpf_program program;
	_cleanup_close_ int fd = -1;
	int r;

	if (!e)
		return bpf_map_delete_elem(p->map[MAP_EXPRESSIONS], &slot) ? -errno : 0;
	r = ebpf_translate(e, hook, &maps, &program, err);
	if (r < 0)
		return r;
	r = ebpf_load(&program, hook, names[p->hook].frags, &fd, err);
	ebpf_release(&program);
	if (r < 0)
		return r;
	if (bpf_map_update_elem(p->map[MAP_EXPRESSIONS], &slot, &fd, BPF_ANY))
		return err_sys(err, -errno, "cannot hand an expression to the capture programs");
	return 0;
}

void programs_close(struct programs *p)
{
	bpf_object__close(p->object);
	*p = (struct programs){};
}
