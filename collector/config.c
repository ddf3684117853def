// SPDX-License-Identifier: Apache-2.0
/*
 * ps-collector.yaml(5): the table of keys, then the rules that span keys.
 * config_load() makes an immutable struct config, which lives until config_free();
 * after that any thread may read it.
 *
 * Every key that users of PacketStreamer may have in their file, and every key of the
 * design, is in the table: what this version cannot do is refused by name, never
 * passed over.
 */
#include "config.h"

#include <errno.h>
#include <limits.h>

#include "credentials.h"
#include "util.h"

/* What the file says; a struct config and what only the rules here need. */
struct file {
	struct config c;
	char *server_name;
	int precision, format, names;
};

enum { PRECISION_NANO, PRECISION_MICRO };
static const char *const precisions[] = {
	[PRECISION_NANO] = "nano",
	[PRECISION_MICRO] = "micro",
	NULL,
};
static const char *const formats[] = {"pcap", "!pcapng", NULL};
static const char *const acks[] = {
	[ACK_DURABLE] = "durable",
	[ACK_WRITTEN] = "written",
	NULL,
};
enum { NAMES_IDENTITY, NAMES_ANY };
static const char *const names[] = {
	[NAMES_IDENTITY] = "identity",
	[NAMES_ANY] = "any",
	NULL,
};

#define IDENTITY_MAX 255 /* bytes of the longest one that a certificate can carry */

#define AT(member) offsetof(struct file, member)

static const struct yaml_key keys[] = {
	{"input.address", YAML_STRING, AT(c.listen_address), .max = 253,
	 .help = "address to listen on"},
	{"input.port", YAML_UINT, AT(c.listen_port), .min = 1, .max = 65535,
	 .help = "port to listen on"},
	{"output.file.path", YAML_STRING, AT(c.file_path), .max = PATH_MAX - 1,
	 .help = "pcap file, or stdout"},
	{"output.plugins.s3", YAML_UNSUPPORTED, .help = "upload to S3"},
	{"output.plugins.kafka", YAML_UNSUPPORTED, .help = "Kafka producer"},

	{"tls.enable", YAML_BOOL, AT(c.tls_enable), .fallback = "true",
	 .help = "false: plain text"},
	{"tls.certfile", YAML_STRING, AT(c.tls_certfile), .max = PATH_MAX - 1,
	 .help = "certificate of this collector"},
	{"tls.keyfile", YAML_STRING, AT(c.tls_keyfile), .max = PATH_MAX - 1,
	 .help = "key of tls.certfile"},
	{"tls.cafile", YAML_STRING, AT(c.tls_cafile), .max = PATH_MAX - 1,
	 .help = "who may sign the agents' certificates"},
	{"tls.crlfile", YAML_STRING, AT(c.tls_crlfile), .max = PATH_MAX - 1,
	 .help = "which of the agents' certificates were revoked"},
	{"tls.serverName", YAML_STRING, AT(server_name), .max = 253,
	 .help = "for agents; taken so that both can share a `tls` block"},
	{"auth.enable", YAML_BOOL, AT(c.auth_enable), .fallback = "false",
	 .help = "TLS by the shared key"},
	{"auth.key", YAML_STRING, AT(c.auth_key), .min = CREDENTIALS_KEY_MIN,
	 .max = CREDENTIALS_KEY_MAX, .help = "the shared key"},

	{"agents.allow", YAML_STRINGS, AT(c.allow), .max = IDENTITY_MAX,
	 .help = "patterns of the identities that may connect"},
	{"agents.names", YAML_ENUM, AT(names), .names = names, .fallback = "identity",
	 .help = "any: an agent may use a name that is not in its certificate"},

	{"logFilename", YAML_STRING, AT(c.log_filename), .max = PATH_MAX - 1,
	 .help = "file of the log"},
	{"sandbox", YAML_BOOL, AT(c.sandbox), .fallback = "true",
	 .help = "rights and system calls that are not needed are given up"},
	{"format", YAML_ENUM, AT(format), .names = formats, .fallback = "pcap",
	 .help = "of the output"},
	{"timestampPrecision", YAML_ENUM, AT(precision), .names = precisions, .fallback = "nano",
	 .help = "of the time stamps in output.file"},
	{"ack", YAML_ENUM, AT(c.ack), .names = acks, .fallback = "durable",
	 .help = "when an agent may forget a frame"},
	{"commitIntervalMs", YAML_DURATION, AT(c.commit_wait), .min = NSEC_PER_MSEC,
	 .max = 10 * NSEC_PER_SEC, .unit = NSEC_PER_MSEC, .fallback = "50",
	 .help = "how long frames wait for each other before they are made durable"},
	{"heartbeat", YAML_DURATION, AT(c.heartbeat), .min = 100 * NSEC_PER_MSEC,
	 .max = 600 * NSEC_PER_SEC, .unit = NSEC_PER_SEC, .fallback = "10s",
	 .help = "how often a silent connection is tried"},
	{"memoryBudget", YAML_SIZE, AT(c.memory_bytes), .min = 16u << 20, .max = 1ull << 40,
	 .fallback = "1280MB", .help = "memory of all sessions together"},
	{"maxSessions", YAML_UINT, AT(c.max_sessions), .min = 1, .max = CONFIG_SESSIONS_MAX,
	 .fallback = "4096", .help = "agents at the same time"},
	{"creditBytes", YAML_SIZE, AT(c.credit_bytes), .min = 2u << 20, .max = 1u << 30,
	 .fallback = "4MB", .help = "bytes under way from one agent"},
	{"metrics", YAML_UNSUPPORTED, .help = "HTTP listener for metrics"},

	{"output.server", YAML_FOREIGN, .help = "ps-agent"},
	{"output.servers", YAML_FOREIGN, .help = "ps-agent"},
	{"agentName", YAML_FOREIGN, .help = "ps-agent"},
	{"shutdownTimeout", YAML_FOREIGN, .help = "ps-agent"},
	{"compressBlockSize", YAML_FOREIGN, .help = "ps-agent"},
	{"inputPacketLen", YAML_FOREIGN, .help = "ps-agent"},
	{"gatherMaxWaitSec", YAML_FOREIGN, .help = "ps-agent"},
	{"gatherMaxWaitMs", YAML_FOREIGN, .help = "ps-agent"},
	{"ringSize", YAML_FOREIGN, .help = "ps-agent"},
	{"queueSize", YAML_FOREIGN, .help = "ps-agent"},
	{"spool", YAML_FOREIGN, .help = "ps-agent"},
	{"backend", YAML_FOREIGN, .help = "ps-agent"},
	{"interfaces", YAML_FOREIGN, .help = "ps-agent"},
	{"captureLoopback", YAML_FOREIGN, .help = "ps-agent"},
	{"pcapMode", YAML_FOREIGN, .help = "ps-agent"},
	{"capturePorts", YAML_FOREIGN, .help = "ps-agent"},
	{"captureInterfacesPorts", YAML_FOREIGN, .help = "ps-agent"},
	{"ignorePorts", YAML_FOREIGN, .help = "ps-agent"},
	{"filter", YAML_FOREIGN, .help = "ps-agent"},
	{"taps", YAML_FOREIGN, .help = "ps-agent"},
};

/* Identities come with certificates: without them all agents are the same one. */
static void check_agents(const struct file *f, struct yaml_errors *errors)
{
	static const char *const paths[] = {"agents.allow", "agents.names"};
	const char *why = NULL;

	if (!f->c.tls_enable)
		why = "needs certificates to know agents by, and tls.enable is false";
	else if (f->c.auth_enable)
		why = "needs certificates to know agents by; with auth.enable all have one key";
	if (why) {
		if (yaml_was_set(errors, paths[0]))
			yaml_error(errors, paths[0], "%s", why);
		if (f->names == NAMES_IDENTITY && yaml_was_set(errors, paths[1]))
			yaml_error(errors, paths[1], "%s", why);
		return;
	}
	/* Is that nobody, or everybody? Better not to guess. */
	if (yaml_was_set(errors, paths[0]) && !f->c.allow.n)
		yaml_error(errors, paths[0],
			   "is empty and would keep all agents out; leave it out to let all in "
			   "that tls.cafile vouches for");
}

static int finish(void *into, struct yaml_errors *errors)
{
	struct file *f = into;
	static const char *const needed[] = {"input.address", "input.port", "output.file.path"};
	struct config *c = &f->c;
	struct tls_config tls = {
		.enable = c->tls_enable,
		.certfile = c->tls_certfile,
		.keyfile = c->tls_keyfile,
		.cafile = c->tls_cafile,
		.crlfile = c->tls_crlfile,
		.psk = c->auth_key,
	};

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		if (!yaml_was_set(errors, needed[i]))
			yaml_error(errors, needed[i], "is missing");
	}
	credentials_check(&tls, c->auth_enable, errors);
	check_agents(f, errors);
	if (c->ack == ACK_DURABLE && yaml_was_set(errors, "ack") && c->file_path &&
	    (!strcmp(c->file_path, "stdout") || !strcmp(c->file_path, "-")))
		yaml_error(errors, "ack",
			   "nothing that goes to stdout can be made durable: leave this out, or "
			   "write to a file");
	if (yaml_errors_count(errors))
		return -EINVAL;

	c->micro = f->precision == PRECISION_MICRO;
	c->any_name = f->names == NAMES_ANY;
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
