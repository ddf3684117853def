/* SPDX-License-Identifier: Apache-2.0 */
#include "identity.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <stdio.h>

#include "clock.h"
#include "util.h"

#define BOOT_ID    "/proc/sys/kernel/random/boot_id"
#define MACHINE_ID "/etc/machine-id"

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

/* 32 hexadecimal digits, dashes between them or not. */
static int read_id(const char *path, uint8_t ret[16])
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	unsigned int digits = 0;
	char text[64];
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, text, sizeof(text));
	memset(ret, 0, 16);
	for (ssize_t i = 0; i < n && digits < 32; i++) {
		int v = hex_digit(text[i]);

		if (v < 0)
			continue;
		ret[digits / 2] = (uint8_t)(ret[digits / 2] << 4 | v);
		digits++;
	}
	return digits == 32 ? 0 : -ENODATA;
}

static int hash_id(const uint8_t machine[16], const char *name, uint8_t ret[16])
{
	static const char purpose[] = "ps-agent";
	gnutls_hash_hd_t hash;
	uint8_t digest[32];

	if (gnutls_hash_init(&hash, GNUTLS_DIG_SHA256) < 0)
		return -ENOMEM;
	gnutls_hash(hash, purpose, sizeof(purpose));
	gnutls_hash(hash, machine, 16);
	gnutls_hash(hash, name, strlen(name));
	gnutls_hash_deinit(hash, digest);
	memcpy(ret, digest, 16);
	ret[6] = (uint8_t)((ret[6] & 0x0f) | 0x80);
	ret[8] = (uint8_t)((ret[8] & 0x3f) | 0x80);
	return 0;
}

void identity_set_agent_id(struct identity *id, const uint8_t agent_id[16])
{
	size_t at = 0;

	memmove(id->agent_id, agent_id, sizeof(id->agent_id));
	for (size_t i = 0; i < sizeof(id->agent_id); i++)
		at += (size_t)snprintf(id->agent_id_text + at, sizeof(id->agent_id_text) - at,
				       i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x",
				       id->agent_id[i]);
}

int identity_get(const char *agent_name, struct identity *ret, struct err *err)
{
	struct identity id = {.epoch = clock_realtime()};
	uint8_t machine[16];
	int r;

	r = read_id(BOOT_ID, id.boot_id);
	if (r < 0)
		return err_sys(err, r, "cannot read \"%s\"", BOOT_ID);
	if (read_id(MACHINE_ID, machine) < 0)
		memcpy(machine, id.boot_id, sizeof(machine));
	r = hash_id(machine, agent_name, id.agent_id);
	if (r < 0)
		return err_set(err, r, "cannot hash the machine's id");
	identity_set_agent_id(&id, id.agent_id);
	*ret = id;
	return 0;
}
