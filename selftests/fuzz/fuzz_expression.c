/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filter expressions. The input is a text, up to its first NUL, then a packet. What is
 * taken can be run on the packet and becomes a program for both hooks; what is not has
 * a sentence. No name is looked up.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <string.h>

#include "ebpf.h"
#include "expression.h"
#include "fuzz.h"
#include "sets.h"

#define TEXT_MAX 512u

/* Instead of libc's, for libpcap: only what is a number has an address. */
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
		struct addrinfo **ret)
{
	static struct sockaddr_in6 v6;
	static struct addrinfo info;

	(void)service;
	if (!hints || !(hints->ai_flags & AI_NUMERICHOST) ||
	    inet_pton(AF_INET6, name, &v6.sin6_addr) != 1)
		return EAI_NONAME;
	v6.sin6_family = AF_INET6;
	info = (struct addrinfo){
		.ai_family = AF_INET6,
		.ai_addrlen = sizeof(v6),
		.ai_addr = (struct sockaddr *)&v6,
	};
	*ret = &info;
	return 0;
}

void freeaddrinfo(struct addrinfo *info)
{
	(void)info;
}

static struct sets *make_sets(void)
{
	static const char *const items[] = {"10.0.0.0/8", "fd00::1"};
	struct sets *s = sets_new(8);

	FUZZ_ASSERT(s && !sets_add_list(s, "a", items, 2, NULL));
	return s;
}

static void translate(const struct expression *e)
{
	static const struct ebpf_maps maps = {.scratch_fd = 1, .stages_fd = 2};

	for (int hook = EBPF_TC; hook <= EBPF_XDP; hook++) {
		struct ebpf_program p;
		struct err err = {};

		if (ebpf_translate(e, (enum ebpf_hook)hook, &maps, &p, &err)) {
			FUZZ_ASSERT(err.text[0]);
			continue;
		}
		FUZZ_ASSERT(p.n);
		ebpf_release(&p);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct sets *sets;
	char text[TEXT_MAX + 1] = "";
	size_t len = strnlen((const char *)data, size);
	size_t rest = len < size ? size - len - 1 : 0;

	if (!sets)
		sets = make_sets();
	if (len > TEXT_MAX)
		return 0;
	memcpy(text, data, len);
	for (uint32_t link_type = 1; link_type <= 101; link_type += 100) {
		/* Of its own size, so that an over-read is seen. */
		uint8_t *packet = malloc(rest);
		struct expression *e = NULL;
		struct err err = {};

		if (rest)
			memcpy(packet, data + len + 1, rest);
		if (expression_compile(text, link_type, sets, &e, &err)) {
			FUZZ_ASSERT(err.text[0] && !e);
		} else {
			expression_match(e, DIRECTION_INGRESS, packet, (uint32_t)rest,
					 (uint32_t)rest);
			translate(e);
			expression_free(e);
		}
		free(packet);
	}
	return 0;
}
