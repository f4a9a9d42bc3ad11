// SPDX-License-Identifier: GPL-2.0
/*
 * /dev/hyper-channel of a Xen domain: one byte stream between the guest and whoever connects on the host.
 *
 * The device device/hyper/0 in XenStore has pages that the guest grants to the domain which made it, and
 * an event channel on which each side tells the other of every change. The first page holds how far each
 * side has come; two rings of bytes follow it, one for each direction.
 *
 * One connection is served at a time. Both sides count its beginnings and ends, in "turn": odd while one is
 * served. The host begins one only when the guest has come as far as the end of the one before, and drops
 * what the guest wrote until then. What a peer sent before it went away can still be read; then one read
 * returns 0, and from there on the next connection is served. So the guest never mixes up two connections,
 * as hyper_channel of User-Mode Linux has it.
 *
 * Neither reads nor writes wait: hyperstart, the only user, polls.
 */
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/interrupt.h>
#include <linux/miscdevice.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/uaccess.h>
#include <linux/wait.h>
#include <xen/events.h>
#include <xen/grant_table.h>
#include <xen/xen.h>
#include <xen/xenbus.h>

#define HYPER_XEN_RING_PAGES 4
#define HYPER_XEN_RING (HYPER_XEN_RING_PAGES * XEN_PAGE_SIZE)
#define HYPER_XEN_PAGES (1 + 2 * HYPER_XEN_RING_PAGES)

/* The first page. Positions count bytes for ever, modulo 2^32; src/.../_xenring.py has the same. */
struct hyper_xen_state {
	u32 host_written;	/* by the host into the first ring */
	u32 guest_read;
	u32 guest_written;	/* by the guest into the second ring */
	u32 host_read;
	u32 host_turn;
	u32 guest_turn;
};

static struct {
	struct hyper_xen_state *state;
	char *from_host;
	char *to_host;
	void *pages;
	grant_ref_t grants[HYPER_XEN_PAGES];
	int irq;
	u32 turn;		/* that the guest has come to */
	struct mutex lock;
	wait_queue_head_t changed;
	atomic_t is_open;
} channel = {
	.lock = __MUTEX_INITIALIZER(channel.lock),
	.changed = __WAIT_QUEUE_HEAD_INITIALIZER(channel.changed),
};

static irqreturn_t hyper_xen_knock(int irq, void *unused)
{
	wake_up_interruptible(&channel.changed);
	return IRQ_HANDLED;
}

static bool hyper_xen_is_served(void)
{
	return channel.turn & 1;
}

static void hyper_xen_set_turn(u32 turn)
{
	channel.turn = turn;
	virt_store_release(&channel.state->guest_turn, turn);
}

/* A connection that began and ended while nobody looked: nothing of it is for the next one. */
static void hyper_xen_skip(u32 turn)
{
	virt_store_release(&channel.state->guest_read,
			   virt_load_acquire(&channel.state->host_written));
	hyper_xen_set_turn(turn);
	notify_remote_via_irq(channel.irq);
}

/* The connection's peer is gone, when one is served; before that, takes the one that waits. */
static bool hyper_xen_is_over(void)
{
	u32 turn = virt_load_acquire(&channel.state->host_turn);

	if (!hyper_xen_is_served() && (turn & 1))
		hyper_xen_set_turn(turn);
	else if (!hyper_xen_is_served() && turn != channel.turn)
		hyper_xen_skip(turn);
	return hyper_xen_is_served() && turn != channel.turn;
}

static u32 hyper_xen_unread(void)
{
	return virt_load_acquire(&channel.state->host_written) - channel.state->guest_read;
}

static u32 hyper_xen_room(void)
{
	u32 unread = channel.state->guest_written - virt_load_acquire(&channel.state->host_read);

	return unread < HYPER_XEN_RING ? HYPER_XEN_RING - unread : 0;
}

/* Bytes received, 0 at a connection's end, -EAGAIN when there is nothing to receive now. */
static ssize_t hyper_xen_receive(char __user *bytes, size_t size)
{
	bool is_over = hyper_xen_is_over();	/* asked first: what came before the end is unread then */
	u32 unread = hyper_xen_unread();
	u32 start = channel.state->guest_read % HYPER_XEN_RING;
	u32 count = min_t(size_t, size, min(unread, (u32)HYPER_XEN_RING - start));

	if (!hyper_xen_is_served() || (!unread && !is_over))
		return -EAGAIN;
	if (!unread)
		hyper_xen_set_turn(channel.turn + 1);
	else if (copy_to_user(bytes, channel.from_host + start, count))
		return -EFAULT;
	else
		virt_store_release(&channel.state->guest_read, channel.state->guest_read + count);
	/* A host that found no room waits for some; it always finds a ring that was less than half full. */
	if (!unread || unread >= HYPER_XEN_RING / 2)
		notify_remote_via_irq(channel.irq);
	return count;
}

/* Bytes sent, at least one; -EAGAIN when none can be: at a connection's end, only a read gets past it. */
static ssize_t hyper_xen_send(const char __user *bytes, size_t size)
{
	bool is_over = hyper_xen_is_over();
	u32 start = channel.state->guest_written % HYPER_XEN_RING;
	u32 count = min_t(size_t, size, min(hyper_xen_room(), (u32)HYPER_XEN_RING - start));

	if (!hyper_xen_is_served() || is_over || !count)
		return -EAGAIN;
	if (copy_from_user(channel.to_host + start, bytes, count))
		return -EFAULT;
	virt_store_release(&channel.state->guest_written, channel.state->guest_written + count);
	notify_remote_via_irq(channel.irq);
	return count;
}

static ssize_t hyper_xen_read(struct file *file, char __user *bytes, size_t size, loff_t *unused)
{
	ssize_t received;

	if (size == 0)
		return 0;
	mutex_lock(&channel.lock);
	received = hyper_xen_receive(bytes, size);
	mutex_unlock(&channel.lock);
	return received;
}

static ssize_t hyper_xen_write(struct file *file, const char __user *bytes, size_t size,
			       loff_t *unused)
{
	ssize_t sent;

	if (size == 0)
		return 0;
	mutex_lock(&channel.lock);
	sent = hyper_xen_send(bytes, size);
	mutex_unlock(&channel.lock);
	return sent;
}

static __poll_t hyper_xen_poll(struct file *file, poll_table *table)
{
	__poll_t events = 0;
	bool is_over;

	poll_wait(file, &channel.changed, table);
	mutex_lock(&channel.lock);
	is_over = hyper_xen_is_over();
	if (hyper_xen_is_served()) {
		if (is_over || hyper_xen_unread())
			events |= EPOLLIN | EPOLLRDNORM;
		if (is_over)
			events |= EPOLLHUP;
		else if (hyper_xen_room())
			events |= EPOLLOUT | EPOLLWRNORM;
	}
	mutex_unlock(&channel.lock);
	return events;
}

/* One reader and writer, hyperstart: a container that makes a node of its own is refused. */
static int hyper_xen_open(struct inode *inode, struct file *file)
{
	if (!(file->f_flags & O_NONBLOCK))
		return -EINVAL;
	if (atomic_cmpxchg(&channel.is_open, 0, 1))
		return -EBUSY;
	return stream_open(inode, file);
}

static int hyper_xen_release(struct inode *inode, struct file *file)
{
	atomic_set(&channel.is_open, 0);
	return 0;
}

static const struct file_operations hyper_xen_operations = {
	.owner = THIS_MODULE,
	.open = hyper_xen_open,
	.release = hyper_xen_release,
	.read = hyper_xen_read,
	.write = hyper_xen_write,
	.poll = hyper_xen_poll,
};

static struct miscdevice hyper_xen_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "hyper-channel",
	.fops = &hyper_xen_operations,
	.mode = 0600,
};

/* --- XenStore --- */

static int hyper_xen_listen(struct xenbus_device *device)
{
	evtchn_port_t port;
	int error;

	error = xenbus_alloc_evtchn(device, &port);
	if (error)
		return error;
	channel.irq = bind_evtchn_to_irqhandler(port, hyper_xen_knock, 0, "hyper-channel", NULL);
	if (channel.irq < 0) {
		xenbus_free_evtchn(device, port);
		return channel.irq;
	}
	return xenbus_printf(XBT_NIL, device->nodename, "event-channel", "%u", port);
}

/* "8,9,10": all pages in one value, since each value takes a round trip. */
static int hyper_xen_announce(struct xenbus_device *device)
{
	char grants[HYPER_XEN_PAGES * 11 + 1];
	int i, length = 0;

	for (i = 0; i < HYPER_XEN_PAGES; i++)
		length += scnprintf(grants + length, sizeof(grants) - length, "%s%u",
				    i ? "," : "", channel.grants[i]);
	return xenbus_write(XBT_NIL, device->nodename, "pages", grants);
}

/* What fails here is left as it is: a machine without its channel is ended. */
static int hyper_xen_probe(struct xenbus_device *device, const struct xenbus_device_id *unused)
{
	int error;

	if (channel.pages)
		return -EBUSY;
	error = xenbus_setup_ring(device, GFP_KERNEL, &channel.pages, HYPER_XEN_PAGES,
				  channel.grants);
	if (error)
		return error;
	channel.state = channel.pages;
	channel.from_host = channel.pages + XEN_PAGE_SIZE;
	channel.to_host = channel.from_host + HYPER_XEN_RING;
	error = hyper_xen_listen(device) ?: hyper_xen_announce(device) ?:
		misc_register(&hyper_xen_device);
	return error ?: xenbus_switch_state(device, XenbusStateInitialised);
}

/*
 * The kernel handles changes in XenStore in their order. So a host that asks for Reconfigured, and is
 * answered, knows that what it changed before has been handled: that a disk which it took away is gone.
 */
static void hyper_xen_host_changed(struct xenbus_device *device, enum xenbus_state state)
{
	if (state == XenbusStateReconfiguring && device->state == XenbusStateConnected)
		xenbus_switch_state(device, XenbusStateReconfigured);
	else if (state == XenbusStateConnected &&
		 (device->state == XenbusStateInitialised || device->state == XenbusStateReconfigured))
		xenbus_switch_state(device, XenbusStateConnected);
}

static const struct xenbus_device_id hyper_xen_ids[] = {
	{ "hyper" },
	{ "" },
};

static struct xenbus_driver hyper_xen_driver = {
	.ids = hyper_xen_ids,
	.probe = hyper_xen_probe,
	.otherend_changed = hyper_xen_host_changed,
};

static int __init hyper_xen_init(void)
{
	return xen_domain() ? xenbus_register_frontend(&hyper_xen_driver) : 0;
}
device_initcall(hyper_xen_init);
