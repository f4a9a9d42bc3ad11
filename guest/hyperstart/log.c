/* See log.h. */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"

int failed_with(int error, const char *operation, const char *subject)
{
	struct failure *failure = &guest.failure;

	failure->error = error;
	snprintf(failure->operation, sizeof(failure->operation), "%s", operation);
	snprintf(failure->subject, sizeof(failure->subject), "%s", subject);
	return -error;
}

int failed(const char *operation, const char *subject)
{
	return failed_with(errno ? errno : EIO, operation, subject);
}

void log_line(const char *format, ...)
{
	char line[512];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	if (!session_tell(line))
		dprintf(STDERR_FILENO, "hyperstart: %s\n", line);
}

void die(const char *what)
{
	const struct failure *failure = &guest.failure;

	dprintf(STDERR_FILENO, "hyperstart: %s: %s %s: %s\n", what, failure->operation, failure->subject,
		strerror(failure->error));
	if (!guest.in_namespaces)
		reboot(RB_POWER_OFF);
	exit(1);
}

uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void mark(const char *step, const char *about)
{
	struct timeline *timeline = &guest.timeline;
	size_t at = timeline->count++ % MARKS;

	snprintf(timeline->marks[at].name, MARK_NAME, about[0] ? "%s %s" : "%s", step, about);
	timeline->marks[at].at_ns = now_ns();
}
