// SPDX-License-Identifier: Apache-2.0
/* The order of collectors: spread, stable, and in turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <strings.h>

#include <cmocka.h>

#include "servers.h"
#include "util.h"

#define AGENTS  1000
#define SERVERS 5

/* Names that differ in little, as names of servers do. */
static struct yaml_servers *make_list(size_t n)
{
	static struct yaml_server v[SERVERS];
	static struct yaml_servers list = {.v = v};
	static char names[SERVERS][48];

	for (size_t i = 0; i < n; i++) {
		snprintf(names[i], sizeof(names[i]), "collector-%zu.example", i);
		v[i] = (struct yaml_server){.host = names[i], .port = 8081};
	}
	list.n = n;
	return &list;
}

/* Ids that differ in little, too. */
static const uint8_t *agent_id(unsigned int i)
{
	static uint8_t id[16];

	id[14] = (uint8_t)(i >> 8);
	id[15] = (uint8_t)i;
	return id;
}

static size_t favourite(const struct yaml_servers *list, unsigned int agent)
{
	struct servers s;
	size_t at;

	assert_int_equal(servers_init(&s, list, agent_id(agent)), 0);
	at = (size_t)(servers_current(&s) - list->v);
	servers_done(&s);
	return at;
}

static void every_server_gets_its_share_of_agents(void **state)
{
	const struct yaml_servers *list = make_list(SERVERS);
	unsigned int shares[SERVERS] = {0};

	(void)state;
	for (unsigned int a = 0; a < AGENTS; a++)
		shares[favourite(list, a)]++;
	for (size_t i = 0; i < SERVERS; i++) {
		assert_true(shares[i] >= AGENTS / SERVERS * 3 / 4);
		assert_true(shares[i] <= AGENTS / SERVERS * 5 / 4);
	}
}

static void the_second_choices_spread_too(void **state)
{
	const struct yaml_servers *list = make_list(SERVERS);
	unsigned int shares[SERVERS] = {0}, n = 0;

	(void)state;
	for (unsigned int a = 0; a < AGENTS; a++) {
		struct servers s;

		assert_int_equal(servers_init(&s, list, agent_id(a)), 0);
		if (servers_current(&s) == &list->v[0]) {
			assert_false(servers_next(&s));
			shares[servers_current(&s) - list->v]++;
			n++;
		}
		servers_done(&s);
	}
	for (size_t i = 1; i < SERVERS; i++) {
		assert_true(shares[i] >= n / (SERVERS - 1) / 2);
		assert_true(shares[i] <= n / (SERVERS - 1) * 3 / 2);
	}
}

static void without_a_server_only_its_own_agents_move(void **state)
{
	size_t before[AGENTS];

	(void)state;
	for (unsigned int a = 0; a < AGENTS; a++)
		before[a] = favourite(make_list(SERVERS), a);
	for (unsigned int a = 0; a < AGENTS; a++) {
		size_t now = favourite(make_list(SERVERS - 1), a);

		if (before[a] != SERVERS - 1)
			assert_int_equal(now, before[a]);
	}
}

static void the_order_does_not_depend_on_the_list(void **state)
{
	char a_name[] = "a.example", a_other[] = "A.Example";
	char b_name[] = "b.example", b_other[] = "B.EXAMPLE";
	struct yaml_server a[] = {{a_other, 1}, {b_name, 1}, {b_name, 2}};
	struct yaml_server b[] = {{b_name, 2}, {b_other, 1}, {a_name, 1}};
	const struct yaml_servers one = {.v = a, .n = 3}, two = {.v = b, .n = 3};

	(void)state;
	for (unsigned int i = 0; i < 50; i++) {
		struct servers s, t;

		assert_int_equal(servers_init(&s, &one, agent_id(i)), 0);
		assert_int_equal(servers_init(&t, &two, agent_id(i)), 0);
		for (size_t k = 0; k < 3; k++) {
			assert_int_equal(strcasecmp(s.order[k]->host, t.order[k]->host), 0);
			assert_int_equal(s.order[k]->port, t.order[k]->port);
		}
		servers_done(&s);
		servers_done(&t);
	}
}

static void all_have_their_turn_and_then_the_first_again(void **state)
{
	const struct yaml_servers *list = make_list(3);
	const struct yaml_server *first, *second, *third;
	struct servers s;

	(void)state;
	assert_int_equal(servers_init(&s, list, agent_id(7)), 0);
	assert_true(servers_preferred(&s));
	first = servers_current(&s);
	assert_false(servers_next(&s));
	assert_false(servers_preferred(&s));
	second = servers_current(&s);
	assert_false(servers_next(&s));
	third = servers_current(&s);
	assert_true(first != second && second != third && third != first);
	assert_true(servers_next(&s));
	assert_true(servers_preferred(&s));
	assert_ptr_equal(servers_current(&s), first);
	servers_next(&s);
	servers_first(&s);
	assert_ptr_equal(servers_current(&s), first);
	servers_done(&s);
}

static void one_server_has_every_turn(void **state)
{
	struct servers s;

	(void)state;
	assert_int_equal(servers_init(&s, make_list(1), agent_id(7)), 0);
	assert_true(servers_next(&s));
	assert_true(servers_preferred(&s));
	servers_done(&s);
	servers_done(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_server_gets_its_share_of_agents),
		cmocka_unit_test(the_second_choices_spread_too),
		cmocka_unit_test(without_a_server_only_its_own_agents_move),
		cmocka_unit_test(the_order_does_not_depend_on_the_list),
		cmocka_unit_test(all_have_their_turn_and_then_the_first_again),
		cmocka_unit_test(one_server_has_every_turn),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
