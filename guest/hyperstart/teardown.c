/* See teardown.h. */
#include "teardown.h"

#include <errno.h>
#include <sched.h>
#include <stddef.h>
#include <sys/reboot.h>
#include <unistd.h>

#include "disk.h"
#include "fd.h"
#include "guest.h"

#define DEADLINE_MS 8000 /* hyperd ends the machine some time after it */

static void power_off(void)
{
	sync();
	session_flush(); /* the Done, before the power is gone */
	if (guest.in_namespaces)
		_exit(0);
	reboot(RB_POWER_OFF);
}

static void finish(struct teardown *teardown, int result)
{
	containers_free(&teardown->containers);
	if (!result)
		disks_forget(teardown->unmounting);
	teardown->unmounting = 0;
	mark("torn down", "");
	if (result && teardown->powers_off)
		log_line("power off with processes that do not end");
	request_answer_torn_down(teardown->request, teardown->powers_off ? 0 : result);
	if (teardown->powers_off)
		power_off();
}

static void is_late(struct timer *timer)
{
	finish(container_of(timer, struct teardown, timer), failed_with(EBUSY, "end", "processes"));
}

/* All are killed, but each has its own time to die, and what it has mounted to be written. */
static bool have_ended(void)
{
	return !guest.teardown.init && !processes_are_running();
}

void teardown_look_again(void)
{
	if (!guest.requests.is_tearing_down || !have_ended())
		return;
	timer_disarm(&guest.teardown.timer);
	finish(&guest.teardown, 0);
}

static uint64_t slots_of(const struct container *list)
{
	uint64_t slots = 0;

	for (; list; list = list->next)
		slots |= list->slots;
	return slots;
}

static void unmount(const struct teardown *teardown)
{
	containers_leave(teardown->containers);
	pod_unmount();
	for (uint8_t slot = 0; slot < SLOTS; slot++)
		if (teardown->unmounting & slot_bit(slot))
			disk_let_go(slot);
}

/* The kernel kills all that lives in a PID namespace with its init, but in its own time. */
static void kill_all(struct teardown *teardown)
{
	for (struct container *container = teardown->containers; container; container = container->next)
		container_kill(container);
	processes_kill_all();
	teardown->init = pod_kill();
}

int teardown_begin(uint32_t request, uint64_t keep, bool powers_off)
{
	struct teardown *teardown = &guest.teardown;
	const uint64_t mounted = teardown->kept | slots_of(guest.containers);

	*teardown = (struct teardown){
		.powers_off = powers_off,
		.request = request,
		.containers = guest.containers,
		.unmounting = mounted & ~keep,
		.kept = mounted & keep,
		.timer = { .expired = is_late },
	};
	guest.containers = NULL;
	unmount(teardown);
	kill_all(teardown);
	if (have_ended()) {
		finish(teardown, 0);
		return ANSWERED;
	}
	timer_arm(&teardown->timer, DEADLINE_MS);
	sched_yield(); /* what dies begins to write now, and not once we have nothing else to do */
	return TORN_DOWN_LATER;
}
