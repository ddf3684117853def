/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An error is a negative errno for the program and one sentence for people.
 * The sentence travels in a struct err owned by the caller, is the last
 * argument, and is untouched on success. Modules fill it and stay silent;
 * main, agent and session code logs it, once.
 */
#ifndef PS_ERR_H
#define PS_ERR_H

struct err {
	char text[512];
};

/*
 * Write the sentence and return @code (a negative errno), so that a failing
 * function ends in `return err_set(err, -EINVAL, "...", ...)`. @err may be NULL.
 */
__attribute__((format(printf, 3, 4))) int err_set(struct err *err, int code, const char *fmt, ...);

/* As err_set(), with ": <text of the errno>" after the sentence. @code is -errno. */
__attribute__((format(printf, 3, 4))) int err_sys(struct err *err, int code, const char *fmt, ...);

/* Put "<prefix>: " before what @err says already; returns @code. */
__attribute__((format(printf, 3, 4))) int err_wrap(struct err *err, int code, const char *fmt, ...);

#endif
