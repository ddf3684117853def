/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attaching a TC program to one direction of an interface: as a TCX link at the
 * head where the kernel has that (6.6), else as a clsact filter with a priority of
 * our own. Either way other programs there work on unharmed.
 */
#ifndef PS_HOOK_H
#define PS_HOOK_H

#include <stdbool.h>
#include <stdint.h>

#include "abi.h"
#include "err.h"

enum hook_mode { HOOK_AUTO, HOOK_TCX, HOOK_CLSACT };

/* On an interface a filter of ours has this priority, and the first free of these handles. */
#define HOOK_PRIORITY 0xC0DE
#define HOOK_HANDLES  16

struct hook {
	uint32_t ifindex;
	enum direction direction;
	int link_fd;     /* TCX, else -1 */
	uint32_t handle; /* clsact, else 0 */
	uint32_t prog_id;
	bool made_qdisc;  /* the clsact qdisc was not there before */
	uint16_t earlier; /* priority of another clsact filter that runs first, 0: none */
};

/*
 * Resolve HOOK_AUTO by asking the kernel: HOOK_TCX or HOOK_CLSACT, or -errno
 * (-EPERM: no right to load BPF programs; -EOPNOTSUPP: HOOK_TCX was asked for).
 */
int hook_choose(enum hook_mode mode, struct err *err);

/*
 * Attach the loaded program @prog_fd in @mode, never HOOK_AUTO. With clsact, what an
 * agent that has died left on the interface is removed first (telling so takes
 * CAP_SYS_ADMIN; without it a leftover stays, inert, and its handle is taken).
 * -ENODEV: no such interface. On failure *h is as hook_detach() leaves it.
 */
int hook_attach(struct hook *h, enum hook_mode mode, int prog_fd, uint32_t ifindex,
		enum direction direction, struct err *err);
/*
 * False: somebody has removed the clsact filter. Then it only remains to detach. True when
 * that cannot be known. (A TCX link can be taken from us only by force.)
 */
bool hook_intact(struct hook *h);
/* Idempotent, also on a struct of zeros; the interface may be gone. */
void hook_detach(struct hook *h);

#endif
