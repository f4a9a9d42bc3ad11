/* See pages.h. */
#include "pages.h"

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>

#include "guest.h"

#define PAGE 4096u
#define STACK_BELOW (4 * PAGE) /* what a few calls with a path in each take */
#define POPULATE_READ 22 /* linux/mman.h, since 5.14 */
#define POPULATE_WRITE 23

extern char __executable_start, etext, edata; /* the linker's */

/* What the kernel refuses is left to faults. */
static void populate(const void *first, const void *last, int how)
{
	uintptr_t from = (uintptr_t)first & ~(uintptr_t)(PAGE - 1);
	int saved = errno;

	madvise((void *)from, ((uintptr_t)last | (PAGE - 1)) + 1 - from, how);
	errno = saved;
}

void pages_take(void)
{
	const uint8_t *stack = __builtin_frame_address(0);

	populate(&guest, &edata, POPULATE_WRITE);
	populate(&errno, &errno, POPULATE_WRITE);
	populate(stack - STACK_BELOW, stack, POPULATE_WRITE);
}

void pages_find(void)
{
	populate(&__executable_start, &etext, POPULATE_READ);
}
