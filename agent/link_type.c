// SPDX-License-Identifier: Apache-2.0
#include "link_type.h"

#include <linux/if_arp.h>

#include "packet.h"

uint32_t link_type_of(uint16_t arphrd)
{
	switch (arphrd) {
	case ARPHRD_ETHER:
	case ARPHRD_LOOPBACK:
		return LINK_ETHERNET;
	case ARPHRD_NONE:
	case ARPHRD_RAWIP:
	case ARPHRD_TUNNEL:
	case ARPHRD_TUNNEL6:
	case ARPHRD_SIT:
	case ARPHRD_PPP:
		return LINK_RAW;
	default:
		return 0;
	}
}
