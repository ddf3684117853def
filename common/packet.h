/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Captured packets as they travel: a run of pcapng Enhanced Packet Blocks in the
 * exact form that bpf/abi.h pictures. The walker trusts nothing.
 */
#ifndef PS_PACKET_H
#define PS_PACKET_H

#include <stddef.h>
#include <stdint.h>

#include "clock.h"
#include "err.h"

/* LINKTYPE_ values, as in pcap files. */
enum link_type { LINK_ETHERNET = 1, LINK_RAW = 101 };

/* "ethernet", "raw", or NULL for a link type that we do not capture. */
const char *link_type_name(uint32_t link_type);

#define PACKET_CAPLEN_MAX 262144u
#define PACKET_BLOCK_MAX  (28u + PACKET_CAPLEN_MAX + 16u)

struct packet {
	uint32_t interface_id;
	nsec_t time;
	uint32_t caplen, len; /* kept; on the wire */
	int direction;        /* 1 ingress, 2 egress */
	const uint8_t *data;  /* into the run */
};

/*
 * Take the block at the front of the @size bytes at @run. Returns the bytes it
 * occupies (> 0), 0 at the end of the run, or -EBADMSG: cut short, another block
 * type, lengths that disagree, caplen above the limit or above len (a GSO packet's
 * len may exceed 65535), a direction other than 1 or 2, padding out of place.
 */
long packet_next(const uint8_t *run, size_t size, struct packet *ret, struct err *err);

/* Write a block; @out has room for EPB_SIZE(p->caplen). Returns its size. */
size_t packet_write(uint8_t *out, const struct packet *p);

#endif
