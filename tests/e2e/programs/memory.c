/*
 * Memory holds what a program put there, faults are told as they were, and no more memory is taken than is used.
 *
 *     memory WHAT
 *
 * Prints nothing and ends with 0 when all of that is so.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include "checks.h"

#define PAGE 4096L
#define PAGES 300L
#define FAULT_TRAP 14

/* Of the processor's error code. */
#define PRESENT 1
#define WRITE 2

static void expect(bool is_so, const char *what)
{
	if (is_so)
		return;
	fprintf(stderr, "memory: not so: %s\n", what);
	_exit(1);
}

static volatile char *map(long pages, int protection, int flags, int fd)
{
	void *made = mmap(NULL, pages * PAGE, protection, flags, fd, 0);

	expect(made != MAP_FAILED, "a mapping");
	return made;
}

static volatile char *memory(long pages)
{
	return map(pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
}

static int file_of(long pages, char content)
{
	char page[PAGE];
	int fd = open("memory.pages", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	memset(page, content, sizeof(page));
	for (long i = 0; i < pages; i++)
		expect(write(fd, page, sizeof(page)) == PAGE, "a file");
	unlink("memory.pages");
	return fd;
}

/* Kilobytes of anonymous memory (proc_pid_status(5)). */
static long resident(void)
{
	char line[128];
	long size = -1;
	FILE *status = fopen("/proc/self/status", "r");

	while (status && fgets(line, sizeof(line), status) && sscanf(line, "RssAnon: %ld", &size) != 1)
		;
	if (status)
		fclose(status);
	return size;
}

/* --- What is written is there, and what is not is zero --- */

static void check_pages(volatile char *pages, long count, char wanted)
{
	for (long i = 0; i < count; i++)
		expect(pages[i * PAGE] == wanted && pages[i * PAGE + PAGE - 1] == 0, "what was written");
}

static void write_pages(volatile char *pages, long count, char value)
{
	for (long i = 0; i < count; i++) {
		expect(pages[i * PAGE + PAGE - 1] == 0, "a new page is zero");
		pages[i * PAGE] = value;
	}
}

static void contents(void)
{
	volatile char *ascending = memory(PAGES), *descending = memory(PAGES), *far = memory(PAGES);

	write_pages(ascending, PAGES, 1);
	for (long i = PAGES - 1; i >= 0; i--)
		descending[i * PAGE] = 2;
	for (long i = 0; i < PAGES; i++)
		far[i * 7 % PAGES * PAGE] = 3;
	check_pages(ascending, PAGES, 1);
	check_pages(descending, PAGES, 2);
	check_pages(far, PAGES, 3);
}

static void *write_and_check(void *value)
{
	volatile char *pages = memory(PAGES);

	write_pages(pages, PAGES, (char)(uintptr_t)value);
	check_pages(pages, PAGES, (char)(uintptr_t)value);
	return NULL;
}

static void threads(void)
{
	pthread_t all[4];

	for (uintptr_t i = 0; i < 4; i++)
		pthread_create(&all[i], NULL, write_and_check, (void *)(i + 1));
	for (int i = 0; i < 4; i++)
		pthread_join(all[i], NULL);
}

/* Each of the two has its own from then on, also behind what there was. */
static void forks(void)
{
	volatile char *pages = memory(PAGES);
	int status;

	write_pages(pages, PAGES / 2, 1);
	pid_t child = fork();
	if (child == 0) {
		for (long i = 0; i < PAGES; i++)
			pages[i * PAGE] = 2;
		check_pages(pages, PAGES, 2);
		_exit(0);
	}
	expect(waitpid(child, &status, 0) == child && status == 0, "the child's memory");
	check_pages(pages, PAGES / 2, 1);
	check_pages(pages + PAGES / 2 * PAGE, PAGES / 2, 0);
}

/* A private mapping hides what it writes, a shared one shows it. */
static void files(void)
{
	int fd = file_of(PAGES, 'a');
	volatile char *own = map(PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd);
	volatile char *shared = map(PAGES, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
	char there;

	for (long i = 0; i < PAGES; i++) {
		own[i * PAGE] = 'b';
		expect(pread(fd, &there, 1, i * PAGE) == 1 && there == 'a', "a private page is the writer's");
		shared[i * PAGE] = 'c';
		expect(pread(fd, &there, 1, i * PAGE) == 1 && there == 'c', "a shared page is the file's");
		expect(own[i * PAGE] == 'b' && own[i * PAGE + 1] == 'a', "a private page stays");
	}
}

/* --- What a fault was --- */

static sigjmp_buf back;
static volatile int told_code, told_signal, told_trap;
static volatile long told_error;
static void *volatile told_address;

static void tell(int number, siginfo_t *information, void *context)
{
	const ucontext_t *at = context;

	told_signal = number;
	told_code = information->si_code;
	told_address = information->si_addr;
	told_error = (long)at->uc_mcontext.gregs[REG_ERR];
	told_trap = (int)at->uc_mcontext.gregs[REG_TRAPNO];
	siglongjmp(back, 1);
}

static void expect_fault(volatile char *address, bool is_write, int number, int code, const char *what)
{
	told_signal = 0;
	if (!sigsetjmp(back, 1)) {
		if (is_write)
			*address = 1;
		else
			(void)*address;
	}
	expect(told_signal == number && told_code == code && told_address == (void *)address, what);
	expect(told_trap == FAULT_TRAP && (told_error & WRITE) == (is_write ? WRITE : 0), what);
}

static void listen_to_faults(void)
{
	const struct sigaction action = { .sa_sigaction = tell, .sa_flags = SA_SIGINFO };

	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
}

static void telling(void)
{
	volatile char *pages = memory(4), *hole = memory(4);
	volatile char *none = map(1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	volatile char *file = map(2, PROT_READ, MAP_PRIVATE, file_of(1, 'a'));

	listen_to_faults();
	pages[0] = pages[PAGE] = 1;
	mprotect((void *)pages, 4 * PAGE, PROT_READ);
	munmap((void *)(hole + PAGE), PAGE);
	expect_fault(pages, true, SIGSEGV, SEGV_ACCERR, "a write to what may be read");
	expect_fault(pages + 2 * PAGE, true, SIGSEGV, SEGV_ACCERR, "a write to what is not there yet");
	expect_fault(none, false, SIGSEGV, SEGV_ACCERR, "a read of what may not be");
	expect_fault(none, true, SIGSEGV, SEGV_ACCERR, "a write to what may not be");
	expect_fault(hole + PAGE, false, SIGSEGV, SEGV_MAPERR, "a read of nothing");
	expect_fault(hole + PAGE + 5, true, SIGSEGV, SEGV_MAPERR, "a write to nothing");
	expect_fault(file, true, SIGSEGV, SEGV_ACCERR, "a write to a file that is to be read");
	expect_fault(file + PAGE, false, SIGBUS, BUS_ADRERR, "a read behind a file");
}

static volatile char *barrier;

static void lift(int number, siginfo_t *information, void *context)
{
	(void)number;
	(void)context;
	told_address = information->si_addr;
	mprotect((void *)((uintptr_t)told_address & -PAGE), PAGE, PROT_READ | PROT_WRITE);
}

/* What collectors of garbage do: a page that may be read only is written to, and then may be written. */
static void barriers(void)
{
	const struct sigaction action = { .sa_sigaction = lift, .sa_flags = SA_SIGINFO };

	sigaction(SIGSEGV, &action, NULL);
	barrier = memory(PAGES);
	write_pages(barrier, PAGES, 1);
	for (int round = 0; round < 3; round++) {
		mprotect((void *)barrier, PAGES * PAGE, PROT_READ);
		check_pages(barrier, PAGES, (char)(round + 1));
		for (long i = 0; i < PAGES; i++) {
			barrier[i * PAGE] = (char)(round + 2);
			expect(told_address == (void *)(barrier + i * PAGE), "a barrier is met");
		}
	}
	check_pages(barrier, PAGES, 4);
}

/* --- What is taken --- */

/*
 * More is read than there is: what nobody has written takes no memory.  To the host of User-Mode Linux each of its
 * pages is a piece of its own, and it maps 65,530 for a process.
 */
static void sparse(void)
{
	const long count = 1 << 17;
	volatile char *pages = memory(count);
	long before = resident();

	pages[0] = 1;
	for (long i = 1; i < count; i++)
		expect(pages[i * PAGE] == 0, "zero");
	expect(resident() - before < 1024, "reading takes no memory");
	expect(pages[0] == 1, "the first page");
	expect(mprotect((void *)pages, count * PAGE, PROT_READ) == 0 && pages[0] == 1, "to be read only");
	expect(mprotect((void *)pages, count * PAGE, PROT_READ | PROT_WRITE) == 0, "to be written");
	pages[0] = pages[PAGE] = 2;
	expect(pages[0] == 2 && pages[PAGE] == 2 && pages[2 * PAGE] == 0, "what was written after that");
}

/* One byte here and there takes one page each; a row of them at most as much again. */
static void scattered(void)
{
	volatile char *pages = memory(PAGES * 20), *rows = memory(PAGES * 20);
	long before = resident();

	for (long i = 0; i < PAGES; i++)
		pages[i * 20 * PAGE] = 1;
	expect(resident() - before < (PAGES + 16) * PAGE / 1024, "a page for each");
	before = resident();
	for (long i = 0; i < PAGES; i += 3)
		rows[i * 20 * PAGE] = rows[(i * 20 + 1) * PAGE] = rows[(i * 20 + 2) * PAGE] = 1;
	expect(resident() - before < (2 * PAGES + 16) * PAGE / 1024, "twice what is used");
}

/* Who has written some pages gets the next ones with the last (drivers/hyper_faults.c). */
static void ahead(void)
{
	volatile char *pages = memory(64);
	unsigned char there[64];

	for (long i = 0; i < 5; i++)
		pages[i * PAGE] = 1;
	expect(mincore((void *)pages, 64 * PAGE, there) == 0, "mincore(2)");
	expect(there[0] && there[4] && there[5] && !there[10], "as many as were written, and no more");
}

static const struct check checks[] = {
	{ "contents", contents }, { "threads", threads },   { "forks", forks },		{ "files", files },
	{ "telling", telling },	  { "barriers", barriers }, { "sparse", sparse },	{ "scattered", scattered },
	{ "ahead", ahead },
};

int main(int count, char **words)
{
	return run_check(checks, sizeof(checks) / sizeof(checks[0]), count, words);
}
