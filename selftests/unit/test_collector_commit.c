/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Group commit with a real output, journal and registry. Writers put numbered packets into the
 * output as sessions do; what was acknowledged must be there after whatever happens, once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* clang-format off */
#include <cmocka.h>
/* clang-format on */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "commit.h"
#include "packet.h"
#include "recover.h"
#include "stream.h"
#include "util.h"

#define WRITERS     3u
#define CAPLEN      60u
#define FILE_HEADER 24u
#define RECORD      (16u + CAPLEN)
#define NUMBERS_MAX 200000u
#define PATIENCE    (20 * NSEC_PER_SEC)

static char dir[64], path[96];
/* Shared with a child: what each writer was told to be safe. */
static _Atomic uint64_t *acked;
static atomic_int fatal_calls;

static void ignore_line(void *ctx, enum log_level level, const char *line)
{
	(void)ctx;
	(void)level;
	(void)line;
}

static void nobody_to_wake(void *ctx)
{
	(void)ctx;
}

static void note_fatal(void *ctx, const struct err *err)
{
	(void)ctx;
	(void)err;
	fatal_calls++;
}

static int setup(void **state)
{
	struct err err;
	char log[96];

	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/ps-commit-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%.60s/dump.pcap", dir);
	snprintf(log, sizeof(log), "%.60s/log", dir);
	fatal_calls = 0;
	acked = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	return acked == MAP_FAILED ? -1 : log_open(log, &err);
}

static int teardown(void **state)
{
	struct dirent *e;
	DIR *d = opendir(dir);
	char name[400];

	(void)state;
	munmap((void *)(uintptr_t)acked, 4096);
	while (d && (e = readdir(d))) {
		snprintf(name, sizeof(name), "%.60s/%.255s", dir, e->d_name);
		unlink(name);
	}
	closedir(d);
	return rmdir(dir);
}

/* A collector without the network. */
struct world {
	struct registry *registry;
	struct output *output;
	struct commit *commit;
};

static int try_open_world(struct world *w, bool durable, nsec_t wait, struct err *err)
{
	const struct registry_limits limits = {.feeds = 8, .resting_ifaces = 1000, .ifaces = 1000};
	const struct commit_config config = {
		.path = path,
		.durable = durable,
		.wait = wait,
		.wake = nobody_to_wake,
		.fatal = note_fatal,
	};
	int r;

	*w = (struct world){.registry = registry_new(&limits, NULL, ignore_line, NULL)};
	r = commit_open(&config, w->registry, &w->output, &w->commit, err);
	return r < 0 ? r : commit_start(w->commit, err);
}

static void open_world(struct world *w, bool durable, nsec_t wait)
{
	struct err err = {};

	if (try_open_world(w, durable, wait, &err) < 0)
		fail_msg("%s", err.text);
}

static void release_world(struct world *w)
{
	commit_free(w->commit);
	registry_free(w->registry);
	output_free(w->output);
}

static void close_world(struct world *w)
{
	struct err err = {};

	if (commit_stop(w->commit, &err) < 0)
		fail_msg("%s", err.text);
	release_world(w);
}

/* The stream of one agent. */
struct writer {
	struct world *world;
	unsigned int number;
	struct registry_owner owner;
	struct feed *feed;
	uint64_t next;
	uint32_t link_type;
	uint64_t until;
};

static uint64_t connect_writer(struct writer *w, uint64_t first_unacked, uint64_t next)
{
	struct stream_iface iface = {
		.id = 1, .link_type = w->link_type, .snaplen = 1000, .name = "eth0"};
	struct stream_hello m = {
		.agent_id = {(uint8_t)w->number},
		.epoch = 1,
		.first_unacked = first_unacked,
		.next_seq = next,
		.ifaces = &iface,
		.n_ifaces = 1,
	};
	struct err err = {};
	uint64_t resume = 0;

	snprintf(m.agent_name, sizeof(m.agent_name), "agent%u", w->number);
	commit_enter(w->world->commit);
	if (registry_attach(w->world->registry, m.agent_name, &m, &w->owner, &w->feed, &resume,
			    &err) < 0)
		fail_msg("%s", err.text);
	commit_leave(w->world->commit, w->feed, 0);
	w->next = resume;
	return resume;
}

static void disconnect_writer(struct writer *w, enum feed_state state)
{
	commit_enter(w->world->commit);
	commit_touch(w->world->commit, w->feed);
	registry_detach(w->world->registry, w->feed, &w->owner, state, 0);
	commit_leave(w->world->commit, NULL, 0);
	w->feed = NULL;
}

/* One message: a packet with the writer's number and its own. 0, or -errno of the output. */
static int write_message(struct writer *w)
{
	uint8_t data[CAPLEN] = {}, run[CAPLEN + 64];
	const struct packet p = {
		.interface_id = 1,
		.time = w->next,
		.caplen = CAPLEN,
		.len = CAPLEN,
		.direction = 1,
		.data = data,
	};
	struct commit *c = w->world->commit;
	struct err err;
	size_t n, written = 0;
	int r;

	put_le64(data, w->next);
	data[8] = (uint8_t)w->number;
	n = packet_write(run, &p);
	commit_enter(c);
	if (!registry_begin(w->feed, &w->owner)) {
		commit_leave(c, NULL, 0);
		return -ESTALE;
	}
	r = 0;
	/* A number that is here already, and comes again. */
	if (w->feed->next_seq == w->next) {
		r = commit_file(c, w->link_type, &err);
		if (r == 0)
			r = output_write(w->world->output, w->link_type, run, n, &err);
		if (r == 0) {
			written = n;
			feed_tally(w->feed, feed_find(w->feed, 1), &p);
			feed_settle(w->feed, FEED_WRITTEN, n);
			feed_advance(w->feed, w->next + 1);
		}
	}
	registry_end(w->feed);
	commit_leave(c, w->feed, written);
	if (r == 0)
		w->next++;
	return r;
}

static void wait_committed(struct world *w)
{
	uint64_t number = commit_hurry(w->commit);
	nsec_t deadline = clock_monotonic() + PATIENCE;

	while (!commit_is_done(w->commit, number)) {
		assert_true(clock_monotonic() < deadline);
		poll(NULL, 0, 1);
	}
}

/* How often each number of each writer is in the files. */
static uint8_t seen[WRITERS][NUMBERS_MAX];

static void count_file(const char *name)
{
	uint8_t record[RECORD];
	FILE *f = fopen(name, "re");

	assert_non_null(f);
	assert_int_equal(fseek(f, FILE_HEADER, SEEK_SET), 0);
	while (fread(record, sizeof(record), 1, f) == 1) {
		uint64_t number = get_le64(record + 16);
		unsigned int writer = record[24];

		assert_true(writer < WRITERS && number < NUMBERS_MAX);
		assert_int_equal(get_le32(record + 8), CAPLEN);
		seen[writer][number]++;
	}
	fclose(f);
}

/* In all files of the output. */
static void count_all(void)
{
	struct dirent *e;
	DIR *d = opendir(dir);
	char name[400];

	memset(seen, 0, sizeof(seen));
	assert_non_null(d);
	while ((e = readdir(d))) {
		size_t len = strlen(e->d_name);

		if (len < 5 || strcmp(e->d_name + len - 5, ".pcap") != 0)
			continue;
		snprintf(name, sizeof(name), "%.60s/%.255s", dir, e->d_name);
		count_file(name);
	}
	closedir(d);
}

/* 1 to @last are there, once; nothing else is. */
static void assert_exactly_once(unsigned int writer, uint64_t last)
{
	for (uint64_t i = 1; i < NUMBERS_MAX; i++)
		if (seen[writer][i] != (i <= last))
			fail_msg("writer %u: number %llu of %llu is there %u times", writer,
				 (unsigned long long)i, (unsigned long long)last, seen[writer][i]);
}

static off_t size_of(const char *suffix)
{
	struct stat st;
	char name[128];

	snprintf(name, sizeof(name), "%.90s%s", path, suffix);
	assert_int_equal(stat(name, &st), 0);
	return st.st_size;
}

static void journal_goes_on_after_a_stop(void **state)
{
	struct world world;
	struct writer w = {.world = &world, .link_type = LINK_ETHERNET};

	(void)state;
	for (int i = 0; i < 3; i++) {
		open_world(&world, true, NSEC_PER_MSEC);
		assert_int_equal(connect_writer(&w, 1, NUMBERS_MAX), (uint64_t)i * 100 + 1);
		for (int k = 0; k < 100; k++)
			assert_int_equal(write_message(&w), 0);
		disconnect_writer(&w, FEED_CONNECTED);
		close_world(&world);
	}
	count_all();
	assert_exactly_once(0, 300);
	assert_int_equal(size_of(""), FILE_HEADER + 300 * RECORD);
}

static void committed_number_rises_with_the_commit(void **state)
{
	struct world world;
	struct writer w = {.world = &world, .link_type = LINK_ETHERNET};

	(void)state;
	open_world(&world, true, 3600 * NSEC_PER_SEC);
	assert_int_equal(commit_ack_mode(world.commit), STREAM_ACK_DURABLE);
	connect_writer(&w, 1, NUMBERS_MAX);
	assert_int_equal(write_message(&w), 0);
	assert_int_equal(w.feed->committed_seq, 0);
	wait_committed(&world);
	assert_int_equal(w.feed->committed_seq, 1);
	assert_int_equal(w.feed->commits, 0);
	assert_int_equal(commit_hurry(world.commit), commit_hurry(world.commit));
	disconnect_writer(&w, FEED_LOST);
	close_world(&world);
}

static void large_group_is_committed_before_its_time(void **state)
{
	struct world world;
	struct writer w = {.world = &world, .link_type = LINK_ETHERNET};
	nsec_t deadline = clock_monotonic() + PATIENCE;

	(void)state;
	open_world(&world, false, 3600 * NSEC_PER_SEC);
	connect_writer(&w, 1, NUMBERS_MAX);
	for (int i = 0; i < 60000; i++)
		assert_int_equal(write_message(&w), 0);
	while (!atomic_load(&w.feed->committed_seq)) {
		assert_true(clock_monotonic() < deadline);
		poll(NULL, 0, 1);
	}
	disconnect_writer(&w, FEED_LOST);
	close_world(&world);
}

static void packets_wait_until_the_journal_names_their_file(void **state)
{
	struct world world;
	struct writer w = {.world = &world, .link_type = LINK_RAW};

	(void)state;
	open_world(&world, true, 3600 * NSEC_PER_SEC);
	connect_writer(&w, 1, NUMBERS_MAX);
	assert_int_equal(write_message(&w), -EAGAIN);
	assert_int_equal(write_message(&w), -EAGAIN);
	wait_committed(&world);
	assert_int_equal(write_message(&w), 0);
	disconnect_writer(&w, FEED_LOST);
	close_world(&world);
}

static void stdout_like_output_has_no_journal(void **state)
{
	struct world world;
	struct writer w = {.world = &world, .link_type = LINK_ETHERNET};
	char fifo[96];
	int fd;

	(void)state;
	snprintf(fifo, sizeof(fifo), "%.60s/fifo", dir);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	fd = open(fifo, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	memcpy(path, fifo, sizeof(fifo));
	open_world(&world, true, 3600 * NSEC_PER_SEC);
	assert_int_equal(commit_ack_mode(world.commit), STREAM_ACK_WRITTEN);
	connect_writer(&w, 1, NUMBERS_MAX);
	assert_int_equal(write_message(&w), 0);
	assert_int_equal(w.feed->committed_seq, 1);
	assert_true(commit_is_done(world.commit, commit_hurry(world.commit)));
	disconnect_writer(&w, FEED_LOST);
	close_world(&world);
	close(fd);
}

static void full_disk_is_waited_for(void **state)
{
	struct rlimit before, small;
	struct world world;
	struct writer w = {.world = &world, .link_type = LINK_ETHERNET};
	struct err err;
	uint64_t last;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	open_world(&world, true, NSEC_PER_MSEC);
	connect_writer(&w, 1, NUMBERS_MAX);
	wait_committed(&world);
	assert_int_equal(write_message(&w), 0);
	wait_committed(&world);
	assert_int_equal(w.feed->committed_seq, 1);
	getrlimit(RLIMIT_FSIZE, &before);
	while (size_of(".journal") < 3000) {
		assert_int_equal(write_message(&w), 0);
		wait_committed(&world);
	}
	last = w.feed->committed_seq;
	small = (struct rlimit){(rlim_t)size_of(".journal"), before.rlim_max};
	assert_true(small.rlim_cur > (rlim_t)size_of("") + 10 * RECORD);
	setrlimit(RLIMIT_FSIZE, &small);
	for (int i = 0; i < 5; i++)
		assert_int_equal(write_message(&w), 0);
	poll(NULL, 0, 700);
	assert_int_equal(w.feed->committed_seq, last);
	setrlimit(RLIMIT_FSIZE, &before);
	wait_committed(&world);
	assert_int_equal(w.feed->committed_seq, last + 5);
	assert_int_equal(fatal_calls, 0);
	disconnect_writer(&w, FEED_LOST);
	assert_int_equal(commit_stop(world.commit, &err), 0);
	release_world(&world);
}

/* Five packets, each with a commit of its own; then the process is gone. */
static void write_five_and_die(bool durable)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		struct world world;
		struct writer w = {.world = &world, .link_type = LINK_ETHERNET};

		open_world(&world, durable, 3600 * NSEC_PER_SEC);
		connect_writer(&w, 1, NUMBERS_MAX);
		for (int i = 0; i < 5; i++) {
			assert_int_equal(write_message(&w), 0);
			wait_committed(&world);
		}
		/* Not committed. */
		write_message(&w);
		raise(SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void file_that_lost_its_end_undoes_commits(void **state)
{
	struct world world;
	struct writer w = {.world = &world, .link_type = LINK_ETHERNET};

	(void)state;
	write_five_and_die(false);
	/* As a power cut may leave it: all of the journal, not all of the file. */
	assert_int_equal(truncate(path, FILE_HEADER + 3 * RECORD + 7), 0);
	open_world(&world, false, NSEC_PER_MSEC);
	assert_int_equal(connect_writer(&w, 1, NUMBERS_MAX), 4);
	while (w.next <= 6)
		assert_int_equal(write_message(&w), 0);
	disconnect_writer(&w, FEED_LOST);
	close_world(&world);
	count_all();
	assert_exactly_once(0, 6);
	assert_int_equal(size_of(""), FILE_HEADER + 6 * RECORD);
}

static void file_that_lost_everything_is_left_alone(void **state)
{
	struct world world;
	struct writer w = {.world = &world, .link_type = LINK_ETHERNET};

	(void)state;
	write_five_and_die(false);
	assert_int_equal(truncate(path, 3), 0);
	open_world(&world, false, NSEC_PER_MSEC);
	/* What was acknowledged is not asked for again. */
	assert_int_equal(connect_writer(&w, 1, NUMBERS_MAX), 6);
	assert_int_equal(write_message(&w), 0);
	disconnect_writer(&w, FEED_LOST);
	close_world(&world);
	assert_int_equal(size_of(""), 3);
}

static void damage_journal(void)
{
	off_t size = size_of(".journal");
	char name[128];
	int fd;

	snprintf(name, sizeof(name), "%.90s.journal", path);
	fd = open(name, O_RDWR | O_CLOEXEC);
	assert_int_equal(pwrite(fd, "damage", 6, size / 2), 6);
	close(fd);
}

static void damaged_journal_cuts_no_file(void **state)
{
	struct world world;
	struct writer w = {.world = &world, .link_type = LINK_ETHERNET};

	(void)state;
	write_five_and_die(true);
	damage_journal();
	open_world(&world, true, NSEC_PER_MSEC);
	assert_int_equal(size_of(""), FILE_HEADER + 6 * RECORD);
	connect_writer(&w, 1, NUMBERS_MAX);
	assert_int_equal(write_message(&w), 0);
	disconnect_writer(&w, FEED_LOST);
	close_world(&world);
}

/* A start that comes to an end before its first commit, by kill -9 or a disk that is full. */
static void start_and_die(void)
{
	const struct registry_limits limits = {.feeds = 8, .resting_ifaces = 1000, .ifaces = 1000};
	const struct commit_config config = {
		.path = path,
		.durable = true,
		.wake = nobody_to_wake,
		.fatal = note_fatal,
	};
	struct world w = {.registry = registry_new(&limits, NULL, ignore_line, NULL)};
	struct err err = {};

	if (commit_open(&config, w.registry, &w.output, &w.commit, &err) < 0)
		fail_msg("%s", err.text);
	release_world(&w);
}

static void damaged_journal_cuts_no_file_after_a_start_that_failed(void **state)
{
	struct world world;

	(void)state;
	write_five_and_die(true);
	damage_journal();
	start_and_die();
	open_world(&world, true, NSEC_PER_MSEC);
	assert_int_equal(size_of(""), FILE_HEADER + 6 * RECORD);
	close_world(&world);
	/* With a commit of its own it is a journal like any other. */
	open_world(&world, true, NSEC_PER_MSEC);
	assert_int_equal(size_of(""), FILE_HEADER + 6 * RECORD);
	close_world(&world);
}

static void journal_cut_anywhere_never_refuses_to_start(void **state)
{
	char name[128], *journal, *file;
	off_t size, file_size;
	int fd;

	(void)state;
	write_five_and_die(true);
	snprintf(name, sizeof(name), "%.90s.journal", path);
	size = size_of(".journal");
	file_size = size_of("");
	journal = malloc((size_t)size);
	file = malloc((size_t)file_size);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	assert_int_equal(read(fd, journal, (size_t)size), size);
	close(fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(read(fd, file, (size_t)file_size), file_size);
	close(fd);
	for (off_t cut = 0; cut < size; cut += 7) {
		struct world world;
		struct writer w = {.world = &world, .link_type = LINK_ETHERNET};

		/* The same inodes, as they were after the crash. */
		fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		assert_int_equal(write(fd, journal, (size_t)cut), cut);
		close(fd);
		fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
		assert_int_equal(write(fd, file, (size_t)file_size), file_size);
		close(fd);
		open_world(&world, true, NSEC_PER_MSEC);
		connect_writer(&w, 1, NUMBERS_MAX);
		assert_int_equal(write_message(&w), 0);
		disconnect_writer(&w, FEED_LOST);
		close_world(&world);
		/* With a commit of use the file goes on, and has no number twice. */
		memset(seen, 0, sizeof(seen));
		if (size_of("") != file_size) {
			count_file(path);
			assert_exactly_once(0, w.next - 1);
		}
	}
	free(journal);
	free(file);
}

static void commits_of_nonsense_are_refused(void **state)
{
	struct output_file files[OUTPUT_FILES_MAX] = {{.name = "dump.pcap", .size = 24}}, got[4];
	struct buf b = {};
	size_t n_got;

	(void)state;
	recover_put_files(&b, files, 1);
	for (size_t n = 0; n <= b.len; n++) {
		const uint8_t *body = b.data;
		size_t left = n;

		assert_int_equal(recover_get_files(&body, &left, got, &n_got),
				 n < b.len ? -EBADMSG : 0);
	}
	buf_reset(&b);
	snprintf(files[0].name, sizeof(files[0].name), "../x");
	recover_put_files(&b, files, 1);
	assert_int_equal(
		recover_get_files(&(const uint8_t *){b.data}, &(size_t){b.len}, got, &n_got),
		-EBADMSG);
	buf_free(&b);
}

static void *writer_main(void *arg)
{
	struct writer *w = arg;

	while (w->next < w->until) {
		int r = write_message(w);

		if (r == -EAGAIN)
			poll(NULL, 0, 1);
		else
			assert_int_equal(r, 0);
		/* What an agent is told. */
		atomic_store(&acked[w->number], atomic_load(&w->feed->committed_seq));
	}
	return NULL;
}

static void run_writers(struct world *world, uint64_t until)
{
	static const uint32_t types[WRITERS] = {LINK_ETHERNET, LINK_RAW, LINK_ETHERNET};
	struct writer writers[WRITERS];
	pthread_t threads[WRITERS];

	for (unsigned int i = 0; i < WRITERS; i++) {
		writers[i] = (struct writer){
			.world = world, .number = i, .link_type = types[i], .until = until};
		/* The agent forgets what was acknowledged. */
		connect_writer(&writers[i], acked[i] + 1, NUMBERS_MAX);
		assert_true(writers[i].next > acked[i]);
		assert_int_equal(pthread_create(&threads[i], NULL, writer_main, &writers[i]), 0);
	}
	for (unsigned int i = 0; i < WRITERS; i++) {
		pthread_join(threads[i], NULL);
		disconnect_writer(&writers[i], FEED_CONNECTED);
	}
}

static void writers_and_committer_agree(void **state)
{
	struct world world;

	(void)state;
	open_world(&world, true, NSEC_PER_MSEC);
	run_writers(&world, 5000);
	close_world(&world);
	count_all();
	for (unsigned int i = 0; i < WRITERS; i++)
		assert_exactly_once(i, 4999);
}

static void killed_at_any_moment_has_all_once(void **state)
{
	unsigned int random = 1;
	uint64_t until = 0;
	struct world world;

	(void)state;
	for (int round = 0; round < 20; round++) {
		pid_t pid = fork();
		int status;

		assert_true(pid >= 0);
		if (pid == 0) {
			open_world(&world, round % 2, 3 * NSEC_PER_MSEC);
			run_writers(&world, NUMBERS_MAX);
			_exit(0);
		}
		poll(NULL, 0, 2 + (int)(rand_r(&random) % 50u));
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
	}
	/* What is in the journal may be ahead of what a writer heard of that. */
	for (unsigned int i = 0; i < WRITERS; i++)
		until = MAX(until, acked[i] + 5000);
	until = MIN(until, NUMBERS_MAX);
	open_world(&world, true, NSEC_PER_MSEC);
	run_writers(&world, until);
	close_world(&world);
	count_all();
	for (unsigned int i = 0; i < WRITERS; i++)
		assert_exactly_once(i, until - 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(journal_goes_on_after_a_stop),
		TEST(committed_number_rises_with_the_commit),
		TEST(large_group_is_committed_before_its_time),
		TEST(packets_wait_until_the_journal_names_their_file),
		TEST(stdout_like_output_has_no_journal),
		TEST(full_disk_is_waited_for),
		TEST(file_that_lost_its_end_undoes_commits),
		TEST(file_that_lost_everything_is_left_alone),
		TEST(damaged_journal_cuts_no_file),
		TEST(damaged_journal_cuts_no_file_after_a_start_that_failed),
		TEST(journal_cut_anywhere_never_refuses_to_start),
		TEST(commits_of_nonsense_are_refused),
		TEST(writers_and_committer_agree),
		TEST(killed_at_any_moment_has_all_once),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
