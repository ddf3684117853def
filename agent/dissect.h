/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel's programs find out about a packet before an expression is asked, here. */
#ifndef PS_DISSECT_H
#define PS_DISSECT_H

#include "abi.h"

/*
 * Fill in l3, family, inner, inner_type, inner_l3 and inner_family of *@s for a packet of
 * @link_type (LINK_ETHERNET, LINK_RAW) as it is written, with its tags in the data. Offsets may
 * be behind the @size bytes that are there.
 */
void dissect(const uint8_t *data, uint32_t size, uint32_t link_type, struct scratch *s);

#endif
