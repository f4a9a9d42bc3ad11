// SPDX-License-Identifier: GPL-2.0
/*
 * Makes system calls and page faults of the guest's processes cheaper: each is a few calls of ptrace(2), and
 * two switches between the kernel's thread and the process that stands for an address space.
 *
 * 1. Floating-point registers stay in that process for as long as the task that they belong to runs
 *    in it. Fetched and put back at each trap, as User-Mode Linux does by itself, they are some
 *    thousand bytes and a vmalloc of the host each time. `fp_owner` of an address space is the task
 *    whose registers are there; the registers of all others are in their regs->fp.
 *
 * 2. The two never run at once, but a host with an idle processor wakes each of them up over there: an interrupt
 *    between processors, and cold caches, at each trap. So both are bound to one, for most of the time:
 *    every BOUND_MS the host's scheduler has FREE_MS to put them elsewhere, and who sleeps is not bound.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <mm_id.h>
#include <registers.h>
#include <sysdep/ptrace.h>

#include "hyper_faults.h"
#include "hyper_traps.h"

#define FREE_MS 8
#define BOUND_MS 56
#define ANYWHERE (-1)
#define UNKNOWN (-2)

static cpu_set_t allowed; /* what we were started with */
static int here = ANYWHERE; /* the processor that the kernel's thread is bound to */

void hyper_traps_begin(struct mm_id *space)
{
	space->fp_owner = NULL;
	space->processor = UNKNOWN;
}

int hyper_take_fp(struct mm_id *space, struct uml_pt_regs *regs)
{
	if (!space || space->fp_owner != regs)
		return 0;
	space->fp_owner = NULL;
	return get_fp_registers(space->pid, regs->fp);
}

int hyper_give_fp(struct mm_id *space, struct uml_pt_regs *regs)
{
	int err = 0;

	if (space->fp_owner == regs)
		return 0;
	if (space->fp_owner)
		err = hyper_take_fp(space, space->fp_owner);
	if (!err)
		err = put_fp_registers(space->pid, regs->fp);
	if (!err)
		space->fp_owner = regs;
	return err;
}

int hyper_is_known(int pid, struct faultinfo *fault)
{
	siginfo_t info;

	if (ptrace(PTRACE_GETSIGINFO, pid, 0, &info))
		return 0;
	return (info.si_code == SEGV_MAPERR || info.si_code == SEGV_ACCERR) &&
	       hyper_know_fault((unsigned long)info.si_addr, info.si_code == SEGV_ACCERR, fault);
}

/* The C library's functions have the names of the guest kernel's own. */
static bool has_one_processor(void)
{
	static int count;

	if (count == 0)
		count = syscall(SYS_sched_getaffinity, 0, sizeof(allowed), &allowed) < 0 ? 1 :
											   CPU_COUNT(&allowed);
	return count == 1;
}

/* All machines of a host let go at the same time, so that its scheduler can change their places. */
static bool is_time_to_move(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (now.tv_sec * 1000 + now.tv_nsec / 1000000) % (FREE_MS + BOUND_MS) < FREE_MS;
}

static int processor_now(void)
{
	unsigned int processor;

	return syscall(SYS_getcpu, &processor, NULL, NULL) ? ANYWHERE : (int)processor;
}

/* A host that refuses has other plans for us: then we are where it wants us. */
static void bind_to(int pid, int processor)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	if (processor >= 0 && processor < CPU_SETSIZE)
		CPU_SET(processor, &one);
	syscall(SYS_sched_setaffinity, pid, sizeof(one), processor == ANYWHERE ? &allowed : &one);
}

void hyper_come_near(struct mm_id *space)
{
	int place = here;

	if (has_one_processor())
		return;
	if (is_time_to_move())
		place = ANYWHERE;
	else if (here == ANYWHERE)
		place = processor_now();
	if (here != place)
		bind_to(0, place);
	if (space->processor != place)
		bind_to(space->pid, place);
	here = space->processor = place;
}

void hyper_let_go(void)
{
	if (here != ANYWHERE)
		bind_to(0, ANYWHERE);
	here = ANYWHERE;
}
