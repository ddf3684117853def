/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Credentials of one side: its own certificate and key and the CA of its peers, or the
 * shared key. They are loaded and checked as a whole, then never changed: a reload makes
 * a new context for new sessions, and the old one goes with its last session. So
 * contexts are counted (atomically: sessions live on many threads) and otherwise
 * read-only.
 *
 * Files are read here rather than by GnuTLS, whose errors do not tell a missing file
 * from an unreadable one, or the certificate from the key.
 */
#include "tls.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "tls_internal.h"
#include "util.h"

#define FILE_SIZE_MAX (1u << 20)
#define PSK_LABEL     "ps/1 auth.key"

/*
 * TLS 1.3 only: the list starts from nothing, so nothing older leaks in. SECURE256 would
 * refuse P-256 certificates. The profile refuses RSA keys below 2048 bits.
 */
#define PRIORITY_CERT                                                            \
	"SECURE128:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM" \
	":+CHACHA20-POLY1305:%PROFILE_MEDIUM"
/* An external PSK goes with SHA-256 suites only; of those AES-128-GCM is by far the fastest. */
#define PRIORITY_PSK "SECURE128:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:-KX-ALL:+ECDHE-PSK"

struct certs {
	gnutls_x509_crt_t *list;
	unsigned int count;
};

static void certs_done(struct certs *certs)
{
	for (unsigned int i = 0; i < certs->count; i++)
		gnutls_x509_crt_deinit(certs->list[i]);
	gnutls_free(certs->list);
}

/* Keys pass through here: nothing of a file stays in freed memory. */
static void file_done(gnutls_datum_t *file)
{
	if (file->data)
		gnutls_memset(file->data, 0, file->size);
	free(file->data);
}

static void privkey_done(gnutls_x509_privkey_t *key)
{
	if (*key)
		gnutls_x509_privkey_deinit(*key);
}

static int out_of_memory(struct err *err)
{
	return err_sys(err, -ENOMEM, "cannot set up TLS");
}

/* The whole of @path, which configuration key @key names. */
static int load_file(const char *key, const char *path, gnutls_datum_t *ret, struct err *err)
{
	_cleanup_close_ int fd = -1;
	struct stat st;
	ssize_t n;

	if (!path || !*path)
		return err_set(err, -EINVAL, "%s: not set, and TLS needs it", key);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_sys(err, -errno, "%s: cannot read \"%s\"", key, path);
	if (!S_ISREG(st.st_mode))
		return err_set(err, -EINVAL, "%s: \"%s\" is not a file", key, path);
	if (st.st_size > FILE_SIZE_MAX)
		return err_set(err, -EFBIG, "%s: \"%s\" is above 1 MiB, too large for this", key,
			       path);

	ret->data = malloc((size_t)st.st_size + 1);
	if (!ret->data)
		return out_of_memory(err);
	while (ret->size < (size_t)st.st_size) {
		n = read(fd, ret->data + ret->size, (size_t)st.st_size - ret->size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_sys(err, -errno, "%s: cannot read \"%s\"", key, path);
		if (n == 0)
			break;
		ret->size += (unsigned int)n;
	}
	ret->data[ret->size] = '\0';
	return 0;
}

static int load_certs(const char *key, const char *path, struct certs *ret, struct err *err)
{
	_cleanup_(file_done) gnutls_datum_t file = {0};
	int r;

	r = load_file(key, path, &file, err);
	if (r)
		return r;
	r = gnutls_x509_crt_list_import2(&ret->list, &ret->count, &file, GNUTLS_X509_FMT_PEM, 0);
	if (r == GNUTLS_E_MEMORY_ERROR)
		return out_of_memory(err);
	if (r == GNUTLS_E_NO_CERTIFICATE_FOUND || r == GNUTLS_E_BASE64_UNEXPECTED_HEADER_ERROR ||
	    (r >= 0 && !ret->count))
		return err_set(err, -EINVAL, "%s: there is no PEM certificate in \"%s\"", key,
			       path);
	if (r < 0)
		return err_set(err, -EINVAL, "%s: \"%s\" does not hold good PEM certificates: %s",
			       key, path, gnutls_strerror(r));
	return 0;
}

static int load_key(const char *path, gnutls_x509_privkey_t *ret, struct err *err)
{
	_cleanup_(file_done) gnutls_datum_t file = {0};
	int r;

	r = load_file("tls.keyfile", path, &file, err);
	if (r)
		return r;
	if (gnutls_x509_privkey_init(ret) < 0)
		return out_of_memory(err);
	r = gnutls_x509_privkey_import2(*ret, &file, GNUTLS_X509_FMT_PEM, NULL, 0);
	if (r == GNUTLS_E_DECRYPTION_FAILED)
		return err_set(err, -EINVAL,
			       "tls.keyfile: the key in \"%s\" is protected by a password", path);
	if (r < 0)
		return err_set(err, -EINVAL, "tls.keyfile: there is no PEM private key in \"%s\"",
			       path);
	return 0;
}

static int check_dates(const char *key, const char *path, gnutls_x509_crt_t crt, struct err *err)
{
	time_t now = time(NULL);
	time_t from = gnutls_x509_crt_get_activation_time(crt);
	time_t until = gnutls_x509_crt_get_expiration_time(crt);
	char day[32] = "";
	struct tm tm;

	if (until < now && gmtime_r(&until, &tm)) {
		strftime(day, sizeof(day), "%Y-%m-%d", &tm);
		return err_set(err, -EKEYEXPIRED, "%s: the certificate in \"%s\" expired on %s",
			       key, path, day);
	}
	if (from > now && gmtime_r(&from, &tm)) {
		strftime(day, sizeof(day), "%Y-%m-%d", &tm);
		return err_set(err, -EKEYREJECTED,
			       "%s: the certificate in \"%s\" is not valid before %s "
			       "(is the clock right?)",
			       key, path, day);
	}
	return 0;
}

static int load_own(struct tls_context *ctx, const struct tls_config *config, struct err *err)
{
	_cleanup_(certs_done) struct certs chain = {0};
	_cleanup_(privkey_done) gnutls_x509_privkey_t key = NULL;
	int r;

	r = load_certs("tls.certfile", config->certfile, &chain, err);
	r = r ? r : check_dates("tls.certfile", config->certfile, chain.list[0], err);
	r = r ? r : load_key(config->keyfile, &key, err);
	if (r)
		return r;
	r = gnutls_certificate_set_x509_key(ctx->cert, chain.list, (int)chain.count, key);
	if (r == GNUTLS_E_CERTIFICATE_KEY_MISMATCH)
		return err_set(err, -EINVAL,
			       "tls.keyfile: the key in \"%s\" does not belong to the certificate "
			       "in \"%s\"",
			       config->keyfile, config->certfile);
	if (r < 0)
		return err_set(err, -EINVAL, "tls.certfile: cannot use \"%s\": %s",
			       config->certfile, gnutls_strerror(r));
	return 0;
}

/* Old CAs may stay in the file while a new one is rolled out: one that is valid will do. */
static int load_cas(struct tls_context *ctx, const struct tls_config *config, struct err *err)
{
	_cleanup_(certs_done) struct certs cas = {0};
	int r;

	r = load_certs("tls.cafile", config->cafile, &cas, err);
	if (r)
		return r;
	for (unsigned int i = 0; i < cas.count; i++) {
		r = check_dates("tls.cafile", config->cafile, cas.list[i], err);
		if (!r)
			break;
	}
	if (r)
		return r;
	r = gnutls_certificate_set_x509_trust(ctx->cert, cas.list, (int)cas.count);
	if (r < 0)
		return err_set(err, -EINVAL, "tls.cafile: cannot use \"%s\": %s", config->cafile,
			       gnutls_strerror(r));
	ctx->cafile = strdup(config->cafile);
	return ctx->cafile ? 0 : out_of_memory(err);
}

/* 32 bytes from auth.key, bound to this protocol so that no other use of the key meets it. */
static int derive_psk(const char *psk, unsigned char out[32])
{
	gnutls_hash_hd_t hash;
	int r;

	r = gnutls_hash_init(&hash, GNUTLS_DIG_SHA256);
	if (r < 0)
		return r;
	r = gnutls_hash(hash, PSK_LABEL, sizeof(PSK_LABEL)); /* with its NUL */
	if (r >= 0)
		r = gnutls_hash(hash, psk, strlen(psk));
	gnutls_hash_deinit(hash, out);
	return r;
}

static int load_psk(struct tls_context *ctx, const struct tls_config *config, struct err *err)
{
	gnutls_datum_t key = {.data = ctx->psk_key, .size = sizeof(ctx->psk_key)};
	int r;

	if (!*config->psk)
		return err_set(err, -EINVAL, "auth.key: is empty");
	r = derive_psk(config->psk, ctx->psk_key);
	if (r >= 0 && ctx->side == TLS_AGENT) {
		r = gnutls_psk_allocate_client_credentials(&ctx->psk_client);
		if (r >= 0)
			r = gnutls_psk_set_client_credentials(ctx->psk_client, TLS_PSK_IDENTITY,
							      &key, GNUTLS_PSK_KEY_RAW);
	} else if (r >= 0) {
		r = gnutls_psk_allocate_server_credentials(&ctx->psk_server);
		if (r >= 0)
			gnutls_psk_set_server_credentials_function(ctx->psk_server, tls_find_psk);
	}
	if (r < 0)
		return err_set(err, -ENOMEM, "cannot set up TLS: %s", gnutls_strerror(r));
	return 0;
}

static int load(struct tls_context *ctx, const struct tls_config *config, struct err *err)
{
	const char *priority = ctx->use_psk ? PRIORITY_PSK : PRIORITY_CERT;
	int r;

	r = gnutls_priority_init2(&ctx->priority, priority, NULL, 0);
	if (r < 0)
		return err_set(err, -EINVAL, "cannot set up TLS 1.3 (\"%s\"): %s", priority,
			       gnutls_strerror(r));
	if (ctx->use_psk)
		return load_psk(ctx, config, err);
	if (gnutls_certificate_allocate_credentials(&ctx->cert) < 0)
		return out_of_memory(err);
	r = load_own(ctx, config, err);
	return r ? r : load_cas(ctx, config, err);
}

int tls_context_new(enum tls_side side, const struct tls_config *config, struct tls_context **ret,
		    struct err *err)
{
	struct tls_context *ctx = calloc(1, sizeof(*ctx));
	int r;

	if (!ctx)
		return out_of_memory(err);
	ctx->refs = 1;
	ctx->side = side;
	ctx->enable = config->enable;
	ctx->use_psk = config->psk != NULL;
	r = ctx->enable ? load(ctx, config, err) : 0;
	if (r) {
		tls_context_free(ctx);
		return r;
	}
	*ret = ctx;
	return 0;
}

struct tls_context *tls_context_ref(struct tls_context *ctx)
{
	atomic_fetch_add(&ctx->refs, 1);
	return ctx;
}

struct tls_context *tls_context_free(struct tls_context *ctx)
{
	if (!ctx || atomic_fetch_sub(&ctx->refs, 1) != 1)
		return NULL;
	if (ctx->cert)
		gnutls_certificate_free_credentials(ctx->cert);
	if (ctx->psk_client)
		gnutls_psk_free_client_credentials(ctx->psk_client);
	if (ctx->psk_server)
		gnutls_psk_free_server_credentials(ctx->psk_server);
	if (ctx->priority)
		gnutls_priority_deinit(ctx->priority);
	gnutls_memset(ctx->psk_key, 0, sizeof(ctx->psk_key));
	free(ctx->cafile);
	free(ctx);
	return NULL;
}
