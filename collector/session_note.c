/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an agent says in words: NOTE, and META's filter and the like. Both go to the log, one line
 * each, and nowhere else. Called with the feed's turn, and for the expected message only, so that
 * one that is sent again after a break is not told again; only a collector that ends before it
 * could commit the number tells it twice.
 */
#include <inttypes.h>

#include "session_internal.h"
#include "text.h"

/* So much of a name in the log; and of a text, which then is whole unless it is no UTF-8. */
#define NAME_ROOM 512
#define TEXT_ROOM ((size_t)2 * STREAM_NOTE_MAX)
#define LINE_MAX  4096 /* of two names, a text, and all else */
_Static_assert(STREAM_FILTER_MAX <= STREAM_NOTE_MAX, "a filter fits a line");

struct line {
	struct text json;
	char object[LINE_MAX];
};

static void begin(struct line *l, const struct session *s)
{
	const struct feed *f = s->feed;

	l->json = (struct text){.out = l->object, .size = sizeof(l->object)};
	text_put(&l->json, "{");
	text_json_string(&l->json, "agent", f->agent_name, NAME_ROOM);
	text_json_string(&l->json, "agent_id", f->agent_id_text, NAME_ROOM);
	text_put(&l->json, ",\"epoch\":%" PRIu64, f->epoch);
}

/* Two limits: one stream's, which cannot take the log from the others, and one for all. */
static void end(struct line *l, const struct session *s, const char *prefix)
{
	uint64_t left_out;

	if (!feed_may_tell(s->feed, clock_monotonic(), &left_out))
		return;
	if (left_out)
		text_put(&l->json, ",\"left_out\":%" PRIu64, left_out);
	text_put(&l->json, "}");
	noise_info(s->env->noise, "%s %s", prefix, l->object);
}

static void put_iface(struct line *l, const struct session *s, uint32_t id)
{
	const struct feed_iface *iface = feed_find(s->feed, id);
	char number[32];

	/* It may be gone and summed up, or its META lost in a GAP. */
	snprintf(number, sizeof(number), "interface %u", id);
	text_json_string(&l->json, "interface", iface ? iface->meta.name : number, NAME_ROOM);
}

int session_take_note(struct session *s, struct err *err)
{
	struct stream_note m;
	struct line l;
	int r = stream_note_decode(s->payload, s->header.payload_len, &m, err);

	if (r < 0)
		return r;
	begin(&l, s);
	if (m.has_iface)
		put_iface(&l, s, m.iface);
	text_json_string(&l.json, "kind", stream_note_name(m.kind), NAME_ROOM);
	text_put(&l.json, ",\"time\":\"");
	text_time(&l.json, m.time);
	text_put(&l.json, "\"");
	text_json_string(&l.json, "text", m.text, TEXT_ROOM);
	end(&l, s, "note");
	return 0;
}

void session_tell_meta(struct session *s, const struct stream_meta *m)
{
	struct line l;

	if (m->iface.gone || (!m->hook[0] && !m->netns_name[0] && !m->filter[0]))
		return;
	begin(&l, s);
	put_iface(&l, s, m->iface.id);
	if (m->hook[0])
		text_json_string(&l.json, "hook", m->hook, NAME_ROOM);
	if (m->netns_name[0])
		text_json_string(&l.json, "netns", m->netns_name, NAME_ROOM);
	if (m->filter[0])
		text_json_string(&l.json, "filter", m->filter, TEXT_ROOM);
	end(&l, s, "interface");
}
