/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What becomes of a wanted packet at a tap: it goes to the AF_XDP socket of its queue, whole,
 * behind a struct tap_header. That is pushed in front as packet data and not as XDP metadata,
 * because every driver, copying or not, hands that on. Other packets are passed to the
 * host or dropped, as the configuration wants. emit.h has the same verbs.
 *
 * A redirect takes effect after the program has ended and may fail then (no free frame, no
 * socket): the packet is gone, counted as captured, and user space finds it missing in the
 * sequence of struct tap_sent. A CPU runs the program, and puts the packet into the
 * socket's ring, without another packet in between, so there the sequence has its order.
 */
#ifndef PS_DIVERT_H
#define PS_DIVERT_H

#include "maps.h"

#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, TAP_SOCKETS);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TAP_SOCKETS);
	__type(key, __u32);
	__type(value, struct tap_sent);
} sent SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TAPS_MAX);
	__type(key, __u32);
	__type(value, struct tap_state);
} taps SEC(".maps");

static __always_inline int output_verdict(enum capture_counter counter)
{
	if (counter == CAPTURE_CAPTURED)
		return XDP_REDIRECT;
	return knobs.tap_drop ? XDP_DROP : XDP_PASS;
}

/* The header goes before what the context's data is now. */
static __always_inline int divert_push(struct ps_ctx *ctx, const struct tap_header *header)
{
	struct tap_header *to;

	if (bpf_xdp_adjust_head(ctx, -(int)sizeof(*header)))
		return -1;
	to = (void *)(long)ctx->data;
	if ((void *)(to + 1) <= (void *)(long)ctx->data_end) {
		*to = *header;
		return 0;
	}
	bpf_xdp_adjust_head(ctx, sizeof(*header));
	return -1;
}

static __always_inline enum capture_counter output(struct ps_ctx *ctx,
						   const struct iface_rule *rule, __u32 len,
						   __u64 caplen, __be32 tag,
						   enum direction direction)
{
	__u32 tap = rule->tap, queue = ctx->rx_queue_index;
	__u32 socket = TAP_SOCKET(tap, queue);
	struct tap_state *state = bpf_map_lookup_elem(&taps, &tap);
	struct tap_sent *before = bpf_map_lookup_elem(&sent, &socket);
	struct tap_header header;

	(void)tag;
	(void)direction;
	if (queue >= TAP_QUEUES || !state || !before || !bpf_map_lookup_elem(&sockets, &socket))
		return CAPTURE_LOST_RING;
	header = (struct tap_header){
		.stamp = bpf_ktime_get_boot_ns(),
		.packets = before->packets,
		.bytes = before->bytes,
		.cpu = bpf_get_smp_processor_id(),
		.caplen = caplen,
	};
	if (len + sizeof(header) > state->room || divert_push(ctx, &header))
		return CAPTURE_LOST_ERROR;
	if (bpf_redirect_map(&sockets, socket, 0) != XDP_REDIRECT) {
		bpf_xdp_adjust_head(ctx, sizeof(header));
		return CAPTURE_LOST_RING;
	}
	before->packets++;
	before->bytes += len;
	return CAPTURE_CAPTURED;
}

#endif
