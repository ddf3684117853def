/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the configuration asks of packets beyond ports: for the whole agent, and, in
 * perInterface, for interfaces by pattern, where a key that is given takes the place of the
 * agent's.
 */
#ifndef PS_SELECTION_H
#define PS_SELECTION_H

#include "abi.h"
#include "yaml.h"

struct selection {
	char *filter;     /* expression; NULL: none */
	char *slice_text; /* NULL: none */
	uint64_t sample, sample_flows;
	/* Of the agent as a whole, or of each interface; not inherited. */
	uint64_t packets_per_s, bits_per_s;
};

/* The keys of a struct selection at AT(member), for a table of keys. */
#define SELECTION_KEYS(AT)                                                                         \
	{"filter", YAML_STRING, AT(filter), .max = SELECTION_FILTER_MAX,                           \
	 .help = "expression, ps-filter(7)"},                                                      \
		{"slice", YAML_STRING, AT(slice_text), .max = 32,                                  \
		 .help = "bytes kept of a packet: headers, l4+N or N"},                            \
		{"sample", YAML_UINT,       AT(sample),                                            \
		 .min = 1, .max = 1u << 20, .help = "keep one in so many packets"},                \
		{"sampleFlows", YAML_UINT,       AT(sample_flows),                                 \
		 .min = 1,      .max = 1u << 20, .help = "keep one in so many flows"},             \
		{"packetsPerSecond", YAML_UINT,          AT(packets_per_s),                        \
		 .min = 1,           .max = 1000000000u, .help = "highest rate of packets"},       \
	{                                                                                          \
		"bitsPerSecond", YAML_RATE, AT(bits_per_s),                                        \
			.min = 1000, .max = 1ull << 40, .help = "highest rate in bits on the wire" \
	}
#define SELECTION_FILTER_MAX 65536u

/* Judge what is there; errors are at @block and the key's name ("": at the top). */
void selection_check(const struct selection *s, const char *block, struct yaml_errors *errors);

/* As iface_rule.slice; 0 when none is asked for. The text is one that selection_check() took. */
uint32_t selection_slice(const struct selection *s);

/*
 * What holds for an interface: the first entry of @per_interface (whose values are struct
 * selections) with a pattern that fits, over @all. Points into both.
 */
struct selection selection_for(const struct selection *all, const struct yaml_blocks *per_interface,
			       const char *name);

#endif
