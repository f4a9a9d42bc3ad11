/* A program of checks: it runs the one that is its only word, and ends with 0 when that comes back. */
#ifndef CHECKS_H
#define CHECKS_H

#include <stddef.h>
#include <string.h>

struct check {
	const char *name;
	void (*run)(void);
};

static int run_check(const struct check *checks, size_t number, int count, char **words)
{
	for (size_t i = 0; count == 2 && i < number; i++)
		if (!strcmp(words[1], checks[i].name)) {
			checks[i].run();
			return 0;
		}
	return 2;
}

#endif
