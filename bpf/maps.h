/* SPDX-License-Identifier: Apache-2.0 */
/* The maps and knobs that user space fills: shapes in abi.h. */
#ifndef PS_MAPS_H
#define PS_MAPS_H

#include "abi.h"
#include "parse.h"

#include <bpf/bpf_helpers.h>

/* Knobs: set before load, constants for the verifier, which drops what they rule out. */
const volatile __u32 snaplen = SNAPLEN_MAX;
const volatile __u64 wake_bytes = 1 << 20; /* written to a ring between forced wake-ups */
const volatile __u64 ignore_mask = 0;      /* PORT_IGNORE when some port is ignored */
const volatile __u32 nrings = 1;
const volatile bool need_ports = true;
const volatile bool check_heartbeat = false; /* where a filter outlives the agent */

struct own_state own;
struct iface_cell cells[IFACE_CELLS];

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, IFACE_SLOTS);
	__type(key, __u32); /* ifindex */
	__type(value, struct iface_rule);
} interfaces SEC(".maps");

/* By number; 1 element when no rule looks at ports. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__type(key, __u32);
	__type(value, __u64);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2 * IFACE_SLOTS);
	__type(key, __u32);
	__type(value, struct capture_counts);
} counters SEC(".maps");

/* CPU n writes to ring n modulo nrings. The inner map here only shows the type. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(
		values, struct {
			__uint(type, BPF_MAP_TYPE_RINGBUF);
			__uint(max_entries, 65536);
		});
} rings SEC(".maps");

/* Bytes written on this CPU since the reader was last woken for their number. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} unread SEC(".maps");

struct fragment {
	__u64 mask; /* PORT_ bits of the ports in the first fragment */
	__u64 time;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FRAGMENTS);
	__type(key, struct datagram);
	__type(value, struct fragment);
} fragments SEC(".maps");

struct own_flow {
	__u64 cookie;
	__u64 last_used;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, OWN_FLOWS);
	__type(key, struct flow);
	__type(value, struct own_flow);
} own_flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct heartbeat);
} heartbeat SEC(".maps");

#endif
