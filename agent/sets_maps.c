// SPDX-License-Identifier: Apache-2.0
/* Sets in the kernel: made and filled once, of exactly the size that they need. */
#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "sets_internal.h"
#include "util.h"

#define BATCH 4096u

/* What goes into one map, collected until there is enough for a system call. */
struct batch {
	int fd;
	size_t key_size, n;
	uint8_t keys[BATCH * 20];
};

/* Where there is no batch (hash: Linux 5.6, trie: 5.14), or it fails in the middle: one by one. */
static int batch_flush(struct batch *b, struct err *err)
{
	static const uint8_t values[BATCH];
	uint32_t count = (uint32_t)b->n;
	size_t n = b->n;

	b->n = 0;
	if (!n || !bpf_map_update_batch(b->fd, b->keys, values, &count, NULL))
		return 0;
	for (size_t i = 0; i < n; i++)
		if (bpf_map_update_elem(b->fd, b->keys + i * b->key_size, values, BPF_ANY))
			return err_sys(err, -errno, "cannot fill the map of a set of addresses");
	return 0;
}

static bool is_host(const uint8_t *record, size_t size)
{
	return record[size] == 8 * size;
}

/* Hosts by their address, nets by {bits, address}. */
static int batch_put(struct batch *b, const uint8_t *record, size_t size, bool host,
		     struct err *err)
{
	uint8_t *key = b->keys + b->n * b->key_size;
	uint32_t bits = record[size];

	if (!host) {
		memcpy(key, &bits, sizeof(bits));
		key += sizeof(bits);
	}
	memcpy(key, record, size);
	return ++b->n == BATCH ? batch_flush(b, err) : 0;
}

/* The map of all hosts, or all nets. */
static int make(int *ret_fd, const struct prefixes *p, bool hosts, struct err *err)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_NO_PREALLOC);
	_cleanup_free_ struct batch *b = malloc(sizeof(*b));
	uint32_t n = 0;
	int e = 0;

	if (!b)
		return err_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < p->n; i++)
		n += is_host(prefixes_at(p, i), p->size) == hosts;
	if (!n)
		return 0;
	b->n = 0;
	b->key_size = hosts ? p->size : p->size + 4;
	b->fd = bpf_map_create(hosts ? BPF_MAP_TYPE_HASH : BPF_MAP_TYPE_LPM_TRIE,
			       hosts ? "ps_hosts" : "ps_nets", (uint32_t)b->key_size, 1, n, &opts);
	if (b->fd < 0)
		return err_sys(err, -errno, "cannot make the map of a set of addresses");
	*ret_fd = b->fd;
	for (size_t i = 0; !e && i < p->n; i++)
		if (is_host(prefixes_at(p, i), p->size) == hosts)
			e = batch_put(b, prefixes_at(p, i), p->size, hosts, err);
	return e ? e : batch_flush(b, err);
}

int set_maps_open(struct set_maps *m, const struct prefixes *p, struct err *err)
{
	int e;

	*m = SET_MAPS_NONE;
	e = make(&m->hosts, p, true, err);
	if (!e)
		e = make(&m->nets, p, false, err);
	if (e)
		set_maps_close(m);
	return e;
}

void set_maps_close(struct set_maps *m)
{
	if (m->hosts >= 0)
		close(m->hosts);
	if (m->nets >= 0)
		close(m->nets);
	*m = SET_MAPS_NONE;
}
