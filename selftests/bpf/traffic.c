// SPDX-License-Identifier: Apache-2.0
#include "traffic.h"

#include <dirent.h>
#include <pcap/pcap.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ETHER_HEADER 14u

void traffic_add(struct traffic *t, const uint8_t *data, uint32_t len)
{
	if (t->n == t->cap) {
		t->cap = t->cap ? 2 * t->cap : 1024;
		t->v = realloc(t->v, t->cap * sizeof(*t->v));
		assert_non_null(t->v);
	}
	t->v[t->n] = (struct traffic_packet){.data = malloc(len), .len = len};
	assert_non_null(t->v[t->n].data);
	memcpy(t->v[t->n++].data, data, len);
}

static void read_file(struct traffic *t, const char *path)
{
	char error[PCAP_ERRBUF_SIZE];
	pcap_t *pcap = pcap_open_offline(path, error);
	struct pcap_pkthdr *header;
	const u_char *data;

	if (!pcap)
		fail_msg("%s: %s", path, error);
	if (pcap_datalink(pcap) == DLT_EN10MB) {
		while (pcap_next_ex(pcap, &header, &data) == 1)
			traffic_add(t, data, header->caplen);
		t->files++;
	}
	pcap_close(pcap);
}

static bool is_capture(const char *name)
{
	const char *dot = strrchr(name, '.');

	return dot && (!strcmp(dot, ".pcap") || !strcmp(dot, ".cap"));
}

void traffic_read(struct traffic *t)
{
	const char *folder = getenv("PS_TRAFFIC"), *src = getenv("PS_SRC");
	char path[4096];
	struct dirent **names;
	int n;

	if (folder)
		snprintf(path, sizeof(path), "%s", folder);
	else
		snprintf(path, sizeof(path), "%s/../shared/traffic", src ? src : ".");
	n = scandir(path, &names, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		char file[8192];

		snprintf(file, sizeof(file), "%s/%s", path, names[i]->d_name);
		if (is_capture(names[i]->d_name))
			read_file(t, file);
		free(names[i]);
	}
	if (n >= 0)
		free(names);
}

void traffic_free(struct traffic *t)
{
	for (size_t i = 0; i < t->n; i++)
		free(t->v[i].data);
	free(t->v);
	*t = (struct traffic){};
}

void traffic_raw(const struct traffic *t, struct traffic *ret)
{
	for (size_t i = 0; i < t->n; i++) {
		const struct traffic_packet *p = &t->v[i];
		unsigned int type;

		if (p->len <= ETHER_HEADER)
			continue;
		type = (unsigned int)p->data[12] << 8 | p->data[13];
		if (type == 0x800 || type == 0x86dd)
			traffic_add(ret, p->data + ETHER_HEADER, p->len - ETHER_HEADER);
	}
}

struct oracle {
	struct bpf_program program;
};

struct oracle *oracle_new(const char *text, uint32_t link_type)
{
	pcap_t *pcap = pcap_open_dead(link_type == 101 ? DLT_RAW : DLT_EN10MB, 262144);
	struct oracle *o = malloc(sizeof(*o));

	assert_non_null(pcap);
	assert_non_null(o);
	if (pcap_compile(pcap, &o->program, text, 1, PCAP_NETMASK_UNKNOWN)) {
		free(o);
		o = NULL;
	}
	pcap_close(pcap);
	return o;
}

struct oracle *oracle_free(struct oracle *o)
{
	if (!o)
		return NULL;
	pcap_freecode(&o->program);
	free(o);
	return NULL;
}

/* Jumps go forward, but for those of protochain, which change nothing here. */
bool oracle_is_sure(const struct oracle *o)
{
	unsigned int n = o->program.bf_len;
	uint32_t *written = malloc((n + 1) * sizeof(*written));
	bool sure = true;

	assert_non_null(written);
	/* What is written on every way to an instruction, as bits. */
	memset(written, 0xff, (n + 1) * sizeof(*written));
	written[0] = 0;
	for (unsigned int at = 0; at < n && sure; at++) {
		const struct bpf_insn *i = &o->program.bf_insns[at];
		uint32_t now = written[at];

		switch (BPF_CLASS(i->code)) {
		case BPF_LD:
		case BPF_LDX:
			sure = BPF_MODE(i->code) != BPF_MEM || now >> i->k & 1;
			break;
		case BPF_ST:
		case BPF_STX:
			now |= 1u << i->k;
			break;
		case BPF_JMP:
			if (BPF_OP(i->code) == BPF_JA) {
				if ((int32_t)i->k > 0)
					written[at + 1 + i->k] &= now;
				continue;
			}
			written[at + 1 + i->jt] &= now;
			written[at + 1 + i->jf] &= now;
			continue;
		case BPF_RET:
			continue;
		default:
			break;
		}
		written[at + 1] &= now;
	}
	free(written);
	return sure;
}

bool oracle_match(const struct oracle *o, const struct traffic_packet *p)
{
	struct pcap_pkthdr header = {.caplen = p->len, .len = p->len};

	return pcap_offline_filter(&o->program, &header, p->data) != 0;
}
