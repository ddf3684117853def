// SPDX-License-Identifier: Apache-2.0
#include "dissect.h"

#include "ctx_user.h"
#include "packet.h"
#include "parse.h"
#include "tunnel.h"

void dissect(const uint8_t *data, uint32_t size, uint32_t link_type, struct scratch *s)
{
	struct ps_ctx ctx = {.data = data, .caplen = size};
	struct parsed p;

	parse(&ctx, link_type == LINK_RAW, &p);
	s->family = p.says;
	s->l3 = p.l3;
	tunnel_parse(&ctx, &p, s);
}
