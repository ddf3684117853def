/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A packet as it may come from anywhere, through everything that decides on it. Where its ports
 * are has a second opinion. The first byte chooses what is asked.
 */
#include "bpf/shapes.h"
#include "decide.h"
#include "fuzz.h"

#define SNAPLEN 100

static uint64_t masks[65536];

/* Not what is tested here; the library behind it has its own. */
bool expression_match(const struct expression *e, enum direction direction, const uint8_t *packet,
		      uint32_t caplen, uint32_t len)
{
	(void)e, (void)direction, (void)packet;
	return caplen <= len;
}

static void by_ports(struct decide *d, const struct decide_packet *p, bool raw_ip)
{
	struct iface_rule rule = {.mask = PORT_SET(0), .raw_ip = raw_ip};
	struct capture_counts counts = {};
	struct decide_verdict v;
	uint16_t ports[2];
	bool wanted;

	wanted = shape_find_ports(p->data, p->len, raw_ip, ports) &&
		 ((masks[ports[0]] | masks[ports[1]]) & PORT_SET(0));
	v = decide_packet(d, &rule, &counts, p);
	FUZZ_ASSERT(wanted == (v.counter == CAPTURE_CAPTURED));
	FUZZ_ASSERT(v.caplen <= SNAPLEN && v.caplen <= p->caplen);
}

static void by_all_else(struct decide *d, const struct decide_packet *p, uint8_t choice)
{
	struct iface_rule rule = {
		.invert = 1,
		.raw_ip = choice & 1,
		.sample = 2,
		.slice = SLICE_L4 | choice,
		.asks = RULE_DEDUP | (choice & 2 ? RULE_SAMPLE_FLOWS : 0),
	};
	struct capture_counts counts = {};
	struct decide_verdict v;

	for (int i = 0; i < 2; i++) {
		v = decide_packet(d, &rule, &counts, p);
		FUZZ_ASSERT(v.caplen <= SNAPLEN && v.caplen <= p->caplen);
	}
	FUZZ_ASSERT(counts.packets[CAPTURE_SEEN] == 2);
}

static struct decide *ports, *all_else;

static void init(void)
{
	struct decide_config config = {.port_masks = masks, .snaplen = SNAPLEN};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct ownflow *own = ownflow_new();

	for (unsigned int i = 0; i < 65536; i += 2)
		masks[i] = PORT_SET(0);
	ports = decide_new(&config);
	config = (struct decide_config){.own = own, .snaplen = SNAPLEN, .dedup_window = 5};
	all_else = decide_new(&config);
	FUZZ_ASSERT(ports && all_else && own && fd >= 0);
	/* There is a stream, to look for in every packet. */
	FUZZ_ASSERT(ownflow_socket(own, fd, NULL, NULL) == 0 && ownflow_active(own));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* So that a first fragment of one input is forgotten with the next. */
	static nsec_t time = 1;
	struct decide_packet p = {.direction = DIRECTION_INGRESS};

	if (!size)
		return 0;
	if (!ports)
		init();
	p.time = time += 2 * FRAGMENT_TTL_NS;
	p.data = data + 1;
	p.caplen = p.len = (uint32_t)size - 1;
	by_ports(ports, &p, data[0] & 1);
	by_all_else(all_else, &p, data[0]);
	return 0;
}
