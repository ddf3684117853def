// SPDX-License-Identifier: Apache-2.0
/*
 * The values of scalars: pure functions from text to number or index, with a
 * sentence for people on failure. The sentence follows "key: " in a line, so it
 * begins with the value, as yaml_show() renders it. No state.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <strings.h>

#include "clock.h"
#include "util.h"
#include "yaml.h"
#include "yaml_tree.h"

struct unit {
	const char *name;
	uint64_t factor;
};

/* The first name of a factor is the one that messages use. */
static const struct unit sizes[] = {
	{"B", 1},
	{"KB", 1ull << 10},
	{"MB", 1ull << 20},
	{"GB", 1ull << 30},
	{"KiB", 1ull << 10},
	{"MiB", 1ull << 20},
	{"GiB", 1ull << 30},
	{"K", 1ull << 10},
	{"M", 1ull << 20},
	{"G", 1ull << 30},
	{NULL, 0},
};

static const struct unit rates[] = {
	{"bit", 1},  {"kbit", 1000}, {"Mbit", 1000000}, {"Gbit", 1000000000},
	{"k", 1000}, {"M", 1000000}, {"G", 1000000000}, {NULL, 0},
};

static const struct unit percents[] = {{"%", 1}, {NULL, 0}};

static const struct unit durations[] = {
	{"ns", 1},           {"us", NSEC_PER_USEC},    {"ms", NSEC_PER_MSEC},
	{"s", NSEC_PER_SEC}, {"m", 60 * NSEC_PER_SEC}, {"h", 3600 * NSEC_PER_SEC},
	{NULL, 0},
};

const char *yaml_show(char out[static YAML_SHOWN_SIZE], const char *text)
{
	const size_t room = YAML_SHOWN_SIZE - sizeof("\\xff...");
	size_t n = 0;

	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (n > room) {
			memcpy(out + n, "...", 3);
			n += 3;
			break;
		}
		if (c >= 0x20 && c < 0x7f)
			out[n++] = (char)c;
		else
			n += (size_t)snprintf(out + n, YAML_SHOWN_SIZE - n, "\\x%02x", c);
	}
	out[n] = 0;
	return out;
}

int yaml_value_bool(const char *text, bool *ret, struct err *err)
{
	static const char *const names[][2] = {{"false", "true"}, {"no", "yes"}, {"off", "on"}};
	char shown[YAML_SHOWN_SIZE];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		for (int v = 0; v < 2; v++) {
			if (strcasecmp(text, names[i][v]) == 0) {
				*ret = v;
				return 0;
			}
		}
	}
	return err_set(err, -EINVAL, "\"%s\" is neither true nor false", yaml_show(shown, text));
}

/*
 * Digits at *@text, passed over. A number too big for 64 bits becomes UINT64_MAX,
 * which is above every bound.
 */
static bool digits(const char **text, uint64_t *ret)
{
	const char *s = *text;
	uint64_t v = 0;

	if (!isdigit((unsigned char)*s))
		return false;
	for (; isdigit((unsigned char)*s); s++) {
		if (__builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
			v = UINT64_MAX;
	}
	*text = s;
	*ret = v;
	return true;
}

/* The unit at *@text, up to the next digit or the end, passed over. */
static const struct unit *unit_at(const struct unit *units, const char **text)
{
	size_t n = 0;

	while ((*text)[n] && !isdigit((unsigned char)(*text)[n]))
		n++;
	for (; units->name; units++) {
		if (strlen(units->name) == n && strncasecmp(units->name, *text, n) == 0) {
			*text += n;
			return units;
		}
	}
	return NULL;
}

/* One or more of number and unit ("1m30s"), or one number alone that counts @plain. */
static int with_units(const struct unit *units, uint64_t plain, const char *text, uint64_t *ret)
{
	const struct unit *unit;
	uint64_t v, sum = 0;
	bool first = true;

	do {
		if (!digits(&text, &v))
			return -EINVAL;
		if (first && !*text) {
			unit = NULL;
		} else {
			while (*text == ' ')
				text++;
			unit = unit_at(units, &text);
			if (!unit)
				return -EINVAL;
		}
		if (__builtin_mul_overflow(v, unit ? unit->factor : plain, &v) ||
		    __builtin_add_overflow(sum, v, &sum))
			sum = UINT64_MAX;
		first = false;
	} while (*text);
	*ret = sum;
	return 0;
}

/* A bound as one would write it: in the largest unit that has no remainder. */
static const char *show_bound(char out[static 32], const struct unit *units, uint64_t v)
{
	const struct unit *best = NULL;

	for (; units && units->name; units++) {
		if (v && v % units->factor == 0 && (!best || units->factor > best->factor))
			best = units;
	}
	snprintf(out, 32, "%llu%s", (unsigned long long)(best ? v / best->factor : v),
		 best && best->factor > 1 ? best->name : "");
	return out;
}

/* The name of what a plain number counts, to make "2000 is above 1MB" plain. */
static const char *plain_unit(const struct unit *units, uint64_t factor, const char *text)
{
	if (!units || factor <= 1 || text[strspn(text, "0123456789")])
		return "";
	while (units->name && units->factor != factor)
		units++;
	return units->name ? units->name : "";
}

int yaml_value_number(const struct yaml_key *key, const char *text, uint64_t *ret, struct err *err)
{
	uint64_t plain = key->unit ? key->unit : 1;
	const struct unit *units = NULL;
	char shown[YAML_SHOWN_SIZE], bound[32];
	const char *form = "a whole number";
	const char *rest = text;
	uint64_t v;
	int r;

	if (key->type == YAML_SIZE) {
		units = sizes;
		form = "a size such as 64KB, 10MB or 1GB";
	} else if (key->type == YAML_RATE) {
		units = rates;
		form = "a rate such as 500kbit, 10Mbit or 1Gbit";
	} else if (key->type == YAML_PERCENT) {
		units = percents;
		form = "a share such as 25%";
	} else if (key->type == YAML_DURATION) {
		units = durations;
		form = "a duration such as 100ms, 30s or 1m30s";
	}
	yaml_show(shown, text);
	/* YAML 1.1 reads 010 as eight, people as ten. */
	if (text[0] == '0' && isdigit((unsigned char)text[1]))
		return err_set(err, -EINVAL, "\"%s\" has a leading zero", shown);
	if (units)
		r = with_units(units, plain, text, &v);
	else
		r = digits(&rest, &v) && !*rest ? 0 : -EINVAL;
	if (r < 0)
		return err_set(err, r, "\"%s\" is not %s", shown, form);
	if (v < key->min)
		return err_set(err, -ERANGE, "%s%s is below %s", shown,
			       plain_unit(units, plain, text), show_bound(bound, units, key->min));
	if (v > key->max)
		return err_set(err, -ERANGE, "%s%s is above %s", shown,
			       plain_unit(units, plain, text), show_bound(bound, units, key->max));
	*ret = v;
	return 0;
}

int yaml_value_enum(const struct yaml_key *key, const char *text, int *ret, struct err *err)
{
	char shown[YAML_SHOWN_SIZE], list[200] = "";
	bool planned = false;
	size_t n = 0;

	for (int i = 0; key->names[i]; i++) {
		const char *name = key->names[i];

		if (*name == '!') {
			planned |= strcasecmp(text, name + 1) == 0;
			continue;
		}
		if (strcasecmp(text, name) == 0) {
			*ret = i;
			return 0;
		}
		n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", n ? ", " : "", name);
		n = MIN(n, sizeof(list) - 1);
	}
	if (planned)
		return err_set(err, -EINVAL, "\"%s\" is not supported by this version (only: %s)",
			       yaml_show(shown, text), list);
	return err_set(err, -EINVAL, "\"%s\" is none of: %s", yaml_show(shown, text), list);
}

int yaml_value_ports(const char *text, struct yaml_ports *set, struct err *err)
{
	char shown[YAML_SHOWN_SIZE];
	const char *s = text;
	uint64_t first, last;

	yaml_show(shown, text);
	if (!digits(&s, &first))
		goto malformed;
	last = first;
	if (*s == '-') {
		s++;
		if (!digits(&s, &last))
			goto malformed;
	}
	if (*s || (*text == '0' && isdigit((unsigned char)text[1])))
		goto malformed;
	if (first < 1 || last < 1 || first > 65535 || last > 65535)
		return err_set(err, -ERANGE, "%s is not within 1 and 65535", shown);
	if (first > last)
		return err_set(err, -ERANGE, "%s ends before it begins", shown);
	for (uint64_t p = first; p <= last; p++) {
		if (!yaml_ports_has(set, (unsigned int)p)) {
			set->bits[p / 64] |= 1ull << (p % 64);
			set->count++;
		}
	}
	return 0;
malformed:
	return err_set(err, -EINVAL, "\"%s\" is neither a port nor a range such as 8000-8100",
		       shown);
}

int yaml_value_server(const char *text, struct yaml_server *ret, struct err *err)
{
	static const struct yaml_key port_key = {.type = YAML_UINT, .min = 1, .max = 65535};
	char shown[YAML_SHOWN_SIZE];
	const char *colon = strrchr(text, ':'), *host = text;
	size_t length = colon ? (size_t)(colon - text) : 0;
	bool brackets = length > 1 && *text == '[' && colon[-1] == ']';
	uint64_t port;
	int r;

	yaml_show(shown, text);
	if (*text == '[' && !brackets)
		return err_set(err, -EINVAL, "\"%s\" has no port, such as [2001:db8::1]:8081",
			       shown);
	if (brackets) {
		host++;
		length -= 2;
	} else if (colon && memchr(text, ':', length)) {
		return err_set(err, -EINVAL,
			       "\"%s\": an IPv6 address needs brackets, such as "
			       "[2001:db8::1]:8081",
			       shown);
	}
	if (!colon || !colon[1])
		return err_set(err, -EINVAL, "\"%s\" has no port, such as collector.example:8081",
			       shown);
	if (!length)
		return err_set(err, -EINVAL, "\"%s\" has no name or address before the port",
			       shown);
	r = yaml_value_number(&port_key, colon + 1, &port, err);
	if (r < 0)
		return err_wrap(err, r, "\"%s\": port", shown);
	ret->host = strndup(host, length);
	ret->port = (uint16_t)port;
	return ret->host ? 0 : -ENOMEM;
}
