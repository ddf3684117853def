/* SPDX-License-Identifier: Apache-2.0 */
/* Copy a packet into this CPU's ring, as the block that abi.h pictures. */
#ifndef PS_EMIT_H
#define PS_EMIT_H

#include "maps.h"

#include <bpf/bpf_helpers.h>

#define EMIT_TAG_OFFSET 12
#define EMIT_TAG_END    16

/*
 * The constant must stay one on the path to the reservation, so the empty asm keeps
 * clang from computing it.
 */
#define EMIT_CLASS(cap)                                             \
	do {                                                        \
		__u64 size_ = EPB_SIZE(cap);                        \
		_Static_assert((cap) % 4 == 0, "verifier's bound"); \
		if (caplen <= (cap)) {                              \
			asm volatile("" : "+r"(size_));             \
			return size_;                               \
		}                                                   \
	} while (0)

/*
 * The size to reserve for @caplen bytes, 0 when there is none: the BPF ring buffer
 * reserves constant sizes only. The first ones fit bare acknowledgements, 1524 full
 * Ethernet frames with up to two tags, 65556 the largest classic GSO packet. With a
 * factor of about 4/3 between neighbours (3/2 from 2 KiB up) a seventh of a ring is
 * lost to rounding up.
 */
static __always_inline __u64 emit_size(__u64 caplen)
{
	EMIT_CLASS(76);
	EMIT_CLASS(108);
	EMIT_CLASS(140);
	EMIT_CLASS(188);
	EMIT_CLASS(252);
	EMIT_CLASS(332);
	EMIT_CLASS(444);
	EMIT_CLASS(596);
	EMIT_CLASS(796);
	EMIT_CLASS(1060);
	EMIT_CLASS(1300);
	EMIT_CLASS(1524);
	EMIT_CLASS(2044);
	EMIT_CLASS(3068);
	EMIT_CLASS(4092);
	EMIT_CLASS(6140);
	EMIT_CLASS(9216);
	EMIT_CLASS(12284);
	EMIT_CLASS(16380);
	EMIT_CLASS(24572);
	EMIT_CLASS(32764);
	EMIT_CLASS(43688);
	EMIT_CLASS(65556);
	EMIT_CLASS(98304);
	EMIT_CLASS(131072);
	EMIT_CLASS(196608);
	EMIT_CLASS(262144);
	return 0;
}

/* The packet's first @caplen bytes, the tag from the metadata back in its place. */
static __always_inline int emit_packet(const struct ps_ctx *ctx, __be32 tag, __u8 *to, __u64 caplen)
{
	if (!tag)
		return ctx_load(ctx, 0, to, caplen);
	if (ctx_load(ctx, 0, to, EMIT_TAG_OFFSET))
		return -1;
	*(__be32 *)(to + EMIT_TAG_OFFSET) = tag;
	if (caplen <= EMIT_TAG_END)
		return 0;
	caplen -= EMIT_TAG_END;
	return ctx_load(ctx, EMIT_TAG_OFFSET, to + EMIT_TAG_END, caplen);
}

/* Wake the reader when it has caught up, and for every wake_bytes in any case. */
static __always_inline __u64 emit_flags(__u64 size)
{
	__u32 zero = 0;
	__u64 *bytes = bpf_map_lookup_elem(&unread, &zero);

	if (!bytes)
		return 0;
	*bytes += size;
	if (*bytes < wake_bytes)
		return 0;
	*bytes = 0;
	return BPF_RB_FORCE_WAKEUP;
}

/* @len: on the wire, @tag included. */
static __always_inline enum capture_counter emit(const struct ps_ctx *ctx, __u32 id, __u32 len,
						 __be32 tag, enum direction direction)
{
	__u32 key = bpf_get_smp_processor_id() % nrings;
	__u64 caplen = len > snaplen ? snaplen : len;
	struct epb_trailer *trailer;
	struct epb_header *header;
	__u64 size, stamp, end;
	__u8 *packet;
	void *ring;

	ring = bpf_map_lookup_elem(&rings, &key);
	if (!ring)
		return CAPTURE_LOST_RING;
	/*
	 * The verifier of Linux 6.1 learns from a signed comparison, but not from
	 * "== 0", that the length is at least 1; clang must not see that it is the same.
	 */
	asm volatile("" : "+r"(caplen));
	if ((__s64)caplen < 1)
		return CAPTURE_LOST_ERROR;
	size = emit_size(caplen);
	if (!size)
		return CAPTURE_LOST_ERROR;
	header = bpf_ringbuf_reserve(ring, size, 0);
	if (!header)
		return CAPTURE_LOST_RING;
	/* Not before: who merges the rings relies on a stamped record being in its ring. */
	stamp = bpf_ktime_get_boot_ns();
	packet = (__u8 *)(header + 1);

	if (emit_packet(ctx, tag, packet, caplen)) {
		bpf_ringbuf_discard(header, 0);
		return CAPTURE_LOST_ERROR;
	}
	/* Up to three of these are padding; the trailer covers the others. */
	packet[caplen] = 0;
	packet[caplen + 1] = 0;
	packet[caplen + 2] = 0;
	/* Not "& ~3": of this form the verifier knows the largest value exactly. */
	end = (caplen + 3) >> 2;
	asm volatile("" : "+r"(end));
	end <<= 2;
	trailer = (struct epb_trailer *)(packet + end);

	*header = (struct epb_header){
		.type = EPB_TYPE,
		.total_len = EPB_HEADER + end + EPB_TRAILER,
		.interface_id = id,
		.ts_high = stamp >> 32,
		.ts_low = stamp,
		.caplen = caplen,
		.len = len,
	};
	*trailer = (struct epb_trailer){
		.flags_code = EPB_OPT_FLAGS,
		.flags_len = sizeof(trailer->flags),
		.flags = direction,
		.total_len = EPB_HEADER + end + EPB_TRAILER,
	};
	bpf_ringbuf_submit(header, emit_flags(size));
	return CAPTURE_CAPTURED;
}

#endif
