/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every kernel type that the BPF programs use, and nothing else: see README.md.
 * The contexts, helper ids and packet headers are UAPI, so their layout is fixed
 * and they come from the kernel's own UAPI headers.
 */
#ifndef PS_VMLINUX_H
#define PS_VMLINUX_H

#include <stdbool.h>

#include <linux/types.h>

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>

#endif
