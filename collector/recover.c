/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal is replayed twice. The first time only the files are looked at: which is the newest
 * commit whose bytes are all there? With ack: durable that is the last one, always. With
 * ack: written a power cut may have taken the end of a file and spared the journal's; then the
 * commits after it are of no use, because a feed would claim packets that no file has. The second
 * time the registry gets everything up to that commit. The rest stays in the journal until the
 * first commit of this run takes its place, so a start that fails before changes nothing.
 *
 * A journal that is damaged before its end tells of less than what was acknowledged. Files must
 * not be cut back to that: they stay as they are, and new ones are begun.
 *
 * Nothing that a damaged journal can say keeps the collector from starting.
 */
#include "recover.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#include "util.h"

#define FILE_HEAD 31u /* bytes of a file's entry before its name */

void recover_put_files(struct buf *out, const struct output_file *files, size_t n)
{
	buf_put_u8(out, (uint8_t)n);
	for (size_t i = 0; i < n; i++) {
		size_t len = strlen(files[i].name);

		buf_put_le32(out, files[i].link_type);
		buf_put_u8(out, files[i].micro);
		buf_put_le64(out, files[i].device);
		buf_put_le64(out, files[i].inode);
		buf_put_le64(out, files[i].size);
		buf_put_le16(out, (uint16_t)len);
		buf_put(out, files[i].name, len);
	}
}

static int get_file(const uint8_t **body, size_t *n, struct output_file *ret)
{
	const uint8_t *at = *body;
	struct output_file f = {};
	size_t len;

	if (*n < FILE_HEAD)
		return -EBADMSG;
	len = get_le16(at + 29);
	if (!len || len > OUTPUT_NAME_MAX || *n - FILE_HEAD < len)
		return -EBADMSG;
	f.link_type = get_le32(at);
	f.micro = at[4] != 0;
	f.device = get_le64(at + 5);
	f.inode = get_le64(at + 13);
	f.size = get_le64(at + 21);
	memcpy(f.name, at + FILE_HEAD, len);
	/* It never leads out of the output's folder, whoever wrote the journal. */
	if (strlen(f.name) != len || strchr(f.name, '/') || !strcmp(f.name, ".") ||
	    !strcmp(f.name, ".."))
		return -EBADMSG;
	*body += FILE_HEAD + len;
	*n -= FILE_HEAD + len;
	*ret = f;
	return 0;
}

int recover_get_files(const uint8_t **body, size_t *n, struct output_file ret[OUTPUT_FILES_MAX],
		      size_t *ret_n)
{
	size_t files;

	if (!*n)
		return -EBADMSG;
	files = (*body)[0];
	if (files > OUTPUT_FILES_MAX)
		return -EBADMSG;
	*body += 1;
	*n -= 1;
	for (size_t i = 0; i < files; i++)
		if (get_file(body, n, &ret[i]) < 0)
			return -EBADMSG;
	*ret_n = files;
	return 0;
}

struct replay {
	const char *path;
	struct registry *registry;
	struct recovered *ret;
	uint64_t commits;   /* seen so far */
	uint64_t satisfied; /* the newest one that all files satisfy; 0: none */
	uint64_t until;     /* second time: the last one to take */
};

/* Is it the very file, and does it lack bytes that the commit speaks of? */
static bool is_short(const struct replay *rp, const struct output_file *f)
{
	const char *slash = strrchr(rp->path, '/');
	_cleanup_free_ char *path = NULL;
	struct stat st;

	if (asprintf(&path, "%.*s%s", slash ? (int)(slash - rp->path) + 1 : 0, rp->path, f->name) <
	    0) {
		path = NULL;
		return false;
	}
	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_ino == f->inode &&
	       (uint64_t)st.st_size < f->size;
}

static int survey(void *ctx, const uint8_t *body, size_t n)
{
	struct output_file files[OUTPUT_FILES_MAX];
	struct replay *rp = ctx;
	size_t n_files;
	int r = recover_get_files(&body, &n, files, &n_files);

	if (r < 0)
		return r;
	rp->commits++;
	for (size_t i = 0; i < n_files; i++)
		if (is_short(rp, &files[i]))
			return 0;
	rp->satisfied = rp->commits;
	return 0;
}

static int load(void *ctx, const uint8_t *body, size_t n)
{
	struct output_file files[OUTPUT_FILES_MAX];
	struct replay *rp = ctx;
	size_t n_files;
	int r;

	if (rp->commits == rp->until)
		return -ECANCELED;
	r = recover_get_files(&body, &n, files, &n_files);
	if (r == 0)
		r = registry_load(rp->registry, body, n, NULL);
	if (r < 0)
		return r;
	rp->commits++;
	memcpy(rp->ret->files, files, n_files * sizeof(files[0]));
	rp->ret->n_files = n_files;
	return 0;
}

int recover(const char *path, struct registry *registry, struct recovered *ret, struct err *warning,
	    struct err *err)
{
	struct replay rp = {.path = path, .registry = registry, .ret = ret};
	struct err again;
	int r;

	*ret = (struct recovered){};
	r = journal_open(path, survey, &rp, &ret->journal, warning, err);
	if (r < 0 || !rp.commits)
		return r;
	journal_free(ret->journal);
	ret->journal = NULL;
	ret->commits = rp.commits;
	rp.until = rp.satisfied ? rp.satisfied : rp.commits;
	rp.commits = 0;
	r = journal_open(path, load, &rp, &ret->journal, &again, err);
	if (r < 0)
		return r;
	if (!warning->text[0] && rp.commits < rp.until)
		*warning = again;
	if (warning->text[0]) {
		/* The files have more than we know of, and that may be acknowledged. */
		ret->n_files = 0;
		err_wrap(warning, 0, "new files are begun, packets may be in them again");
	} else if (!rp.satisfied) {
		ret->n_files = 0;
		err_set(warning, 0,
			"files of \"%s\" have fewer bytes than were committed: packets that were "
			"acknowledged are missing in them; new files are begun",
			path);
	} else if (rp.satisfied < ret->commits) {
		err_set(warning, 0,
			"files of \"%s\" have fewer bytes than were committed: the last %" PRIu64
			" commits are undone, packets that were acknowledged by them may be missing",
			path, ret->commits - rp.satisfied);
	}
	return 0;
}
