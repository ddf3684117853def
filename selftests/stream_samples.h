/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One sample of every ps-stream message with all its fields set, and for every type
 * the way through its codec: decode, then encode what was decoded. The unit tests
 * the fuzzer and its seeds share them, so a new message has to be added only here.
 */
#ifndef PS_STREAM_SAMPLES_H
#define PS_STREAM_SAMPLES_H

#include "stream.h"
#include "util.h"

static const struct stream_iface sample_ifaces[2] = {
	{
		.id = 1,
		.ifindex = 2,
		.netns = 4026531840,
		.link_type = 1,
		.snaplen = 65535,
		.speed_mbps = 10000,
		.mac = {0x02, 0, 0x5e, 0x10, 0, 1},
		.name = "eth0",
		.committed = {{11, 1100}, {UINT64_MAX, UINT64_MAX - 1}},
	},
	{
		.id = 7,
		.ifindex = 12,
		.netns = 4026532001,
		.link_type = 101,
		.snaplen = 262144,
		.gone = true,
		.name = "wg-\xc3\xbc",
	},
};

static const struct stream_meta sample_meta = {
	.iface =
		{
			.id = 1,
			.ifindex = 2,
			.netns = 4026531840,
			.link_type = 1,
			.snaplen = 65535,
			.speed_mbps = 10000,
			.mac = {0x02, 0, 0x5e, 0x10, 0, 1},
			.name = "eth0",
		},
	.hook = "af_xdp zero-copy",
	.netns_name = "blue",
	.filter = "tcp port 443 and not host 192.0.2.1",
};

static const struct stream_hello sample_hello = {
	.recovered = true,
	.clock_state = STREAM_CLOCK_SYNCED,
	.clock_error_ns = 1500000,
	.agent_id = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
	.boot_id = {0xff, 0xfe, 0xfd},
	.epoch = 1700000000000000000,
	.first_unacked = 5,
	.next_seq = 9,
	.realtime_ns = 1700000000000000001,
	.boottime_ns = 12345678901,
	.agent_name = "node-1.example",
	.version = "0.1.0",
	.ifaces = (struct stream_iface *)(uintptr_t)sample_ifaces,
	.n_ifaces = ARRAY_SIZE(sample_ifaces),
};

static const struct stream_welcome sample_welcome = {
	.ack_mode = STREAM_ACK_DURABLE,
	.session_id = 0x1122334455667788,
	.resume_seq = 6,
	.credit = 4u << 20,
	.max_payload = STREAM_PAYLOAD_MAX,
	.max_raw = STREAM_RAW_MAX,
	.heartbeat_ms = 5000,
	.realtime_ns = 1700000000000000002,
};

static const struct stream_error sample_error = {
	.code = STREAM_E_BUSY,
	.retry_after_ms = 30000,
	.text = "4096 sessions are open",
};

static const struct stream_data sample_data = {
	.iface_min = 1,
	.iface_max = 7,
	.first = 1700000000000000003,
	.last = 1700000000000000004,
	.packets = 3,
	.wire_bytes = 4242,
};

static const struct stream_gap_part sample_gap_parts[2] = {
	{1, 1, 100, 200, {10, 1500}},
	{7, 2, 150, 150, {1, 60}},
};

static const struct stream_gap sample_gap = {
	.first_seq = 3,
	.last_seq = 8,
	.reason = STREAM_GAP_EVICTED,
	.parts = (struct stream_gap_part *)(uintptr_t)sample_gap_parts,
	.n_parts = ARRAY_SIZE(sample_gap_parts),
};

static const struct stream_stats_part sample_stats_parts[2] = {
	{.iface = 1,
	 .direction = 1,
	 .counts.c = {[LEDGER_SEEN] = {100, 10000},
		      [LEDGER_RULED_OUT] = {1, 100},
		      [LEDGER_EXPRESSION_OUT] = {2, 200},
		      [LEDGER_SAMPLED_OUT] = {3, 300},
		      [LEDGER_CAPTURED] = {90, 9000},
		      [LEDGER_LOST_RING] = {4, 399},
		      [LEDGER_LOST_ERROR] = {0, 1},
		      [LEDGER_LOST_QUEUE] = {5, 500},
		      [LEDGER_LOST_SPOOL] = {6, 600},
		      [LEDGER_LOST_OUTPUT] = {7, 0},
		      [LEDGER_DUPLICATES] = {1, 99},
		      [LEDGER_RATE_LIMITED] = {2, 200},
		      [LEDGER_SLICED] = {40, 4000}}},
	{.iface = 7, .direction = 2, .unseen = {1600000000000000000, 1650000000000000000}},
};

static const struct stream_stats sample_stats = {
	.time = 1700000000000000005,
	.parts = (struct stream_stats_part *)(uintptr_t)sample_stats_parts,
	.n_parts = ARRAY_SIZE(sample_stats_parts),
};

static const struct stream_note sample_note = {
	.time = 1700000000000000008,
	.kind = STREAM_NOTE_FILTER,
	.has_iface = true,
	.iface = 7,
	.text = "tcp port 443 and host \xc3\xbc.example",
};

static const struct stream_ack sample_ack = {.written = 8, .durable = 6, .credit = 65536};
static const struct stream_ping sample_ping = {1700000000000000006, 1700000000000000007};
static const struct stream_bye sample_bye = {.reason = STREAM_BYE_STOP, .last_seq = 8};

/* The encoder of DATA fills a head of fixed size; the others append. */
static inline void data_put(struct buf *out, const struct stream_data *m)
{
	uint8_t head[STREAM_DATA_HEAD];

	stream_data_encode(head, m);
	buf_put(out, head, sizeof(head));
}

static inline void nothing_to_free(const void *m)
{
	(void)m;
}

#define CODEC(name, struct_, encode_, decode_, free_)                                \
	static inline void name##_sample(struct buf *out)                            \
	{                                                                            \
		encode_(out, &sample_##name);                                        \
	}                                                                            \
	static inline int name##_again(const uint8_t *in, size_t n, struct buf *out, \
				       struct err *err)                              \
	{                                                                            \
		struct struct_ m;                                                    \
		int r = decode_(in, n, &m, err);                                     \
                                                                                     \
		if (r < 0)                                                           \
			return r;                                                    \
		encode_(out, &m);                                                    \
		free_(&m);                                                           \
		return 0;                                                            \
	}

CODEC(hello, stream_hello, stream_hello_encode, stream_hello_decode, stream_hello_free)
CODEC(welcome, stream_welcome, stream_welcome_encode, stream_welcome_decode, nothing_to_free)
CODEC(error, stream_error, stream_error_encode, stream_error_decode, nothing_to_free)
CODEC(meta, stream_meta, stream_meta_encode, stream_meta_decode, nothing_to_free)
CODEC(data, stream_data, data_put, stream_data_decode, nothing_to_free)
CODEC(gap, stream_gap, stream_gap_encode, stream_gap_decode, stream_gap_free)
CODEC(stats, stream_stats, stream_stats_encode, stream_stats_decode, stream_stats_free)
CODEC(note, stream_note, stream_note_encode, stream_note_decode, nothing_to_free)
CODEC(ack, stream_ack, stream_ack_encode, stream_ack_decode, nothing_to_free)
CODEC(ping, stream_ping, stream_ping_encode, stream_ping_decode, nothing_to_free)
CODEC(bye, stream_bye, stream_bye_encode, stream_bye_decode, nothing_to_free)

struct sample_codec {
	void (*sample)(struct buf *out);
	int (*again)(const uint8_t *in, size_t n, struct buf *out, struct err *err);
};

/* By enum stream_type; CONTROL has no body in this version, TALLY that of GAP. */
static const struct sample_codec sample_codecs[STREAM_NOTE + 1] = {
	[STREAM_HELLO] = {hello_sample, hello_again},
	[STREAM_WELCOME] = {welcome_sample, welcome_again},
	[STREAM_ERROR] = {error_sample, error_again},
	[STREAM_META] = {meta_sample, meta_again},
	[STREAM_DATA] = {data_sample, data_again},
	[STREAM_GAP] = {gap_sample, gap_again},
	[STREAM_STATS] = {stats_sample, stats_again},
	[STREAM_ACK] = {ack_sample, ack_again},
	[STREAM_PING] = {ping_sample, ping_again},
	[STREAM_PONG] = {ping_sample, ping_again},
	[STREAM_BYE] = {bye_sample, bye_again},
	[STREAM_NOTE] = {note_sample, note_again},
};

#endif
