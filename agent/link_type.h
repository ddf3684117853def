/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PS_LINK_TYPE_H
#define PS_LINK_TYPE_H

#include <stdint.h>

/* The link type that packets of an ARPHRD_ type are captured with; 0: we cannot. */
uint32_t link_type_of(uint16_t arphrd);

#endif
