/* SPDX-License-Identifier: Apache-2.0 */
/* ps-collector.yaml(5), read and checked. */
#ifndef PS_COLLECTOR_CONFIG_H
#define PS_COLLECTOR_CONFIG_H

#include "tls.h"
#include "yaml.h"

struct config {
	char *listen_address; /* input.address */
	uint64_t listen_port;
	char *file_path; /* output.file.path, or "stdout" */
	bool micro;      /* timestampPrecision: micro */

	bool tls_enable; /* default true */
	char *tls_certfile, *tls_keyfile, *tls_cafile;
	bool auth_enable;
	char *auth_key;

	uint64_t max_sessions; /* maxSessions, default 4096 */
	uint64_t credit_bytes; /* creditBytes: under way per session, default 4 MiB */
	char *log_filename;
};

int config_load(const char *path, struct config **ret, FILE *to);
int config_parse(const char *name, const char *text, size_t size, struct config **ret, FILE *to);
struct config *config_free(struct config *c);
struct tls_config config_tls(const struct config *c);

#endif
