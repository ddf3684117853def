/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files of a folder as they were, to be put back again and again: in place, because the
 * collector knows its files by their inode.
 */
#ifndef PS_TOOLS_TREE_H
#define PS_TOOLS_TREE_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TREE_MAX 1024

struct tree_file {
	char *path;
	uint8_t *data;
	size_t size;
	size_t durable; /* what a power cut leaves of it at least */
};

static struct {
	struct tree_file files[TREE_MAX];
	size_t n;
	char *folders[TREE_MAX];
	size_t n_folders;
} tree;

static _Noreturn void tree_die(const char *path)
{
	fprintf(stderr, "%s: %s\n", path, strerror(errno));
	exit(2);
}

static struct tree_file *tree_find(const char *path)
{
	for (size_t i = 0; i < tree.n; i++) {
		if (strcmp(tree.files[i].path, path) == 0)
			return &tree.files[i];
	}
	return NULL;
}

static int tree_load_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
	struct tree_file *f = &tree.files[tree.n];
	FILE *in;

	(void)where;
	if (tree.n == TREE_MAX || tree.n_folders == TREE_MAX)
		exit(2);
	if (type == FTW_D)
		tree.folders[tree.n_folders++] = strdup(path);
	if (type != FTW_F)
		return 0;
	*f = (struct tree_file){.path = strdup(path),
				.size = (size_t)st->st_size,
				.durable = (size_t)st->st_size,
				.data = malloc((size_t)st->st_size + 1)};
	in = fopen(path, "re");
	if (!in || fread(f->data, 1, f->size, in) != f->size)
		tree_die(path);
	fclose(in);
	tree.n++;
	return 0;
}

static void tree_load(const char *folder)
{
	if (nftw(folder, tree_load_one, 16, FTW_PHYS) < 0)
		tree_die(folder);
}

/* The first @size bytes of the file, then @zeros zeros. */
static void tree_write(struct tree_file *f, size_t size, size_t zeros)
{
	int fd = open(f->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, f->data, size) != (ssize_t)size ||
	    ftruncate(fd, (off_t)(size + zeros)) < 0)
		tree_die(f->path);
	close(fd);
}

static int tree_remove_new(const char *path, const struct stat *st, int type, struct FTW *where)
{
	bool known = tree_find(path);

	(void)st;
	(void)where;
	for (size_t i = 0; type == FTW_DP && i < tree.n_folders; i++)
		known |= strcmp(tree.folders[i], path) == 0;
	if (!known && (type == FTW_DP ? rmdir(path) : unlink(path)) < 0)
		tree_die(path);
	return 0;
}

/* All files as they were, and no others. */
static void tree_restore(const char *folder)
{
	for (size_t i = 0; i < tree.n_folders; i++) {
		if (mkdir(tree.folders[i], 0700) < 0 && errno != EEXIST)
			tree_die(tree.folders[i]);
	}
	if (nftw(folder, tree_remove_new, 16, FTW_PHYS | FTW_DEPTH) < 0)
		tree_die(folder);
	for (size_t i = 0; i < tree.n; i++)
		tree_write(&tree.files[i], tree.files[i].size, 0);
}

/* "PATH=DURABLE" */
static void tree_durable(const char *argument)
{
	const char *sign = strrchr(argument, '=');
	char *path = sign ? strndup(argument, (size_t)(sign - argument)) : NULL;
	struct tree_file *f = path ? tree_find(path) : NULL;
	size_t n = sign ? strtoul(sign + 1, NULL, 10) : 0;

	if (!f) {
		fprintf(stderr, "%s: no such file\n", argument);
		exit(2);
	}
	f->durable = n < f->size ? n : f->size;
	free(path);
}

#endif
