/*
 * Vector registers keep what a program put there, whatever the kernel does meanwhile.
 *
 *     registers WHAT
 *
 * Prints nothing and ends with 0 when they do.  In assembly, as a compiler saves what it wants to keep.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "checks.h"

#define ROUNDS 300
#define THREADS 4

struct vectors {
	uint64_t words[16]; /* of xmm0 to xmm7 */
} __attribute__((aligned(16)));

#define LOAD                                                                                     \
	"movaps 0(%[in]), %%xmm0\n movaps 16(%[in]), %%xmm1\n movaps 32(%[in]), %%xmm2\n"        \
	"movaps 48(%[in]), %%xmm3\n movaps 64(%[in]), %%xmm4\n movaps 80(%[in]), %%xmm5\n"       \
	"movaps 96(%[in]), %%xmm6\n movaps 112(%[in]), %%xmm7\n"
#define STORE                                                                                    \
	"movaps %%xmm0, 0(%[out])\n movaps %%xmm1, 16(%[out])\n movaps %%xmm2, 32(%[out])\n"     \
	"movaps %%xmm3, 48(%[out])\n movaps %%xmm4, 64(%[out])\n movaps %%xmm5, 80(%[out])\n"    \
	"movaps %%xmm6, 96(%[out])\n movaps %%xmm7, 112(%[out])\n"
#define VECTORS "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7"

static struct vectors pattern(uint64_t seed)
{
	struct vectors made;

	for (unsigned int i = 0; i < 16; i++)
		made.words[i] = seed * UINT64_C(0x9e3779b97f4a7c15) + i;
	return made;
}

/* A system call, and what the registers are after it. */
static long call(long number, long a, long b, const struct vectors *in, struct vectors *out)
{
	long result = number;

	__asm__ volatile(LOAD "syscall\n" STORE
			 : "+a"(result)
			 : [in] "r"(in), [out] "r"(out), "D"(a), "S"(b), "d"(0L)
			 : "rcx", "r11", "memory", VECTORS);
	return result;
}

static void touch(volatile char *page, const struct vectors *in, struct vectors *out)
{
	__asm__ volatile(LOAD "movb $1, (%[page])\n" STORE
			 :
			 : [in] "r"(in), [out] "r"(out), [page] "r"(page)
			 : "memory", VECTORS);
}

/* Long enough for a timer's signal to come in between. */
static void spin(long turns, const struct vectors *in, struct vectors *out)
{
	__asm__ volatile(LOAD "1: dec %[turns]\n jnz 1b\n" STORE
			 : [turns] "+r"(turns)
			 : [in] "r"(in), [out] "r"(out)
			 : "memory", VECTORS);
}

static void same(const char *what, const struct vectors *in, const struct vectors *out)
{
	if (!memcmp(in, out, sizeof(*in)))
		return;
	fprintf(stderr, "registers: lost in %s\n", what);
	_exit(1);
}

static void check_all(uint64_t seed)
{
	const struct vectors in = pattern(seed);
	const size_t size = 4 << 12;
	char *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct vectors out;

	call(SYS_getppid, 0, 0, &in, &out);
	same("a system call", &in, &out);
	call(SYS_sched_yield, 0, 0, &in, &out);
	same("a switch", &in, &out);
	for (size_t at = 0; at < size; at += 1 << 12) {
		touch(pages + at, &in, &out);
		same("a fault", &in, &out);
	}
	spin(20000, &in, &out);
	same("a loop", &in, &out);
	munmap(pages, size);
}

static void calls(void)
{
	for (uint64_t i = 0; i < ROUNDS; i++)
		check_all(i);
}

static void *thread(void *seed)
{
	for (uint64_t i = 0; i < ROUNDS; i++)
		check_all((uintptr_t)seed + i * THREADS);
	return NULL;
}

static void threads(void)
{
	pthread_t all[THREADS];

	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&all[i], NULL, thread, (void *)i);
	for (int i = 0; i < THREADS; i++)
		pthread_join(all[i], NULL);
}

static volatile sig_atomic_t interrupted;

static void clobber(int number)
{
	const struct vectors other = pattern(77);
	struct vectors out;

	(void)number;
	interrupted++;
	call(SYS_getppid, 0, 0, &other, &out);
	same("a handler", &other, &out);
}

static void signals(void)
{
	const struct itimerval often = { { 0, 1000 }, { 0, 1000 } };

	signal(SIGALRM, clobber);
	setitimer(ITIMER_REAL, &often, NULL);
	for (uint64_t i = 0; interrupted < 50; i++)
		check_all(i);
}

static const struct vectors *changed;

static void change(int number, siginfo_t *information, void *context)
{
	ucontext_t *interrupted_at = context;

	(void)number;
	(void)information;
	memcpy(interrupted_at->uc_mcontext.fpregs->_xmm, changed, sizeof(*changed));
}

/* What a handler writes into its frame is there when it has returned. */
static void frames(void)
{
	const struct sigaction action = { .sa_sigaction = change, .sa_flags = SA_SIGINFO };
	const struct vectors in = pattern(1), wanted = pattern(2);
	struct vectors out;

	changed = &wanted;
	sigaction(SIGUSR1, &action, NULL);
	call(SYS_kill, getpid(), SIGUSR1, &in, &out);
	same("a frame", &wanted, &out);
}

static void end_child(const char *what, pid_t child)
{
	int status;

	if (child < 0 || waitpid(child, &status, 0) != child || status) {
		fprintf(stderr, "registers: the child of %s\n", what);
		_exit(1);
	}
}

/* A child begins with its parent's registers, and then each has its own. */
static void forks(void)
{
	for (uint64_t i = 0; i < 50; i++) {
		const struct vectors in = pattern(i);
		struct vectors out;
		pid_t child = (pid_t)call(SYS_fork, 0, 0, &in, &out);

		same("a fork", &in, &out);
		check_all(child ? i : i + 1000);
		if (!child)
			_exit(0);
		end_child("a fork", child);
	}
}

/* The two have one memory, and so one process of the host under User-Mode Linux. */
static void vforks(void)
{
	for (volatile uint64_t i = 0; i < 16; i++) {
		const struct vectors in = pattern(i), other = pattern(i + 1000);
		struct vectors mine, its;
		pid_t child = vfork();

		if (!child) {
			call(SYS_getppid, 0, 0, &other, &its);
			same("a vfork", &other, &its);
			execl("/proc/self/exe", "registers", i % 8 ? "nothing" : "frames", (char *)NULL);
			_exit(127);
		}
		call(SYS_getppid, 0, 0, &in, &mine);
		same("a vfork's parent", &in, &mine);
		end_child("a vfork", child);
	}
}

/* A debugger reads and writes the registers of another process. */
static void debuggers(void)
{
	const struct vectors in = pattern(5), wanted = pattern(6);
	struct user_fpregs_struct seen;
	struct vectors out;
	pid_t child = fork();

	if (!child) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		call(SYS_kill, getpid(), SIGSTOP, &in, &out);
		same("a debugger's hands", &wanted, &out);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	check_all(9);
	if (ptrace(PTRACE_GETFPREGS, child, NULL, &seen))
		perror("registers: PTRACE_GETFPREGS");
	same("a debugger's eyes", &in, (const struct vectors *)seen.xmm_space);
	memcpy(seen.xmm_space, &wanted, sizeof(wanted));
	if (ptrace(PTRACE_SETFPREGS, child, NULL, &seen))
		perror("registers: PTRACE_SETFPREGS");
	check_all(10);
	ptrace(PTRACE_CONT, child, NULL, NULL);
	end_child("a debugger", child);
}

static void nothing(void)
{
}

static const struct check checks[] = {
	{ "calls", calls },	{ "threads", threads }, { "signals", signals },	    { "frames", frames },
	{ "forks", forks },	{ "vforks", vforks },	{ "debuggers", debuggers }, { "nothing", nothing },
};

int main(int count, char **words)
{
	return run_check(checks, sizeof(checks) / sizeof(checks[0]), count, words);
}
