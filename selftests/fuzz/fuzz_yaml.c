// SPDX-License-Identifier: Apache-2.0
/*
 * Any bytes as ps-agent.yaml: either a configuration that keeps what the types
 * promise, or at least one line that says why not. Run it with -max_len=65536.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Errors are formatted and thrown away; opened once, for the speed of it. */
static FILE *null_file(void)
{
	static FILE *f;

	if (!f) {
		f = fopen("/dev/null", "w");
		if (!f)
			abort();
	}
	return f;
}

static void check(const struct config *c)
{
	static const char *const names[] = {"eth0", "lo", "wg-0.12345678", "*"};

	if (!c->servers.n && !c->file_path)
		abort();
	for (size_t i = 0; i < c->servers.n; i++) {
		if (!c->servers.v[i].host || !c->servers.v[i].host[0] || !c->servers.v[i].port)
			abort();
	}
	if (c->spool_mode != SPOOL_OFF &&
	    (!c->spool_path || c->spool_segment_bytes > c->spool_max_bytes / 4))
		abort();
	if (!c->agent_name || !c->gather_max_wait)
		abort();
	if (c->block_bytes < 1024 || c->block_bytes > 1 << 20 || c->snaplen < 64 ||
	    c->snaplen > 262144)
		abort();
	if (c->auth_enable && c->servers.n && (!c->auth_key || strlen(c->auth_key) < 16))
		abort();
	for (size_t i = 0; i < c->interface_ports.n; i++) {
		if (yaml_ports_has(&c->interface_ports.v[i].ports, 0))
			abort();
	}
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		config_wants_interface(c, names[i], i == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config *c = NULL;
	int r = config_parse("fuzz", (const char *)data, size, &c, null_file());

	if ((r == 0) != (c != NULL))
		abort();
	if (c)
		check(c);
	config_free(c);
	return 0;
}
