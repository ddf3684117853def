/* SPDX-License-Identifier: Apache-2.0 */
#include "tlv.h"

#include <errno.h>

#include "util.h"

#define TLV_HEAD 4u

static void put_head(struct buf *out, uint16_t type, size_t len)
{
	if (len > UINT16_MAX) {
		out->failed = true;
		return;
	}
	buf_put_le16(out, type);
	buf_put_le16(out, (uint16_t)len);
}

static bool control(uint8_t c)
{
	return c < 0x20 || c == 0x7f;
}

/*
 * Linux lets an interface be called almost anything. What the decoder would refuse
 * becomes a question mark, or one odd name would end every session of its agent.
 */
static void put_string(struct buf *out, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		buf_put_u8(out, control((uint8_t)s[i]) ? '?' : (uint8_t)s[i]);
}

static void encode_field(struct buf *out, const struct tlv_field *f, const void *from)
{
	const char *p = (const char *)from + f->offset;
	size_t len;

	switch ((enum tlv_kind)f->kind) {
	case TLV_U8:
	case TLV_BOOL:
		put_head(out, f->type, 1);
		buf_put_u8(out, *(const uint8_t *)p);
		break;
	case TLV_U32:
		put_head(out, f->type, 4);
		buf_put_le32(out, *(const uint32_t *)(const void *)p);
		break;
	case TLV_U64:
		put_head(out, f->type, 8);
		buf_put_le64(out, *(const uint64_t *)(const void *)p);
		break;
	case TLV_BYTES:
		put_head(out, f->type, f->size);
		buf_put(out, p, f->size);
		break;
	case TLV_STRING:
		len = strnlen(p, f->size);
		put_head(out, f->type, len);
		put_string(out, p, len);
		break;
	}
}

void tlv_encode(struct buf *out, const struct tlv_field *fields, size_t n, const void *from)
{
	for (size_t i = 0; i < n; i++)
		encode_field(out, &fields[i], from);
}

static bool printable(const uint8_t *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (control(s[i]))
			return false;
	return true;
}

static int decode_field(const struct tlv *t, const struct tlv_field *f, void *into, struct err *err)
{
	static const uint8_t lengths[] = {
		[TLV_U8] = 1, [TLV_BOOL] = 1, [TLV_U32] = 4, [TLV_U64] = 8};
	char *p = (char *)into + f->offset;

	if (f->kind == TLV_STRING ? t->len >= f->size
				  : t->len != (f->kind == TLV_BYTES ? f->size : lengths[f->kind]))
		return err_set(err, -EBADMSG, "field %s has a length of %u", f->name, t->len);

	switch ((enum tlv_kind)f->kind) {
	case TLV_U8:
		*(uint8_t *)p = t->value[0];
		break;
	case TLV_BOOL:
		if (t->value[0] > 1)
			return err_set(err, -EBADMSG, "field %s is neither 0 nor 1", f->name);
		*(bool *)p = t->value[0];
		break;
	case TLV_U32:
		*(uint32_t *)(void *)p = get_le32(t->value);
		break;
	case TLV_U64:
		*(uint64_t *)(void *)p = get_le64(t->value);
		break;
	case TLV_BYTES:
		memcpy(p, t->value, f->size);
		break;
	case TLV_STRING:
		if (!printable(t->value, t->len))
			return err_set(err, -EBADMSG, "field %s has control characters", f->name);
		memcpy(p, t->value, t->len);
		p[t->len] = '\0';
		break;
	}
	return 0;
}

static const struct tlv_field *find(const struct tlv_field *fields, size_t n, uint16_t type)
{
	for (size_t i = 0; i < n; i++)
		if (fields[i].type == type)
			return &fields[i];
	return NULL;
}

int tlv_decode(const uint8_t *in, size_t size, const struct tlv_field *fields, size_t n, void *into,
	       struct err *err)
{
	struct tlv_reader r = {in, size};
	uint64_t seen = 0;
	struct tlv t;
	int more;

	while ((more = tlv_next(&r, &t)) > 0) {
		const struct tlv_field *f = find(fields, n, t.type);
		int e;

		if (!f)
			continue;
		if (seen & 1ull << t.type)
			return err_set(err, -EBADMSG, "field %s is there twice", f->name);
		seen |= 1ull << t.type;
		e = decode_field(&t, f, into, err);
		if (e < 0)
			return e;
	}
	if (more < 0)
		return err_set(err, -EBADMSG, "the fields are cut short");
	for (size_t i = 0; i < n; i++)
		if (!fields[i].optional && !(seen & 1ull << fields[i].type))
			return err_set(err, -EBADMSG, "field %s is missing", fields[i].name);
	return 0;
}

size_t tlv_begin(struct buf *out, uint16_t type)
{
	put_head(out, type, 0);
	return out->len;
}

void tlv_end(struct buf *out, size_t mark)
{
	size_t len = out->len - mark;

	if (out->failed)
		return;
	if (len > UINT16_MAX) {
		out->failed = true;
		return;
	}
	put_le16(out->data + mark - 2, (uint16_t)len);
}

int tlv_next(struct tlv_reader *r, struct tlv *ret)
{
	if (!r->left)
		return 0;
	if (r->left < TLV_HEAD)
		return -EBADMSG;
	ret->type = get_le16(r->p);
	ret->len = get_le16(r->p + 2);
	ret->value = r->p + TLV_HEAD;
	if (ret->len > r->left - TLV_HEAD)
		return -EBADMSG;
	r->p += TLV_HEAD + ret->len;
	r->left -= TLV_HEAD + ret->len;
	return 1;
}

long tlv_count(const uint8_t *in, size_t size, uint16_t type)
{
	struct tlv_reader r = {in, size};
	struct tlv t;
	long n = 0;
	int more;

	while ((more = tlv_next(&r, &t)) > 0)
		n += t.type == type;
	return more < 0 ? more : n;
}

int tlv_decode_array(const uint8_t *in, size_t n, uint16_t type, size_t max, size_t size,
		     tlv_decode_fn *decode, void **ret, size_t *ret_n, struct err *err)
{
	struct tlv_reader r = {in, n};
	long count = tlv_count(in, n, type);
	struct tlv t;
	char *array;

	*ret = NULL;
	*ret_n = 0;
	if (count < 0)
		return err_set(err, -EBADMSG, "the fields are cut short");
	if ((size_t)count > max)
		return err_set(err, -EBADMSG, "%ld entries, at most %zu", count, max);
	if (!count)
		return 0;
	array = calloc((size_t)count, size);
	if (!array)
		return err_set(err, -ENOMEM, "out of memory");
	*ret = array;
	while (tlv_next(&r, &t) > 0) {
		int e;

		if (t.type != type)
			continue;
		e = decode(t.value, t.len, array + *ret_n * size, err);
		if (e < 0)
			return e;
		(*ret_n)++;
	}
	return 0;
}
