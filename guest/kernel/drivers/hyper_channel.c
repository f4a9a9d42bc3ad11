// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/hyper-channel: one byte stream between the guest and whoever connects on the host.
 *
 * The kernel argument hyper_channel=fd:N names a listening unix stream socket that the process
 * which started User-Mode Linux left open as descriptor N. One connection is served at a time;
 * others wait in the socket's backlog.
 *
 *	(none) --accept--> connected --send fails--> unwritable --+
 *	  ^                    |                                  |
 *	  +-- read returned 0 -+----------------------------------+
 *
 * What a connection's peer sent before it went away can still be read. Then one read returns 0,
 * and from there on the next connection is served: so the guest never mixes up two connections,
 * provided that it gives up what it was writing when a read returns 0. Bytes are reported as
 * written only when the host's socket has taken them. Between the peer's end and that read of 0, a
 * write fails with EPIPE if it may block, and with EAGAIN if not; it raises no SIGPIPE; poll says POLLHUP.
 *
 * Why not a serial line of User-Mode Linux: those read one byte per host call.
 *
 * Interrupts only wake; all host calls are made by the reader, the writer or the accept work,
 * under one mutex. That makes lost edges impossible to miss: whoever sleeps has asked the host
 * after it was put on the wait queue.
 */
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/miscdevice.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <irq_kern.h>

#include "hyper_channel.h"

#define HYPER_CHANNEL_BUFFER (64 * 1024)

static struct {
	int listener;		/* -1: no channel was asked for */
	int connection;		/* -1: nobody is connected */
	int read_irq;
	int write_irq;
	bool unwritable;	/* the peer is gone; what it sent can still be read */
	bool full;		/* the host's socket takes no more until its write interrupt */
	void *buffer;		/* between user memory and the host, HYPER_CHANNEL_BUFFER bytes */
	struct mutex lock;	/* protects all of the above but full, which interrupts clear */
	wait_queue_head_t changed;
	struct work_struct accept_work;
	atomic_t is_open;
} channel = {
	.listener = -1,
	.connection = -1,
	.lock = __MUTEX_INITIALIZER(channel.lock),
	.changed = __WAIT_QUEUE_HEAD_INITIALIZER(channel.changed),
};

static int __init hyper_channel_argument(char *argument)
{
	if (strncmp(argument, "fd:", 3) || kstrtoint(argument + 3, 10, &channel.listener))
		pr_err("hyper_channel: '%s' is not fd:NUMBER\n", argument);
	return 1;
}
__setup("hyper_channel=", hyper_channel_argument);

static irqreturn_t hyper_channel_knock(int irq, void *unused)
{
	schedule_work(&channel.accept_work);
	return IRQ_HANDLED;
}

static irqreturn_t hyper_channel_arrived(int irq, void *unused)
{
	wake_up_interruptible_poll(&channel.changed, EPOLLIN | EPOLLRDNORM | EPOLLHUP);
	return IRQ_HANDLED;
}

static irqreturn_t hyper_channel_drained(int irq, void *unused)
{
	WRITE_ONCE(channel.full, false);
	wake_up_interruptible_poll(&channel.changed, EPOLLOUT | EPOLLWRNORM);
	return IRQ_HANDLED;
}

static int hyper_channel_watch(int connection)
{
	int irq;

	irq = um_request_irq(UM_IRQ_ALLOC, connection, IRQ_READ, hyper_channel_arrived, 0,
			     "hyper-channel-read", &channel.read_irq);
	if (irq < 0)
		return irq;
	channel.read_irq = irq;

	irq = um_request_irq(UM_IRQ_ALLOC, connection, IRQ_WRITE, hyper_channel_drained, 0,
			     "hyper-channel-write", &channel.write_irq);
	if (irq < 0) {
		um_free_irq(channel.read_irq, &channel.read_irq);
		return irq;
	}
	channel.write_irq = irq;
	return 0;
}

/* Serves the connection that waits, if nobody is connected. The caller holds the lock. */
static void hyper_channel_connect(void)
{
	int connection, error;

	if (channel.connection >= 0)
		return;
	connection = hyper_channel_host_accept(channel.listener);
	if (connection < 0)
		return;
	error = hyper_channel_watch(connection);
	if (error) {
		pr_err("hyper_channel: no interrupt for a connection: error %d\n", -error);
		hyper_channel_host_close(connection);
		return;
	}
	WRITE_ONCE(channel.full, false);
	channel.connection = connection;
	/* What came between accept and watch raised no interrupt. */
	wake_up_interruptible(&channel.changed);
}

/* Ends the connection whose end was read, and serves the next. The caller holds the lock. */
static void hyper_channel_disconnect(void)
{
	um_free_irq(channel.write_irq, &channel.write_irq);
	um_free_irq(channel.read_irq, &channel.read_irq);
	hyper_channel_host_close(channel.connection);
	channel.connection = -1;
	channel.unwritable = false;
	/* The knock of one that connected in the meantime was heard long ago. */
	hyper_channel_connect();
}

static void hyper_channel_accept(struct work_struct *unused)
{
	mutex_lock(&channel.lock);
	hyper_channel_connect();
	mutex_unlock(&channel.lock);
}

/* What the host says of the connection: of HYPER_CHANNEL_READABLE and HYPER_CHANNEL_GONE. */
static int hyper_channel_state(void)
{
	int state = 0;

	mutex_lock(&channel.lock);
	if (channel.connection >= 0)
		state = hyper_channel_host_state(channel.connection);
	mutex_unlock(&channel.lock);
	return state;
}

static bool hyper_channel_writable(void)
{
	bool writable;

	mutex_lock(&channel.lock);
	writable = channel.connection >= 0 && !channel.unwritable && !READ_ONCE(channel.full);
	mutex_unlock(&channel.lock);
	return writable;
}

/* Bytes received, 0 at a connection's end, -EAGAIN when there is nothing to receive now. */
static ssize_t hyper_channel_receive(char __user *bytes, size_t size)
{
	int received;

	if (channel.connection < 0)
		return -EAGAIN;
	/* Ask for no byte that has no place to go: what was received cannot be put back. */
	if (fault_in_writeable(bytes, size))
		return -EFAULT;
	received = hyper_channel_host_receive(channel.connection, channel.buffer, size);
	if (received == -EAGAIN || received == -EINTR)
		return -EAGAIN;
	if (received <= 0) {
		hyper_channel_disconnect();
		return 0;
	}
	return copy_to_user(bytes, channel.buffer, received) ? -EFAULT : received;
}

/* Bytes sent, at least one; -EAGAIN when the host takes none now, -EPIPE when the peer is gone. */
static ssize_t hyper_channel_send(const char __user *bytes, size_t size)
{
	int sent;

	if (channel.unwritable)
		return -EPIPE;
	if (channel.connection < 0 || READ_ONCE(channel.full))
		return -EAGAIN;
	if (copy_from_user(channel.buffer, bytes, size))
		return -EFAULT;
	/* Said before the call, so that an interrupt that follows it at once is not lost. */
	WRITE_ONCE(channel.full, true);
	sent = hyper_channel_host_send(channel.connection, channel.buffer, size);
	if (sent == size || sent == -EINTR)
		WRITE_ONCE(channel.full, false);
	if (sent < 0 && sent != -EAGAIN && sent != -EINTR) {
		channel.unwritable = true;
		return -EPIPE;
	}
	return sent == -EINTR ? -EAGAIN : sent;
}

static ssize_t hyper_channel_read(struct file *file, char __user *bytes, size_t size,
				  loff_t *unused)
{
	ssize_t received;

	if (size == 0)
		return 0;
	size = min_t(size_t, size, HYPER_CHANNEL_BUFFER);
	for (;;) {
		if (mutex_lock_interruptible(&channel.lock))
			return -ERESTARTSYS;
		received = hyper_channel_receive(bytes, size);
		mutex_unlock(&channel.lock);
		if (received != -EAGAIN || file->f_flags & O_NONBLOCK)
			return received;
		if (wait_event_interruptible(channel.changed, hyper_channel_state()))
			return -ERESTARTSYS;
	}
}

static ssize_t hyper_channel_write(struct file *file, const char __user *bytes, size_t size,
				   loff_t *unused)
{
	size_t done = 0;
	ssize_t sent;

	while (done < size) {
		if (mutex_lock_interruptible(&channel.lock))
			return done ? done : -ERESTARTSYS;
		sent = hyper_channel_send(bytes + done,
					  min_t(size_t, size - done, HYPER_CHANNEL_BUFFER));
		mutex_unlock(&channel.lock);
		if (sent > 0) {
			done += sent;
			continue;
		}
		/* Only a read gets past the end of a connection: who waits to write would wait for ever. */
		if (sent == -EPIPE && file->f_flags & O_NONBLOCK)
			sent = -EAGAIN;
		if (sent != -EAGAIN || file->f_flags & O_NONBLOCK)
			return done ? done : sent;
		/* Not across connections: a writer must hear of the end before it goes on. */
		if (done)
			return done;
		if (wait_event_interruptible(channel.changed, hyper_channel_writable()))
			return -ERESTARTSYS;
	}
	return done;
}

static __poll_t hyper_channel_poll(struct file *file, poll_table *table)
{
	__poll_t events = 0;
	int state;

	poll_wait(file, &channel.changed, table);
	state = hyper_channel_state();
	if (state & HYPER_CHANNEL_READABLE)
		events |= EPOLLIN | EPOLLRDNORM;
	/* Tells also those who wait only to write that the connection is over. */
	if (state & HYPER_CHANNEL_GONE)
		events |= EPOLLHUP;
	if (hyper_channel_writable())
		events |= EPOLLOUT | EPOLLWRNORM;
	return events;
}

/* One reader and writer, hyperstart: a container that makes a node of its own is refused. */
static int hyper_channel_open(struct inode *inode, struct file *file)
{
	if (atomic_cmpxchg(&channel.is_open, 0, 1))
		return -EBUSY;
	return stream_open(inode, file);
}

static int hyper_channel_release(struct inode *inode, struct file *file)
{
	atomic_set(&channel.is_open, 0);
	return 0;
}

static const struct file_operations hyper_channel_operations = {
	.owner = THIS_MODULE,
	.open = hyper_channel_open,
	.release = hyper_channel_release,
	.read = hyper_channel_read,
	.write = hyper_channel_write,
	.poll = hyper_channel_poll,
};

static struct miscdevice hyper_channel_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "hyper-channel",
	.fops = &hyper_channel_operations,
	.mode = 0600,
};

static int __init hyper_channel_init(void)
{
	int irq;

	if (channel.listener < 0)
		return 0;
	INIT_WORK(&channel.accept_work, hyper_channel_accept);
	channel.buffer = kmalloc(HYPER_CHANNEL_BUFFER, GFP_KERNEL);
	if (!channel.buffer)
		return -ENOMEM;
	irq = um_request_irq(UM_IRQ_ALLOC, channel.listener, IRQ_READ, hyper_channel_knock, 0,
			     "hyper-channel", &channel);
	if (irq < 0) {
		pr_err("hyper_channel: descriptor %d cannot be watched: error %d\n",
		       channel.listener, -irq);
		kfree(channel.buffer);
		return irq;
	}
	/* Whoever connected before this kernel listened raised no interrupt. */
	schedule_work(&channel.accept_work);
	return misc_register(&hyper_channel_device);
}
device_initcall(hyper_channel_init);
