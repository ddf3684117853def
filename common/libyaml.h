/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libyaml's own <yaml.h>, which the yaml.h of this folder hides. To be included as
 * <libyaml.h>: only then does the search go on behind this folder.
 */
#ifndef PS_LIBYAML_H
#define PS_LIBYAML_H

#include_next <yaml.h>

#endif
