// SPDX-License-Identifier: Apache-2.0
#include "backend.h"

#include <stdio.h>

#include "util.h"

/* From the best on: what `auto` tries. */
static const struct {
	enum backend name;
	const char *text;
	const struct capture_ops *ops;
	bool by_name; /* only: not everybody wants it */
} backends[] = {
	{BACKEND_TC, "tc", &capture_ringbuf, .by_name = false},
	{BACKEND_XDP, "xdp", &capture_ringbuf, .by_name = true},
	{BACKEND_PCAP, "pcap", &capture_pcap, .by_name = false},
};

static int try_all(const struct capture_config *capture, const struct capture_ops **ret_ops,
		   struct capture **ret, struct err *why)
{
	int first = 0;

	why->text[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
		struct err before = *why, err;
		int r;

		if (backends[i].by_name)
			continue;
		r = backends[i].ops->open(capture, ret, &err);
		if (r == 0) {
			*ret_ops = backends[i].ops;
			return 0;
		}
		first = first ? first : r;
		err_set(why, r, "%s%sbackend %s: %s", before.text, before.text[0] ? "; " : "",
			backends[i].text, err.text);
	}
	return first;
}

int backend_open(const struct config *config, const struct capture_config *capture,
		 const struct capture_ops **ret_ops, struct capture **ret, struct err *report,
		 struct err *err)
{
	struct err why;
	int r;

	report->text[0] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
		if (backends[i].name != (enum backend)config->backend)
			continue;
		*ret_ops = backends[i].ops;
		return backends[i].ops->open(capture, ret, err);
	}
	r = try_all(capture, ret_ops, ret, &why);
	if (r < 0)
		return err_set(err, r, "%s", why.text);
	*report = why;
	return 0;
}

/*
 * With PREEMPT_RT bottom halves of one CPU may preempt each other, and with them programs that
 * share its scratch memory. (Not so in kernels with PREEMPT_RT_NEEDS_BH_LOCK, which cannot be
 * told.)
 */
const char *backend_bpf_doubt(void)
{
	FILE *f = fopen("/sys/kernel/realtime", "re");
	bool realtime = f && fgetc(f) == '1';

	if (f)
		fclose(f);
	return realtime
		       ? "this kernel is a real-time one (PREEMPT_RT), where BPF programs of a CPU "
			 "may interrupt each other: filters may choose wrongly, counters be wrong"
		       : NULL;
}
