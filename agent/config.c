// SPDX-License-Identifier: Apache-2.0
/*
 * ps-agent.yaml(5): the table of keys, then the rules that span keys. config_load()
 * makes an immutable struct config, which lives until config_free(); after that any
 * thread may read it.
 *
 * Every key that users of PacketStreamer may have in their file, and every key of the
 * design, is in the table: what this version cannot do is refused by name, never
 * passed over.
 */
#include "config.h"

#include <errno.h>
#include <fnmatch.h>
#include <limits.h>
#include <net/if.h>

#include "abi.h"
#include "credentials.h"
#include "hook.h"
#include "netns_list.h"
#include "point.h"
#include "stream.h"
#include "util.h"

/* What the file says; a struct config and what only the rules here need. */
struct file {
	struct config c;
	char *server_host; /* output.server */
	uint64_t server_port;
	nsec_t wait_sec, wait_ms;
	int precision;
	config_filter_fn *check; /* NULL: expressions are not looked at */
	void *check_ctx;
};

static const char *const pcap_modes[] = {
	[PCAP_MODE_ALL] = "all",
	[PCAP_MODE_ALLOW] = "allow",
	[PCAP_MODE_DENY] = "deny",
	NULL,
};
static const char *const backends[] = {
	[BACKEND_AUTO] = "auto",
	[BACKEND_TC] = "tc",
	[BACKEND_XDP] = "xdp",
	[BACKEND_PCAP] = "pcap",
	NULL,
};
static const char *const xdp_modes[] = {
	[XDP_AUTO] = "auto",
	[XDP_NATIVE] = "native",
	[XDP_GENERIC] = "generic",
	NULL,
};
static const char *const points[] = {
	[POINT_ALL] = "all",
	[POINT_WIRE] = "wire",
	[POINT_HOST] = "host",
	[POINT_POD] = "pod",
	NULL,
};
enum { PRECISION_NANO, PRECISION_MICRO };
static const char *const precisions[] = {
	[PRECISION_NANO] = "nano",
	[PRECISION_MICRO] = "micro",
	NULL,
};
static const char *const spool_modes[] = {
	[SPOOL_OVERFLOW] = "overflow",
	[SPOOL_ALWAYS] = "always",
	[SPOOL_OFF] = "off",
	NULL,
};

static const char *const tap_unmatched[] = {
	[TAP_PASS] = "pass",
	[TAP_DROP] = "drop",
	NULL,
};

/* What spool.h puts behind the path, and more. */
#define SPOOL_NAMES 64

#define AT(member)     offsetof(struct file, member)
#define AT_ALL(member) offsetof(struct file, c.selection.member)
#define AT_ONE(member) offsetof(struct selection, member)
#define PATTERNS_MAX   256
#define SETS_MAX       64

static const struct yaml_key selection_keys[] = {SELECTION_KEYS(AT_ONE)};

static const struct yaml_key set_keys[] = {
	{"file", YAML_STRING, offsetof(struct config_set, file), .max = PATH_MAX - 1,
	 .help = "an address or network per line"},
	{"addresses", YAML_STRINGS, offsetof(struct config_set, addresses), .max = 64,
	 .help = "addresses and networks"},
};

static const struct yaml_key keys[] = {
	{"output.server.address", YAML_STRING, AT(server_host), .max = 253,
	 .help = "name or address of the collector"},
	{"output.server.port", YAML_UINT, AT(server_port), .min = 1, .max = 65535,
	 .help = "port of the collector"},
	{"output.file.path", YAML_STRING, AT(c.file_path), .max = PATH_MAX - 1,
	 .help = "pcap file on this machine, or stdout"},
	{"output.servers", YAML_SERVERS, AT(c.servers), .help = "collectors to choose from"},
	{"output.plugins.s3", YAML_UNSUPPORTED, .help = "upload to S3"},
	{"output.plugins.kafka", YAML_UNSUPPORTED, .help = "Kafka producer"},

	{"tls.enable", YAML_BOOL, AT(c.tls_enable), .fallback = "true",
	 .help = "false: plain text"},
	{"tls.certfile", YAML_STRING, AT(c.tls_certfile), .max = PATH_MAX - 1,
	 .help = "certificate of this agent"},
	{"tls.keyfile", YAML_STRING, AT(c.tls_keyfile), .max = PATH_MAX - 1,
	 .help = "key of tls.certfile"},
	{"tls.cafile", YAML_STRING, AT(c.tls_cafile), .max = PATH_MAX - 1,
	 .help = "who may sign the collector's certificate"},
	{"tls.crlfile", YAML_STRING, AT(c.tls_crlfile), .max = PATH_MAX - 1,
	 .help = "certificates that were revoked"},
	{"tls.serverName", YAML_STRING, AT(c.tls_server_name), .max = 253,
	 .help = "name in the collector's certificate"},
	{"auth.enable", YAML_BOOL, AT(c.auth_enable), .fallback = "false",
	 .help = "TLS by the shared key"},
	{"auth.key", YAML_STRING, AT(c.auth_key), .min = CREDENTIALS_KEY_MIN,
	 .max = CREDENTIALS_KEY_MAX, .help = "the shared key"},

	{"agentName", YAML_STRING, AT(c.agent_name), .max = STREAM_NAME_MAX,
	 .help = "name of this agent"},
	{"logFilename", YAML_STRING, AT(c.log_filename), .max = PATH_MAX - 1,
	 .help = "file of the log"},
	{"sandbox", YAML_BOOL, AT(c.sandbox), .fallback = "true",
	 .help = "rights and system calls that are not needed are given up"},
	{"timestampPrecision", YAML_ENUM, AT(precision), .names = precisions, .fallback = "nano",
	 .help = "of the time stamps in output.file"},
	{"shutdownTimeout", YAML_DURATION, AT(c.shutdown_timeout), .max = 600 * NSEC_PER_SEC,
	 .unit = NSEC_PER_SEC, .fallback = "10s", .help = "longest wait for acks at stop"},

	{"compressBlockSize", YAML_SIZE, AT(c.block_bytes), .min = 1u << 10, .max = 1u << 20,
	 .unit = 1u << 10, .fallback = "65", .help = "uncompressed data in one frame"},
	{"inputPacketLen", YAML_UINT, AT(c.snaplen), .min = 64, .max = SNAPLEN_MAX,
	 .fallback = "65535", .help = "bytes kept of a packet"},
	{"gatherMaxWaitSec", YAML_DURATION, AT(wait_sec), .max = 3600 * NSEC_PER_SEC,
	 .unit = NSEC_PER_SEC, .help = "longest wait for a full frame"},
	{"gatherMaxWaitMs", YAML_DURATION, AT(wait_ms), .max = 3600 * NSEC_PER_SEC,
	 .unit = NSEC_PER_MSEC, .fallback = "100", .help = "the same in milliseconds"},
	{"ringSize", YAML_SIZE, AT(c.ring_bytes), .min = 1u << 20, .max = 2ull << 30,
	 .fallback = "32MB", .help = "memory of all rings together"},
	{"queueSize", YAML_SIZE, AT(c.queue_bytes), .min = 4u << 20, .max = 64ull << 30,
	 .fallback = "64MB", .help = "frames that wait for the collector"},
	{"spool.path", YAML_STRING, AT(c.spool_path), .max = PATH_MAX - SPOOL_NAMES,
	 .help = "folder for frames on disk"},
	{"spool.mode", YAML_ENUM, AT(c.spool_mode), .names = spool_modes, .fallback = "overflow",
	 .help = "which frames go to disk"},
	{"spool.maxBytes", YAML_SIZE, AT(c.spool_max_bytes), .min = 1u << 20, .max = 1ull << 44,
	 .fallback = "1GB", .help = "quota of the spool"},
	{"spool.maxAge", YAML_DURATION, AT(c.spool_max_age), .max = 87600 * 3600 * NSEC_PER_SEC,
	 .unit = NSEC_PER_SEC, .fallback = "0", .help = "oldest frame in the spool"},
	{"spool.minFree", YAML_SIZE, AT(c.spool_min_free), .max = 1ull << 44, .fallback = "512MB",
	 .help = "space the spool leaves free"},
	{"spool.segmentBytes", YAML_SIZE, AT(c.spool_segment_bytes), .min = 64u << 10,
	 .max = 1u << 30, .fallback = "32MB", .help = "size of a file of the spool"},

	{"backend", YAML_ENUM, AT(c.backend), .names = backends, .fallback = "auto",
	 .help = "how packets are captured"},
	{"xdpMode", YAML_ENUM, AT(c.xdp_mode), .names = xdp_modes, .fallback = "auto",
	 .help = "with backend xdp: in the driver or behind it"},
	{"interfaces", YAML_STRINGS, AT(c.interfaces), .max = STREAM_NAME_MAX,
	 .help = "patterns of interfaces"},
	{"captureLoopback", YAML_BOOL, AT(c.capture_loopback), .fallback = "false",
	 .help = "capture lo too"},
	{"pcapMode", YAML_ENUM, AT(c.pcap_mode), .names = pcap_modes, .fallback = "all",
	 .help = "what the lists of ports mean"},
	{"capturePorts", YAML_PORTS, AT(c.capture_ports), .help = "ports on every interface"},
	{"captureInterfacesPorts", YAML_PORTS_MAP, AT(c.interface_ports),
	 .help = "ports of single interfaces"},
	{"ignorePorts", YAML_PORTS, AT(c.ignore_ports), .help = "ports never captured"},
	SELECTION_KEYS(AT_ALL),
	{"perInterface", YAML_BLOCKS, AT(c.per_interface), .max = PATTERNS_MAX,
	 .sub = selection_keys, .n_sub = ARRAY_SIZE(selection_keys),
	 .sub_size = sizeof(struct selection), .help = "the same keys for interfaces by pattern"},
	{"sets", YAML_BLOCKS, AT(c.sets), .max = SETS_MAX, .sub = set_keys,
	 .n_sub = ARRAY_SIZE(set_keys), .sub_size = sizeof(struct config_set),
	 .help = "named sets of addresses"},
	{"maxSetEntries", YAML_UINT, AT(c.max_set_entries), .min = 1, .max = 16u << 20,
	 .fallback = "1000000", .help = "addresses in a set, per family"},
	{"dedupWindow", YAML_DURATION, AT(c.dedup_window), .max = NSEC_PER_SEC,
	 .unit = NSEC_PER_MSEC, .fallback = "0",
	 .help = "keep one of packets that are equal on several interfaces"},
	{"cpuBudget", YAML_PERCENT, AT(c.cpu_budget), .min = 1, .max = 10000,
	 .help = "share of one CPU that the agent may take"},
	{"bandwidthBudget", YAML_RATE, AT(c.bandwidth_budget), .min = 100000, .max = 1ull << 40,
	 .help = "highest rate of the stream to the collector"},
	{"netns", YAML_STRINGS, AT(c.netns), .max = PATH_MAX - 1,
	 .help = "paths of network namespaces to capture in"},
	{"capturePoint", YAML_ENUM, AT(c.point), .names = points, .fallback = "all",
	 .help = "where packets that cross several interfaces are captured"},
	{"taps", YAML_STRINGS, AT(c.taps), .max = IF_NAMESIZE - 1,
	 .help = "interfaces that only monitor"},
	{"tapUnmatched", YAML_ENUM, AT(c.tap_unmatched), .names = tap_unmatched, .fallback = "pass",
	 .help = "what becomes of packets of taps that are not wanted"},
	{"metrics", YAML_UNSUPPORTED, .help = "HTTP listener for metrics"},

	{"input", YAML_FOREIGN, .help = "ps-collector"},
	{"ack", YAML_FOREIGN, .help = "ps-collector"},
	{"format", YAML_FOREIGN, .help = "ps-collector"},
	{"maxSessions", YAML_FOREIGN, .help = "ps-collector"},
	{"creditBytes", YAML_FOREIGN, .help = "ps-collector"},
	{"agents", YAML_FOREIGN, .help = "ps-collector"},
	{"commitIntervalMs", YAML_FOREIGN, .help = "ps-collector"},
	{"heartbeat", YAML_FOREIGN, .help = "ps-collector"},
	{"memoryBudget", YAML_FOREIGN, .help = "ps-collector"},
};

static void check_servers(const struct config *c, struct yaml_errors *errors)
{
	static const char *const parts[] = {"output.server.address", "output.server.port"};

	if (yaml_was_set(errors, "output.servers")) {
		if (yaml_was_set(errors, "output.server"))
			yaml_error(errors, "output.servers",
				   "there is output.server too: put it into this list, or leave "
				   "one of them out");
		else if (!c->servers.n)
			yaml_error(errors, "output.servers", "names no server");
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (!yaml_was_set(errors, parts[i]))
			yaml_error(errors, parts[i], "is missing");
	}
}

static void check_output(const struct config *c, struct yaml_errors *errors)
{
	struct tls_config tls = {
		.enable = c->tls_enable,
		.certfile = c->tls_certfile,
		.keyfile = c->tls_keyfile,
		.cafile = c->tls_cafile,
		.psk = c->auth_key,
	};

	if (yaml_was_set(errors, "output.server") || yaml_was_set(errors, "output.servers")) {
		check_servers(c, errors);
		credentials_check(&tls, c->auth_enable, errors);
	} else if (!yaml_was_set(errors, "output.file.path")) {
		yaml_error(errors, "output",
			   "nowhere to send to: output.server, output.servers or "
			   "output.file.path is needed");
	}
}

/* A quota of less than a few segments would be given up in large pieces. */
static uint64_t segment_max(const struct config *c)
{
	return c->spool_max_bytes / 4;
}

static void check_budget(struct yaml_errors *errors)
{
	if (yaml_was_set(errors, "bandwidthBudget") && !yaml_was_set(errors, "output.server") &&
	    !yaml_was_set(errors, "output.servers"))
		yaml_error(errors, "bandwidthBudget", "there is no collector to send to");
}

static void check_spool(const struct config *c, struct yaml_errors *errors)
{
	if (!yaml_was_set(errors, "spool"))
		return;
	if (!yaml_was_set(errors, "spool.path") && c->spool_mode != SPOOL_OFF)
		yaml_error(errors, "spool.path",
			   "is missing: the folder to keep frames in (or set spool.mode to off)");
	if (yaml_was_set(errors, "spool.segmentBytes") && c->spool_segment_bytes > segment_max(c))
		yaml_error(errors, "spool.segmentBytes", "is above a quarter of spool.maxBytes");
	/* Else a frame that does not shrink would find no room, ever. */
	if (c->spool_max_bytes < 4 * c->block_bytes)
		yaml_error(errors, "spool.maxBytes", "is below four times compressBlockSize");
}

/* Each list that differs, the empty one too, takes a bit of the masks: abi.h, PORT_SET(). */
static unsigned int distinct_lists(const struct yaml_ports_map *map)
{
	unsigned int n = 0;

	for (size_t i = 0; i < map->n; i++) {
		const struct yaml_ports *ports = &map->v[i].ports;
		bool seen = false;

		for (size_t k = 0; k < i && !seen; k++)
			seen = memcmp(ports->bits, map->v[k].ports.bits, sizeof(ports->bits)) == 0;
		n += !seen;
	}
	return n;
}

static void check_ports(const struct config *c, struct yaml_errors *errors)
{
	unsigned int lists = distinct_lists(&c->interface_ports);

	if (lists > PORT_SETS)
		yaml_error(errors, "captureInterfacesPorts",
			   "%u different lists of ports, at most %u are possible (equal lists "
			   "count once)",
			   lists, PORT_SETS);
	if (c->pcap_mode == PCAP_MODE_ALLOW && c->capture_ports.count == 0 &&
	    c->interface_ports.n == 0)
		yaml_error(
			errors, "pcapMode",
			"allow without capturePorts or captureInterfacesPorts matches no packet");
}

static void check_interfaces(const struct config *c, struct yaml_errors *errors)
{
	for (size_t i = 0; i < c->interfaces.n; i++) {
		if (strcmp(c->interfaces.v[i], "!") == 0)
			yaml_error(errors, "interfaces", "\"!\" leaves out nothing");
	}
	netns_list_check(&c->netns, errors);
}

static void check_taps(const struct config *c, struct yaml_errors *errors)
{
#ifndef HAVE_XDP
	if (c->taps.n)
		yaml_error(errors, "taps", "this build has no AF_XDP, for want of libxdp");
#endif
	if (c->taps.n && c->backend == BACKEND_PCAP)
		yaml_error(errors, "taps",
			   "need BPF programs, and backend pcap works without them");
	if (c->taps.n > TAPS_MAX)
		yaml_error(errors, "taps", "%zu taps, at most %u are possible", c->taps.n,
			   TAPS_MAX);
	for (size_t i = 0; i < c->taps.n; i++) {
		if (strpbrk(c->taps.v[i], "*?[!"))
			yaml_error(errors, "taps", "\"%s\" is a pattern: a tap has its exact name",
				   c->taps.v[i]);
		else if (strcmp(c->taps.v[i], "lo") == 0)
			yaml_error(errors, "taps", "\"lo\" cannot be taken from the host");
		for (size_t k = 0; k < i; k++)
			if (strcmp(c->taps.v[i], c->taps.v[k]) == 0)
				yaml_error(errors, "taps", "\"%s\" is there twice", c->taps.v[i]);
	}
}

static void check_selections(const struct config *c, struct yaml_errors *errors)
{
	char block[128];

	selection_check(&c->selection, "", errors);
	for (size_t i = 0; i < c->per_interface.n; i++) {
		snprintf(block, sizeof(block), "perInterface.%s", c->per_interface.v[i].name);
		selection_check(c->per_interface.v[i].value, block, errors);
	}
}

static void check_filter(const struct file *f, const char *text, const char *block,
			 struct yaml_errors *errors)
{
	char path[128];
	struct err err;

	snprintf(path, sizeof(path), "%s%sfilter", block, *block ? "." : "");
	if (text && f->check && f->check(f->check_ctx, &f->c, text, &err) < 0)
		yaml_error(errors, path, "%s", err.text);
}

static void check_filters(const struct file *f, struct yaml_errors *errors)
{
	char block[128];

	check_filter(f, f->c.selection.filter, "", errors);
	for (size_t i = 0; i < f->c.per_interface.n; i++) {
		const struct selection *s = f->c.per_interface.v[i].value;

		snprintf(block, sizeof(block), "perInterface.%s", f->c.per_interface.v[i].name);
		check_filter(f, s->filter, block, errors);
	}
}

static void check_sets(const struct config *c, struct yaml_errors *errors)
{
	char block[128];

	for (size_t i = 0; i < c->sets.n; i++) {
		const struct config_set *set = c->sets.v[i].value;

		snprintf(block, sizeof(block), "sets.%s", c->sets.v[i].name);
		if (!set->file == !set->addresses.n)
			yaml_error(errors, block, "either file or addresses is needed");
	}
}

uint64_t config_block_bytes(const struct config *c)
{
	uint64_t quarter = c->bandwidth_budget / 8 / 4;

	return quarter ? MIN(c->block_bytes, quarter) : c->block_bytes;
}

/* The one server of output.server makes a list too. */
static int single_server(struct file *f)
{
	struct yaml_servers *servers = &f->c.servers;

	servers->v = calloc(1, sizeof(*servers->v));
	if (!servers->v)
		return -ENOMEM;
	servers->n = 1;
	servers->v[0] =
		(struct yaml_server){.host = f->server_host, .port = (uint16_t)f->server_port};
	f->server_host = NULL;
	return 0;
}

static int finish(void *into, struct yaml_errors *errors)
{
	struct file *f = into;
	struct config *c = &f->c;
	char name[HOST_NAME_MAX + 1];

	check_output(c, errors);
	check_spool(c, errors);
	check_budget(errors);
	check_ports(c, errors);
	check_interfaces(c, errors);
	check_taps(c, errors);
	check_selections(c, errors);
	check_sets(c, errors);
	if (!yaml_errors_count(errors))
		check_filters(f, errors);
	if (yaml_errors_count(errors))
		return -EINVAL;

	if (f->server_host && single_server(f) < 0)
		return -ENOMEM;
	if (!c->spool_path)
		c->spool_mode = SPOOL_OFF;
	c->spool_segment_bytes = MIN(c->spool_segment_bytes, segment_max(c));
	c->micro = f->precision == PRECISION_MICRO;
	c->gather_max_wait = yaml_was_set(errors, "gatherMaxWaitSec") ? f->wait_sec : f->wait_ms;
	/* 0 means "at once": a timer needs more than that. */
	c->gather_max_wait = MAX(c->gather_max_wait, NSEC_PER_MSEC);
	if (!c->agent_name) {
		if (gethostname(name, sizeof(name)) < 0)
			return -errno;
		name[sizeof(name) - 1] = 0;
		c->agent_name = strdup(name);
		if (!c->agent_name)
			return -ENOMEM;
	}
	return 0;
}

static int load(const char *name, const char *text, size_t size, config_filter_fn *check, void *ctx,
		struct config **ret, FILE *to)
{
	struct file *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return -ENOMEM;
	f->check = check;
	f->check_ctx = ctx;
	r = yaml_read(name, text, size, keys, ARRAY_SIZE(keys), f, finish, to);
	if (r < 0)
		config_free(&f->c);
	else
		*ret = &f->c;
	return r;
}

int config_load(const char *path, config_filter_fn *check, void *ctx, struct config **ret, FILE *to)
{
	int r = load(path, NULL, 0, check, ctx, ret, to);

	if (r == 0)
		(*ret)->path = strdup(path);
	return r;
}

int config_parse(const char *name, const char *text, size_t size, struct config **ret, FILE *to)
{
	return load(name, size ? text : "", size, NULL, NULL, ret, to);
}

/* What filters_rule() gives out, and what the governor takes. */
static bool is_live(const struct yaml_key *key)
{
	return key->offset == AT_ALL(filter) || key->offset == AT_ALL(slice_text) ||
	       key->offset == AT_ALL(sample) || key->offset == AT_ALL(sample_flows) ||
	       key->offset == AT(c.max_set_entries) || key->offset == AT(c.cpu_budget) ||
	       key->offset == AT(c.bandwidth_budget);
}

void config_changes(const struct config *was, const struct config *is,
		    void (*fn)(void *ctx, const char *key), void *ctx)
{
	/* Each is the first member of a struct file. */
	const void *a = was, *b = is;

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (!is_live(&keys[i]) && !yaml_same(&keys[i], a, b))
			fn(ctx, keys[i].path);
}

struct config *config_free(struct config *c)
{
	struct file *f;

	if (!c)
		return NULL;
	f = container_of(c, struct file, c);
	free(c->path);
	if (c->auth_key)
		explicit_bzero(c->auth_key, strlen(c->auth_key));
	yaml_release(keys, ARRAY_SIZE(keys), f);
	free(f);
	return NULL;
}

struct tls_config config_tls(const struct config *c)
{
	return (struct tls_config){
		.enable = c->tls_enable,
		.certfile = c->auth_enable ? NULL : c->tls_certfile,
		.keyfile = c->auth_enable ? NULL : c->tls_keyfile,
		.cafile = c->auth_enable ? NULL : c->tls_cafile,
		.crlfile = c->auth_enable ? NULL : c->tls_crlfile,
		.psk = c->auth_enable ? c->auth_key : NULL,
	};
}

/* "!pattern" wins over any other; without a plain pattern, all others are selected. */
static bool selected(const struct config *c, const char *name, bool *exact)
{
	bool any = false, matched = false;

	for (size_t i = 0; i < c->interfaces.n; i++) {
		const char *pattern = c->interfaces.v[i];

		if (*pattern == '!') {
			if (fnmatch(pattern + 1, name, 0) == 0)
				return false;
			continue;
		}
		any = true;
		if (fnmatch(pattern, name, 0) == 0)
			matched = true;
		if (strcmp(pattern, name) == 0)
			*exact = true;
	}
	return matched || !any;
}

/* Is there an entry of captureInterfacesPorts for the interface? */
static bool has_ports(const struct config *c, const char *name, bool *exact)
{
	bool matched = false;

	for (size_t i = 0; i < c->interface_ports.n; i++) {
		const char *pattern = c->interface_ports.v[i].name;

		if (fnmatch(pattern, name, 0) == 0)
			matched = true;
		if (strcmp(pattern, name) == 0)
			*exact = true;
	}
	return matched;
}

bool config_is_tap(const struct config *c, const char *name)
{
	for (size_t i = 0; i < c->taps.n; i++)
		if (strcmp(c->taps.v[i], name) == 0)
			return true;
	return false;
}

bool config_wants_interface(const struct config *c, const char *name, bool loopback)
{
	bool exact = false;
	bool ports = has_ports(c, name, &exact);

	if (!config_is_tap(c, name) && !selected(c, name, &exact))
		return false;
	if (loopback && !exact && !c->capture_loopback)
		return false;
	return c->pcap_mode != PCAP_MODE_ALLOW || c->capture_ports.count > 0 || ports;
}
