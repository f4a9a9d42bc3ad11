/* System V queues and POSIX semaphores from a shell: what containers of a pod share. */
#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>

#define KEY 0x48595045

struct message {
	long type;
	char text[64];
};

static int fail(const char *what)
{
	perror(what);
	return 1;
}

static int send(const char *text)
{
	struct message message = { .type = 1 };
	int queue = msgget(KEY, IPC_CREAT | 0600);

	strncpy(message.text, text, sizeof(message.text) - 1);
	return queue < 0 || msgsnd(queue, &message, sizeof(message.text), 0) ? fail("send") : 0;
}

static int receive(void)
{
	struct message message;
	int queue = msgget(KEY, IPC_CREAT | 0600);

	if (queue < 0 || msgrcv(queue, &message, sizeof(message.text), 1, 0) < 0)
		return fail("receive");
	puts(message.text);
	return 0;
}

static int with_semaphore(const char *name, int (*act)(sem_t *semaphore))
{
	sem_t *semaphore = sem_open(name, O_CREAT, 0600, 0);

	return semaphore == SEM_FAILED || act(semaphore) ? fail(name) : 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "send"))
		return send(argv[2]);
	if (argc == 2 && !strcmp(argv[1], "receive"))
		return receive();
	if (argc == 3 && !strcmp(argv[1], "post"))
		return with_semaphore(argv[2], sem_post);
	if (argc == 3 && !strcmp(argv[1], "wait"))
		return with_semaphore(argv[2], sem_wait);
	fprintf(stderr, "usage: ipc send TEXT | receive | post NAME | wait NAME\n");
	return 2;
}
