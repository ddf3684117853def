/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Enhanced Packet Blocks, walked and written. bpf/abi.h has the picture; its
 * numbers are repeated here because common code does not see BPF's headers.
 * Pure functions over the caller's memory, so any thread may use them. What
 * comes back from packet_next() points into the run and lives as long as it.
 * A block is accepted only in the two forms that we write ourselves, with what the host left to
 * the device and without it: a peer has no room to hide bytes in padding or options.
 */
#include "packet.h"

#include <errno.h>

#include "util.h"

#define BLOCK_TYPE      6u
#define BLOCK_HEADER    28u
#define BLOCK_OFFLOAD   16u /* the option that some have */
#define BLOCK_TRAILER   16u
#define OPT_FLAGS       2u /* epb_flags */
#define OPT_CUSTOM      2989u
#define OFFLOAD_LEN     12u
#define OFFLOAD_PEN     32473u
#define OFFLOAD_VERSION 1u

/* Where the fields of a block are; an option's and the trailer's count from its own start. */
enum {
	AT_TYPE = 0,
	AT_TOTAL = 4,
	AT_INTERFACE = 8,
	AT_TIME_HIGH = 12,
	AT_TIME_LOW = 16,
	AT_CAPLEN = 20,
	AT_LEN = 24,
	AT_OFFLOAD_CODE = 0,
	AT_OFFLOAD_LEN = 2,
	AT_OFFLOAD_PEN = 4,
	AT_GSO_SIZE = 8,
	AT_GSO_SEGS = 10,
	AT_CSUM = 12,
	AT_VERSION = 13,
	AT_ZERO = 14,
	AT_FLAGS_CODE = 0,
	AT_FLAGS_LEN = 2,
	AT_FLAGS = 4,
	AT_END = 8,
	AT_TOTAL_AGAIN = 12,
};

const char *link_type_name(uint32_t link_type)
{
	switch (link_type) {
	case LINK_ETHERNET:
		return "ethernet";
	case LINK_RAW:
		return "raw";
	default:
		return NULL;
	}
}

static uint32_t block_size(uint32_t caplen)
{
	return BLOCK_HEADER + ALIGN4(caplen) + BLOCK_TRAILER;
}

size_t packet_size(const struct packet *p)
{
	return block_size(p->caplen) + (p->has_offload ? BLOCK_OFFLOAD : 0);
}

static int read_offload(const uint8_t *o, struct packet *ret, struct err *err)
{
	if (get_le16(o + AT_OFFLOAD_CODE) != OPT_CUSTOM ||
	    get_le16(o + AT_OFFLOAD_LEN) != OFFLOAD_LEN ||
	    get_le32(o + AT_OFFLOAD_PEN) != OFFLOAD_PEN || o[AT_VERSION] != OFFLOAD_VERSION)
		return err_set(err, -EBADMSG, "a packet block has an option that is not ours");
	if (o[AT_CSUM] > PACKET_CSUM_PARTIAL || get_le16(o + AT_ZERO) != 0)
		return err_set(err, -EBADMSG, "a packet block has a checksum state of %u, %#x",
			       o[AT_CSUM], get_le16(o + AT_ZERO));
	ret->has_offload = true;
	ret->csum = o[AT_CSUM];
	ret->gso_size = get_le16(o + AT_GSO_SIZE);
	ret->gso_segs = get_le16(o + AT_GSO_SEGS);
	return 0;
}

/* The direction (1 or 2), or -EBADMSG. */
static int read_trailer(const uint8_t *t, uint32_t total, struct err *err)
{
	uint32_t flags = get_le32(t + AT_FLAGS);

	if (get_le16(t + AT_FLAGS_CODE) != OPT_FLAGS || get_le16(t + AT_FLAGS_LEN) != 4 ||
	    get_le32(t + AT_END) != 0)
		return err_set(err, -EBADMSG, "a packet block has other options than epb_flags");
	if (flags != 1 && flags != 2)
		return err_set(err, -EBADMSG, "a packet block has no direction (epb_flags %#x)",
			       flags);
	if (get_le32(t + AT_TOTAL_AGAIN) != total)
		return err_set(err, -EBADMSG, "a packet block's two lengths disagree: %u and %u",
			       total, get_le32(t + AT_TOTAL_AGAIN));
	return (int)flags;
}

long packet_next(const uint8_t *run, size_t size, struct packet *ret, struct err *err)
{
	uint32_t total, caplen, len, option;
	struct packet p;
	int direction, r = 0;

	if (!size)
		return 0;
	if (size < block_size(0))
		return err_set(err, -EBADMSG, "a packet block is cut short at %zu bytes", size);
	if (get_le32(run + AT_TYPE) != BLOCK_TYPE)
		return err_set(err, -EBADMSG, "a block of type %#x where a packet should be",
			       get_le32(run + AT_TYPE));
	total = get_le32(run + AT_TOTAL);
	caplen = get_le32(run + AT_CAPLEN);
	len = get_le32(run + AT_LEN);
	if (caplen > PACKET_CAPLEN_MAX)
		return err_set(err, -EBADMSG, "a packet of %u bytes is above %u", caplen,
			       PACKET_CAPLEN_MAX);
	if (caplen > len)
		return err_set(err, -EBADMSG, "a packet of %u bytes has %u captured", len, caplen);
	option = total == block_size(caplen) + BLOCK_OFFLOAD ? BLOCK_OFFLOAD : 0;
	if (total != block_size(caplen) + option)
		return err_set(err, -EBADMSG, "a packet block of %u bytes should have %u", total,
			       block_size(caplen));
	if (total > size)
		return err_set(err, -EBADMSG, "a packet block of %u bytes is cut short at %zu",
			       total, size);
	for (uint32_t i = caplen; i < ALIGN4(caplen); i++)
		if (run[BLOCK_HEADER + i])
			return err_set(err, -EBADMSG, "a packet's padding is not zero");
	direction = read_trailer(run + total - BLOCK_TRAILER, total, err);
	if (direction < 0)
		return direction;
	p = (struct packet){
		.interface_id = get_le32(run + AT_INTERFACE),
		.time = (nsec_t)get_le32(run + AT_TIME_HIGH) << 32 | get_le32(run + AT_TIME_LOW),
		.caplen = caplen,
		.len = len,
		.direction = direction,
		.data = run + BLOCK_HEADER,
	};
	if (option)
		r = read_offload(run + BLOCK_HEADER + ALIGN4(caplen), &p, err);
	if (r < 0)
		return r;
	*ret = p;
	return (long)total;
}

size_t packet_write(uint8_t *out, const struct packet *p)
{
	uint32_t total = (uint32_t)packet_size(p);
	uint8_t *o = out + BLOCK_HEADER + ALIGN4(p->caplen), *t = out + total - BLOCK_TRAILER;

	put_le32(out + AT_TYPE, BLOCK_TYPE);
	put_le32(out + AT_TOTAL, total);
	put_le32(out + AT_INTERFACE, p->interface_id);
	put_le32(out + AT_TIME_HIGH, (uint32_t)(p->time >> 32));
	put_le32(out + AT_TIME_LOW, (uint32_t)p->time);
	put_le32(out + AT_CAPLEN, p->caplen);
	put_le32(out + AT_LEN, p->len);
	if (p->caplen)
		memcpy(out + BLOCK_HEADER, p->data, p->caplen);
	memset(out + BLOCK_HEADER + p->caplen, 0, ALIGN4(p->caplen) - p->caplen);
	if (p->has_offload) {
		put_le16(o + AT_OFFLOAD_CODE, OPT_CUSTOM);
		put_le16(o + AT_OFFLOAD_LEN, OFFLOAD_LEN);
		put_le32(o + AT_OFFLOAD_PEN, OFFLOAD_PEN);
		put_le16(o + AT_GSO_SIZE, p->gso_size);
		put_le16(o + AT_GSO_SEGS, p->gso_segs);
		o[AT_CSUM] = p->csum;
		o[AT_VERSION] = OFFLOAD_VERSION;
		put_le16(o + AT_ZERO, 0);
	}
	put_le16(t + AT_FLAGS_CODE, OPT_FLAGS);
	put_le16(t + AT_FLAGS_LEN, 4);
	put_le32(t + AT_FLAGS, (uint32_t)p->direction);
	put_le32(t + AT_END, 0);
	put_le32(t + AT_TOTAL_AGAIN, total);
	return total;
}
