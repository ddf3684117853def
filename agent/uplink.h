/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The uplink thread: keeps one connection to the collector, for ever, and moves the
 * queue's messages over it. Whatever goes wrong ends the connection, is logged once
 * when it is news, and leads to the next try after a back-off with full jitter.
 */
#ifndef PS_UPLINK_H
#define PS_UPLINK_H

#include "book.h"
#include "capture.h"
#include "queue.h"
#include "tls.h"

struct uplink;

struct uplink_config {
	const char *host;
	uint16_t port;
	const char *server_name; /* that the collector's certificate must carry */
	struct tls_context *tls;
	struct queue *queue;
	struct book *book;
	const struct capture_ops *ops; /* told of every socket, so that it is not captured */
	struct capture *capture;
	/* Who we are, for HELLO. */
	uint8_t agent_id[16], boot_id[16];
	const char *agent_name;
	uint64_t epoch;
};

int uplink_new(const struct uplink_config *config, struct uplink **ret, struct err *err);
int uplink_start(struct uplink *u, struct err *err);
/*
 * Nothing is pushed any more: send what waits, wait for its acknowledgement, say BYE;
 * give up after @timeout. Returns true when everything was acknowledged.
 */
bool uplink_stop(struct uplink *u, nsec_t timeout);
struct uplink *uplink_free(struct uplink *u);

#endif
