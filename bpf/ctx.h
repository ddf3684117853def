/* SPDX-License-Identifier: Apache-2.0 */
/* What ctx_tc.h and ctx_xdp.h have in common. */
#ifndef PS_CTX_H
#define PS_CTX_H

#include "vmlinux.h"

/* An end of a TCP connection: the address as in struct addresses, the port in host order. */
struct ctx_end {
	__u64 addr[2];
	__u16 port;
};

/*
 * Copy the object of type *@to from @off: straight out of the linear part when it
 * is there, which costs nearly nothing, else as ctx_load(). The bound on the offset
 * is for the verifier, which wants packet offsets below 64 KiB.
 */
#define ctx_read(ctx, off, to)                                                   \
	({                                                                       \
		__u64 off_ = (off);                                              \
		int err_;                                                        \
		void *end_ = (void *)(long)(ctx)->data_end;                      \
		void *from_ = (void *)(long)(ctx)->data;                         \
		asm volatile("" : "+r"(off_));                                   \
		if (off_ <= 0x3fff && (from_ += off_) + sizeof(*(to)) <= end_) { \
			*(to) = *(typeof(to))from_;                              \
			err_ = 0;                                                \
		} else {                                                         \
			err_ = ctx_load(ctx, (__u32)off_, to, sizeof(*(to)));    \
		}                                                                \
		err_;                                                            \
	})

#endif
