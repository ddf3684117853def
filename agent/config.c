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

#include "abi.h"
#include "credentials.h"
#include "stream.h"
#include "util.h"

/* What the file says; a struct config and what only the rules here need. */
struct file {
	struct config c;
	char *server_host; /* output.server */
	uint64_t server_port;
	nsec_t wait_sec, wait_ms;
	int precision;
};

static const char *const pcap_modes[] = {
	[PCAP_MODE_ALL] = "all",
	[PCAP_MODE_ALLOW] = "allow",
	[PCAP_MODE_DENY] = "deny",
	NULL,
};
static const char *const backends[] = {
	[BACKEND_AUTO] = "auto", [BACKEND_TC] = "tc", "!xdp", "!pcap", NULL,
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

/* What spool.h puts behind the path, and more. */
#define SPOOL_NAMES 64

#define AT(member) offsetof(struct file, member)

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
	{"filter", YAML_UNSUPPORTED, .help = "pcap-filter(7) expression"},
	{"taps", YAML_UNSUPPORTED, .help = "interfaces that only monitor"},
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
	check_ports(c, errors);
	check_interfaces(c, errors);
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

static int load(const char *name, const char *text, size_t size, struct config **ret, FILE *to)
{
	struct file *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return -ENOMEM;
	r = yaml_read(name, text, size, keys, ARRAY_SIZE(keys), f, finish, to);
	if (r < 0)
		config_free(&f->c);
	else
		*ret = &f->c;
	return r;
}

int config_load(const char *path, struct config **ret, FILE *to)
{
	return load(path, NULL, 0, ret, to);
}

int config_parse(const char *name, const char *text, size_t size, struct config **ret, FILE *to)
{
	return load(name, size ? text : "", size, ret, to);
}

struct config *config_free(struct config *c)
{
	struct file *f;

	if (!c)
		return NULL;
	f = container_of(c, struct file, c);
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

bool config_wants_interface(const struct config *c, const char *name, bool loopback)
{
	bool exact = false;
	bool ports = has_ports(c, name, &exact);

	if (!selected(c, name, &exact))
		return false;
	if (loopback && !exact && !c->capture_loopback)
		return false;
	return c->pcap_mode != PCAP_MODE_ALLOW || c->capture_ports.count > 0 || ports;
}
