// SPDX-License-Identifier: Apache-2.0
#include "selection.h"

#include <ctype.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "util.h"

/* "headers", "l4+N" or N. */
static bool parse_slice(const char *text, uint32_t *ret)
{
	bool l4 = strncasecmp(text, "l4+", 3) == 0;
	const char *digits = l4 ? text + 3 : text;
	unsigned long n;
	char *end;

	if (strcasecmp(text, "headers") == 0) {
		*ret = SLICE_L4;
		return true;
	}
	if (!isdigit((unsigned char)*digits))
		return false;
	n = strtoul(digits, &end, 10);
	if (*end || n > SNAPLEN_MAX || (!l4 && n < SLICE_MIN))
		return false;
	*ret = (l4 ? SLICE_L4 : 0) | (uint32_t)n;
	return true;
}

void selection_check(const struct selection *s, const char *block, struct yaml_errors *errors)
{
	char path[512];
	uint32_t slice;

	if (s->slice_text && !parse_slice(s->slice_text, &slice)) {
		snprintf(path, sizeof(path), "%s%sslice", block, *block ? "." : "");
		yaml_error(
			errors, path,
			"\"%.32s\" is neither headers, nor l4+N for N bytes behind the header of "
			"layer 4, nor N bytes from %u to %u",
			s->slice_text, SLICE_MIN, SNAPLEN_MAX);
	}
	if (s->sample && s->sample_flows) {
		snprintf(path, sizeof(path), "%s%ssampleFlows", block, *block ? "." : "");
		yaml_error(errors, path, "there is sample too: only one of them is possible");
	}
}

uint32_t selection_slice(const struct selection *s)
{
	uint32_t slice = 0;

	if (s->slice_text)
		parse_slice(s->slice_text, &slice);
	return slice;
}

static void override(struct selection *to, const struct selection *with)
{
	if (with->filter)
		to->filter = with->filter;
	if (with->slice_text)
		to->slice_text = with->slice_text;
	if (with->sample || with->sample_flows) {
		to->sample = with->sample;
		to->sample_flows = with->sample_flows;
	}
	to->packets_per_s = with->packets_per_s;
	to->bits_per_s = with->bits_per_s;
}

struct selection selection_for(const struct selection *all, const struct yaml_blocks *per_interface,
			       const char *name)
{
	struct selection s = *all;

	s.packets_per_s = s.bits_per_s = 0;
	for (size_t i = 0; i < per_interface->n; i++) {
		if (fnmatch(per_interface->v[i].name, name, 0) != 0)
			continue;
		override(&s, per_interface->v[i].value);
		break;
	}
	return s;
}
