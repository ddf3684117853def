/* SPDX-License-Identifier: Apache-2.0 */
/* --check: what can be known without opening a port or making a file. */
#include <errno.h>
#include <netdb.h>

#include "collector.h"
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
	const struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	char text[512];
	int r;

	r = getaddrinfo(config->listen_address, NULL, &hints, &list);
	if (r == 0) {
		freeaddrinfo(list);
		snprintf(text, sizeof(text), "%s port %llu", config->listen_address,
			 (unsigned long long)config->listen_port);
		return row(to, "listen", 0, text);
	}
	snprintf(text, sizeof(text), "cannot resolve \"%s\": %s", config->listen_address,
		 gai_strerror(r));
	return row(to, "listen", -EADDRNOTAVAIL, text);
}

static int check_output(const struct config *config, FILE *to)
{
	const struct output_config output = {.path = config->file_path, .micro = config->micro};
	struct err err;
	int r = output_check(&output, &err);

	return row(to, "output", r, r < 0 ? err.text : config->file_path);
}

int collector_check(const struct config *config, FILE *to)
{
	const int results[] = {
		check_tls(config, to),
		check_listen(config, to),
		check_output(config, to),
	};

	for (size_t i = 0; i < ARRAY_SIZE(results); i++)
		if (results[i] < 0)
			return results[i];
	return 0;
}
