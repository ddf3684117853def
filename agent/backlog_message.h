/* SPDX-License-Identifier: Apache-2.0 */
/* A numbered message that waits to be acknowledged, wherever it is kept. */
#ifndef PS_BACKLOG_MESSAGE_H
#define PS_BACKLOG_MESSAGE_H

#include "stream.h"

struct backlog_message {
	uint64_t seq, last_seq; /* equal but for a GAP */
	uint8_t type;           /* enum stream_type */
	uint32_t size;          /* of the wire bytes: header and payload */
};

#endif
