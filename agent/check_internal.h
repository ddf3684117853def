/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between the parts of the preflight:
 *
 *	check.c			the order of things, the table and the JSON object
 *	check_host.c		kernel, rights, memory, clock
 *	check_places.c		network namespaces, interfaces
 *	check_capture.c		programs, hooks
 *	check_collector.c	each collector: name, TCP, TLS
 *	check_files.c		credentials, spool, local file, log
 *
 * One thing that fails does not keep those from being tried that do not need it.
 */
#ifndef PS_CHECK_INTERNAL_H
#define PS_CHECK_INTERNAL_H

#include "buf.h"
#include "config.h"
#include "iface_choice.h"
#include "netns.h"
#include "rtnl.h"

enum check_status { CHECK_OK, CHECK_WARN, CHECK_FAILED };

struct check {
	const struct config *config; /* NULL: there is none that can be used */
	bool json;
	struct buf rows; /* of the JSON object */
	unsigned int failed;

	bool can_do_without;     /* without BPF there is pcap to fall back to */
	bool bpf_refused;        /* bpf(2) does nothing here */
	bool memory_short;       /* the rings are not to be tried at full size */
	struct tls_context *tls; /* NULL: the credentials cannot be used */
};

/*
 * A row: @what and, where there are several of a kind, @subject (NULL: none); a sentence; @hint:
 * what would mend it, NULL where there is nothing to mend.
 */
__attribute__((format(printf, 6, 7))) void check_row(struct check *c, enum check_status status,
						     const char *what, const char *subject,
						     const char *hint, const char *fmt, ...);

/* What keeps BPF from working: no more than a warning where there is something else. */
static inline enum check_status check_no_bpf(const struct check *c)
{
	return c->can_do_without ? CHECK_WARN : CHECK_FAILED;
}

/* A network namespace that a run would capture in, and all that is in it. */
struct check_place {
	struct place place;
	struct netns_id id;
	struct rtnl_link *links;
	size_t n, cap;
	bool failed; /* out of memory */
};

struct check_places {
	struct check_place *v;
	size_t n;
};

/* With rows for what is there, and for what is not. */
void check_places_find(struct check *c, struct check_places *ret);
void check_places_free(struct check_places *places);
/* Would a run want it now, were it of a link type that can be captured? */
bool check_place_wants(const struct check *c, const struct check_place *p,
		       const struct rtnl_link *link);

void check_host(struct check *c);
void check_capture(struct check *c);
/* Sets c->tls, for check_collectors(). */
void check_credentials(struct check *c);
void check_collectors(struct check *c);
void check_files(struct check *c);

#endif
