/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blast DEV COUNT SIZE [PPS [SENDER [noise [FLOWS]]]]: send COUNT UDP packets of SIZE bytes out of
 * DEV, as fast as the machine can (PPS 0) or at PPS a second, straight to the driver. Each carries
 * its number at byte 42, and with SENDER that at byte 50; with `noise` the rest cannot be
 * compressed; with FLOWS they come from so many ports in turn. Ends early on SIGTERM. Prints how
 * many the kernel took. Stays on one processor: packets are not in order between the backlogs of
 * two.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define BURST 64u

static volatile sig_atomic_t ended;

static void end(int number)
{
	(void)number;
	ended = 1;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* xorshift64 */
static void make_noise(uint8_t *p, size_t size)
{
	static uint64_t x = 88172645463325252u;

	for (size_t at = 0; at < size; at += sizeof(x)) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(p + at, &x, size - at < sizeof(x) ? size - at : sizeof(x));
	}
}

static int stay_here(void)
{
	cpu_set_t here;

	CPU_ZERO(&here);
	CPU_SET(sched_getcpu(), &here);
	return sched_setaffinity(0, sizeof(here), &here);
}

/* Ethernet, IPv4, UDP 1111 -> 2222. The IP checksum is not looked at by anybody. */
static void make_packet(uint8_t *p, size_t size)
{
	static const uint8_t head[42] = {
		0x02, 0, 0,   0, 0, 1, 0x02, 0,    0,    0,    0, 2, 0x08, 0, /* Ethernet */
		0x45, 0, 0,   0, 0, 0, 0,    0,    64,   17,   0, 0, 192,  0,
		2,    1, 192, 0, 2, 2, 0x04, 0x57, 0x08, 0xae, 0, 0, 0,    0, /* UDP */
	};
	uint16_t ip_len = htons((uint16_t)(size - 14)), udp_len = htons((uint16_t)(size - 34));

	for (size_t i = 0; i < size; i++)
		p[i] = (uint8_t)(i * 7);
	memcpy(p, head, sizeof(head));
	memcpy(p + 16, &ip_len, 2);
	memcpy(p + 38, &udp_len, 2);
}

int main(int argc, char **argv)
{
	struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_halen = 6};
	static uint8_t packets[BURST][65536];
	struct mmsghdr msgs[BURST] = {};
	struct iovec iov[BURST];
	uint64_t count, sent = 0, pps = 0, flows = 0, start;
	uint32_t sender = 0;
	int fd, one = 1;
	size_t size;

	if (argc < 4) {
		fprintf(stderr, "usage: blast DEV COUNT SIZE [PPS [SENDER [noise [FLOWS]]]]\n");
		return 2;
	}
	count = strtoull(argv[2], NULL, 10);
	size = strtoul(argv[3], NULL, 10);
	if (argc > 5)
		sender = (uint32_t)strtoul(argv[5], NULL, 10);
	if (argc > 4)
		pps = strtoull(argv[4], NULL, 10);
	if (argc > 7)
		flows = strtoull(argv[7], NULL, 10);
	if (size < 60 || size > sizeof(packets[0])) {
		fprintf(stderr, "SIZE is 60 to %zu\n", sizeof(packets[0]));
		return 2;
	}
	to.sll_ifindex = (int)if_nametoindex(argv[1]);
	fd = socket(AF_PACKET, SOCK_RAW, 0);
	if (fd < 0 || stay_here() < 0 || bind(fd, (struct sockaddr *)&to, sizeof(to)) < 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one)) < 0) {
		perror("blast");
		return 1;
	}
	for (size_t i = 0; i < BURST; i++) {
		make_packet(packets[i], size);
		if (argc > 5)
			memcpy(packets[i] + 50, &sender, sizeof(sender));
		iov[i] = (struct iovec){packets[i], size};
		msgs[i].msg_hdr.msg_iov = &iov[i];
		msgs[i].msg_hdr.msg_iovlen = 1;
	}
	signal(SIGTERM, end);
	start = now_ns();
	while (sent < count && !ended) {
		unsigned int n = (unsigned int)(count - sent < BURST ? count - sent : BURST);
		int r;

		if (pps) {
			uint64_t due = (now_ns() - start) * pps / 1000000000u;

			if (due <= sent) {
				poll(NULL, 0, 1);
				continue;
			}
			n = (unsigned int)(due - sent < n ? due - sent : n);
		}
		for (unsigned int i = 0; i < n; i++) {
			uint64_t number = sent + i;

			memcpy(packets[i] + 42, &number, sizeof(number));
			if (flows) {
				uint16_t port = htons((uint16_t)(1024 + number % flows));

				memcpy(packets[i] + 34, &port, sizeof(port));
			}
			if (argc > 6)
				make_noise(packets[i] + 54, size - 54);
		}
		r = sendmmsg(fd, msgs, n, 0);
		if (r < 0 && errno != ENOBUFS && errno != EAGAIN && errno != EINTR) {
			perror("blast: sendmmsg");
			return 1;
		}
		if (r > 0)
			sent += (uint64_t)r;
	}
	printf("%llu packets sent in %.3f s\n", (unsigned long long)sent,
	       (double)(now_ns() - start) / 1e9);
	return 0;
}
