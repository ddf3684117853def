/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes of a wanted packet, for programs that leave packets alone: a copy into this CPU's
 * ring, as the block that abi.h pictures. divert.h has the same verbs.
 */
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
		__u64 size_ = EPB_SIZE_MAX(cap);                    \
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
static __always_inline int emit_packet(struct ps_ctx *ctx, __be32 tag, __u8 *to, __u64 caplen)
{
	if (!tag)
		return ctx_load_start(ctx, to, caplen);
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
	if (*bytes < knobs.wake_bytes)
		return 0;
	*bytes = 0;
	return BPF_RB_FORCE_WAKEUP;
}

/* What the host has left to the device, or the device has done; false when nothing is known. */
static __always_inline bool emit_offload(struct ps_ctx *ctx, struct epb_offload *to)
{
	__u32 gso_size = ctx_gso_size(ctx);
	bool verified = ctx_csum_verified(ctx);

	if (!gso_size && !verified)
		return false;
	*to = (struct epb_offload){
		.code = EPB_OPT_CUSTOM,
		.len = sizeof(*to) - 4,
		.pen = EPB_OFFLOAD_PEN,
		.gso_size = gso_size,
		.gso_segs = gso_size ? ctx_gso_segs(ctx) : 0,
		/* A packet that is still to be cut into segments has no whole checksum. */
		.csum = verified ? EPB_CSUM_UNNECESSARY : EPB_CSUM_PARTIAL,
		.version = EPB_OFFLOAD_VERSION,
	};
	return true;
}

/* What the packet's fate is to be. */
static __always_inline int output_verdict(enum capture_counter counter)
{
	(void)counter;
	return CTX_PASS;
}

/* @len: on the wire, @tag included; @caplen of it are kept. */
static __always_inline enum capture_counter output(struct ps_ctx *ctx,
						   const struct iface_rule *rule, __u32 len,
						   __u64 caplen, __be32 tag,
						   enum direction direction)
{
	__u32 key = bpf_get_smp_processor_id() % knobs.nrings;
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
	 * "== 0", that the length is at least 1; clang must not see that it is the same. And
	 * the mask, which changes nothing, makes it a value of its own: the verifier follows
	 * only so many copies of one.
	 */
	asm volatile("%0 &= 0x7ffff" : "+r"(caplen));
	_Static_assert(SNAPLEN_MAX <= 0x7ffff, "the mask");
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
	if (emit_offload(ctx, (struct epb_offload *)(packet + end)))
		end += EPB_OFFLOAD;
	trailer = (struct epb_trailer *)(packet + end);

	*header = (struct epb_header){
		.type = EPB_TYPE,
		.total_len = EPB_HEADER + end + EPB_TRAILER,
		.interface_id = rule->id,
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
