/* What hyperstart tells: failures to the one who asked, lines to hyperd's log, steps to the timeline. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* The errno of the last thing that went wrong, what was tried and on what. */
struct failure {
	int error;
	char operation[32];
	char subject[216];
};

/*
 * Functions return 0 (or something useful) or -errno.  The one that finds the failure notes it with
 * these, which return -errno, and its callers only pass the number on.
 */
int failed(const char *operation, const char *subject); /* takes errno */
int failed_with(int error, const char *operation, const char *subject);

/* A line for hyperd's log, or for the console as long as there is no hyperd. */
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Before the channel is up nobody could be told, so: print and power off. */
_Noreturn void die(const char *what);

uint64_t now_ns(void); /* CLOCK_BOOTTIME */

/* Note that a step has been reached; `about` may be "". */
void mark(const char *step, const char *about);

#define MARKS 64
#define MARK_NAME 64

struct timeline {
	size_t count; /* of all marks; the newest MARKS are kept */
	struct {
		char name[MARK_NAME];
		uint64_t at_ns;
	} marks[MARKS];
};
