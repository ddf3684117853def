/* SPDX-License-Identifier: Apache-2.0 */
/* Who this agent is, as HELLO says it. */
#ifndef PS_IDENTITY_H
#define PS_IDENTITY_H

#include <stdint.h>

#include "err.h"

struct identity {
	uint8_t agent_id[16]; /* UUID, the same for this machine and name at every start */
	uint8_t boot_id[16];
	char agent_id_text[37];
	uint64_t epoch; /* new at every start: the time in nanoseconds */
};

/*
 * The agent id is a version 8 UUID (RFC 9562): SHA-256 over /etc/machine-id (the boot id
 * where there is none) and @agent_name, so that several agents of a machine differ when
 * their names do.
 */
int identity_get(const char *agent_name, struct identity *ret, struct err *err);
/* It is another one than the machine says. */
void identity_set_agent_id(struct identity *id, const uint8_t agent_id[16]);

#endif
