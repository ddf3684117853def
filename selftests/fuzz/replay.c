/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz target without libFuzzer, on the files given or found below the folders
 * given; without arguments on its corpus in the source tree, $PS_SRC or here.
 */
#include <errno.h>
#include <ftw.h>
#include <stdio.h>

#include "fuzz.h"

static unsigned int replayed;

static int replay(const char *path, const struct stat *st, int type, struct FTW *where)
{
	size_t size = (size_t)st->st_size;
	uint8_t *data;
	FILE *f;

	(void)where;
	if (type != FTW_F)
		return 0;
	/* Exactly as large as the file, so that an over-read is seen. */
	data = malloc(size);
	f = fopen(path, "re");
	if (!data || !f || fread(data, 1, size, f) != size) {
		fprintf(stderr, "cannot read %s\n", path);
		exit(1);
	}
	fclose(f);
	fprintf(stderr, "# %s\n", path);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	replayed++;
	return 0;
}

static void replay_below(const char *path)
{
	if (nftw(path, replay, 16, FTW_PHYS) < 0)
		fprintf(stderr, "# cannot read %s\n", path);
}

int main(int argc, char **argv)
{
	const char *name = program_invocation_short_name, *src = getenv("PS_SRC");
	char corpus[4096];

	printf("1..1\n");
	for (int i = 1; i < argc; i++)
		replay_below(argv[i]);
	if (argc == 1) {
		snprintf(corpus, sizeof(corpus), "%s/" FUZZ_CORPUS, src ? src : ".");
		replay_below(corpus);
	}
	printf("%sok 1 - %s takes its corpus (%u inputs)\n", replayed ? "" : "not ", name,
	       replayed);
	return replayed ? 0 : 1;
}
