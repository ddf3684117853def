/* SPDX-License-Identifier: Apache-2.0 */
/* Which of the capture back ends: the configured one, or the best that works here. */
#ifndef PS_BACKEND_H
#define PS_BACKEND_H

#include "capture.h"
#include "config.h"

/*
 * Open the back end that `backend` names; with auto, try them from the best on. On failure the
 * sentence says of each that was tried why not. On success @report says that of each
 * that is better than the chosen one, and what would make it work; nothing ("") when none is.
 */
int backend_open(const struct config *config, const struct capture_config *capture,
		 const struct capture_ops **ret_ops, struct capture **ret, struct err *report,
		 struct err *err);

/*
 * Why BPF programs are not to be relied on in this kernel, a sentence; NULL: they are. No back end
 * but pcap does without.
 */
const char *backend_bpf_doubt(void);

#endif
