/* SPDX-License-Identifier: Apache-2.0 */
/* Packets for expressions: real captures, and libpcap's answer, the one that counts. */
#ifndef PS_TRAFFIC_H
#define PS_TRAFFIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct traffic_packet {
	uint8_t *data;
	uint32_t len;
};

struct traffic {
	struct traffic_packet *v;
	size_t n, cap, files;
};

/* Every whole packet of every capture in PS_TRAFFIC, else beside the project. */
void traffic_read(struct traffic *t);
void traffic_add(struct traffic *t, const uint8_t *data, uint32_t len);
void traffic_free(struct traffic *t);
/* The packets of @t that are IP, without their Ethernet headers. */
void traffic_raw(const struct traffic *t, struct traffic *ret);

struct oracle;

/* NULL when libpcap refuses the text for that link type. */
struct oracle *oracle_new(const char *text, uint32_t link_type);
struct oracle *oracle_free(struct oracle *o);
/*
 * Does every packet have one answer? Behind `geneve`, libpcap's programs may read scratch memory
 * that they have not written, and pcap_offline_filter() then answers by what was on the stack.
 */
bool oracle_is_sure(const struct oracle *o);
/*
 * pcap_offline_filter()'s answer. @p must not be one for which a program with loops has
 * none: see cbpf.h.
 */
bool oracle_match(const struct oracle *o, const struct traffic_packet *p);

#endif
