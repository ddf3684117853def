/* SPDX-License-Identifier: Apache-2.0 */
/* --check: what can be known without taking a connection or making a file. */
#include <errno.h>

#include "collector.h"
#include "fs.h"
#include "net.h"
#include "output.h"
#include "util.h"

static int row(FILE *to, const char *what, int r, const char *detail)
{
	fprintf(to, "%-8s %-6s %s\n", what, r < 0 ? "FAILED" : "ok", detail);
	return r;
}

static int check_tls(const struct config *config, FILE *to)
{
	const struct tls_config tls = config_tls(config);
	struct tls_context *ctx = NULL;
	struct err err;
	int r;

	if (!tls.enable)
		return row(to, "tls", 0, "off: plain text");
	r = tls_context_new(TLS_COLLECTOR, &tls, &ctx, &err);
	tls_context_free(ctx);
	if (r < 0)
		return row(to, "tls", r, err.text);
	return row(to, "tls", 0, tls.psk ? "shared key" : tls.certfile);
}

static int check_listen(const struct config *config, FILE *to)
{
	struct err err;
	char text[512];
	int r;

	r = net_listen_check(config->listen_address, (uint16_t)config->listen_port, &err);
	if (r < 0 && r != -EADDRINUSE)
		return row(to, "listen", r, err.text);
	/* By the very collector whose next configuration this is, more often than not. */
	snprintf(text, sizeof(text), "%s port %llu%s", config->listen_address,
		 (unsigned long long)config->listen_port,
		 r < 0 ? " (in use now: what listens there has to stop first)" : "");
	return row(to, "listen", 0, text);
}

static int check_output(const struct config *config, FILE *to)
{
	const struct output_config output = {.path = config->file_path, .micro = config->micro};
	struct err err;
	int r = output_check(&output, &err);

	if (r == -ENOTTY)
		return row(to, "output", 0,
			   "stdout (a terminal now: that of a run has to be a pipe or a file)");
	return row(to, "output", r, r < 0 ? err.text : config->file_path);
}

static int check_log(const struct config *config, FILE *to)
{
	struct err err;
	int r;

	if (!config->log_filename)
		return 0;
	r = fs_check_append(config->log_filename, &err);
	return row(to, "log", r, r < 0 ? err.text : config->log_filename);
}

int collector_check(const struct config *config, FILE *to)
{
	const int results[] = {
		check_tls(config, to),
		check_listen(config, to),
		check_output(config, to),
		check_log(config, to),
	};

	for (size_t i = 0; i < ARRAY_SIZE(results); i++)
		if (results[i] < 0)
			return results[i];
	return 0;
}
