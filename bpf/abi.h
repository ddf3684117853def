/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one header that the BPF programs and the agent share: the record in the
 * rings, the rule of an interface, the counters, the maps' shapes.
 *
 * A RING RECORD is a pcapng Enhanced Packet Block (draft-ietf-opsawg-pcapng,
 * section 4.3), little-endian, whose time stamp is still CLOCK_BOOTTIME in
 * nanoseconds; user space adds the distance to wall-clock time and nothing
 * else, so what BPF writes is what is sent and stored:
 *
 *	 0 block type 6        4 total length n     8 interface id
 *	12 time, high 32 bit  16 time, low 32 bit  20 captured length
 *	24 length on the wire 28 packet, padded with zeros to 4
 *	.. of some packets: option 2989 (custom, binary), length 12, struct epb_offload
 *	.. option 2 (epb_flags), length 4, value: bits 0-1 = direction
 *	.. option 0 (end)     n-4 total length again
 *
 * The option says what the wire did not show: a packet that the host handles as one (GSO, GRO) and
 * the device sends or got as several, and a checksum that is not in the packet yet. Packets that
 * have nothing of that have no such option.
 *
 * The ring reservation may be longer than the block (BPF reserves in size
 * classes); the block's own total length says where it ends.
 */
#ifndef PS_ABI_H
#define PS_ABI_H

#ifdef __BPF__
#include "vmlinux.h"
typedef __u8 abi_u8;
typedef __u16 abi_u16;
typedef __u32 abi_u32;
typedef __u64 abi_u64;
#else
#include <stdint.h>
typedef uint8_t abi_u8;
typedef uint16_t abi_u16;
typedef uint32_t abi_u32;
typedef uint64_t abi_u64;
#endif

#define EPB_TYPE         6
#define EPB_HEADER       28 /* bytes before the packet */
#define EPB_TRAILER      16 /* epb_flags, end of options, total length */
#define EPB_OPT_FLAGS    2
#define EPB_SIZE(caplen) (EPB_HEADER + (((caplen) + 3) & ~3u) + EPB_TRAILER)

#define EPB_OFFLOAD          16 /* struct epb_offload */
#define EPB_OPT_CUSTOM       2989
#define EPB_OFFLOAD_PEN      32473u /* RFC 5612: for use in documentation, so nobody's */
#define EPB_OFFLOAD_VERSION  1
#define EPB_SIZE_MAX(caplen) (EPB_SIZE(caplen) + EPB_OFFLOAD) /* with the option */

struct epb_header {
	abi_u32 type, total_len, interface_id, ts_high, ts_low, caplen, len;
};
_Static_assert(sizeof(struct epb_header) == EPB_HEADER, "EPB header");

struct epb_trailer {
	abi_u16 flags_code, flags_len;
	abi_u32 flags; /* enum direction */
	abi_u16 end_code, end_len;
	abi_u32 total_len;
};
_Static_assert(sizeof(struct epb_trailer) == EPB_TRAILER, "EPB trailer");

/* State of the checksum of the transport header. */
enum epb_csum {
	EPB_CSUM_NONE,        /* nothing is known */
	EPB_CSUM_UNNECESSARY, /* the device or the stack has verified it */
	EPB_CSUM_PARTIAL,     /* only the pseudo header's: the device is to fill it in */
};

#define EPB_GSO_BY_FRAGS 0xffffu /* the kernel's: each segment has a length of its own (SCTP) */

struct epb_offload {
	abi_u16 code, len; /* EPB_OPT_CUSTOM, 12 */
	abi_u32 pen;       /* EPB_OFFLOAD_PEN */
	abi_u16 gso_size;  /* payload bytes of each segment; 0: one packet; EPB_GSO_BY_FRAGS */
	abi_u16 gso_segs;  /* segments; 0: one packet, or not known */
	abi_u8 csum;       /* enum epb_csum */
	abi_u8 version;    /* EPB_OFFLOAD_VERSION */
	abi_u16 zero;
};
_Static_assert(sizeof(struct epb_offload) == EPB_OFFLOAD, "EPB offload option");

/* As in epb_flags. */
enum direction { DIRECTION_INGRESS = 1, DIRECTION_EGRESS = 2 };

#define SNAPLEN_MAX 262144u /* as libpcap's MAXIMUM_SNAPLEN */
#define IFACE_SLOTS 1024u   /* interfaces captured at the same time */
#define PORT_SETS   62u     /* distinct port lists of captureInterfacesPorts */
#define RINGS_MAX   1024u   /* with more CPUs some share one */

/*
 * Every port has a mask of the lists it is in. Bit 0 is capturePorts, bit 1
 * ignorePorts, the rest are lists of captureInterfacesPorts. A packet's mask is
 * that of its source port or'ed with that of its destination port, so a
 * decision takes the same time however many ports are listed.
 */
#define PORT_CAPTURE (1ull << 0)
#define PORT_IGNORE  (1ull << 1)
#define PORT_SET(n)  (1ull << ((n) + 2))

/*
 * The rule of one interface, map `interfaces`, key: IFACE_KEY(). A packet is picked
 * when ((its mask & mask) != 0) != invert, and its mask has no PORT_IGNORE:
 *	all		mask 0, invert		allow	lists, no invert
 *	allow, no list	mask 0, invert		deny	lists, invert
 * A picked one then has the expression, the flags and the limits in the way.
 */
struct iface_rule {
	abi_u64 mask;
	abi_u32 id;     /* of the stream; never reused in an epoch */
	abi_u32 slot;   /* of the counters; reused, below IFACE_SLOTS */
	abi_u32 slice;  /* bytes kept of a packet: SLICE_; 0 no limit but the snap length */
	abi_u32 sample; /* one in so many packets, or flows with RULE_SAMPLE_FLOWS; 0, 1: all */
	/*
	 * What more is asked of a packet: RULE_ flags and, in RULE_EXPRESSION, the slot of its
	 * expression, 0 none. In one word, because it changes under the programs, which read it
	 * once.
	 */
	abi_u32 asks;
	abi_u8 invert;
	abi_u8 raw_ip; /* packets start at the IP header (tun, wireguard, ...) */
	/*
	 * Loopback: a packet passes both hooks with the same contents, so egress only
	 * learns the agent's own flows there, and counts and captures nothing.
	 */
	abi_u8 ingress_only;
	abi_u8 tap; /* which one, in the program for taps; below TAPS_MAX */
};
_Static_assert(sizeof(struct iface_rule) == 32, "iface_rule");

/* An ifindex means something only in its network namespace: the number that we gave that. */
#define IFACE_KEY(netns, ifindex) ((abi_u64)(netns) << 32 | (ifindex))

#define RULE_EXPRESSION       0xffffu
#define RULE_EXPRESSION_L3    (1u << 16) /* the expression looks at struct scratch's l3 */
#define RULE_EXPRESSION_INNER (1u << 17) /* ... and at inner */
#define RULE_SAMPLE_FLOWS     (1u << 18)
#define RULE_LIMIT            (1u << 19) /* the interface has a rate limit, in `buckets` */
#define RULE_DEDUP            (1u << 20)

/*
 * How much is kept of a packet: n bytes, or n bytes behind the header of layer 4. Packets
 * that are not IP have no such header: SLICE_NOT_IP bytes of them.
 */
#define SLICE_L4     (1u << 31)
#define SLICE_NOT_IP 128u
#define SLICE_MIN    14u /* bytes; less says nothing */

/*
 * The same rules again (in .bss), each at the IFACE_CELL() of its key where that
 * cell was free: most look-ups end here, without a call. User space writes a rule
 * only while the cell's key is 0, and after every program that saw another; of a rule
 * in use it changes single members.
 */
#define IFACE_CELLS 1024u
/* The interfaces of different namespaces have mostly the same few indices. */
#define IFACE_CELL(key) ((abi_u32)((key) + ((key) >> 32) * 37) % IFACE_CELLS)

struct iface_cell {
	struct iface_rule rule;
	abi_u64 key;
};

/*
 * Per CPU, slot and direction, map `counters`, key: 2 * slot + (egress ? 1 : 0).
 * Bytes are lengths on the wire. seen is counted on its own, not as the sum.
 */
enum capture_counter {
	CAPTURE_SEEN,
	CAPTURE_RULED_OUT, /* by mode, ports, or as the agent's own stream */
	CAPTURE_CAPTURED,  /* in a ring; by a tap: sent to a socket */
	CAPTURE_LOST_RING, /* the ring had no room */
	CAPTURE_LOST_ERROR,
	CAPTURE_EXPRESSION_OUT, /* by the filter expression */
	CAPTURE_SAMPLED_OUT,    /* by sampling or a rate limit */
	/* Parts of the ones above, counted there too. */
	CAPTURE_DUPLICATES,   /* of RULED_OUT: the same packet was captured elsewhere */
	CAPTURE_RATE_LIMITED, /* of SAMPLED_OUT: above a limit */
	CAPTURE_SLICED,       /* of CAPTURED: cut below the configured snap length */
	CAPTURE_COUNTERS,
};

struct capture_counts {
	abi_u64 packets[CAPTURE_COUNTERS];
	abi_u64 bytes[CAPTURE_COUNTERS];
};

/* Map `heartbeat`, one element, shared by mmap: see DESIGN "Hooks". */
struct heartbeat {
	abi_u64 boottime_ns; /* of the last beat; a program is inert when it is stale */
	abi_u32 pid;
	abi_u32 pid_ns; /* inode of the PID namespace in which pid means something */
};
_Static_assert(sizeof(struct heartbeat) == 16, "heartbeat");
#define HEARTBEAT_STALE_NS 10000000000ull

/*
 * The agent's own stream (in .bss, written by own_socket()): the cookies of its
 * sockets, the current one first. What a socket with one of them sends is never
 * captured, and the TCP flow seen with it (so after NAT, if any) is remembered as
 * its own in both directions: while its cookie is the current one, and
 * OWN_FLOW_GRACE_NS after its last packet.
 */
#define OWN_COOKIES       4
#define OWN_FLOWS         1024u /* remembered at the same time */
#define OWN_FILTER        1024u /* cells of the pre-check, a power of two */
#define OWN_FLOW_GRACE_NS 120000000000ull
#define OWN_GENERATIONS   100

struct own_state {
	abi_u64 cookies[OWN_COOKIES];
	/*
	 * The pre-check that asks less of own_flows: where a flow with this hash of its
	 * ports was seen, the generation then, else 0. One that is OWN_GENERATIONS behind
	 * does not count, so that years of reconnects do not fill it up.
	 */
	abi_u8 filter[OWN_FILTER];
	abi_u8 generation; /* 1..255 and round again, the next with every socket */
	abi_u8 pad[7];
};

/*
 * Rate limits, map `buckets`: element 0 is the agent's, 1 + slot that of an interface, the last
 * one that of the budget, whose rate is in struct degrade. A token bucket as a time (GCRA): what is
 * let through moves it forward by its cost, and it may be ahead of the clock by burst_ns. A cost
 * of 0 is no limit.
 */
#define BUCKET_AGENT    0u
#define BUCKET_IFACE(n) (1u + (n))
#define BUCKET_BUDGET   (1u + IFACE_SLOTS)
#define BUCKETS         (2u + IFACE_SLOTS)
#define BUCKET_FRACTION 20 /* bits behind the point of ns_per_byte */

struct bucket {
	abi_u32 lock, pad; /* struct bpf_spin_lock */
	abi_u64 packets_at, bytes_at;
	abi_u64 ns_per_packet;
	abi_u64 ns_per_byte; /* fixed point */
	abi_u64 burst_ns;
};
_Static_assert(sizeof(struct bucket) == 48, "bucket");

/*
 * What the budget asks of all interfaces (in .bss), on top of their rules; all zeros: nothing. Each
 * packet costs ns_per_byte (as in struct bucket) for every byte that is kept and
 * DEGRADE_PACKET more.
 */
#define DEGRADE_PACKET 100u

struct degrade {
	abi_u32 slice;        /* as iface_rule.slice */
	abi_u32 sample_flows; /* one flow in so many, of those that the rule takes */
	abi_u64 ns_per_byte;  /* 0: no limit */
	abi_u64 burst_ns;
};

/*
 * Per CPU, map `work`: what the hooks cost, as measured on every WORK_EVERY-th packet of each
 * interface and direction, and what they refused by degrade.ns_per_byte. A measurement above
 * WORK_MOST_NS counts as that: an interrupt, or the hypervisor, came between.
 */
#define WORK_EVERY        64u
#define WORK_MOST_NS(len) (2000u + (len) / 4)

struct work {
	abi_u64 timed_ns; /* of the packets that were measured */
	abi_u64 refused;  /* packets */
};

/* Everything in .bss. */
struct shared {
	struct own_state own;
	struct degrade degrade;
	struct iface_cell cells[IFACE_CELLS];
};

/* Everything in .rodata: set before load, constants for the verifier, which drops what they
 * rule out. */
struct knobs {
	abi_u64 wake_bytes;   /* written to a ring between forced wake-ups */
	abi_u64 ignore_mask;  /* PORT_IGNORE when some port is ignored */
	abi_u64 dedup_window; /* ns; 0: no rule has RULE_DEDUP */
	abi_u32 snaplen;
	abi_u32 nrings;
	abi_u8 need_ports;      /* some rule looks at ports */
	abi_u8 check_heartbeat; /* where a filter outlives the agent */
	abi_u8 limit_agent;     /* the agent as a whole has a rate limit */
	abi_u8 tap_drop;        /* taps: what is not wanted is dropped, else passed */
	abi_u8 other_netns;     /* there is capture in other network namespaces */
	abi_u8 pad[3];
};

/*
 * What the programs of one packet tell each other, map `scratch`, per CPU. The entry program
 * writes it and calls, after stages[STAGE_FIND_INNER] if need be, the expression's program
 * (map `expressions`, by slot), which sets pick and calls stages[STAGE_DECIDED]. Offsets are those
 * of the hook's data, in which a tag that is in the metadata is not.
 */
#define EXPRESSIONS 256u

/* INGRESS, EGRESS: where programs that are attached for one network namespace go on. */
enum stage { STAGE_DECIDED, STAGE_FIND_INNER, STAGE_INGRESS, STAGE_EGRESS, STAGES };

enum inner_type { INNER_NONE, INNER_ETHERNET, INNER_IP };

struct scratch {
	abi_u32 len;       /* as the packet will be written, the tag included */
	abi_u32 tag;       /* from the metadata, as on the wire; 0: none */
	abi_u32 l3;        /* of the IP header; valid when family != 0 */
	abi_u32 inner;     /* of the packet in a tunnel; valid when inner_type != 0 */
	abi_u8 family;     /* 4, 6 if it says so, malformed or not; 0: not IP, or nobody asked */
	abi_u8 inner_type; /* 0 none, 1 Ethernet, 2 IP */
	abi_u8 direction;  /* enum direction */
	abi_u8 pick;       /* the expression's answer */
	abi_u32 inner_l3;  /* as l3, of the inner packet */
	abi_u8 inner_family;
	abi_u8 pad[3];
	abi_u32 netns; /* number of the namespace, for STAGE_INGRESS and STAGE_EGRESS */
};
_Static_assert(sizeof(struct scratch) == 32, "scratch");

/*
 * Packets that were captured on some interface, map `recent`: a table by a hash of their contents,
 * in each row of which the oldest gives way. Programs on other CPUs may write at the same time; of
 * a cell that is torn between two, `check` is wrong. (An LRU hash takes three times as long.)
 */
#define RECENT_ROWS       16384u
#define RECENT_WAYS       4u
#define RECENT_POINT_BITS 11 /* slot of the counters, and 1 for egress */
#define RECENT_POINT      ((1u << RECENT_POINT_BITS) - 1)
#define RECENT_TIME_SHIFT 6 /* of nanoseconds since the boot */

struct recent_row {
	struct {
		abi_u64 seen;  /* time << RECENT_POINT_BITS | point */
		abi_u64 check; /* seen ^ hash */
	} v[RECENT_WAYS];
};
_Static_assert(IFACE_SLOTS << 1 == 1u << RECENT_POINT_BITS, "points");

/*
 * Taps: interfaces of which a program of tap_xdp.bpf.c sends the wanted packets to AF_XDP
 * sockets, one for each receive queue, and so away from the host. The map `sockets` has that of
 * a queue at TAP_SOCKET().
 */
#define TAPS_MAX         16u
#define TAP_QUEUES       128u /* of one tap, at most */
#define TAP_SOCKETS      (TAPS_MAX * TAP_QUEUES)
#define TAP_SOCKET(t, q) ((t)*TAP_QUEUES + (q))

/*
 * What the program puts in front of such a packet. On its way into the socket it may still be
 * lost, so here is what the same CPU has sent there before: the difference to what came is lost.
 */
struct tap_header {
	abi_u64 stamp;          /* CLOCK_BOOTTIME */
	abi_u64 packets, bytes; /* without this one; bytes as packets are on the wire */
	abi_u32 cpu;
	abi_u32 caplen; /* bytes to keep of the packet */
};
_Static_assert(sizeof(struct tap_header) == 32, "tap_header");

/* The same, map `sent`: per CPU, by TAP_SOCKET(). */
struct tap_sent {
	abi_u64 packets, bytes;
};

/* Map `taps`: what holds for a tap as a whole. */
struct tap_state {
	abi_u32 room; /* the largest packet that its sockets take, with a struct tap_header */
};

/* Datagrams whose first fragment went by, map `fragments`. */
#define FRAGMENTS       8192u
#define FRAGMENT_TTL_NS 30000000000ull

#endif
