/* SPDX-License-Identifier: Apache-2.0 */
/* The maps and knobs that user space fills: shapes in abi.h. */
#ifndef PS_MAPS_H
#define PS_MAPS_H

#include "abi.h"
#include "parse.h"

#include <bpf/bpf_helpers.h>

const volatile struct knobs knobs = {};
struct shared shared;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, IFACE_SLOTS);
	__type(key, __u64); /* IFACE_KEY() */
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

/*
 * Between the programs of one packet, which runs on one CPU with bottom halves off, so
 * that nothing else comes between.
 */
struct handover {
	struct scratch s;
	struct parsed p;
	struct iface_rule rule;
	struct degrade degrade; /* as it was when the packet came in, like the rule */
	__u64 started;          /* 0: this packet is not timed */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct handover);
} scratch SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, EXPRESSIONS);
	__type(key, __u32);
	__type(value, __u32);
} expressions SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, STAGES);
	__type(key, __u32);
	__type(value, __u32);
} stages SEC(".maps");

/* struct bucket, with the lock as the kernel wants it. */
struct locked_bucket {
	struct bpf_spin_lock lock;
	__u32 pad;
	__u64 packets_at, bytes_at;
	__u64 ns_per_packet, ns_per_byte, burst_ns;
};
_Static_assert(sizeof(struct locked_bucket) == sizeof(struct bucket), "bucket");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, BUCKETS);
	__type(key, __u32);
	__type(value, struct locked_bucket);
} buckets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct work);
} work SEC(".maps");

/* 1 element when nobody looks for duplicates. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RECENT_ROWS);
	__type(key, __u32);
	__type(value, struct recent_row);
} recent SEC(".maps");

#endif
