/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ps-collector --init-pki, --issue-agent: a CA and certificates for those who have none.
 */
#ifndef PS_COLLECTOR_PKI_H
#define PS_COLLECTOR_PKI_H

#include <stddef.h>

#include "err.h"

/*
 * Write ca.crt, ca.key, collector.crt, collector.key, agent.crt and agent.key to @dir
 * (made with mode 0700 if need be). The collector's certificate is for the host names and
 * IP addresses @names, and always for localhost, 127.0.0.1 and ::1; the agent's is
 * "urn:ps:agent". Keys have mode 0600. All or nothing: when one of the files is there
 * already (-EEXIST), or one cannot be written, none is left behind.
 */
int pki_init(const char *dir, char *const names[], size_t n_names, struct err *err);

/*
 * Write agent-NAME.crt and agent-NAME.key to @dir, signed by the ca.crt and ca.key there: a
 * certificate for the one agent that is called @name, a host name. All or nothing, as above.
 */
int pki_issue_agent(const char *dir, const char *name, struct err *err);

#endif
