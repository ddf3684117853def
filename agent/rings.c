// SPDX-License-Identifier: Apache-2.0
#include "rings.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "util.h"

#define RING_MIN     (1u << 20)
#define RING_RECORDS 4 /* of the largest size, at least, fit a ring */

static uint64_t power_of_two_up(uint64_t n)
{
	uint64_t p = 1;

	while (p < n)
		p <<= 1;
	return p;
}

/* As many rings as there are CPUs at work, but none below a useful size. */
size_t rings_plan(struct merge *m, uint64_t bytes, uint32_t snaplen)
{
	uint64_t least = MAX(RING_MIN, power_of_two_up(RING_RECORDS * EPB_SIZE_MAX(snaplen)));
	long online = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t share;

	m->nrings = (unsigned int)MIN(MAX(online, 1), (long)MIN(m->nrings, RINGS_MAX));
	while (m->nrings > 1 && bytes / m->nrings < least)
		m->nrings--;
	share = MAX(bytes / m->nrings, least);
	while (least * 2 <= share)
		least *= 2;
	return least;
}

/*
 * In one call where the kernel has that: it then waits out one RCU grace period (older
 * ones, one for each ring).
 */
static int publish(const struct merge *m, int map, struct err *err)
{
	uint32_t keys[RINGS_MAX], n = m->nrings;
	int fds[RINGS_MAX], r;

	for (uint32_t i = 0; i < n; i++) {
		keys[i] = i;
		fds[i] = m->rings[i].fd;
	}
	r = bpf_map_update_batch(map, keys, fds, &n, NULL);
	for (uint32_t i = 0; r && i < m->nrings; i++)
		if (bpf_map_update_elem(map, &keys[i], &fds[i], BPF_ANY))
			return err_sys(err, -errno, "cannot hand a ring to the capture programs");
	return 0;
}

int rings_open(struct merge *m, size_t size, int epoll, int map, struct err *err)
{
	for (unsigned int i = 0; i < m->nrings; i++) {
		struct epoll_event event = {.events = EPOLLIN | EPOLLET};
		int fd =
			bpf_map_create(BPF_MAP_TYPE_RINGBUF, "ps_ring", 0, 0, (uint32_t)size, NULL);
		int r;

		if (fd < 0)
			return err_sys(err, fd, "cannot allocate ring %u of %u with %zu bytes",
				       i + 1, m->nrings, size);
		r = ring_open(&m->rings[i], fd, size, err);
		if (r)
			return r;
		if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
			return err_sys(err, -errno, "cannot watch a ring");
	}
	return publish(m, map, err);
}
