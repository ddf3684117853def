/* SPDX-License-Identifier: Apache-2.0 */
/*
 * DATA: inflate, check every block, write them in runs of one link type. Called with the feed's
 * turn, within a commit (commit_enter()). Nothing is written before all was checked; what was
 * written of a message that then waits for the disk is counted in feed->partial, and not written
 * again when it is repeated, in whichever session.
 */
#include <errno.h>
#include <inttypes.h>

#include "log.h"
#include "packet.h"
#include "session_internal.h"

/* A run of blocks of one link type. */
struct group {
	size_t end; /* where it ends in the inflated message */
	uint32_t link_type;
	uint32_t packets;
	uint64_t bytes;
};

/* Check and tally the blocks from @from on until the link type changes. */
static int walk_group(struct session *s, size_t from, size_t size, struct group *ret,
		      struct err *err)
{
	struct feed_iface *iface = NULL;
	struct group g = {.end = from};
	struct packet p;
	long n;

	while ((n = packet_next(s->scratch->raw + g.end, size - g.end, &p, err)) > 0) {
		if (!iface || iface->meta.id != p.interface_id)
			iface = feed_find(s->feed, p.interface_id);
		if (!iface)
			return err_set(err, -EPROTO, "a packet of interface %u, which is unknown",
				       p.interface_id);
		if (p.caplen > iface->meta.snaplen)
			return err_set(err, -EPROTO,
				       "%u bytes of a packet on \"%s\", whose snap length is %u",
				       p.caplen, iface->meta.name, iface->meta.snaplen);
		if (g.packets && iface->meta.link_type != g.link_type)
			break;
		g.link_type = iface->meta.link_type;
		g.packets++;
		g.bytes += p.len;
		g.end += (size_t)n;
		feed_tally(s->feed, iface, &p);
	}
	*ret = g;
	return n < 0 ? (int)n : 0;
}

/*
 * Check every block of the message. When *ret_first is all of it, as it nearly always
 * is, its tally stands and the walk need not be repeated.
 */
static int check_blocks(struct session *s, const struct stream_data *head, struct group *ret_first,
			struct err *err)
{
	size_t size = s->header.raw_len;
	struct group g = {}, first = {};
	uint64_t bytes = 0, packets = 0;
	int r;

	for (size_t at = 0; at < size; at = g.end) {
		if (at)
			feed_settle(s->feed, FEED_FORGET, 0);
		r = walk_group(s, at, size, &g, err);
		if (r < 0)
			return r;
		if (!at)
			first = g;
		packets += g.packets;
		bytes += g.bytes;
	}
	if (packets != head->packets || bytes != head->wire_bytes)
		return err_set(err, -EPROTO,
			       "a DATA message of %u packets, %" PRIu64
			       " bytes on the wire, holds %" PRIu64 " and %" PRIu64,
			       head->packets, head->wire_bytes, packets, bytes);
	*ret_first = first;
	return 0;
}

/* A full disk may still have room for small messages: it works when nobody else waits. */
static void storage_works(struct session *s)
{
	if (atomic_load(&s->env->storage_failing) && atomic_load(&s->env->stuck) <= s->stuck &&
	    atomic_exchange(&s->env->storage_failing, false))
		log_info("the output takes packets again");
}

static void storage_fails(struct session *s, int code, const struct err *why)
{
	if (atomic_exchange(&s->env->storage_failing, true))
		return;
	log_error("%s%s; agents wait until it goes on",
		  code == -ENOSPC || code == -EDQUOT ? "the disk is full: " : "", why->text);
}

/* Once per interface. */
static void tell_unsupported(struct session *s, const struct err *why)
{
	for (struct feed_iface *i = s->feed->tallied; i; i = i->next_tallied) {
		if (i->unsupported_told)
			continue;
		i->unsupported_told = true;
		noise_warn(s->env->noise, "agent \"%s\": packets of \"%s\" are lost: %s",
			   s->agent_name, i->meta.name, why->text);
	}
}

static int write_group(struct session *s, size_t from, const struct group *g, size_t *written,
		       struct err *err)
{
	struct err why;
	int r = commit_file(s->env->commit, g->link_type, &why);

	if (r == -EAGAIN)
		return err_set(err, -EINPROGRESS, "%s", why.text);
	if (r == 0)
		r = output_write(s->env->output, g->link_type, s->scratch->raw + from,
				 g->end - from, &why);
	switch (r) {
	case 0:
		storage_works(s);
		*written += g->end - from;
		feed_settle(s->feed, FEED_WRITTEN, g->end);
		return 0;
	case -ENOTSUP:
		tell_unsupported(s, &why);
		feed_settle(s->feed, FEED_UNSUPPORTED, g->end);
		return 0;
	case -EPIPE:
	case -ECANCELED:
		return err_set(err, r, "%s", why.text);
	default:
		storage_fails(s, r, &why);
		return err_set(err, -EAGAIN, "%s", why.text);
	}
}

static int write_blocks(struct session *s, const struct group *first, size_t *written,
			struct err *err)
{
	size_t size = s->header.raw_len, at = s->feed->partial;
	struct group g = *first;
	int r;

	if (at > size)
		return err_set(err, -EPROTO, "a message is shorter than when it came first");
	/* The tally of a message in one piece is there already. */
	if (at || first->end < size) {
		feed_settle(s->feed, FEED_FORGET, 0);
		r = walk_group(s, at, size, &g, err);
		if (r < 0)
			return r;
	}
	for (;;) {
		r = write_group(s, at, &g, written, err);
		if (r < 0 || g.end == size)
			return r;
		at = g.end;
		r = walk_group(s, at, size, &g, err);
		if (r < 0)
			return r;
	}
}

int session_take_data(struct session *s, size_t *ret_written, struct err *err)
{
	struct stream_data head;
	struct group first;
	int r;

	r = stream_data_decode(s->payload, s->header.payload_len, &head, err);
	if (r == 0)
		r = gzip_inflate(s->scratch->gzip, s->payload + STREAM_DATA_HEAD,
				 s->header.payload_len - STREAM_DATA_HEAD, s->scratch->raw,
				 s->header.raw_len, err);
	if (r == 0)
		r = check_blocks(s, &head, &first, err);
	if (r == 0)
		r = write_blocks(s, &first, ret_written, err);
	if (r < 0)
		feed_settle(s->feed, FEED_FORGET, 0);
	return r;
}
