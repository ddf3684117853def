/* SPDX-License-Identifier: Apache-2.0 */
#include "servers.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#include "util.h"

#define FNV_OFFSET 0xcbf29ce484222325ull
#define FNV_PRIME  0x100000001b3ull

/* FNV-1a. */
static uint64_t add(uint64_t hash, const void *data, size_t n)
{
	const uint8_t *p = data;

	for (size_t i = 0; i < n; i++)
		hash = (hash ^ p[i]) * FNV_PRIME;
	return hash;
}

/*
 * FNV's high bits hardly change with the last bytes, which is all that the names of servers
 * differ in: mix until every bit of the input counts for every bit of the result.
 */
static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static uint64_t weight(const struct yaml_server *server, const uint8_t agent_id[16])
{
	uint64_t hash = add(FNV_OFFSET, agent_id, 16);
	char port[8];

	for (const char *c = server->host; *c; c++)
		hash = add(hash, &(uint8_t){(uint8_t)tolower((unsigned char)*c)}, 1);
	snprintf(port, sizeof(port), ":%u", server->port);
	return mix(add(hash, port, strlen(port)));
}

int servers_init(struct servers *s, const struct yaml_servers *list, const uint8_t agent_id[16])
{
	*s = (struct servers){.order = calloc(list->n, sizeof(struct yaml_server *))};
	if (!s->order)
		return -ENOMEM;
	for (size_t i = 0; i < list->n; i++) {
		uint64_t w = weight(&list->v[i], agent_id);
		size_t at = s->n++;

		for (; at > 0 && weight(s->order[at - 1], agent_id) < w; at--)
			s->order[at] = s->order[at - 1];
		s->order[at] = &list->v[i];
	}
	return 0;
}

void servers_done(struct servers *s)
{
	free(s->order);
	*s = (struct servers){};
}

bool servers_next(struct servers *s)
{
	s->current = (s->current + 1) % s->n;
	return s->current == 0;
}

void servers_first(struct servers *s)
{
	s->current = 0;
}

bool servers_preferred(const struct servers *s)
{
	return s->current == 0;
}
