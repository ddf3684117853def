/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bounding set is emptied: it only matters to programs that are executed, and we execute
 * none. That takes CAP_SETPCAP; who has not got that is held by no_new_privs alone.
 */
#include "privileges.h"

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "text.h"
#include "util.h"

static bool is_known(unsigned int cap)
{
	return prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0;
}

unsigned int privileges_alias(unsigned int cap)
{
	return (cap == CAP_BPF || cap == CAP_PERFMON) && !is_known(cap) ? CAP_SYS_ADMIN : cap;
}

bool privileges_have(unsigned int cap)
{
	if (capng_get_caps_process() < 0)
		return false;
	if ((cap == CAP_BPF || cap == CAP_PERFMON) &&
	    capng_have_capability(CAPNG_EFFECTIVE, CAP_SYS_ADMIN))
		return true;
	return capng_have_capability(CAPNG_EFFECTIVE, cap);
}

static uint64_t permitted(void)
{
	uint64_t caps = 0;

	for (unsigned int cap = 0; cap <= CAP_LAST_CAP; cap++)
		if (capng_have_capability(CAPNG_PERMITTED, cap))
			caps |= PRIVILEGE(cap);
	return caps;
}

static int apply(uint64_t effective, uint64_t all)
{
	capng_clear(CAPNG_SELECT_CAPS);
	for (unsigned int cap = 0; cap <= CAP_LAST_CAP; cap++) {
		if (all & PRIVILEGE(cap))
			capng_update(CAPNG_ADD, CAPNG_PERMITTED, cap);
		if (effective & PRIVILEGE(cap))
			capng_update(CAPNG_ADD, CAPNG_EFFECTIVE, cap);
	}
	return capng_apply(CAPNG_SELECT_CAPS) < 0 ? -EPERM : 0;
}

/* A folder is there to make files in, a file to be read. */
static bool can_use(const char *path)
{
	struct stat st;
	int mode = R_OK;

	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		mode = R_OK | W_OK | X_OK;
	return faccessat(AT_FDCWD, path, mode, AT_EACCESS) == 0;
}

/* The first of the files that only CAP_DAC_OVERRIDE gives access to, or NULL. */
static int find_foreign(uint64_t keep, const char *const *files, size_t n, const char **ret)
{
	uint64_t with = keep | PRIVILEGE(CAP_DAC_OVERRIDE);
	int r = 0;

	*ret = NULL;
	for (size_t i = 0; i < n && r == 0 && !*ret; i++) {
		if (!files[i] || !can_use(files[i]))
			continue;
		r = apply(keep, with);
		if (r == 0 && !can_use(files[i]))
			*ret = files[i];
		if (r == 0)
			r = apply(with, with);
	}
	return r;
}

int privileges_drop(uint64_t keep, const char *const *files, size_t n_files, struct privileges *ret,
		    struct err *err)
{
	uint64_t had;
	int r = 0;

	*ret = (struct privileges){};
	if (capng_get_caps_process() < 0)
		return err_set(err, -EIO, "cannot read the capabilities of this process");
	had = permitted();
	if (capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP)) {
		capng_clear(CAPNG_SELECT_BOUNDS);
		if (capng_apply(CAPNG_SELECT_BOUNDS) < 0)
			return err_set(err, -EPERM, "cannot empty the capability bounding set");
	}
	keep &= had;
	if (had & PRIVILEGE(CAP_DAC_OVERRIDE))
		r = find_foreign(keep, files, n_files, &ret->for_file);
	if (ret->for_file)
		keep |= PRIVILEGE(CAP_DAC_OVERRIDE);
	/* With the inheritable set the ambient one is empty too. */
	if (r == 0)
		r = apply(keep, keep);
	if (r < 0)
		return err_sys(err, r, "cannot give up capabilities");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_sys(err, -errno, "cannot set no_new_privs");
	ret->kept = keep;
	return 0;
}

void privileges_show(uint64_t caps, char *out, size_t size)
{
	struct text t = {.out = out, .size = size};

	text_put(&t, "%s", caps ? "" : "none");
	for (unsigned int cap = 0; cap <= CAP_LAST_CAP; cap++) {
		const char *name = capng_capability_to_name(cap);

		if (!(caps & PRIVILEGE(cap)))
			continue;
		text_put(&t, "%sCAP_", t.len ? " " : "");
		for (; name && *name; name++)
			text_put(&t, "%c",
				 *name >= 'a' && *name <= 'z' ? *name - 'a' + 'A' : *name);
	}
}
