/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The heart that hooks listen for: a thread that does nothing but beat, so that no work of another
 * thread (a filter that takes long to compile, a resolver that does not answer) makes the hooks
 * take the agent for dead and let packets pass unseen.
 */
#ifndef PS_PULSE_H
#define PS_PULSE_H

#include "capture.h"

struct pulse;

/* Begins to beat, after a first beat here. @capture outlives it. */
int pulse_new(const struct capture_ops *ops, struct capture *capture, struct pulse **ret,
	      struct err *err);
struct pulse *pulse_free(struct pulse *p);

/*
 * Has it stood still for so long (the process was stopped, the machine slept) that packets passed
 * unseen? With another beat. True once for each time; *ret_since is the last beat before it,
 * CLOCK_REALTIME.
 */
bool pulse_missed(struct pulse *p, nsec_t *ret_since);

#endif
