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
	int precision, format, ack;
};

enum { PRECISION_NANO, PRECISION_MICRO };
static const char *const precisions[] = {
	[PRECISION_NANO] = "nano",
	[PRECISION_MICRO] = "micro",
	NULL,
};
static const char *const formats[] = {"pcap", "!pcapng", NULL};
static const char *const acks[] = {"written", "!durable", NULL};

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
	{"tls.serverName", YAML_STRING, AT(server_name), .max = 253,
	 .help = "for agents; taken so that both can share a `tls` block"},
	{"auth.enable", YAML_BOOL, AT(c.auth_enable), .fallback = "false",
	 .help = "TLS by the shared key"},
	{"auth.key", YAML_STRING, AT(c.auth_key), .min = CREDENTIALS_KEY_MIN,
	 .max = CREDENTIALS_KEY_MAX, .help = "the shared key"},

	{"logFilename", YAML_STRING, AT(c.log_filename), .max = PATH_MAX - 1,
	 .help = "file of the log"},
	{"format", YAML_ENUM, AT(format), .names = formats, .fallback = "pcap",
	 .help = "of the output"},
	{"timestampPrecision", YAML_ENUM, AT(precision), .names = precisions, .fallback = "nano",
	 .help = "of the time stamps in output.file"},
	{"ack", YAML_ENUM, AT(ack), .names = acks, .fallback = "written",
	 .help = "when an agent may forget a frame"},
	{"maxSessions", YAML_UINT, AT(c.max_sessions), .min = 1, .max = 65536, .fallback = "4096",
	 .help = "agents at the same time"},
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
		.psk = c->auth_key,
	};

	for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
		if (!yaml_was_set(errors, needed[i]))
			yaml_error(errors, needed[i], "is missing");
	}
	credentials_check(&tls, c->auth_enable, errors);
	if (yaml_errors_count(errors))
		return -EINVAL;

	c->micro = f->precision == PRECISION_MICRO;
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
		.psk = c->auth_enable ? c->auth_key : NULL,
	};
}
