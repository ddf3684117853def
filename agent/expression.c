// SPDX-License-Identifier: Apache-2.0
/*
 * The grammar around libpcap's. Without an extension in it the whole text is libpcap's.
 * Else it is split, level by level of parentheses, at `and` and `or`, into operands that
 * have an extension and runs of operands that have none; a run is one text for libpcap.
 *
 * Three things of libpcap's grammar decide what a run may be:
 *
 *	`and` and `or` have equal precedence and associate to the left. So a run at the start
 *	of a level is one operand as it stands; a later one only if its operators, with the
 *	one before it, are all the same. Where not, we ask for parentheses.
 *
 *	An identifier without a keyword has that of the one before (`port 80 or 443`). Inside
 *	of a run that is libpcap's business; a run that begins so has nothing before it, and
 *	libpcap refuses it.
 *
 *	`vlan` and the like move the offsets of all that follows in the text. What follows in
 *	another run would not be moved, so that is refused.
 */
#include "expression.h"

#include <errno.h>
#include <stdio.h>

#include "expression_tree.h"
#include "packet.h"
#include "sets.h"
#include "util.h"

#define DEPTH_MAX  64
#define TOKENS_MAX 32768u

enum token_kind { TOKEN_WORD, TOKEN_OPEN, TOKEN_CLOSE, TOKEN_AND, TOKEN_OR, TOKEN_NOT, TOKEN_SET };

struct token {
	enum token_kind kind; /* everything else is a word, too */
	const char *text;
	size_t len;
	size_t match; /* of parentheses: the other one */
};

struct parser {
	const struct sets *sets;
	struct token *tokens;
	struct err *err;
	struct expression *e;
	/* Of what is being made: outside or inside of inner(). */
	uint32_t link_type;
	bool inner;
	const struct token *moved; /* the `vlan` or other that moved the offsets */
};

struct range {
	size_t from, to; /* tokens, to is behind the last */
};

static bool is(const struct token *t, const char *word)
{
	return t->kind == TOKEN_WORD && t->len == strlen(word) && !memcmp(t->text, word, t->len);
}

static bool is_name(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_' || c == '-' || c == '.';
}

/* The text of some tokens as it may be shown in a sentence. */
static int shown(const struct parser *p, struct range r)
{
	const struct token *last = &p->tokens[r.to - 1];
	long len = last->text + last->len - p->tokens[r.from].text;

	return (int)MIN(len, 100);
}

#define SHOWN(p, r) shown(p, r), (p)->tokens[(r).from].text

/* One token from @s, which is not at a blank. */
static struct token lex(const char *s)
{
	struct token t = {.kind = TOKEN_WORD, .text = s, .len = 1};

	if (*s == '(') {
		t.kind = TOKEN_OPEN;
	} else if (*s == ')') {
		t.kind = TOKEN_CLOSE;
	} else if (!strncmp(s, "&&", 2) || !strncmp(s, "||", 2)) {
		t.kind = *s == '&' ? TOKEN_AND : TOKEN_OR;
		t.len = 2;
	} else if (*s == '!') {
		t.kind = s[1] == '=' ? TOKEN_WORD : TOKEN_NOT;
		t.len = s[1] == '=' ? 2 : 1;
	} else if (*s == '\\') {
		t.len = 1 + strcspn(s + 1, " !()\n\t");
	} else if (*s == '@' || is_name(*s)) {
		t.kind = *s == '@' ? TOKEN_SET : TOKEN_WORD;
		while (is_name(s[t.len]))
			t.len++;
		if (is(&t, "and"))
			t.kind = TOKEN_AND;
		else if (is(&t, "or"))
			t.kind = TOKEN_OR;
		else if (is(&t, "not"))
			t.kind = TOKEN_NOT;
	}
	return t;
}

static int tokenize(struct parser *p, const char *text, size_t *ret_n)
{
	size_t n = 0, depth = 0, open[DEPTH_MAX];

	for (const char *s = text + strspn(text, " \r\n\t"); *s; s += strspn(s, " \r\n\t")) {
		struct token t = lex(s);

		if (n == TOKENS_MAX)
			return err_set(p->err, -EINVAL, "more than %u words", TOKENS_MAX);
		if (t.kind == TOKEN_OPEN) {
			if (depth == DEPTH_MAX)
				return err_set(p->err, -EINVAL,
					       "more than %d parentheses inside each other",
					       DEPTH_MAX);
			open[depth++] = n;
		} else if (t.kind == TOKEN_CLOSE) {
			if (!depth)
				return err_set(p->err, -EINVAL, "a \")\" too many before \"%.50s\"",
					       s + 1);
			t.match = open[--depth];
			p->tokens[t.match].match = n;
		}
		p->tokens[n++] = t;
		s += t.len;
	}
	if (depth)
		return err_set(p->err, -EINVAL, "no \")\" for \"%.50s\"",
			       p->tokens[open[depth - 1]].text);
	*ret_n = n;
	return 0;
}

static bool is_inner(const struct parser *p, size_t at, size_t end)
{
	return is(&p->tokens[at], "inner") && at + 1 < end && p->tokens[at + 1].kind == TOKEN_OPEN;
}

static bool has_extension(const struct parser *p, struct range r)
{
	for (size_t i = r.from; i < r.to; i++) {
		if (p->tokens[i].kind == TOKEN_SET || is_inner(p, i, r.to))
			return true;
	}
	return false;
}

static struct node *node_free(struct node *n)
{
	if (!n)
		return NULL;
	node_free(n->a);
	node_free(n->b);
	cbpf_release(&n->classic);
	free(n);
	return NULL;
}

static int node_new(struct parser *p, struct node from, struct node **ret)
{
	struct node *n = malloc(sizeof(*n));

	if (!n)
		return err_set(p->err, -ENOMEM, "out of memory");
	*n = from;
	n->inner = p->inner;
	*ret = n;
	return 0;
}

/* Takes both over, also when it fails. */
static int node_join(struct parser *p, enum node_kind kind, struct node *a, struct node *b,
		     struct node **ret)
{
	int e = node_new(p, (struct node){.kind = kind, .a = a, .b = b}, ret);

	if (e) {
		node_free(a);
		node_free(b);
	}
	return e;
}

/* Does it move the offsets of what follows? */
static const struct token *find_move(const struct parser *p, struct range r)
{
	static const char *const words[] = {"vlan", "mpls", "pppoes", "geneve", "vxlan"};

	for (size_t i = r.from; i < r.to; i++) {
		for (size_t w = 0; w < ARRAY_SIZE(words); w++) {
			if (is(&p->tokens[i], words[w]))
				return &p->tokens[i];
		}
	}
	return NULL;
}

static int parse_run(struct parser *p, struct range r, struct node **ret)
{
	const struct token *last = &p->tokens[r.to - 1];
	const char *from = p->tokens[r.from].text;
	_cleanup_free_ char *text = strndup(from, (size_t)(last->text + last->len - from));
	struct node n = {.kind = NODE_CLASSIC};
	int e;

	if (!text)
		return err_set(p->err, -ENOMEM, "out of memory");
	if (p->moved)
		return err_set(p->err, -EINVAL,
			       "\"%.*s\": what follows \"%.*s\" is looked for behind it, which "
			       "libpcap cannot do across a set or inner(); write \"%.*s\" and what "
			       "belongs to it side by side",
			       SHOWN(p, r), (int)p->moved->len, p->moved->text, (int)p->moved->len,
			       p->moved->text);
	e = cbpf_compile(text, p->link_type, &n.classic, p->err);
	if (e)
		return e;
	p->moved = find_move(p, r);
	e = node_new(p, n, ret);
	if (e)
		cbpf_release(&n.classic);
	return e;
}

static int parse_level(struct parser *p, struct range r, struct node **ret);

/* For one kind of inner packet. -EINVAL: libpcap has no such thing for it. */
static int parse_inner_as(struct parser *p, struct range r, uint32_t link_type, struct node **ret)
{
	const struct token *moved = p->moved;
	uint32_t outer = p->link_type;
	int e;

	p->link_type = link_type;
	p->moved = NULL;
	p->inner = true;
	e = parse_level(p, r, ret);
	p->inner = false;
	p->moved = moved;
	p->link_type = outer;
	return e;
}

static int parse_inner(struct parser *p, struct range r, struct node **ret)
{
	struct node *ethernet = NULL, *ip = NULL;
	struct err *err = p->err, second = {};
	int e, e2;

	if (p->inner)
		return err_set(p->err, -EINVAL, "\"inner(%.*s)\": inside of another inner()",
			       SHOWN(p, r));
	e = parse_inner_as(p, r, LINK_ETHERNET, &ethernet);
	p->err = &second;
	e2 = e && e != -EINVAL ? e : parse_inner_as(p, r, LINK_RAW, &ip);
	p->err = err;
	if ((e && e2) || (e2 && e2 != -EINVAL)) {
		node_free(ethernet);
		node_free(ip);
		return e ? e : err_set(err, e2, "%s", second.text);
	}
	/* Only one of them: no packet of the other kind matches. */
	p->e->needs_inner = true;
	return node_join(p, NODE_INNER, ethernet, ip, ret);
}

static int no_set(const struct parser *p, struct range r)
{
	return err_set(p->err, -EINVAL,
		       "\"%.*s\": a set stands as [src|dst] host|net @NAME, by itself; join it to "
		       "the rest by and, or",
		       SHOWN(p, r));
}

/* [src|dst|src or dst|src and dst] host|net @NAME */
static int parse_set(struct parser *p, struct range r, struct node **ret)
{
	const struct token *name = &p->tokens[r.to - 1];
	struct node n = {.kind = NODE_SET, .end = SET_EITHER}, *other = NULL;
	bool both = false;
	size_t i = r.from;
	int e;

	if (name->kind != TOKEN_SET)
		return no_set(p, r);
	if (is(&p->tokens[i], "src") || is(&p->tokens[i], "dst")) {
		n.end = is(&p->tokens[i], "src") ? SET_SRC : SET_DST;
		i++;
		if (p->tokens[i].kind == TOKEN_AND || p->tokens[i].kind == TOKEN_OR) {
			both = p->tokens[i].kind == TOKEN_AND;
			n.end = SET_EITHER;
			i += 2;
		}
	}
	if (i < r.to && (is(&p->tokens[i], "host") || is(&p->tokens[i], "net")))
		i++;
	if (i + 1 != r.to || i == r.from)
		return no_set(p, r);
	n.set = p->sets ? sets_find(p->sets, name->text + 1, name->len - 1) : NULL;
	if (!n.set)
		return err_set(p->err, -EINVAL, "\"%.*s\": there is no set of that name",
			       (int)MIN(name->len, 100u), name->text);
	if (!p->inner)
		p->e->needs_l3 = true;
	if (!both)
		return node_new(p, n, ret);
	n.end = SET_SRC;
	e = node_new(p, n, ret);
	if (e)
		return e;
	n.end = SET_DST;
	e = node_new(p, n, &other);
	if (e) {
		*ret = node_free(*ret);
		return e;
	}
	return node_join(p, NODE_AND, *ret, other, ret);
}

/* An operand that has an extension. */
static int parse_operand(struct parser *p, struct range r, struct node **ret)
{
	const struct token *first;
	bool negate = false;
	int e;

	for (; r.from < r.to && p->tokens[r.from].kind == TOKEN_NOT; r.from++)
		negate = !negate;
	first = &p->tokens[r.from];
	if (first->kind == TOKEN_OPEN && first->match == r.to - 1)
		e = parse_level(p, (struct range){r.from + 1, r.to - 1}, ret);
	else if (is_inner(p, r.from, r.to) && first[1].match == r.to - 1)
		e = parse_inner(p, (struct range){r.from + 2, r.to - 1}, ret);
	else
		e = parse_set(p, r, ret);
	if (e || !negate)
		return e;
	return node_join(p, NODE_NOT, *ret, NULL, ret);
}

/* `src or dst` is a qualifier, not two operands. */
static bool is_operator(const struct parser *p, struct range r, size_t at)
{
	const struct token *t = &p->tokens[at];

	if (t->kind != TOKEN_AND && t->kind != TOKEN_OR)
		return false;
	if (at == r.from || at + 1 == r.to)
		return true;
	return !((is(&t[-1], "src") && is(&t[1], "dst")) ||
		 (is(&t[-1], "dst") && is(&t[1], "src")));
}

/* From where it begins to the operator behind it, or the end. */
static struct range next_operand(const struct parser *p, struct range r, size_t from)
{
	size_t at = from;

	while (at < r.to && !is_operator(p, r, at))
		at = p->tokens[at].kind == TOKEN_OPEN ? p->tokens[at].match + 1 : at + 1;
	return (struct range){from, at};
}

/*
 * The operand at @from: one with an extension, or a run of such without. @before is the
 * operator in front of it, none (TOKEN_WORD) at the start of a level.
 */
static int parse_next(struct parser *p, struct range r, size_t from, enum token_kind before,
		      size_t *ret_end, struct node **ret)
{
	struct range run = next_operand(p, r, from), operand = run;
	bool mixed = false;

	if (run.from == run.to)
		return err_set(p->err, -EINVAL, "\"%.*s\": something is missing there",
			       SHOWN(p, r));
	*ret_end = run.to;
	if (has_extension(p, run))
		return parse_operand(p, run, ret);
	while (operand.to < r.to) {
		enum token_kind op = p->tokens[operand.to].kind;

		operand = next_operand(p, r, operand.to + 1);
		if (operand.from == operand.to || has_extension(p, operand))
			break;
		mixed |= before != TOKEN_WORD && op != before;
		run.to = operand.to;
	}
	if (mixed)
		return err_set(p->err, -EINVAL,
			       "\"%.*s\": and, or have the same rank and both follow a set or "
			       "inner(); say with parentheses what belongs together",
			       SHOWN(p, run));
	*ret_end = run.to;
	return parse_run(p, run, ret);
}

static int parse_level(struct parser *p, struct range r, struct node **ret)
{
	enum token_kind op = TOKEN_WORD;
	struct node *left = NULL, *right = NULL;
	size_t at = r.from;
	int e;

	if (r.from == r.to)
		return err_set(p->err, -EINVAL, "parentheses with nothing inside");
	for (;;) {
		e = parse_next(p, r, at, op, &at, &right);
		if (!e && left)
			e = node_join(p, op == TOKEN_AND ? NODE_AND : NODE_OR, left, right, &left);
		else if (!e)
			left = right;
		else
			node_free(left);
		if (e)
			return e;
		if (at == r.to)
			break;
		op = p->tokens[at++].kind;
	}
	*ret = left;
	return 0;
}

/* The tree of @text, which may have an extension. */
static int parse(struct parser *p, const char *text, bool *ret_plain)
{
	struct range all = {};
	int e;

	p->tokens = calloc(TOKENS_MAX, sizeof(*p->tokens));
	if (!p->tokens)
		return err_set(p->err, -ENOMEM, "out of memory");
	e = tokenize(p, text, &all.to);
	if (e)
		return e;
	*ret_plain = !has_extension(p, all);
	return *ret_plain ? 0 : parse_level(p, all, &p->e->root);
}

int expression_compile(const char *text, uint32_t link_type, const struct sets *sets,
		       struct expression **ret, struct err *err)
{
	struct parser p = {.sets = sets, .err = err, .link_type = link_type};
	bool plain = !strchr(text, '@') && !strstr(text, "inner");
	struct node n = {.kind = NODE_CLASSIC};
	int e;

	if (strlen(text) > EXPRESSION_MAX)
		return err_set(err, -EINVAL, "longer than %u bytes", EXPRESSION_MAX);
	p.e = calloc(1, sizeof(*p.e));
	if (!p.e)
		return err_set(err, -ENOMEM, "out of memory");
	p.e->link_type = link_type;
	e = plain ? 0 : parse(&p, text, &plain);
	if (!e && plain) {
		e = cbpf_compile(text, link_type, &n.classic, err);
		if (!e && (e = node_new(&p, n, &p.e->root)))
			cbpf_release(&n.classic);
	}
	free(p.tokens);
	if (e)
		expression_free(p.e);
	else
		*ret = p.e;
	return e;
}

struct expression *expression_free(struct expression *e)
{
	if (!e)
		return NULL;
	node_free(e->root);
	free(e);
	return NULL;
}

static bool same(const struct node *a, const struct node *b)
{
	if (!a || !b)
		return a == b;
	return a->kind == b->kind && a->set == b->set && a->end == b->end &&
	       a->classic.n == b->classic.n &&
	       (!a->classic.n || !memcmp(a->classic.insns, b->classic.insns,
					 a->classic.n * sizeof(*a->classic.insns))) &&
	       same(a->a, b->a) && same(a->b, b->b);
}

bool expression_same(const struct expression *a, const struct expression *b)
{
	return a->link_type == b->link_type && same(a->root, b->root);
}

bool expression_needs_l3(const struct expression *e)
{
	return e->needs_l3;
}

bool expression_needs_inner(const struct expression *e)
{
	return e->needs_inner;
}
