/* SPDX-License-Identifier: Apache-2.0 */
#include <bpf/libbpf.h>
#include <getopt.h>
#include <gnutls/gnutls.h>
#include <stdio.h>

#include "agent.h"
#include "check.h"
#include "filters.h"
#include "gzip.h"
#include "log.h"
#include "sets.h"
#include "util.h"

enum { EXIT_OK, EXIT_RUNTIME, EXIT_USAGE };

static const char usage[] =
	"usage: ps-agent --config FILE [--check [--json]]\n"
	"\n"
	"Captures packets in the kernel and streams them to ps-collector.\n"
	"\n"
	"  -c, --config FILE  the configuration, see ps-agent.yaml(5)\n"
	"  --check            read the configuration, try what a run needs, attach nothing\n"
	"  --debug            log more\n"
	"  --version          print the versions of the program and of its libraries\n"
	"  --help             print this\n";

int main(int argc, char **argv)
{
	enum { OPT_CHECK = 256, OPT_JSON, OPT_DEBUG, OPT_VERSION, OPT_HELP };
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},
		{"check", no_argument, NULL, OPT_CHECK},
		{"json", no_argument, NULL, OPT_JSON},
		{"debug", no_argument, NULL, OPT_DEBUG},
		{"version", no_argument, NULL, OPT_VERSION},
		{"help", no_argument, NULL, OPT_HELP},
		{},
	};
	const char *path = NULL;
	struct config *config;
	struct sets *sets = NULL;
	bool check = false, json = false;
	struct err err = {};
	int opt, r;

	while ((opt = getopt_long(argc, argv, "c:", options, NULL)) != -1) {
		switch (opt) {
		case 'c':
			path = optarg;
			break;
		case OPT_CHECK:
			check = true;
			break;
		case OPT_JSON:
			json = true;
			break;
		case OPT_DEBUG:
			log_set_level(LOG_LEVEL_DEBUG);
			break;
		case OPT_VERSION:
			printf("ps-agent %s (libbpf %s, GnuTLS %s, %s)\n", PS_VERSION,
			       libbpf_version_string(), gnutls_check_version(NULL), gzip_library());
			return EXIT_OK;
		case OPT_HELP:
			fputs(usage, stdout);
			return EXIT_OK;
		default:
			fputs(usage, stderr);
			return EXIT_USAGE;
		}
	}
	if (!path || optind != argc || (json && !check)) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	if (check)
		return agent_check(path, json) ? EXIT_OK : EXIT_RUNTIME;
	r = config_load(path, filters_check, &sets, &config, stderr);
	sets_free(sets);
	if (r < 0)
		return EXIT_USAGE;
	r = log_open(config->log_filename, &err);
	if (r == 0)
		r = agent_run(config, &err);
	if (r < 0)
		log_error("%s", err.text);
	config_free(config);
	return r < 0 ? EXIT_RUNTIME : EXIT_OK;
}
