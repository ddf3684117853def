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
 *	.. option 2 (epb_flags), length 4, value: bits 0-1 = direction
 *	.. option 0 (end)     n-4 total length again
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
 * The rule of one interface, map `interfaces`, key: ifindex. A packet is picked
 * when ((its mask & mask) != 0) != invert, and its mask has no PORT_IGNORE:
 *	all		mask 0, invert		allow	lists, no invert
 *	allow, no list	mask 0, invert		deny	lists, invert
 */
struct iface_rule {
	abi_u64 mask;
	abi_u32 id;   /* of the stream; never reused in an epoch */
	abi_u32 slot; /* of the counters; reused, below IFACE_SLOTS */
	abi_u8 invert;
	abi_u8 raw_ip; /* packets start at the IP header (tun, wireguard, ...) */
	/*
	 * Loopback: a packet passes both hooks with the same contents, so egress only
	 * learns the agent's own flows there, and counts and captures nothing.
	 */
	abi_u8 ingress_only;
	abi_u8 pad[5];
};
_Static_assert(sizeof(struct iface_rule) == 24, "iface_rule");

/*
 * The same rules again (in .bss), each at its ifindex modulo IFACE_CELLS where that
 * cell was free: most look-ups end here, without a call. User space writes a rule
 * only while the cell's ifindex is 0, and after every program that saw another.
 */
#define IFACE_CELLS 1024u

struct iface_cell {
	struct iface_rule rule;
	abi_u32 ifindex;
	abi_u32 pad;
};

/*
 * Per CPU, slot and direction, map `counters`, key: 2 * slot + (egress ? 1 : 0).
 * Bytes are lengths on the wire. seen is counted on its own, not as the sum.
 */
enum capture_counter {
	CAPTURE_SEEN,
	CAPTURE_RULED_OUT, /* by mode, ports, or as the agent's own stream */
	CAPTURE_CAPTURED,  /* in a ring */
	CAPTURE_LOST_RING, /* the ring had no room */
	CAPTURE_LOST_ERROR,
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

/* Datagrams whose first fragment went by, map `fragments`. */
#define FRAGMENTS       8192u
#define FRAGMENT_TTL_NS 30000000000ull

#endif
