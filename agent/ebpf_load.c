// SPDX-License-Identifier: Apache-2.0
/* Translated programs into the kernel, and what this kernel has for them. */
#include <bpf/bpf.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "ebpf_internal.h"
#include "util.h"

#define LICENSE "Apache-2.0" /* so only helpers that are for everyone */
/* Of what the verifier says the end counts: it comes after all that went well. */
#define LOG_BYTES (1u << 20)

static int load(const struct ebpf_program *p, enum ebpf_hook hook, bool xdp_frags, char *log,
		size_t size)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts);
	enum bpf_prog_type type = hook == EBPF_TC ? BPF_PROG_TYPE_SCHED_CLS : BPF_PROG_TYPE_XDP;

	if (hook == EBPF_XDP) {
		opts.expected_attach_type = BPF_XDP;
		opts.prog_flags = xdp_frags ? BPF_F_XDP_HAS_FRAGS : 0;
	}
	if (log) {
		opts.log_buf = log;
		opts.log_size = (uint32_t)size;
		opts.log_level = 1;
	}
	return bpf_prog_load(type, "ps_expression", LICENSE, p->insns, p->n, &opts);
}

/* The verifier's last line but for its statistics: the reason. */
static const char *reason(char *log)
{
	char *found = NULL;

	for (char *line = strtok_r(log, "\n", &log); line; line = strtok_r(NULL, "\n", &log)) {
		if (!strstr(line, "processed ") && !strstr(line, "verification time") &&
		    !strstr(line, "stack depth"))
			found = line;
	}
	return found;
}

int ebpf_load(const struct ebpf_program *p, enum ebpf_hook hook, bool xdp_frags, int *ret_fd,
	      struct err *err)
{
	int fd = load(p, hook, xdp_frags, NULL, 0), e;
	_cleanup_free_ char *log = NULL;
	const char *why = NULL;

	if (fd >= 0) {
		*ret_fd = fd;
		return 0;
	}
	e = fd;
	/* Once more, listening. -ENOSPC means that the log was cut, at its end. */
	log = calloc(1, LOG_BYTES);
	if (log) {
		fd = load(p, hook, xdp_frags, log, LOG_BYTES);
		if (fd >= 0) {
			*ret_fd = fd;
			return 0;
		}
		why = fd == -ENOSPC ? NULL : reason(log);
	}
	if (why)
		return err_sys(err, e, "the kernel takes no expression of %zu instructions (%s)",
			       p->n, why);
	return err_sys(err, e, "the kernel takes no expression of %zu instructions", p->n);
}

static bool xdp_can_load;

/* A program that does nothing but call the helper. */
static void probe(void)
{
	struct asm_text t = {};
	struct ebpf_program p;
	int fd;

	asm_set(&t, BPF_REG_2, 0);
	asm_mov(&t, BPF_REG_3, BPF_REG_10);
	asm_alu64_value(&t, BPF_ADD, BPF_REG_3, STACK_LOAD);
	asm_set(&t, BPF_REG_4, 1);
	asm_call(&t, BPF_FUNC_xdp_load_bytes);
	asm_set(&t, BPF_REG_0, XDP_PASS);
	asm_exit(&t);
	if (!asm_finish(&t, NULL)) {
		p = (struct ebpf_program){.insns = t.insns, .n = t.n};
		fd = load(&p, EBPF_XDP, false, NULL, 0);
		xdp_can_load = fd >= 0;
		if (fd >= 0)
			close(fd);
	}
	asm_release(&t);
}

bool ebpf_xdp_can_load(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, probe);
	return xdp_can_load;
}
