/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a fuzz target on the files given, or found below a folder given, without libFuzzer. */
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

int main(int argc, char **argv)
{
	const char *name = program_invocation_short_name;

	printf("1..1\n");
	for (int i = 1; i < argc; i++)
		if (nftw(argv[i], replay, 16, FTW_PHYS) < 0)
			fprintf(stderr, "# cannot read %s\n", argv[i]);
	printf("%sok 1 - %s takes its corpus (%u inputs)\n", replayed ? "" : "not ", name,
	       replayed);
	return replayed ? 0 : 1;
}
