/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One session: handshake, data, goodbye, over a socket that the caller owns. Plain text
 * (no GnuTLS session) takes the same way. A session belongs to one thread at a time;
 * its credentials are shared and read-only. Nothing here waits.
 *
 * The GnuTLS traps that shape this file:
 *  - A client's handshake succeeds before the server has judged its certificate. So an
 *    alert at the first tls_recv() or tls_send() is worded like one in the handshake,
 *    and a failed send looks for the alert that explains it.
 *  - Resumption skips the verify callback: no tickets, and `verified` must be set.
 *  - GNUTLS_ALPN_MANDATORY lets a peer pass that offers no protocol at all: what was
 *    selected is checked on both sides.
 *  - Without FORCE_CLIENT_CERT a client keeps its certificate back when the server does
 *    not name its CA, and the server could only say that there was none.
 *  - An error is final: no call goes back to GnuTLS with a session that has failed.
 */
#include "tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "tls_internal.h"
#include "util.h"

#define RECORD_TYPE_MIN 20 /* change_cipher_spec .. application_data, RFC 8446, 5.1 */
#define RECORD_TYPE_MAX 23
#define RECORD_MAJOR    3

/* Whether the first two bytes of a connection can be those of a TLS record. */
static bool looks_like_tls(struct tls *t, const unsigned char *data, size_t size)
{
	for (size_t i = 0; i < size && t->sniffed < 2; i++, t->sniffed++) {
		if (t->sniffed == 0 && (data[i] < RECORD_TYPE_MIN || data[i] > RECORD_TYPE_MAX))
			return false;
		if (t->sniffed == 1 && data[i] != RECORD_MAJOR)
			return false;
	}
	return true;
}

/* GnuTLS needs the errno to tell "again" from the end; we, to say what the end was. */
static ssize_t transport_error(struct tls *t, int code)
{
	if (code != EAGAIN)
		t->io_errno = code;
	gnutls_transport_set_errno(t->session, code);
	return -1;
}

static ssize_t pull(gnutls_transport_ptr_t ptr, void *data, size_t size)
{
	struct tls *t = ptr;
	ssize_t n;

	do
		n = recv(t->fd, data, size, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return transport_error(t, errno);
	if (n == 0)
		t->eof = true;
	if (!looks_like_tls(t, data, (size_t)n)) {
		t->not_tls = true;
		return transport_error(t, EPROTO);
	}
	return n;
}

static ssize_t push(gnutls_transport_ptr_t ptr, const giovec_t *iov, int count)
{
	struct tls *t = ptr;
	giovec_t copy[32]; /* as many as GnuTLS passes at a time */
	struct msghdr msg = {.msg_iov = copy, .msg_iovlen = (size_t)MIN(count, 32)};
	ssize_t n, pretended = 0;

	/* sendmsg() wants a writable vector; GnuTLS comes again for what it has not taken. */
	memcpy(copy, iov, msg.msg_iovlen * sizeof(copy[0]));
	do
		n = sendmsg(t->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	if (t->established || (errno != EPIPE && errno != ECONNRESET))
		return transport_error(t, errno);
	/*
	 * The peer hung up in the middle of the handshake, and the alert that says why may
	 * be waiting. GnuTLS would not read it after an error, so it gets none: what comes in
	 * next is the alert, or the end.
	 */
	for (int i = 0; i < count; i++)
		pretended += (ssize_t)iov[i].iov_len;
	return pretended;
}

/* Called by GnuTLS in tls_handshake(), when the peer's certificate is there. */
static int on_certificate(gnutls_session_t session)
{
	struct tls *t = gnutls_session_get_ptr(session);

	t->verdict = tls_verify_peer(t->ctx, session, t->server_name, &t->peer, t->err);
	t->verified = !t->verdict;
	return t->verdict ? GNUTLS_E_CERTIFICATE_ERROR : 0;
}

int tls_find_psk(gnutls_session_t session, const char *identity, gnutls_datum_t *ret_key)
{
	const struct tls *t = gnutls_session_get_ptr(session);

	if (strcmp(identity, TLS_PSK_IDENTITY))
		return -1;
	ret_key->data = gnutls_malloc(sizeof(t->ctx->psk_key));
	if (!ret_key->data)
		return -1;
	memcpy(ret_key->data, t->ctx->psk_key, sizeof(t->ctx->psk_key));
	ret_key->size = sizeof(t->ctx->psk_key);
	return 0;
}

/* The name to verify and to send: no scope, no brackets, no dot at the end. */
static char *normal_name(const char *name)
{
	size_t len = strcspn(name, "%");

	if (len > 1 && name[0] == '[' && name[len - 1] == ']')
		return strndup(name + 1, len - 2);
	if (len > 1 && name[len - 1] == '.')
		len--;
	return strndup(name, len);
}

static bool is_address(const char *name)
{
	unsigned char addr[16];

	return inet_pton(AF_INET, name, addr) == 1 || inet_pton(AF_INET6, name, addr) == 1;
}

static int set_credentials(struct tls *t)
{
	struct tls_context *ctx = t->ctx;

	if (ctx->psk_client)
		return gnutls_credentials_set(t->session, GNUTLS_CRD_PSK, ctx->psk_client);
	if (ctx->psk_server)
		return gnutls_credentials_set(t->session, GNUTLS_CRD_PSK, ctx->psk_server);
	gnutls_session_set_verify_function(t->session, on_certificate);
	if (ctx->side == TLS_COLLECTOR)
		gnutls_certificate_server_set_request(t->session, GNUTLS_CERT_REQUIRE);
	return gnutls_credentials_set(t->session, GNUTLS_CRD_CERTIFICATE, ctx->cert);
}

static int set_up(struct tls *t)
{
	unsigned int flags = GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS;
	gnutls_datum_t alpn = {.data = (unsigned char[]){TLS_ALPN}, .size = sizeof(TLS_ALPN) - 1};
	int r;

	flags |= t->ctx->side == TLS_AGENT ? GNUTLS_CLIENT | GNUTLS_FORCE_CLIENT_CERT
					   : GNUTLS_SERVER;
	r = gnutls_init(&t->session, flags);
	if (r < 0)
		return r;
	gnutls_session_set_ptr(t->session, t);
	gnutls_transport_set_ptr(t->session, t);
	gnutls_transport_set_pull_function(t->session, pull);
	gnutls_transport_set_vec_push_function(t->session, push);
	r = gnutls_priority_set(t->session, t->ctx->priority);
	if (r >= 0)
		r = gnutls_alpn_set_protocols(t->session, &alpn, 1, GNUTLS_ALPN_MANDATORY);
	if (r >= 0)
		r = set_credentials(t);
	if (r >= 0 && t->server_name && !is_address(t->server_name))
		r = gnutls_server_name_set(t->session, GNUTLS_NAME_DNS, t->server_name,
					   strlen(t->server_name));
	return r;
}

int tls_new(struct tls_context *ctx, int fd, const char *server_name, struct tls **ret,
	    struct err *err)
{
	bool by_name = ctx->enable && !ctx->use_psk && ctx->side == TLS_AGENT;
	struct tls *t;
	int r;

	if (by_name && (!server_name || !*server_name))
		return err_set(err, -EINVAL, "no name to look for in the collector's certificate");
	t = calloc(1, sizeof(*t));
	if (!t)
		return err_sys(err, -ENOMEM, "cannot set up a session");
	t->fd = fd;
	t->events = POLLIN;
	t->ctx = tls_context_ref(ctx);
	if (by_name)
		t->server_name = normal_name(server_name);
	r = by_name && !t->server_name ? GNUTLS_E_MEMORY_ERROR : 0;
	if (!r && ctx->enable)
		r = set_up(t);
	if (r < 0) {
		tls_free(t);
		return err_set(err, r == GNUTLS_E_MEMORY_ERROR ? -ENOMEM : -EINVAL,
			       "cannot set up a TLS session: %s", gnutls_strerror(r));
	}
	t->established = !ctx->enable;
	t->peer.expires = UINT64_MAX;
	*ret = t;
	return 0;
}

void tls_goodbye(struct tls *t)
{
	/* The socket does not block, so neither does this; what does not fit is lost. */
	if (t->session && t->established && !t->failed && !t->said_goodbye)
		gnutls_bye(t->session, GNUTLS_SHUT_WR);
	t->said_goodbye = true;
}

struct tls *tls_free(struct tls *t)
{
	if (!t)
		return NULL;
	tls_goodbye(t);
	if (t->session)
		gnutls_deinit(t->session);
	tls_context_free(t->ctx);
	free(t->server_name);
	free(t);
	return NULL;
}

static int fail(struct tls *t, int code)
{
	t->failed = code;
	return code;
}

/* A call on a session that cannot take it: has failed, or is not there yet. */
static int check_usable(struct tls *t, size_t size, struct err *err)
{
	if (t->failed)
		return err_set(err, t->failed, "the connection to the %s has failed before",
			       tls_peer_role(t->ctx));
	if (!t->established)
		return err_set(err, -ENOTCONN, "the connection to the %s is not set up yet",
			       tls_peer_role(t->ctx));
	if (!size)
		return err_set(err, -EINVAL, "nothing to send or no room to receive");
	return 0;
}

static int wait_for(struct tls *t, short events)
{
	t->events = events;
	return -EAGAIN;
}

static bool is_again(int r)
{
	return r == GNUTLS_E_AGAIN || r == GNUTLS_E_INTERRUPTED;
}

/* GnuTLS is content; are we? */
static int check_session(struct tls *t)
{
	gnutls_datum_t alpn = {0};

	if (gnutls_protocol_get_version(t->session) != GNUTLS_TLS1_3)
		return GNUTLS_E_UNSUPPORTED_VERSION_PACKET;
	if (gnutls_alpn_get_selected_protocol(t->session, &alpn) < 0 ||
	    alpn.size != strlen(TLS_ALPN) || memcmp(alpn.data, TLS_ALPN, alpn.size))
		return GNUTLS_E_NO_APPLICATION_PROTOCOL;
	if (!t->ctx->use_psk && (!t->verified || gnutls_session_is_resumed(t->session)))
		return GNUTLS_E_CERTIFICATE_REQUIRED;
	return 0;
}

int tls_handshake(struct tls *t, struct err *err)
{
	int r, alert;

	if (t->failed)
		return check_usable(t, 1, err);
	if (t->established)
		return 1;
	t->err = err;
	r = gnutls_handshake(t->session);
	t->err = NULL;
	if (is_again(r))
		return wait_for(t, gnutls_record_get_direction(t->session) ? POLLOUT : POLLIN);
	if (r >= 0)
		r = check_session(t);
	if (r < 0) {
		r = tls_handshake_error(t, r, &alert, err);
		/* As far as it goes without waiting. */
		if (alert >= 0)
			gnutls_alert_send(t->session, GNUTLS_AL_FATAL,
					  (gnutls_alert_description_t)alert);
		return fail(t, r);
	}
	if (t->ctx->use_psk)
		memcpy(t->peer.identity, "psk", sizeof("psk"));
	t->established = true;
	return 1;
}

static ssize_t plain_send(struct tls *t, const void *data, size_t size, struct err *err)
{
	ssize_t n;

	do
		n = send(t->fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	if (errno == EAGAIN)
		return wait_for(t, POLLOUT);
	n = err_sys(err, -errno, "the connection to the %s failed", tls_peer_role(t->ctx));
	return fail(t, (int)n);
}

static ssize_t plain_recv(struct tls *t, void *data, size_t size, struct err *err)
{
	ssize_t n;

	do
		n = recv(t->fd, data, size, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n >= 0)
		return n;
	if (errno == EAGAIN)
		return wait_for(t, POLLIN);
	n = err_sys(err, -errno, "the connection to the %s failed", tls_peer_role(t->ctx));
	return fail(t, (int)n);
}

ssize_t tls_send(struct tls *t, const void *data, size_t size, struct err *err)
{
	unsigned char byte;
	ssize_t n = check_usable(t, size, err);
	int r;

	if (n)
		return n;
	if (!t->session)
		return plain_send(t, data, size, err);
	n = gnutls_record_send(t->session, data, size);
	if (n > 0)
		return n;
	r = (int)n;
	if (is_again(r))
		return wait_for(t, POLLOUT);
	/* A peer that refused us has said why before it closed: the alert is still to be read. */
	if (t->io_errno && !t->heard) {
		int why = (int)gnutls_record_recv(t->session, &byte, sizeof(byte));

		if (tls_is_alert(why))
			r = why;
	}
	return fail(t, tls_record_error(t, r, err));
}

ssize_t tls_recv(struct tls *t, void *data, size_t size, struct err *err)
{
	ssize_t n = check_usable(t, size, err);

	if (n)
		return n;
	if (!t->session)
		return plain_recv(t, data, size, err);
	n = gnutls_record_recv(t->session, data, size);
	if (n > 0)
		t->heard = true;
	if (n >= 0)
		return n;
	/* GnuTLS also says "again" after a message of its own; poll(2) then returns at once. */
	if (is_again((int)n))
		return wait_for(t, gnutls_record_get_direction(t->session) ? POLLOUT : POLLIN);
	return fail(t, tls_record_error(t, (int)n, err));
}

short tls_events(const struct tls *t)
{
	return t->events;
}

size_t tls_pending(const struct tls *t)
{
	return t->session ? gnutls_record_check_pending(t->session) : 0;
}

const char *tls_peer_identity(const struct tls *t)
{
	return t->established ? t->peer.identity : "";
}
