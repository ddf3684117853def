/* SPDX-License-Identifier: Apache-2.0 */
#include "rights.h"

#include <linux/capability.h>
#include <sys/resource.h>

#include "fs.h"
#include "log.h"
#include "netns_list.h"
#include "places.h"
#include "privileges.h"
#include "sandbox.h"
#include "util.h"

/* Descriptors for all else: rings, maps, sockets, files. */
#define FDS_OTHER 512

const struct right rights_table[RIGHTS] = {
	{CAP_BPF, "CAP_BPF", RIGHTS_BPF | RIGHTS_XSK, false, "to load the capture programs"},
	{CAP_NET_ADMIN, "CAP_NET_ADMIN", RIGHTS_BPF | RIGHTS_XSK, false,
	 "to attach them to interfaces"},
	{CAP_PERFMON, "CAP_PERFMON", RIGHTS_BPF | RIGHTS_XSK, false,
	 "for programs that read packets"},
	{CAP_NET_RAW, "CAP_NET_RAW", RIGHTS_PACKET | RIGHTS_XSK, false, "to open packet sockets"},
	{CAP_IPC_LOCK, "CAP_IPC_LOCK", RIGHTS_XSK, true,
	 "to pin more memory for AF_XDP sockets than RLIMIT_MEMLOCK"},
	{CAP_SYS_ADMIN, "CAP_SYS_ADMIN", RIGHTS_NETNS, false, "to enter other network namespaces"},
	{CAP_SYS_PTRACE, "CAP_SYS_PTRACE", RIGHTS_PROC, true,
	 "to find the namespaces of processes of other users or with more rights"},
};

unsigned int rights_needs(const struct config *config, bool packet)
{
	unsigned int needs = packet ? RIGHTS_PACKET : RIGHTS_BPF;

	if (config->taps.n)
		needs |= RIGHTS_XSK;
	if (netns_list_others(&config->netns))
		needs |= RIGHTS_NETNS;
	for (size_t i = 0; i < config->netns.n; i++)
		if (strncmp(config->netns.v[i], "/proc/", strlen("/proc/")) == 0)
			needs |= RIGHTS_PROC;
	return needs;
}

uint64_t rights_caps(unsigned int needs)
{
	uint64_t caps = 0;

	for (size_t i = 0; i < RIGHTS; i++)
		if (rights_table[i].needed_by & needs)
			caps |= PRIVILEGE(privileges_alias(rights_table[i].cap));
	return caps;
}

/* What is read again, or written to, in the course of a run; NULL ones do not count. */
static const char **list_files(const struct config *config, const char *folder, size_t *ret_n)
{
	const char *const fixed[] = {
		config->path,
		config->tls_certfile,
		config->tls_keyfile,
		config->tls_cafile,
		config->tls_crlfile,
		config->spool_path,
		folder,
	};
	const char **files = calloc(ARRAY_SIZE(fixed) + config->sets.n, sizeof(*files));

	if (!files)
		return NULL;
	memcpy(files, fixed, sizeof(fixed));
	for (size_t i = 0; i < config->sets.n; i++) {
		const struct config_set *set = config->sets.v[i].value;

		files[ARRAY_SIZE(fixed) + i] = set->file;
	}
	*ret_n = ARRAY_SIZE(fixed) + config->sets.n;
	return files;
}

void rights_give_up(const struct config *config, bool packet)
{
	unsigned int needs = rights_needs(config, packet);
	_cleanup_free_ char *folder = config->file_path ? fs_folder(config->file_path) : NULL;
	size_t n_files = 0;
	_cleanup_free_ const char **files = list_files(config, folder, &n_files);
	/* A path may lead to the namespace of a process by a link, or /proc be elsewhere. */
	unsigned int proc = needs & RIGHTS_NETNS ? RIGHTS_PROC : 0;
	const struct sandbox sandbox = {
		.keep = rights_caps(needs | proc),
		.files = files,
		.n_files = n_files,
		.bpf = needs & (RIGHTS_BPF | RIGHTS_XSK),
		.packet_sockets = needs & (RIGHTS_PACKET | RIGHTS_XSK),
		.namespaces = needs & RIGHTS_NETNS,
	};
	struct err said;

	if (!config->sandbox)
		log_warn("sandbox is false: all rights and system calls are kept");
	else if (sandbox_enter(&sandbox, &said) < 0)
		log_error("%s, going on with all rights", said.text);
	else
		log_info("%s", said.text);
}

void rights_raise_fd_limit(void)
{
	rlim_t want = 3 * IFACE_SLOTS + 2 * PLACES_MAX + FDS_OTHER;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= want)
		return;
	limit.rlim_cur = MIN(want, limit.rlim_max);
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < want)
		log_warn("the limit of open files allows fewer than %u interfaces", IFACE_SLOTS);
}
