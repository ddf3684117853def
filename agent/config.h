/* SPDX-License-Identifier: Apache-2.0 */
/* ps-agent.yaml(5), read and checked. */
#ifndef PS_AGENT_CONFIG_H
#define PS_AGENT_CONFIG_H

#include "clock.h"
#include "selection.h"
#include "tls.h"
#include "yaml.h"

enum pcap_mode { PCAP_MODE_ALL, PCAP_MODE_ALLOW, PCAP_MODE_DENY };
enum spool_mode { SPOOL_OVERFLOW, SPOOL_ALWAYS, SPOOL_OFF };
enum tap_unmatched { TAP_PASS, TAP_DROP };
enum backend { BACKEND_AUTO, BACKEND_TC, BACKEND_XDP, BACKEND_PCAP };

struct config {
	char *path; /* of the file; NULL when there is none */
	/* output.server or output.servers; none when capture goes only to a file */
	struct yaml_servers servers;
	char *file_path; /* output.file.path, or NULL */
	bool micro;      /* timestampPrecision: micro, for the file */

	bool tls_enable; /* default true */
	char *tls_certfile, *tls_keyfile, *tls_cafile;
	char *tls_crlfile;
	char *tls_server_name; /* NULL: the host that it connects to */
	bool auth_enable;
	char *auth_key;

	char *agent_name;       /* agentName; default: the host's name */
	uint64_t block_bytes;   /* compressBlockSize, in bytes here; up to 1 MiB */
	uint64_t snaplen;       /* inputPacketLen */
	nsec_t gather_max_wait; /* gatherMaxWaitSec when set, else gatherMaxWaitMs */
	uint64_t ring_bytes;    /* ringSize: all rings together; default 32 MiB */
	uint64_t queue_bytes;   /* queueSize: frames that wait for the collector; 64 MiB */
	/* spool: off without a path */
	int spool_mode; /* enum spool_mode */
	char *spool_path;
	uint64_t spool_max_bytes;     /* spool.maxBytes: default 1 GiB */
	nsec_t spool_max_age;         /* spool.maxAge: 0 any */
	uint64_t spool_min_free;      /* spool.minFree: default 512 MiB */
	uint64_t spool_segment_bytes; /* spool.segmentBytes: default 32 MiB, at most a quarter
					 of maxBytes */
	nsec_t shutdown_timeout;
	char *log_filename;
	bool sandbox; /* default true */

	int backend;   /* enum backend */
	int xdp_mode;  /* enum xdp_mode */
	int pcap_mode; /* enum pcap_mode */
	struct yaml_ports capture_ports, ignore_ports;
	struct yaml_ports_map interface_ports; /* captureInterfacesPorts */
	/* interfaces: glob patterns, "!pattern" leaves out; none: every interface that is up */
	struct yaml_strings interfaces;
	bool capture_loopback;
	struct yaml_strings taps; /* exact names; captured whatever `interfaces` says */
	int tap_unmatched;        /* enum tap_unmatched */
	struct selection selection;
	struct yaml_blocks per_interface; /* values: struct selection, by pattern */
	struct yaml_blocks sets;          /* values: struct config_set, for expressions */
	uint64_t max_set_entries;         /* of one set and family */
	nsec_t dedup_window;              /* 0: duplicates are kept */
	uint64_t cpu_budget;              /* percent of one CPU; 0: any */
	uint64_t bandwidth_budget;        /* bits per second to the collector; 0: any */
	struct yaml_strings netns;        /* see netns_list.h */
	int point;                        /* capturePoint: enum point */
};

/* A named set of addresses; one of the two is given. */
struct config_set {
	char *file;
	struct yaml_strings addresses;
};

/* Judges an expression: 0, or a negative errno and a sentence. */
typedef int config_filter_fn(void *ctx, const struct config *c, const char *text, struct err *err);

/*
 * Read and check @path, its expressions with @check and its @ctx. On failure every error is a line
 * on @to and the result is -EINVAL (the configuration) or another -errno (the file).
 */
int config_load(const char *path, config_filter_fn *check, void *ctx, struct config **ret,
		FILE *to);
/* The same from memory: for tests and the fuzzer; @name stands for the file. */
int config_parse(const char *name, const char *text, size_t size, struct config **ret, FILE *to);
struct config *config_free(struct config *c);

/*
 * Call @fn with each key whose value differs and takes a restart: all but what a struct
 * selection, perInterface, sets and maxSetEntries say, and the budgets.
 */
void config_changes(const struct config *was, const struct config *is,
		    void (*fn)(void *ctx, const char *key), void *ctx);

/* Of a frame: what compressBlockSize says, but no more than 250 ms of bandwidthBudget. */
uint64_t config_block_bytes(const struct config *c);

/* The credentials part, for tls_context_new(). Points into @c. */
struct tls_config config_tls(const struct config *c);

bool config_is_tap(const struct config *c, const char *name);

/*
 * Is the interface to be captured at all: a tap or selected by `interfaces`, not a loopback
 * unless named or asked for, and, in mode allow, with any chance of a match?
 */
bool config_wants_interface(const struct config *c, const char *name, bool loopback);

#endif
