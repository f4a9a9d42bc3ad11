/*
 * See channel.h.
 *
 * A device stays open for the machine's life.  While no host is connected, reading it gives 0 and
 * polling it says "hung up" for as long as that lasts; so the watch is edge-triggered, and after a 0
 * we wait for the next edge, which comes when a host connects (virtio_console wakes its pollers on
 * each change of the port's state, and so does hyper_channel).
 *
 * hyper_channel and sockets give that 0 where a connection's bytes end.  A virtio port does not: who is
 * connected is told on another queue than the bytes (virtio 1.2, 5.3.6.2), and taken from there by a work
 * of the kernel's.  So the end of the connection before may be heard of after the Hello of the next one,
 * and must not end that.  There a Hello alone ends what was before it.
 */
#include "channel.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "fd.h"
#include "guest.h"
#include "port.h"

#define EDGES (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)
#define CONNECTIONS 64 /* after as many, a virtio port starts anew */
#define DEVICE_WAIT_MS 5000 /* for the port to appear: the driver learns of it after boot */

static void channel_ready(struct watch *watch, uint32_t events)
{
	struct channel *channel = container_of(watch, struct channel, watch);

	if (events & (EPOLLIN | EPOLLHUP | EPOLLRDHUP | EPOLLERR))
		channel->readable = true;
	if (events & EPOLLOUT)
		channel->writable = true;
}

static int channel_open(int fd)
{
	struct channel *channel = &guest.channel;

	channel->watch = (struct watch){ .fd = fd, .ready = channel_ready };
	channel->readable = channel->writable = true;
	return watch_set(&channel->watch, EDGES);
}

/* --- A device --- */

static int open_device(void)
{
	int fd = openat(AT_FDCWD, "/dev/hyper-channel", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	guest.channel.has_late_ends = fd < 0;
	return fd < 0 ? port_open() : fd;
}

int channel_find(void)
{
	const struct timespec pause = { .tv_nsec = 1000000 };
	uint64_t give_up = now_ns() + DEVICE_WAIT_MS * UINT64_C(1000000);
	int fd;

	while ((fd = open_device()) < 0) {
		if (now_ns() > give_up)
			return failed_with(ENODEV, "find", "hyper.channel");
		nanosleep(&pause, NULL);
	}
	guest.channel.listener.fd = -1;
	return channel_open(fd);
}

/*
 * Of each connection that ends while QEMU sends what we wrote, one of the port's 128 buffers never comes
 * back (virtio_serial_close() in its hw/char/virtio-serial-bus.c), and after as many nothing could be
 * written any more.  Nothing is lost: hyperd says nothing after its Hello, and waits.
 */
void channel_renew(void)
{
	struct channel *channel = &guest.channel;

	if (!channel->has_late_ends || ++channel->connections % CONNECTIONS)
		return;
	watch_close(&channel->watch);
	if (port_renew())
		log_line("the channel: %s %s: %s", guest.failure.operation, guest.failure.subject,
			 strerror(guest.failure.error));
	channel_find();
}

/* --- A socket --- */

static void take_connection(struct watch *listener, uint32_t events)
{
	int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)events;
	if (fd < 0)
		return;
	watch_set(listener, 0); /* one at a time; others wait in the backlog, as with a VMM */
	if (channel_open(fd))
		watch_close(&guest.channel.watch);
}

int channel_listen(int listener)
{
	struct channel *channel = &guest.channel;

	if (fcntl(listener, F_SETFD, FD_CLOEXEC) || fcntl(listener, F_SETFL, O_NONBLOCK))
		return failed("fcntl", "channel");
	channel->watch.fd = -1;
	channel->listener = (struct watch){ .fd = listener, .ready = take_connection };
	return watch_set(&channel->listener, EPOLLIN);
}

/* --- Both --- */

static void channel_ended(struct channel *channel)
{
	channel->readable = false;
	channel->has_ended = true;
	if (channel->has_late_ends)
		return;
	session_disconnected();
	if (channel->listener.fd < 0)
		return;
	watch_close(&channel->watch);
	watch_set(&channel->listener, EPOLLIN);
}

size_t channel_read(uint8_t *data, size_t size)
{
	struct channel *channel = &guest.channel;
	ssize_t count;

	if (channel->watch.fd < 0 || !channel->readable)
		return 0;
	count = read(channel->watch.fd, data, size);
	if (count > 0) {
		channel->has_ended = false;
		return (size_t)count;
	}
	if (count < 0 && errno == EAGAIN)
		channel->readable = false;
	else if (count == 0 || errno != EINTR)
		channel_ended(channel);
	return 0;
}

size_t channel_write(const uint8_t *data, size_t size)
{
	struct channel *channel = &guest.channel;
	ssize_t count;

	if (channel->watch.fd < 0 || !channel->writable)
		return 0;
	count = write(channel->watch.fd, data, size);
	if (count > 0)
		return (size_t)count;
	channel->writable = false; /* until the next edge; a broken connection is found by reading */
	return 0;
}
