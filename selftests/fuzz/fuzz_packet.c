/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A run of Enhanced Packet Blocks, walked as the collector does. The walker takes a
 * block in one form only, so writing what it read must give the same bytes.
 */
#include <string.h>

#include "fuzz.h"
#include "packet.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t block[PACKET_BLOCK_MAX];
	const uint8_t *end = data + size;
	struct err err = {};
	struct packet p;
	long n;

	while ((n = packet_next(data, (size_t)(end - data), &p, &err)) > 0) {
		FUZZ_ASSERT(n <= end - data);
		FUZZ_ASSERT(p.data >= data && p.data + p.caplen <= data + n);
		FUZZ_ASSERT(p.caplen <= p.len && p.caplen <= PACKET_CAPLEN_MAX);
		FUZZ_ASSERT(p.direction == 1 || p.direction == 2);
		FUZZ_ASSERT(packet_write(block, &p) == (size_t)n);
		FUZZ_ASSERT(memcmp(block, data, (size_t)n) == 0);
		data += n;
	}
	FUZZ_ASSERT(n < 0 ? err.text[0] != '\0' : data == end && !err.text[0]);
	return 0;
}
