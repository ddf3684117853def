// SPDX-License-Identifier: Apache-2.0
#include "credentials.h"

#define WAYS_OUT                                                           \
	"set tls.certfile, tls.keyfile and tls.cafile (`ps-collector "     \
	"--init-pki DIR` makes such files), or auth.enable and auth.key, " \
	"or `tls.enable: false` for plain text"

static void check_key(const struct tls_config *tls, bool auth_enable, struct yaml_errors *errors)
{
	if (!auth_enable) {
		/* A key that secures nothing would look as if it did. */
		if (tls->psk && !yaml_was_set(errors, "auth.enable"))
			yaml_error(errors, "auth.key", "is not used without `auth.enable: true`");
		return;
	}
	if (!yaml_was_set(errors, "auth.key"))
		yaml_error(errors, "auth.key", "is missing, and auth.enable is true");
	if (!tls->enable)
		yaml_error(errors, "auth.enable",
			   "the key works only inside TLS: leave `tls.enable: false` out, or set "
			   "this to false too");
}

static void check_certificates(struct yaml_errors *errors)
{
	static const char *const paths[] = {"tls.certfile", "tls.keyfile", "tls.cafile"};
	int given = 0;

	for (int i = 0; i < 3; i++)
		given += yaml_was_set(errors, paths[i]);
	if (given == 0) {
		yaml_error(errors, "tls", "the stream has no certificates and no key: " WAYS_OUT);
		return;
	}
	for (int i = 0; i < 3; i++) {
		if (!yaml_was_set(errors, paths[i]))
			yaml_error(errors, paths[i], "is missing: " WAYS_OUT);
	}
}

void credentials_check(const struct tls_config *tls, bool auth_enable, struct yaml_errors *errors)
{
	check_key(tls, auth_enable, errors);
	/* A list that keeps nobody out would look as if it did. */
	if (tls->crlfile && auth_enable)
		yaml_error(errors, "tls.crlfile",
			   "revokes certificates, and with auth.enable there are none");
	if (tls->enable && !auth_enable)
		check_certificates(errors);
}
