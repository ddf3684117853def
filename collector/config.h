/* SPDX-License-Identifier: Apache-2.0 */
/* ps-collector.yaml(5), read and checked. */
#ifndef PS_COLLECTOR_CONFIG_H
#define PS_COLLECTOR_CONFIG_H

#include "clock.h"
#include "tls.h"
#include "yaml.h"

#define CONFIG_SESSIONS_MAX 65536u /* maxSessions is no larger */

enum ack { ACK_DURABLE, ACK_WRITTEN };

struct config {
	char *listen_address; /* input.address */
	uint64_t listen_port;
	char *file_path; /* output.file.path, or "stdout" */
	bool micro;      /* timestampPrecision: micro */

	bool tls_enable; /* default true */
	char *tls_certfile, *tls_keyfile, *tls_cafile, *tls_crlfile;
	bool auth_enable;
	char *auth_key;

	/* agents.allow: glob patterns of identities; none: whoever the authority signed for */
	struct yaml_strings allow;
	bool any_name; /* agents.names: any; else a name must be in the certificate */

	int ack;               /* enum ack */
	nsec_t commit_wait;    /* commitIntervalMs: default 50 ms */
	nsec_t heartbeat;      /* heartbeat: default 10 s */
	uint64_t memory_bytes; /* memoryBudget: default 1280 MiB; of all sessions together */
	uint64_t max_sessions; /* maxSessions, default 4096 */
	uint64_t credit_bytes; /* creditBytes: under way per session, most; default 4 MiB */
	char *log_filename;
	bool sandbox; /* default true */
};

int config_load(const char *path, struct config **ret, FILE *to);
int config_parse(const char *name, const char *text, size_t size, struct config **ret, FILE *to);
struct config *config_free(struct config *c);
struct tls_config config_tls(const struct config *c);

#endif
