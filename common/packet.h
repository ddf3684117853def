/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Captured packets as they travel: a run of pcapng Enhanced Packet Blocks in the
 * exact form that bpf/abi.h pictures. The walker trusts nothing.
 */
#ifndef PS_PACKET_H
#define PS_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clock.h"
#include "err.h"

/* LINKTYPE_ values, as in pcap files. */
enum link_type { LINK_ETHERNET = 1, LINK_RAW = 101 };

/* "ethernet", "raw", or NULL for a link type that we do not capture. */
const char *link_type_name(uint32_t link_type);

#define PACKET_CAPLEN_MAX 262144u
#define PACKET_BLOCK_MAX  (28u + PACKET_CAPLEN_MAX + 16u + 16u)

/* Of the transport header; bpf/abi.h has more. */
enum packet_csum { PACKET_CSUM_NONE, PACKET_CSUM_UNNECESSARY, PACKET_CSUM_PARTIAL };

struct packet {
	uint32_t interface_id;
	nsec_t time;
	uint32_t caplen, len; /* kept; on the wire */
	int direction;        /* 1 ingress, 2 egress */
	const uint8_t *data;  /* into the run */
	/* What the host left to the device; 0 without has_offload. */
	bool has_offload;
	uint8_t csum;                /* enum packet_csum */
	uint16_t gso_size, gso_segs; /* bytes of payload in a segment, segments; 0: one packet */
};

/*
 * Take the block at the front of the @size bytes at @run. Returns the bytes it
 * occupies (> 0), 0 at the end of the run, or -EBADMSG: cut short, another block
 * type, lengths that disagree, caplen above the limit or above len (a GSO packet's
 * len may exceed 65535), a direction other than 1 or 2, padding or an option out of place.
 */
long packet_next(const uint8_t *run, size_t size, struct packet *ret, struct err *err);

/* The bytes that packet_write() takes. */
size_t packet_size(const struct packet *p);
/* Write a block, with the option when it has_offload; @out has packet_size(p). Returns that. */
size_t packet_write(uint8_t *out, const struct packet *p);

#endif
