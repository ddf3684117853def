/* SPDX-License-Identifier: Apache-2.0 */
/* How much of a packet is kept: the snap length, the rule's slice, the budget's. Needs knobs and
 * shared. */
#ifndef PS_SLICE_H
#define PS_SLICE_H

#include "parse.h"

/* Without options. */
#define SLICE_TCP  20
#define SLICE_DCCP 12
#define SLICE_SCTP 12 /* the common header, no chunk */
#define SLICE_UDP  8  /* ICMP, too */

/* What a header says of its own length, in words: never less than @least. */
static __always_inline __u32 slice_words(struct ps_ctx *ctx, __u32 off, __u32 shift, __u32 least)
{
	__u8 words;
	__u32 len;

	if (ctx_load(ctx, off, &words, 1))
		return least;
	len = (words >> shift) * 4;
	return len > least ? len : least;
}

/* Of the header at p->l4; 0 where none is known. */
static __always_inline __u32 slice_l4_header(struct ps_ctx *ctx, const struct parsed *p)
{
	if (p->fragment == FRAGMENT_LATER)
		return 0;
	switch (p->proto) {
	case IPPROTO_TCP:
		return slice_words(ctx, p->l4 + 12, 4, SLICE_TCP);
	case IPPROTO_DCCP:
		return slice_words(ctx, p->l4 + 4, 0, SLICE_DCCP);
	case IPPROTO_SCTP:
		return SLICE_SCTP;
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return SLICE_UDP;
	}
	return 0;
}

static __always_inline __u32 slice_limit(struct ps_ctx *ctx, const struct parsed *p, __u32 slice,
					 __u32 tag_len)
{
	if (!slice)
		return SNAPLEN_MAX;
	if (!(slice & SLICE_L4))
		return slice;
	if (!p->family)
		return SLICE_NOT_IP;
	return p->l4 + tag_len + slice_l4_header(ctx, p) + (slice & ~SLICE_L4);
}

/* Of @caplen bytes of a packet. */
static __always_inline __u32 slice(struct ps_ctx *ctx, const struct iface_rule *rule,
				   const struct degrade *degrade, const struct parsed *p,
				   __u32 caplen, bool tag)
{
	__u32 tag_len = tag ? 4 : 0;
	__u32 limit;

	if (rule->slice) {
		limit = slice_limit(ctx, p, rule->slice, tag_len);
		caplen = caplen > limit ? limit : caplen;
	}
	if (degrade->slice) {
		limit = slice_limit(ctx, p, degrade->slice, tag_len);
		caplen = caplen > limit ? limit : caplen;
	}
	return caplen;
}

#endif
