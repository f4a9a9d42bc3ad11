// SPDX-License-Identifier: GPL-2.0
/*
 * What must be put right in the process before User-Mode Linux starts in it, so that whoever starts
 * it needs to know neither.
 *
 * 1. A heap at a random address. User-Mode Linux counts everything from its image to its heap as the
 *    guest's memory. The host puts up to 1 GiB between the two, so a small guest sometimes has a
 *    page array larger than its memory, and dies before its first message. We turn randomizing
 *    off and start over (personality(2)); the image itself is at a fixed address in any case.
 *
 * 2. Restartable sequences. User-Mode Linux clones itself to make an address space for the guest's
 *    processes and unmaps all but its stub there; the host's kernel keeps the clone's registration
 *    of the C library's rseq area. In a static kernel that area lies in what was unmapped, and the
 *    host answers the next signal with SIGSEGV. We give the registration up.
 */
#include <sys/personality.h>
#include <sys/syscall.h>
#include <unistd.h>

#if __has_include(<sys/rseq.h>)
#include <sys/rseq.h>

/* The size of the area's first version, which C libraries register whatever they use of it. */
#define HYPER_RSEQ_SIZE 32

static void unregister_rseq(void)
{
	void *area = (char *)__builtin_thread_pointer() + __rseq_offset;

	if (__rseq_size == 0)
		return;
	if (syscall(SYS_rseq, area, HYPER_RSEQ_SIZE, RSEQ_FLAG_UNREGISTER, RSEQ_SIG))
		syscall(SYS_rseq, area, __rseq_size, RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
}
#else
static void unregister_rseq(void)
{
}
#endif

/* Returns when addresses are not randomized, or when the host does not let us have that. */
static void fix_addresses(char **arguments, char **environment)
{
	int now = personality(0xffffffff);

	if (now < 0 || now & ADDR_NO_RANDOMIZE)
		return;
	if (personality(now | ADDR_NO_RANDOMIZE) < 0)
		return;
	/* A host that says yes and does no would have us start over for ever. */
	if (personality(0xffffffff) & ADDR_NO_RANDOMIZE)
		execve("/proc/self/exe", arguments, environment);
}

/* The C library hands constructors what it hands main. */
__attribute__((constructor)) static void hyper_start(int count, char **arguments, char **environment)
{
	(void)count;
	fix_addresses(arguments, environment);
	unregister_rseq();
}
