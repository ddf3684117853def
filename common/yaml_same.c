// SPDX-License-Identifier: Apache-2.0
#include <stdint.h>
#include <string.h>

#include "yaml.h"

static bool same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_strings(const struct yaml_strings *a, const struct yaml_strings *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (!same_text(a->v[i], b->v[i]))
			return false;
	return true;
}

static bool same_servers(const struct yaml_servers *a, const struct yaml_servers *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (!same_text(a->v[i].host, b->v[i].host) || a->v[i].port != b->v[i].port)
			return false;
	return true;
}

static bool same_ports(const struct yaml_ports *a, const struct yaml_ports *b)
{
	return memcmp(a->bits, b->bits, sizeof(a->bits)) == 0;
}

static bool same_ports_map(const struct yaml_ports_map *a, const struct yaml_ports_map *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (!same_text(a->v[i].name, b->v[i].name) ||
		    !same_ports(&a->v[i].ports, &b->v[i].ports))
			return false;
	return true;
}

bool yaml_same(const struct yaml_key *key, const void *a, const void *b)
{
	const void *x = (const char *)a + key->offset, *y = (const char *)b + key->offset;

	switch (key->type) {
	case YAML_BOOL:
		return *(const bool *)x == *(const bool *)y;
	case YAML_ENUM:
		return *(const int *)x == *(const int *)y;
	case YAML_UINT:
	case YAML_SIZE:
	case YAML_DURATION:
	case YAML_RATE:
	case YAML_PERCENT:
		return *(const uint64_t *)x == *(const uint64_t *)y;
	case YAML_STRING:
		return same_text(*(char *const *)x, *(char *const *)y);
	case YAML_STRINGS:
		return same_strings(x, y);
	case YAML_SERVERS:
		return same_servers(x, y);
	case YAML_PORTS:
		return same_ports(x, y);
	case YAML_PORTS_MAP:
		return same_ports_map(x, y);
	case YAML_BLOCKS:
	case YAML_UNSUPPORTED:
	case YAML_FOREIGN:
		break;
	}
	return true;
}
