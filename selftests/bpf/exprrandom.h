/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random expressions from a generator over pcap-filter(7)'s grammar, and random packets
 * that have something to do with them: both take their addresses, ports and protocols out
 * of the same few.
 */
#ifndef PS_EXPRRANDOM_H
#define PS_EXPRRANDOM_H

#include <stddef.h>
#include <stdint.h>

#define RANDOM_PACKET_MAX 1200u

void random_seed(uint64_t seed);
uint32_t random_below(uint32_t n);

/* Most of them libpcap takes. */
void random_expression(char *text, size_t size);
/* At least 18 bytes. */
uint32_t random_packet(uint8_t data[RANDOM_PACKET_MAX]);

#endif
