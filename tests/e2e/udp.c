/* UDP for a busybox without it: `udp serve PORT WORD` answers each datagram, `udp ask ADDRESS PORT` prints one. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

static int serve(int socket, const char *word)
{
	char question[16];
	struct sockaddr_in peer;

	for (;;) {
		socklen_t size = sizeof(peer);
		if (recvfrom(socket, question, sizeof(question), 0, (struct sockaddr *)&peer, &size) >= 0)
			sendto(socket, word, strlen(word), 0, (struct sockaddr *)&peer, size);
	}
}

static int ask(int socket)
{
	char answer[64] = "";
	struct timeval second = { .tv_sec = 1 };

	setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
	if (send(socket, "?", 1, 0) < 0 || recv(socket, answer, sizeof(answer) - 1, 0) < 0)
		return 1;
	puts(answer);
	return 0;
}

int main(int count, char **words)
{
	int is_server = count == 4 && !strcmp(words[1], "serve"), fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in address = { .sin_family = AF_INET };

	if (count != 4)
		return 2;
	address.sin_port = htons((unsigned short)atoi(words[is_server ? 2 : 3]));
	if (is_server)
		return bind(fd, (struct sockaddr *)&address, sizeof(address)) ? 1 : serve(fd, words[3]);
	address.sin_addr.s_addr = inet_addr(words[2]);
	return connect(fd, (struct sockaddr *)&address, sizeof(address)) ? 1 : ask(fd);
}
