/* SPDX-License-Identifier: Apache-2.0 */
/*
 * capturePorts and ignorePorts have a bit each; every distinct port list of
 * captureInterfacesPorts has one of the others. An interface's mask is what its
 * patterns add up to.
 */
#include "rules.h"

#include <fnmatch.h>

#include "util.h"

struct rules {
	const struct config *config;
	uint64_t *entry_bits; /* for each entry of captureInterfacesPorts */
	uint64_t *masks;      /* by port; NULL when nobody asks */
};

static void add_ports(uint64_t *masks, const struct yaml_ports *ports, uint64_t bit)
{
	for (unsigned int p = 0; p < 65536; p++)
		if (yaml_ports_has(ports, p))
			masks[p] |= bit;
}

static bool same_ports(const struct yaml_ports *a, const struct yaml_ports *b)
{
	return memcmp(a->bits, b->bits, sizeof(a->bits)) == 0;
}

/* Entries with the same list share a bit; config.c has bounded the distinct ones. */
static void give_bits(struct rules *r)
{
	const struct yaml_ports_map *map = &r->config->interface_ports;
	unsigned int sets = 0;

	for (size_t i = 0; i < map->n; i++) {
		for (size_t j = 0; j < i && !r->entry_bits[i]; j++)
			if (same_ports(&map->v[i].ports, &map->v[j].ports))
				r->entry_bits[i] = r->entry_bits[j];
		if (r->entry_bits[i])
			continue;
		r->entry_bits[i] = PORT_SET(sets++);
		add_ports(r->masks, &map->v[i].ports, r->entry_bits[i]);
	}
}

struct rules *rules_new(const struct config *config)
{
	bool by_ports = config->pcap_mode != PCAP_MODE_ALL;
	struct rules *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->config = config;
	if (!by_ports && !config->ignore_ports.count)
		return r;
	r->masks = calloc(65536, sizeof(*r->masks));
	r->entry_bits = calloc(config->interface_ports.n + 1, sizeof(*r->entry_bits));
	if (!r->masks || !r->entry_bits)
		return rules_free(r);
	add_ports(r->masks, &config->ignore_ports, PORT_IGNORE);
	if (by_ports) {
		add_ports(r->masks, &config->capture_ports, PORT_CAPTURE);
		give_bits(r);
	}
	return r;
}

struct rules *rules_free(struct rules *r)
{
	if (!r)
		return NULL;
	free(r->masks);
	free(r->entry_bits);
	free(r);
	return NULL;
}

const uint64_t *rules_port_masks(const struct rules *r)
{
	return r->masks;
}

struct iface_rule rules_for(const struct rules *r, const char *name)
{
	const struct yaml_ports_map *map = &r->config->interface_ports;
	struct iface_rule everything = {.invert = true};
	struct iface_rule rule = {
		.mask = PORT_CAPTURE,
		.invert = r->config->pcap_mode == PCAP_MODE_DENY,
	};

	if (r->config->pcap_mode == PCAP_MODE_ALL)
		return everything;
	for (size_t i = 0; i < map->n; i++) {
		if (fnmatch(map->v[i].name, name, 0) != 0)
			continue;
		if (!map->v[i].ports.count && r->config->pcap_mode == PCAP_MODE_ALLOW)
			return everything;
		rule.mask |= r->entry_bits[i];
	}
	return rule;
}
