/* SPDX-License-Identifier: Apache-2.0 */
/* Capture points, and the lists of network namespaces. */
#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "config.h"
#include "netns.h"
#include "netns_list.h"
#include "point.h"
#include "util.h"

static void every_interface_has_its_point(void **state)
{
	static const struct {
		struct rtnl_link link;
		bool inside;
		enum point point;
	} table[] = {
		{{.name = "eth0", .has_device = true}, false, POINT_WIRE},
		{{.name = "eth0 of an old kernel"}, false, POINT_WIRE},
		{{.name = "lan1", .kind = "dsa", .has_device = true}, false, POINT_WIRE},
		{{.name = "lo", .loopback = true}, false, POINT_HOST},
		{{.name = "br0", .kind = "bridge"}, false, POINT_HOST},
		{{.name = "bond0", .kind = "bond"}, false, POINT_HOST},
		{{.name = "eth0.7", .kind = "vlan"}, false, POINT_HOST},
		{{.name = "wg0", .kind = "wireguard"}, false, POINT_HOST},
		{{.name = "tap0", .kind = "tun"}, false, POINT_HOST},
		{{.name = "va", .kind = "veth"}, false, POINT_HOST},
		/* The other end of a tunnel in another namespace is no pod. */
		{{.name = "t0", .kind = "ipip", .peer_elsewhere = true}, false, POINT_HOST},
		{{.name = "veth1", .kind = "veth", .peer_elsewhere = true}, false, POINT_POD},
		{{.name = "lxc1", .kind = "netkit", .peer_elsewhere = true}, false, POINT_POD},
		{{.name = "eth0", .kind = "veth", .peer_elsewhere = true}, true, POINT_POD},
		{{.name = "lo", .loopback = true}, true, POINT_POD},
		{{.name = "dummy", .kind = "dummy"}, true, POINT_POD},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		const struct rtnl_link *link = &table[i].link;

		assert_true(point_has(POINT_ALL, link, table[i].inside, table[i].inside));
		for (enum point p = POINT_WIRE; p <= POINT_POD; p++)
			if (point_has(p, link, table[i].inside, table[i].inside) !=
			    (p == table[i].point))
				fail_msg("%s%s: point %u", link->name,
					 table[i].inside ? " inside" : "", p);
	}
}

static void a_pod_is_captured_inside_or_at_the_host_s_end(void **state)
{
	const struct rtnl_link end = {.kind = "veth", .peer_elsewhere = true};
	const struct rtnl_link card = {.has_device = true};

	(void)state;
	assert_true(point_has(POINT_POD, &end, false, false));
	assert_false(point_has(POINT_POD, &end, false, true));
	assert_false(point_has(POINT_HOST, &end, false, true));
	assert_true(point_has(POINT_POD, &end, true, true));
	/* A card that a pod was given is both. */
	assert_true(point_has(POINT_POD, &card, true, true));
	assert_true(point_has(POINT_WIRE, &card, true, true));
}

static void check_list(const char *list, const char *expected)
{
	_cleanup_free_ char *text = NULL, *said = NULL;
	struct config *c = NULL;
	size_t size;
	FILE *to = open_memstream(&said, &size);
	int r;

	assert_non_null(to);
	assert_true(asprintf(&text, "output: {file: {path: stdout}}\nnetns: %s\n", list) > 0);
	r = config_parse("f", text, strlen(text), &c, to);
	fclose(to);
	assert_int_equal(r < 0, expected != NULL);
	if (expected && !strstr(said, expected))
		fail_msg("%s: %s", list, said);
	config_free(c);
}

static void lists_of_namespaces_are_judged(void **state)
{
	(void)state;
	check_list("[/run/netns/a, \"/run/netns/cni-*\", \"!/run/netns/x*\", /proc/1/ns/net]",
		   NULL);
	check_list("[\"!self\", \"/run/netns/[ab]\"]", NULL);
	check_list("[\"!self\"]", "netns: nothing is left to capture");
	check_list("[blue]", "\"blue\" is neither an absolute path nor \"!self\"");
	check_list("[self]", "\"self\" is neither an absolute path nor \"!self\"");
	check_list("[\"/run/*/a\"]", "only the last part of a path may be a pattern");
	check_list("[/run/netns/]", "only the last part of a path may be a pattern");
}

struct found {
	char names[256];
};

static void note(void *ctx, const char *path, bool is_pattern)
{
	struct found *f = ctx;
	size_t len = strlen(f->names);

	snprintf(f->names + len, sizeof(f->names) - len, "%s%c", strrchr(path, '/') + 1,
		 is_pattern ? '*' : ' ');
}

static void patterns_find_what_is_in_a_folder(void **state)
{
	static const char *const files[] = {"cni-1", "cni-2", ".cni-3", "other"};
	char folder[] = "/tmp/ps-point-XXXXXX", path[3][64];
	struct found found = {};
	char *v[] = {path[0], path[1], path[2]};
	const struct yaml_strings list = {.v = v, .n = 3};
	int dir;

	(void)state;
	assert_non_null(mkdtemp(folder));
	dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		close(openat(dir, files[i], O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	snprintf(path[0], sizeof(path[0]), "%s/*", folder);
	snprintf(path[1], sizeof(path[1]), "%s/missing", folder);
	snprintf(path[2], sizeof(path[2]), "!%s/cni-2", folder);
	netns_list_find(&list, note, &found);
	/* In any order of the folder. */
	assert_non_null(strstr(found.names, "cni-1*"));
	assert_non_null(strstr(found.names, "other*"));
	assert_non_null(strstr(found.names, "missing "));
	assert_null(strstr(found.names, "cni-2"));
	assert_null(strstr(found.names, "cni-3"));
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		unlinkat(dir, files[i], 0);
	close(dir);
	rmdir(folder);
}

static void namespaces_have_names_for_people(void **state)
{
	static const struct {
		const char *path, *name;
		size_t size;
	} table[] = {
		{"/run/netns/blue", "blue", 65},
		{"/var/run/netns/cni-1", "cni-1", 65},
		{"/proc/17/ns/net", "/proc/17/ns/net", 65},
		{"/run/netns/a\xff\nb", "a??b", 65},
		{"/run/netns/0123456789", "56789", 6},
		{"/run/netns/56789", "56789", 6},
	};
	char name[65];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		netns_name(table[i].path, name, table[i].size);
		assert_string_equal(name, table[i].name);
	}
}

static void what_is_no_network_namespace_is_not_taken_for_one(void **state)
{
	struct netns_id self, id;
	struct err err = {};
	bool emulated;
	int error, fd;

	(void)state;
	assert_int_equal(netns_self(&self, &err), 0);
	assert_true(netns_look("/proc/self/ns/net", &self, &id, &error));
	assert_int_equal(id.inode, self.inode);
	assert_false(netns_look("/nowhere", &self, &id, &error));
	assert_int_equal(error, ENOENT);
	assert_false(netns_look("/dev/null", &self, &id, &error));
	assert_int_equal(error, 0);
	assert_int_equal(netns_open("/proc/self/ns/uts", &id, &err), -EINVAL);
	fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	emulated = ioctl(fd, NS_GET_NSTYPE) < 0;
	close(fd);
	if (emulated)
		skip(); /* the emulator knows no namespaces */
	fd = netns_open("/proc/self/ns/net", &id, &err);
	assert_true(fd >= 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_interface_has_its_point),
		cmocka_unit_test(a_pod_is_captured_inside_or_at_the_host_s_end),
		cmocka_unit_test(lists_of_namespaces_are_judged),
		cmocka_unit_test(patterns_find_what_is_in_a_folder),
		cmocka_unit_test(namespaces_have_names_for_people),
		cmocka_unit_test(what_is_no_network_namespace_is_not_taken_for_one),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("agent_point", tests, NULL, NULL);
}
