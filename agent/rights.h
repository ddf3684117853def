/* SPDX-License-Identifier: Apache-2.0 */
/* What a run may do that not everybody may: what it takes, and giving up the rest. */
#ifndef PS_RIGHTS_H
#define PS_RIGHTS_H

#include "config.h"
#include "err.h"

/* What of the configuration takes rights; bits. */
enum rights_need {
	RIGHTS_BPF = 1 << 0,    /* the hooks */
	RIGHTS_PACKET = 1 << 1, /* the pcap back end */
	RIGHTS_XSK = 1 << 2,    /* taps */
	RIGHTS_NETNS = 1 << 3,  /* other network namespaces */
	RIGHTS_PROC = 1 << 4,   /* some of them by the process that is there */
};

/* A capability, and why. */
struct right {
	unsigned int cap;
	const char *name;
	unsigned int needed_by; /* enum rights_need */
	bool optional;          /* as things are it may do without */
	const char *why;        /* "to ..." */
};

#define RIGHTS 7
extern const struct right rights_table[RIGHTS];

/* What @config needs, with @packet by the back end pcap: enum rights_need. */
unsigned int rights_needs(const struct config *config, bool packet);
/* The capabilities that @needs come to on this kernel, bits as in privileges.h. */
uint64_t rights_caps(unsigned int needs);

/*
 * Give up everything else, for good: once all is open, before threads are made. What remains is
 * enough to attach to interfaces that come later, to reload credentials, and to stop. Says in
 * the log what was given up, or why not.
 */
void rights_give_up(const struct config *config, bool packet);

/*
 * Every interface takes two descriptors or three, every namespace two: as many as there may be,
 * as far as the hard limit goes.
 */
void rights_raise_fd_limit(void);

#endif
