/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ps-stream, version 1: the codec of every message (ps-stream(7) has the bytes).
 * Pure: no descriptor, no clock, no log. Both daemons use both halves.
 *
 * A message is a 32-byte header and a payload. Control payloads are TLVs (u16
 * type, u16 length, value; little-endian; unknown types are skipped). DATA is a
 * 40-byte head and one gzip member of Enhanced Packet Blocks.
 */
#ifndef PS_STREAM_H
#define PS_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "clock.h"
#include "err.h"
#include "ledger.h"

#define STREAM_ALPN        "ps/1"
#define STREAM_VERSION     1
#define STREAM_HEADER_SIZE 32
#define STREAM_DATA_HEAD   40

/* Bounds, checked before anything is allocated. */
#define STREAM_PAYLOAD_MAX    (4u << 20) /* DATA; control messages: */
#define STREAM_CONTROL_MAX    (1u << 20)
#define STREAM_RAW_MAX        (4u << 20) /* a DATA body, inflated */
#define STREAM_PACKETS_MAX    65536u     /* in a DATA message */
#define STREAM_INTERFACES_MAX 4096u      /* alive at a time, or in a HELLO */
#define STREAM_NAME_MAX       64         /* agent and interface names, versions */
#define STREAM_TEXT_MAX       256        /* an ERROR's sentence */
#define STREAM_NOTE_MAX       1024       /* a NOTE's text */
#define STREAM_HOOK_MAX       32         /* of an interface: what captures there, */
#define STREAM_FILTER_MAX     1024       /* and the filter expression */

enum stream_type {
	STREAM_HELLO = 1,
	STREAM_WELCOME,
	STREAM_ERROR,
	STREAM_META,  /* numbered */
	STREAM_DATA,  /* numbered */
	STREAM_GAP,   /* numbered */
	STREAM_STATS, /* numbered */
	STREAM_ACK,
	STREAM_PING,
	STREAM_PONG,
	STREAM_BYE,
	STREAM_CONTROL,
	/*
	 * Only in an agent's spool, never sent: what is in the messages first_seq to last_seq,
	 * encoded as a GAP. See agent/spool.h.
	 */
	STREAM_TALLY,
	STREAM_NOTE, /* numbered */
};

/* A receiver skips an unknown type with this flag, and ends the session without it. */
#define STREAM_FLAG_OPTIONAL 1u

struct stream_header {
	uint8_t type; /* enum stream_type */
	uint16_t flags;
	uint32_t payload_len;
	uint32_t raw_len; /* DATA: the body inflated; else 0 */
	uint64_t seq;     /* numbered messages: from 1 on; else 0 */
	uint32_t payload_crc;
};

const char *stream_type_name(uint8_t type);
bool stream_type_numbered(uint8_t type);

void stream_header_encode(uint8_t out[STREAM_HEADER_SIZE], const struct stream_header *h);
/*
 * -EBADMSG for a wrong magic or checksum, -EPROTONOSUPPORT for another version,
 * -EMSGSIZE for a length beyond the bounds of its type.
 */
int stream_header_decode(const uint8_t in[STREAM_HEADER_SIZE], struct stream_header *ret,
			 struct err *err);

/*
 * Append a whole message: header, then the @n bytes of @payload. Sets buf_failed()
 * when out of memory.
 */
void stream_message(struct buf *out, uint8_t type, uint64_t seq, const void *payload, size_t n);

/* One interface of an agent. */
struct stream_iface {
	uint32_t id; /* never reused in an epoch */
	uint32_t ifindex;
	uint64_t netns;     /* inode of the network namespace */
	uint32_t link_type; /* LINKTYPE_ */
	uint32_t snaplen;
	uint32_t speed_mbps; /* 0 unknown */
	uint8_t mac[6];
	bool gone; /* captured no more */
	char name[STREAM_NAME_MAX + 1];
	char netns_name[STREAM_NAME_MAX + 1]; /* not sent here but in struct stream_meta */
	/* HELLO only: what the collector acknowledged so far, by direction - 1. */
	struct ledger_count committed[2];
};

/* META: an interface and how it is captured. HELLO, which names thousands, has the first only. */
struct stream_meta {
	struct stream_iface iface;
	char hook[STREAM_HOOK_MAX + 1];       /* "tcx", "xdp native", ...; empty: not told */
	char netns_name[STREAM_NAME_MAX + 1]; /* of the network namespace; empty: none */
	char filter[STREAM_FILTER_MAX + 1];   /* the expression (text_cut()); empty: none */
};

enum stream_clock_state { STREAM_CLOCK_UNKNOWN, STREAM_CLOCK_SYNCED, STREAM_CLOCK_FREE };

struct stream_hello {
	uint8_t agent_id[16]; /* UUID */
	uint8_t boot_id[16];
	uint64_t epoch;
	uint64_t first_unacked, next_seq;
	uint64_t realtime_ns, boottime_ns; /* the agent's clocks, now */
	char agent_name[STREAM_NAME_MAX + 1];
	char version[STREAM_NAME_MAX + 1];
	/*
	 * The epoch is over, and this is what was found of it on the disk. The collector may
	 * have more than that: then it answers with a resume number above next_seq.
	 */
	bool recovered;
	uint8_t clock_state;     /* enum stream_clock_state, of the agent's CLOCK_REALTIME */
	uint64_t clock_error_ns; /* how wrong it may be at most, as its kernel says */
	/*
	 * All interfaces of the epoch that are alive or that an unacked message
	 * names: a collector that has just restarted needs them.
	 */
	struct stream_iface *ifaces;
	size_t n_ifaces;
};

/* Which of an ACK's two numbers lets the agent forget its messages. */
enum stream_ack_mode { STREAM_ACK_WRITTEN = 1, STREAM_ACK_DURABLE };

struct stream_welcome {
	uint64_t session_id;
	uint64_t resume_seq;
	uint64_t credit; /* bytes of numbered messages that may be under way */
	uint32_t max_payload, max_raw;
	uint32_t heartbeat_ms;
	uint64_t realtime_ns;
	uint8_t ack_mode; /* enum stream_ack_mode */
};

enum stream_error_code {
	STREAM_E_AUTH = 1,
	STREAM_E_VERSION,
	STREAM_E_BUSY,
	STREAM_E_SUPERSEDED,
	STREAM_E_PROTOCOL,
	STREAM_E_TOO_BIG,
	STREAM_E_STORAGE,
};

struct stream_error {
	uint32_t code; /* enum stream_error_code */
	uint32_t retry_after_ms;
	char text[STREAM_TEXT_MAX + 1];
};

/* The head of DATA. The body follows it to the end of the payload. */
struct stream_data {
	uint32_t iface_min, iface_max;
	nsec_t first, last; /* earliest and latest time stamp */
	uint32_t packets;
	uint64_t wire_bytes;
};

struct stream_gap_part {
	uint32_t iface;
	uint8_t direction;
	nsec_t first, last;
	struct ledger_count lost;
};

/*
 * CORRUPT: what the disk gave back was damaged. When even its counts were, there are no
 * parts, and nobody knows how many packets are lost.
 */
enum stream_gap_reason { STREAM_GAP_EVICTED = 1, STREAM_GAP_CORRUPT, STREAM_GAP_UNCLEAN };

struct stream_gap {
	uint64_t first_seq, last_seq;
	uint32_t reason;
	struct stream_gap_part *parts;
	size_t n_parts;
};

struct stream_stats_part {
	uint32_t iface;
	uint8_t direction;
	struct ledger counts; /* COMMITTED is not sent: the collector knows better */
	/* Then packets passed that nobody counted (CLOCK_REALTIME). */
	struct ledger_span unseen;
};

struct stream_stats {
	nsec_t time;
	struct stream_stats_part *parts;
	size_t n_parts;
};

/* A kind that we have no name for is a newer agent's, and as good as OTHER. */
enum stream_note_kind {
	STREAM_NOTE_OTHER,
	STREAM_NOTE_FILTER,  /* the filter expression changed */
	STREAM_NOTE_DEGRADE, /* a step of the degradation ladder, down or up */
	STREAM_NOTE_LIMIT,   /* a rate limit took effect or ended */
	STREAM_NOTE_BACKEND, /* what captures, and why */
	STREAM_NOTE_CLOCK,   /* the wall clock was set, by so much */
};

/* Something happened to the capture at a moment that a reader of the packets should know of. */
struct stream_note {
	nsec_t time;    /* CLOCK_REALTIME */
	uint8_t kind;   /* enum stream_note_kind */
	bool has_iface; /* else it is about all of the agent */
	uint32_t iface;
	char text[STREAM_NOTE_MAX + 1];
};

struct stream_ack {
	/*
	 * Cumulative seqs; 0 none. What is written survives the end of the collector's process,
	 * what is durable a power cut.
	 */
	uint64_t written, durable;
	uint64_t credit; /* bytes more */
};

struct stream_ping {
	uint64_t sent_ns;     /* the sender of PING, its CLOCK_REALTIME */
	uint64_t received_ns; /* PONG only: the answerer's, on receipt */
};

/*
 * STOP: the stream is over, its last number is last_seq. DRAIN: the sender goes away for now.
 * UNCLEAN: the stream is over, and whatever came after last_seq is lost and not counted.
 */
enum stream_bye_reason { STREAM_BYE_STOP = 1, STREAM_BYE_DRAIN, STREAM_BYE_UNCLEAN };

struct stream_bye {
	uint32_t reason;
	uint64_t last_seq;
	nsec_t unknown_after; /* UNCLEAN: up to then nothing is missing that is not counted */
};

/*
 * Encoders append a payload (no header) to @out. Decoders take exactly @n bytes
 * and fail with -EBADMSG on a field that is missing, too long, out of range or
 * cut short. Decoded arrays belong to the caller: stream_*_free(). Strings are
 * terminated, and printable ASCII or UTF-8 without control characters.
 */
void stream_hello_encode(struct buf *out, const struct stream_hello *m);
int stream_hello_decode(const uint8_t *in, size_t n, struct stream_hello *ret, struct err *err);
void stream_hello_free(struct stream_hello *m);

void stream_welcome_encode(struct buf *out, const struct stream_welcome *m);
int stream_welcome_decode(const uint8_t *in, size_t n, struct stream_welcome *ret, struct err *err);

void stream_error_encode(struct buf *out, const struct stream_error *m);
int stream_error_decode(const uint8_t *in, size_t n, struct stream_error *ret, struct err *err);

void stream_meta_encode(struct buf *out, const struct stream_meta *m);
int stream_meta_decode(const uint8_t *in, size_t n, struct stream_meta *ret, struct err *err);

void stream_data_encode(uint8_t out[STREAM_DATA_HEAD], const struct stream_data *m);
int stream_data_decode(const uint8_t *in, size_t n, struct stream_data *ret, struct err *err);

void stream_gap_encode(struct buf *out, const struct stream_gap *m);
int stream_gap_decode(const uint8_t *in, size_t n, struct stream_gap *ret, struct err *err);
void stream_gap_free(struct stream_gap *m);

void stream_stats_encode(struct buf *out, const struct stream_stats *m);
int stream_stats_decode(const uint8_t *in, size_t n, struct stream_stats *ret, struct err *err);
void stream_stats_free(struct stream_stats *m);

/* "filter", "degrade", ...; "other" for a kind that we do not know. */
const char *stream_note_name(uint8_t kind);
void stream_note_encode(struct buf *out, const struct stream_note *m);
int stream_note_decode(const uint8_t *in, size_t n, struct stream_note *ret, struct err *err);

void stream_ack_encode(struct buf *out, const struct stream_ack *m);
int stream_ack_decode(const uint8_t *in, size_t n, struct stream_ack *ret, struct err *err);

void stream_ping_encode(struct buf *out, const struct stream_ping *m);
int stream_ping_decode(const uint8_t *in, size_t n, struct stream_ping *ret, struct err *err);

void stream_bye_encode(struct buf *out, const struct stream_bye *m);
int stream_bye_decode(const uint8_t *in, size_t n, struct stream_bye *ret, struct err *err);

#endif
