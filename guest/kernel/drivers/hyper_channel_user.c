// SPDX-License-Identifier: GPL-2.0
/*
 * The host's side of the channel; see hyper_channel.h.
 */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hyper_channel.h"

int hyper_channel_host_accept(int listener)
{
	int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	return connection < 0 ? -errno : connection;
}

int hyper_channel_host_receive(int connection, void *bytes, int size)
{
	ssize_t received = recv(connection, bytes, size, MSG_DONTWAIT);

	return received < 0 ? -errno : received;
}

int hyper_channel_host_send(int connection, const void *bytes, int size)
{
	ssize_t sent = send(connection, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);

	return sent < 0 ? -errno : sent;
}

int hyper_channel_host_state(int connection)
{
	struct pollfd descriptor = { .fd = connection, .events = POLLIN | POLLRDHUP };

	if (poll(&descriptor, 1, 0) <= 0)
		return 0;
	if (descriptor.revents & (POLLHUP | POLLERR))
		return HYPER_CHANNEL_READABLE | HYPER_CHANNEL_GONE;
	return HYPER_CHANNEL_READABLE;
}

void hyper_channel_host_close(int descriptor)
{
	close(descriptor);
}
