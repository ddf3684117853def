/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ps-collector(8): options, signals, exit status. The main thread only waits for
 * signals; the workers do the rest.
 */
#include <errno.h>
#include <getopt.h>
#include <gnutls/gnutls.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>

#include "collector.h"
#include "gzip.h"
#include "log.h"
#include "notify.h"
#include "pki.h"
#include "util.h"

enum { EXIT_USAGE = 2 };

#define CREDENTIALS_INTERVAL (5 * NSEC_PER_SEC) /* to look whether their files have changed */

static const char usage[] =
	"usage: ps-collector --config FILE [--check]\n"
	"       ps-collector --init-pki DIR [NAME...]\n"
	"       ps-collector --issue-agent DIR NAME\n"
	"       ps-collector --version | --help\n"
	"\n"
	"Receives captured packets from ps-agents and writes them as pcap.\n"
	"\n"
	"  -c, --config FILE    the configuration, see ps-collector.yaml(5)\n"
	"      --check          try configuration, keys, address and output, then exit\n"
	"      --init-pki DIR   make a CA, and certificates for collector and agents, in DIR;\n"
	"                       NAMEs (hosts, addresses) go into the collector's certificate\n"
	"      --issue-agent DIR  make a certificate for the one agent called NAME, signed by\n"
	"                       the CA in DIR: agent-NAME.crt, agent-NAME.key\n"
	"      --version        versions of the program and its libraries\n"
	"      --help           this text\n";

struct options {
	const char *config, *pki_dir, *issue_dir;
	bool check;
};

enum { OPTION_CHECK = 256, OPTION_INIT_PKI, OPTION_ISSUE_AGENT, OPTION_VERSION, OPTION_HELP };

static void print_version(void)
{
	printf("ps-collector %s\ngnutls %s\ngzip by %s\n", PS_VERSION, gnutls_check_version(NULL),
	       gzip_library());
}

/* An exit status when there is nothing left to do, or -1. */
static int parse_options(int argc, char **argv, struct options *o)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},
		{"check", no_argument, NULL, OPTION_CHECK},
		{"init-pki", required_argument, NULL, OPTION_INIT_PKI},
		{"issue-agent", required_argument, NULL, OPTION_ISSUE_AGENT},
		{"version", no_argument, NULL, OPTION_VERSION},
		{"help", no_argument, NULL, OPTION_HELP},
		{},
	};
	int c;

	while ((c = getopt_long(argc, argv, "c:", options, NULL)) >= 0) {
		switch (c) {
		case 'c':
			o->config = optarg;
			break;
		case OPTION_CHECK:
			o->check = true;
			break;
		case OPTION_INIT_PKI:
			o->pki_dir = optarg;
			break;
		case OPTION_ISSUE_AGENT:
			o->issue_dir = optarg;
			break;
		case OPTION_VERSION:
			print_version();
			return EXIT_SUCCESS;
		case OPTION_HELP:
			fputs(usage, stdout);
			return EXIT_SUCCESS;
		default:
			fputs(usage, stderr);
			return EXIT_USAGE;
		}
	}
	if (!!o->config + !!o->pki_dir + !!o->issue_dir != 1 || (o->check && !o->config) ||
	    (o->config && optind < argc) || (o->issue_dir && optind + 1 != argc)) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	return -1;
}

static int init_pki(const char *dir, char *const names[], int n_names)
{
	struct err err;

	if (pki_init(dir, names, (size_t)n_names, &err) == 0)
		return EXIT_SUCCESS;
	fprintf(stderr, "ps-collector: %s\n", err.text);
	return EXIT_FAILURE;
}

static int issue_agent(const char *dir, const char *name)
{
	struct err err;

	if (pki_issue_agent(dir, name, &err) == 0)
		return EXIT_SUCCESS;
	fprintf(stderr, "ps-collector: %s\n", err.text);
	return EXIT_FAILURE;
}

static int check(const char *path)
{
	struct config *config = NULL;
	int r = config_load(path, &config, stderr);

	printf("%-8s %-6s %s\n", "config", r < 0 ? "FAILED" : "ok", path);
	if (r == 0)
		r = collector_check(config, stdout);
	config_free(config);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* Blocked in all threads; read from the descriptor that this returns. */
static int catch_signals(struct err *err)
{
	sigset_t set;
	int fd;

	/* A reader that is gone and a size limit show up as errors of write(2). */
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC);
	return fd < 0 ? err_sys(err, -errno, "cannot watch for signals") : fd;
}

static void tell_manager(const char *state)
{
	struct err err;

	if (notify(state, &err) < 0)
		log_warn("%s, ignoring", err.text);
}

/* One of those that the main thread reads. True when it is time to go. */
static bool take_signal(struct collector *c, int signal_fd)
{
	struct signalfd_siginfo info;

	if (read(signal_fd, &info, sizeof(info)) != sizeof(info))
		return false;
	switch (info.ssi_signo) {
	case SIGUSR1:
		collector_report(c);
		return false;
	case SIGHUP:
		collector_reload(c, true);
		return false;
	default:
		log_info("stopping on %s", info.ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT");
		return true;
	}
}

/* Until it is time to go: an exit status. */
static int wait_for_signals(struct collector *c, int signal_fd)
{
	struct pollfd fds[] = {
		{.fd = signal_fd, .events = POLLIN},
		{.fd = collector_failed_fd(c), .events = POLLIN},
	};
	nsec_t look_at = clock_monotonic() + CREDENTIALS_INTERVAL;

	for (;;) {
		nsec_t now = clock_monotonic();

		if (now >= look_at) {
			collector_reload(c, false);
			look_at = now + CREDENTIALS_INTERVAL;
		}
		if (poll(fds, ARRAY_SIZE(fds), (int)((look_at - now) / NSEC_PER_MSEC) + 1) < 0 &&
		    errno != EINTR) {
			log_error("cannot wait for signals, ending");
			return EXIT_FAILURE;
		}
		if (fds[1].revents)
			return EXIT_FAILURE;
		if (fds[0].revents && take_signal(c, signal_fd))
			return EXIT_SUCCESS;
	}
}

static int serve(const struct config *config)
{
	_cleanup_close_ int signal_fd = -1;
	struct collector *c;
	struct err err;
	int status;

	if (log_open(config->log_filename, &err) < 0) {
		fprintf(stderr, "ps-collector: %s\n", err.text);
		return EXIT_FAILURE;
	}
	signal_fd = catch_signals(&err);
	if (signal_fd < 0 || collector_new(config, &c, &err) < 0) {
		log_error("%s", err.text);
		return EXIT_FAILURE;
	}
	if (!config->tls_enable)
		log_warn("tls.enable is false: anybody who can connect can send, and all can read");
	log_info("ready, listening on %s, writing to \"%s\"", collector_address(c),
		 config->file_path);
	tell_manager("READY=1");
	status = wait_for_signals(c, signal_fd);
	tell_manager("STOPPING=1");
	if (collector_free(c) < 0)
		status = EXIT_FAILURE;
	return status;
}

int main(int argc, char **argv)
{
	struct options o = {};
	struct config *config = NULL;
	int status = parse_options(argc, argv, &o);

	if (status >= 0)
		return status;
	if (o.pki_dir)
		return init_pki(o.pki_dir, argv + optind, argc - optind);
	if (o.issue_dir)
		return issue_agent(o.issue_dir, argv[optind]);
	if (o.check)
		return check(o.config);
	if (config_load(o.config, &config, stderr) < 0)
		return EXIT_USAGE;
	status = serve(config);
	config_free(config);
	return status;
}
