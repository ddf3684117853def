/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A journal as a crash, a bad disk or somebody left it. Bit 0 of the first byte: mend the
 * checksums and the numbers of what looks like commits, but where their lowest bit is set. The
 * rest is the file. What is replayed must be the bytes that are there, from the beginning on;
 * the file is these afterwards, and a commit that is appended follows them.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "fuzz.h"
#include "gzip.h"
#include "journal.h"
#include "util.h"

#define HEADER 24u

static char dir[64], output[96], journal[96], bad[96];

static void clean_up(void)
{
	unlink(journal);
	unlink(bad);
	rmdir(dir);
}

static void set_up(void)
{
	/* In memory where that is possible: nothing here depends on what a sync does. */
	snprintf(dir, sizeof(dir), "%s/ps-fuzz-XXXXXX",
		 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	FUZZ_ASSERT(mkdtemp(dir));
	snprintf(output, sizeof(output), "%s/x", dir);
	snprintf(journal, sizeof(journal), "%s/x.journal", dir);
	snprintf(bad, sizeof(bad), "%s/x.journal.bad", dir);
	FUZZ_ASSERT(atexit(clean_up) == 0);
}

static void spit(const uint8_t *data, size_t size)
{
	int fd = open(journal, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	FUZZ_ASSERT(fd >= 0);
	FUZZ_ASSERT(write(fd, data, size) == (ssize_t)size);
	close(fd);
}

static void mend(uint8_t *data, size_t size)
{
	size_t at = 0;

	for (uint64_t number = 1; size - at >= HEADER; number++) {
		uint8_t *h = data + at;
		size_t n = get_le32(h + 4);

		if (memcmp(h, "PSJ1", 4) != 0 || n > size - at - HEADER)
			return;
		put_le64(h + 8, number + (h[15] & 1));
		put_le32(h + 16, gzip_crc32(0, h + HEADER, n) ^ (h[19] & 1));
		put_le32(h + 20, gzip_crc32(0, h, 20) ^ (h[23] & 1));
		at += HEADER + n;
	}
}

struct replay {
	const uint8_t *file;
	size_t size, at;
	unsigned int commits;
};

static int replay(void *ctx, const uint8_t *body, size_t n)
{
	struct replay *r = ctx;

	FUZZ_ASSERT(r->size - r->at >= HEADER && r->size - r->at - HEADER >= n);
	FUZZ_ASSERT(get_le64(r->file + r->at + 8) == r->commits + 1);
	if (n)
		FUZZ_ASSERT(memcmp(r->file + r->at + HEADER, body, n) == 0);
	r->at += HEADER + n;
	r->commits++;
	/* A body that begins so is refused. */
	return n && *body == 0xff ? -EBADMSG : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct replay first, again;
	struct err warning, err;
	struct buf body = {};
	struct journal *j;
	uint8_t *file;
	bool refused;

	if (!size)
		return 0;
	if (!*dir)
		set_up();
	file = malloc(size + 100);
	FUZZ_ASSERT(file);
	memcpy(file, data + 1, size - 1);
	if (data[0] & 1)
		mend(file, size - 1);
	spit(file, size - 1);
	unlink(bad);

	first = (struct replay){.file = file, .size = size - 1};
	FUZZ_ASSERT(journal_open(output, replay, &first, &j, &warning, &err) == 0);
	refused = warning.text[0] && strstr(warning.text, "cannot use");
	/* Without the commit that was refused. */
	if (refused) {
		FUZZ_ASSERT(first.commits);
		first.commits--;
	}
	FUZZ_ASSERT(first.commits || warning.text[0] || access(bad, F_OK) < 0);
	FUZZ_ASSERT(!first.commits || access(bad, F_OK) < 0);

	buf_put(&body, "appended", 8);
	if (warning.text[0] && access(bad, F_OK) < 0) {
		/* Damaged behind these: only something new may take its place. */
		FUZZ_ASSERT(journal_append(j, &body, true, &err) == -ENOSPC);
		FUZZ_ASSERT(journal_rewrite(j, &body, &err) == 0);
		first.commits = 0;
	} else {
		FUZZ_ASSERT(journal_append(j, &body, true, &err) == 0);
	}
	journal_free(j);
	first.at = 0;
	for (unsigned int i = 0; i < first.commits; i++)
		first.at += HEADER + get_le32(file + first.at + 4);
	memcpy(file + first.at, "PSJ1", 4);
	put_le32(file + first.at + 4, 8);
	put_le64(file + first.at + 8, first.commits + 1);
	memcpy(file + first.at + HEADER, "appended", 8);

	again = (struct replay){.file = file, .size = first.at + HEADER + 8};
	FUZZ_ASSERT(journal_open(output, replay, &again, &j, &warning, &err) == 0);
	FUZZ_ASSERT(!warning.text[0] && again.commits == first.commits + 1);
	FUZZ_ASSERT(again.at == again.size);
	FUZZ_ASSERT(journal_rewrite(j, &body, &err) == 0);
	journal_free(j);
	buf_free(&body);
	free(file);
	return 0;
}
