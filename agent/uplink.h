/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The uplink thread: keeps one connection to a collector, for ever, and moves the
 * backlog's messages over it: first the epochs that earlier runs left in the spool, oldest
 * first, each in a session of its own, then the live one. Whatever goes wrong ends the
 * connection, is logged once when it is news, and leads to the next try, at the next server of
 * the list; when all had their turn after a back-off with full jitter. On a server that is not
 * the preferred one, the preferred one is looked at now and then, and returned to.
 */
#ifndef PS_UPLINK_H
#define PS_UPLINK_H

#include "backlog.h"
#include "capture.h"
#include "config.h"
#include "tls_store.h"

struct uplink;

struct uplink_config {
	const struct yaml_servers *servers; /* at least one */
	const char *server_name; /* that the collector's certificate must carry; NULL: the host */
	struct tls_store *tls;
	struct backlog *live;
	struct spool *spool;           /* NULL: none */
	struct book *book;             /* told to report everything to a new collector */
	const struct capture_ops *ops; /* told of every socket, so that it is not captured */
	struct capture *capture;
	uint8_t agent_id[16];
};

int uplink_new(const struct uplink_config *config, struct uplink **ret, struct err *err);
int uplink_start(struct uplink *u, struct err *err);
/* Send no more than that from now on; 0: as fast as it goes. */
void uplink_pace(struct uplink *u, uint64_t bits_per_s);
/* The credentials may have changed: sessions that would not be let in any more are ended. */
void uplink_credentials_changed(struct uplink *u);
/*
 * Nothing is pushed any more: send what waits, wait for its acknowledgement, say BYE;
 * give up after @timeout. An epoch of an earlier run that is not through by then is left in
 * the spool at once, and the live one with it. Returns true when everything of the live epoch
 * was acknowledged and, with a spool, BYE was answered: else backlog_store() keeps the rest.
 */
bool uplink_stop(struct uplink *u, nsec_t timeout);
struct uplink *uplink_free(struct uplink *u);

#endif
