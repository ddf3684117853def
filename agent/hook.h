/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attaching a program to an interface. TC, one direction: as a TCX link at the head where
 * the kernel has that (6.6), else as a clsact filter with a priority of our own. Either way
 * other programs there work on unharmed. XDP: as a link, native where driver and program
 * suit each other, else generic; there can be only one at a time.
 */
#ifndef PS_HOOK_H
#define PS_HOOK_H

#include <stdbool.h>
#include <stdint.h>

#include "abi.h"
#include "err.h"

enum hook_mode { HOOK_AUTO, HOOK_TCX, HOOK_CLSACT };
enum xdp_mode { XDP_AUTO, XDP_NATIVE, XDP_GENERIC };

/* On an interface a filter of ours has this priority, and the first free of these handles. */
#define HOOK_PRIORITY 0xC0DE
#define HOOK_HANDLES  16

struct hook {
	uint32_t ifindex;
	enum direction direction;
	int link_fd;     /* TCX or XDP, else -1 */
	uint32_t handle; /* clsact, else 0 */
	uint32_t prog_id;
	bool is_generic;  /* XDP, and not in the driver */
	bool made_qdisc;  /* the clsact qdisc was not there before */
	uint32_t earlier; /* who runs first: a TCX program's id, a filter's priority; 0: nobody */
};

/*
 * Resolve HOOK_AUTO by asking the kernel: HOOK_TCX or HOOK_CLSACT, or -errno
 * (-EPERM: no right to load BPF programs; -EOPNOTSUPP: HOOK_TCX was asked for).
 */
int hook_choose(enum hook_mode mode, struct err *err);

/*
 * Remove what agents that have died left on the interface. Telling so takes CAP_SYS_ADMIN; without
 * it a leftover stays, inert, and its handle is taken.
 */
void hook_clean(uint32_t ifindex);

/*
 * Attach the loaded program @prog_fd in @mode, never HOOK_AUTO. With clsact, what hook_clean()
 * would remove in this direction is removed first.
 * -ENODEV: no such interface. On failure *h is as hook_detach() leaves it.
 */
int hook_attach(struct hook *h, enum hook_mode mode, int prog_fd, uint32_t ifindex,
		enum direction direction, struct err *err);
/* -EBUSY: another XDP program is on the interface. 0 when that cannot be known. */
int hook_xdp_room(uint32_t ifindex, struct err *err);
/*
 * As hook_attach() for XDP, a program for each mode (only those that @mode can come to). Returns
 * what XDP_AUTO came to, or -errno: -EBUSY another XDP program is there.
 */
int hook_attach_xdp(struct hook *h, enum xdp_mode mode, int native_fd, int generic_fd,
		    uint32_t ifindex, struct err *err);
/*
 * False: somebody has removed the program from the TC hook. Then it only remains to detach. True
 * when that cannot be known. h->earlier is as it is now.
 */
bool hook_intact(struct hook *h);
/* As hook_detach(), from another namespace: a link comes off, a filter stays, inert. */
void hook_abandon(struct hook *h);
/* Idempotent, also on a struct of zeros; the interface may be gone. */
void hook_detach(struct hook *h);

#endif
