/*
 * What the throughput table measures, as one static program that runs alike everywhere: "work WHAT ..." prints one
 * number, whose unit bench/throughput.py names.  A failure is said on stderr and ends with 1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SPENT 0.5 /* seconds of a loop */
#define BLOCK 4096
#define CHUNK (1 << 20)
#define FILE_SIZE (96L << 20)

static char buffer[CHUNK];

static double now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec + at.tv_nsec / 1e9;
}

/* Turns of once() in a second. */
static double rate(void (*once)(int), int argument)
{
	double began = now(), spent;
	long turns = 0;

	do {
		once(argument);
		turns++;
		spent = now() - began;
	} while (spent < SPENT);
	return turns / spent;
}

static void get_parent(int turns)
{
	while (turns--)
		syscall(SYS_getppid);
}

static void end_with(pid_t child)
{
	int status;

	if (child < 0)
		err(1, "fork");
	if (waitpid(child, &status, 0) != child || status)
		errx(1, "a child failed");
}

static void fork_one(int unused)
{
	pid_t child = fork();

	(void)unused;
	if (child == 0)
		_exit(0);
	end_with(child);
}

static void execute_one(int unused)
{
	pid_t child = vfork();

	(void)unused;
	if (child == 0) {
		execl("/proc/self/exe", "work", "nothing", (char *)NULL);
		_exit(1);
	}
	end_with(child);
}

static int file(const char *name, int flags)
{
	int descriptor = open(name, flags | O_CLOEXEC, 0600);

	if (descriptor < 0)
		err(1, "%s", name);
	return descriptor;
}

static void flush(int descriptor)
{
	if (fsync(descriptor))
		err(1, "fsync");
}

/* Megabytes a second of a new file, with its way to the disk. */
static double write_file(const char *name)
{
	double began = now();
	int descriptor = file(name, O_WRONLY | O_CREAT | O_TRUNC);

	memset(buffer, 'x', sizeof(buffer));
	for (long at = 0; at < FILE_SIZE; at += CHUNK)
		if (write(descriptor, buffer, CHUNK) != CHUNK)
			err(1, "write");
	flush(descriptor);
	return FILE_SIZE / 1e6 / (now() - began);
}

/* A guest has read nothing yet; its host has the file in memory, as it has a container's. */
static int open_for_reading(const char *name, int forget)
{
	int descriptor = file(name, O_RDONLY);

	if (forget && posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED))
		errx(1, "fadvise");
	return descriptor;
}

/* Megabytes a second. */
static double read_file(const char *name, int forget)
{
	int descriptor = open_for_reading(name, forget);
	double began = now();
	ssize_t size;
	long sum = 0;

	while ((size = read(descriptor, buffer, CHUNK)) > 0)
		sum += size;
	if (sum != FILE_SIZE)
		errx(1, "read %ld bytes of %ld", sum, FILE_SIZE);
	return sum / 1e6 / (now() - began);
}

static off_t place(void)
{
	return random() % (FILE_SIZE / BLOCK) * BLOCK;
}

static void read_block(int descriptor)
{
	if (pread(descriptor, buffer, BLOCK, place()) != BLOCK)
		err(1, "pread");
}

static void write_block(int descriptor)
{
	if (pwrite(descriptor, buffer, BLOCK, place()) != BLOCK)
		err(1, "pwrite");
}

static double read_blocks(const char *name, int forget)
{
	int descriptor = open_for_reading(name, forget);

	if (posix_fadvise(descriptor, 0, 0, POSIX_FADV_RANDOM))
		errx(1, "fadvise");
	return rate(read_block, descriptor);
}

/* With the way of all to the disk. */
static double write_blocks(const char *name)
{
	enum { BLOCKS = 4096 };
	int descriptor = file(name, O_WRONLY);
	double began = now();

	for (int count = 0; count < BLOCKS; count++)
		write_block(descriptor);
	flush(descriptor);
	return BLOCKS / (now() - began);
}

static void append_and_flush(int descriptor)
{
	if (write(descriptor, buffer, BLOCK) != BLOCK)
		err(1, "write");
	flush(descriptor);
}

/* Milliseconds of a program. */
static double run(char **words)
{
	double began = now();
	pid_t child = fork();

	if (child == 0) {
		int nowhere = file("/dev/null", O_WRONLY);

		dup2(nowhere, 1);
		dup2(nowhere, 2);
		execvp(words[0], words);
		err(1, "%s", words[0]);
	}
	end_with(child);
	return (now() - began) * 1e3;
}

/* One client: its first byte says whether we drink, pour, or echo. */
static void talk(int client)
{
	static const int yes = 1;
	char what;
	ssize_t size;

	setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	if (read(client, &what, 1) != 1)
		return;
	if (what == 'p')
		while (send(client, buffer, sizeof(buffer), MSG_NOSIGNAL) > 0)
			;
	while ((size = read(client, buffer, sizeof(buffer))) > 0)
		if (what == 'e' && send(client, buffer, size, MSG_NOSIGNAL) != size)
			break;
	if (what == 'd' && send(client, "", 1, MSG_NOSIGNAL) != 1) /* all has come */
		warn("send");
}

static void serve(int port)
{
	static const int yes = 1;
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), client;

	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 8))
		err(1, "port %d", port);
	while ((client = accept(listener, NULL, NULL)) >= 0) {
		talk(client);
		close(client);
	}
	err(1, "accept");
}

static double measure(int count, char **words)
{
	const char *what = words[1], *argument = count > 2 ? words[2] : "";
	int forget = count > 3 && !strcmp(words[3], "forget");

	if (!strcmp(what, "nothing"))
		exit(0);
	if (!strcmp(what, "serve"))
		serve(atoi(argument));
	if (!strcmp(what, "run") && count > 2)
		return run(words + 2);
	if (!strcmp(what, "calls"))
		return 1e9 / 100 / rate(get_parent, 100);
	if (!strcmp(what, "forks"))
		return 1e6 / rate(fork_one, 0);
	if (!strcmp(what, "executes"))
		return 1e6 / rate(execute_one, 0);
	if (!strcmp(what, "write"))
		return write_file(argument);
	if (!strcmp(what, "read"))
		return read_file(argument, forget);
	if (!strcmp(what, "read-blocks"))
		return read_blocks(argument, forget);
	if (!strcmp(what, "write-blocks"))
		return write_blocks(argument);
	if (!strcmp(what, "flush"))
		return rate(append_and_flush, file(argument, O_WRONLY | O_CREAT | O_TRUNC));
	errx(1, "unknown work: %s", what);
}

int main(int count, char **words)
{
	if (count < 2)
		errx(1, "usage: work WHAT ...");
	printf("%.3f\n", measure(count, words));
	return 0;
}
