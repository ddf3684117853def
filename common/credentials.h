/* SPDX-License-Identifier: Apache-2.0 */
/* The rules between the keys `tls` and `auth`, the same for both daemons. */
#ifndef PS_CREDENTIALS_H
#define PS_CREDENTIALS_H

#include <stdbool.h>

#include "tls.h"
#include "yaml.h"

/* auth.key: the shortest that is no invitation to guess, the longest that TLS takes. */
#define CREDENTIALS_KEY_MIN 16
#define CREDENTIALS_KEY_MAX 512

/*
 * Is there one clear way to secure the stream? By certificates, or by the shared key,
 * or by none where `tls.enable: false` says so. @tls is as the file has it, with psk
 * even where @auth_enable is false. What is wrong is added to @errors.
 */
void credentials_check(const struct tls_config *tls, bool auth_enable, struct yaml_errors *errors);

#endif
