// SPDX-License-Identifier: Apache-2.0
/*
 * How a packet socket of libpcap's is made to begin and end at a known packet, with the
 * direction decided in the kernel:
 *
 * libpcap binds the socket last, to all protocols; then packets would come before any filter is
 * there. So it is told a protocol that no packet has (pcap_set_protocol_linux()), and once
 * the filter is in force we bind the socket to all protocols ourselves.
 *
 * The filter, which also cuts packets, is set on the socket, not by pcap_setfilter(): that would
 * first run it in libpcap's own machine, which does not know the direction and would drop packets
 * without counting them. pcap_setdirection() sorts in user space, so each packet would take room in
 * both rings.
 *
 * In the kernel (tpacket_rcv()) every packet that passes the filter is put into the ring, or
 * counted as dropped. ps_recv counts both, so what is put into the ring and not visible yet
 * (a block of the ring is handed over when it is full or RETIRE_MS old) is known to the packet.
 *
 * Blocks are as long as the longest packet that libpcap allows, less some headers: a packet longer
 * than 262,000 bytes or so is cut, its length is true.
 */
#include "live.h"

#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if_arp.h>
#include <pcap/pcap.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util.h"

#define RETIRE_MS 50
/* No driver and no protocol of Linux uses this one any more. */
#define NO_PROTOCOL 0x0018 /* ETH_P_ECONET */
#define SLL_HEADER  16

/* libpcap's codes. */
static int fail(struct err *err, pcap_t *p, const char *name, int code)
{
	switch (code) {
	case PCAP_ERROR_PERM_DENIED:
		return err_set(err, -EPERM,
			       "no right to open packet sockets: CAP_NET_RAW is needed");
	case PCAP_ERROR_NO_SUCH_DEVICE:
	case PCAP_ERROR_IFACE_NOT_UP:
		return err_set(err, -ENODEV, "%s: it is gone, or down", name);
	default:
		return err_set(err, -EIO, "%s: %s", name,
			       *pcap_geterr(p) ? pcap_geterr(p) : pcap_statustostr(code));
	}
}

static int configure(pcap_t *p, const struct live_config *config)
{
	int r = pcap_set_snaplen(p, (int)SNAPLEN_MAX);

	if (!r)
		r = pcap_set_promisc(p, 0);
	if (!r)
		r = pcap_set_timeout(p, RETIRE_MS);
	if (!r)
		r = pcap_set_buffer_size(p, (int)config->ring_bytes);
	if (!r)
		r = pcap_set_tstamp_precision(p, PCAP_TSTAMP_PRECISION_NANO);
	if (!r)
		r = pcap_set_protocol_linux(p, NO_PROTOCOL);
	return r;
}

static int check_link_type(struct live *l, const struct live_config *config, struct err *err)
{
	int type = pcap_datalink(l->pcap);

	if (config->raw_ip && type == DLT_LINUX_SLL)
		l->strip = SLL_HEADER;
	else if (type != (config->raw_ip ? DLT_RAW : DLT_EN10MB))
		return err_set(err, -ENOTSUP, "%s: libpcap takes it for %s", config->name,
			       pcap_datalink_val_to_name(type));
	return 0;
}

static int begin(struct live *l, const struct live_config *config, struct err *err)
{
	struct sockaddr_ll at = {.sll_family = AF_PACKET};
	socklen_t size = sizeof(at);
	int r;

	/* By name, so it may be another one meanwhile. */
	if (getsockname(l->fd, (struct sockaddr *)&at, &size) < 0 ||
	    (uint32_t)at.sll_ifindex != config->ifindex)
		return err_set(err, -ENODEV, "%s: it is gone", config->name);
	r = coarse_attach(config->filter, l->fd, err);
	if (r)
		return r;
	at = (struct sockaddr_ll){
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = (int)config->ifindex,
	};
	if (bind(l->fd, (struct sockaddr *)&at, sizeof(at)) < 0) {
		r = errno == ENETDOWN ? -ENODEV : -errno;
		return err_sys(err, r, "%s: cannot begin", config->name);
	}
	return 0;
}

static int open_pcap(struct live *l, const struct live_config *config, struct err *err)
{
	char why[PCAP_ERRBUF_SIZE] = "";
	int r;

	l->pcap = pcap_create(config->name, why);
	if (!l->pcap)
		return err_set(err, -ENOMEM, "%s: %s", config->name, why);
	r = configure(l->pcap, config);
	if (!r)
		r = pcap_activate(l->pcap);
	if (r < 0)
		return fail(err, l->pcap, config->name, r);
	if (pcap_setnonblock(l->pcap, 1, why) < 0)
		return err_set(err, -EIO, "%s: %s", config->name, why);
	l->fd = pcap_get_selectable_fd(l->pcap);
	r = check_link_type(l, config, err);
	return r ? r : begin(l, config, err);
}

int live_open(struct live *l, const struct live_config *config, struct err *err)
{
	int r;

	*l = (struct live){.fd = -1, .ifindex = config->ifindex};
	r = open_pcap(l, config, err);
	if (r)
		live_close(l);
	return r;
}

void live_close(struct live *l)
{
	if (l->pcap)
		pcap_close(l->pcap);
	l->pcap = NULL;
	l->fd = -1;
}

struct receiver {
	struct live *live;
	live_packet_fn *fn;
	void *ctx;
};

static void on_packet(u_char *user, const struct pcap_pkthdr *h, const u_char *data)
{
	const struct receiver *r = (const struct receiver *)user;
	uint32_t strip = MIN(r->live->strip, h->caplen);
	nsec_t time = (nsec_t)h->ts.tv_sec * NSEC_PER_SEC + (nsec_t)h->ts.tv_usec;

	r->live->handed++;
	r->fn(r->ctx, data + strip, h->caplen - strip, h->len - strip, time);
}

int live_next(struct live *l, live_packet_fn *fn, void *ctx)
{
	struct receiver r = {.live = l, .fn = fn, .ctx = ctx};

	return pcap_dispatch(l->pcap, 1, on_packet, (u_char *)&r);
}

uint32_t live_drops(struct live *l)
{
	struct pcap_stat stat;
	uint32_t new;

	if (!l->pcap || pcap_stats(l->pcap, &stat) < 0)
		return 0;
	/* It wraps round, as the difference does. */
	new = stat.ps_drop - l->booked;
	l->booked = stat.ps_drop;
	return new;
}

uint32_t live_left(struct live *l)
{
	struct pcap_stat stat;

	if (!l->pcap || pcap_stats(l->pcap, &stat) < 0)
		return 0;
	return stat.ps_recv - stat.ps_drop - l->handed;
}

void live_stop(struct live *l)
{
	struct err ignored;

	/* It cannot fail for want of anything but memory; then packets go on until it is closed. */
	if (!l->stopped && l->pcap)
		coarse_block(l->fd, &ignored);
	l->stopped = true;
}

int live_probe(struct err *err)
{
	_cleanup_close_ int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);

	if (fd >= 0)
		return 0;
	if (errno == EPERM || errno == EACCES)
		return err_set(err, -EPERM,
			       "no right to open packet sockets: CAP_NET_RAW is needed");
	return err_sys(err, -errno, "cannot open a packet socket");
}

const char *live_version(void)
{
	return pcap_lib_version();
}
