/* See loop.h. */
#include "loop.h"

#include <errno.h>
#include <stddef.h>
#include <unistd.h>

#include "fd.h"
#include "guest.h"

int loop_open(void)
{
	guest.loop.epoll = epoll_create1(EPOLL_CLOEXEC);
	return guest.loop.epoll < 0 ? failed("epoll_create", "") : 0;
}

/* A watch may go away while a batch that mentions it is handled. */
static void forget_in_batch(const struct watch *watch)
{
	for (int i = 0; i < guest.loop.count; i++)
		if (guest.loop.batch[i].data.ptr == watch)
			guest.loop.batch[i].data.ptr = NULL;
}

int watch_set(struct watch *watch, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = watch };
	int operation = !events ? EPOLL_CTL_DEL : watch->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	if (watch->events == events)
		return 0;
	if (!events)
		forget_in_batch(watch);
	watch->events = events;
	if (epoll_ctl(guest.loop.epoll, operation, watch->fd, &event))
		return failed("epoll_ctl", "");
	return 0;
}

void watch_move(struct watch *to, struct watch *from)
{
	struct epoll_event event = { .events = from->events, .data.ptr = to };

	*to = *from;
	forget_in_batch(from);
	from->fd = -1;
	from->events = 0;
	if (to->events)
		epoll_ctl(guest.loop.epoll, EPOLL_CTL_MOD, to->fd, &event);
}

void watch_close(struct watch *watch)
{
	if (watch->fd < 0)
		return;
	watch_set(watch, 0);
	close_fd(&watch->fd);
}

void timer_arm(struct timer *timer, uint64_t delay_ms)
{
	timer_disarm(timer);
	guest.loop.now_ns = now_ns();
	timer->at_ns = guest.loop.now_ns + delay_ms * 1000000;
	timer->next = guest.loop.timers;
	guest.loop.timers = timer;
}

void timer_disarm(struct timer *timer)
{
	struct timer **at = &guest.loop.timers;

	if (!timer->at_ns)
		return;
	while (*at != timer)
		at = &(*at)->next;
	*at = timer->next;
	timer->at_ns = 0;
}

static int timeout_ms(void)
{
	uint64_t next = UINT64_MAX, now = guest.loop.now_ns;

	for (struct timer *timer = guest.loop.timers; timer; timer = timer->next)
		next = timer->at_ns < next ? timer->at_ns : next;
	if (next == UINT64_MAX)
		return -1;
	return next <= now ? 0 : (int)((next - now) / 1000000 + 1); /* armed for seconds at most */
}

static void expire_timers(void)
{
	uint64_t now = guest.loop.now_ns = now_ns();

restart: /* a timer's function may change the list */
	for (struct timer *timer = guest.loop.timers; timer; timer = timer->next)
		if (timer->at_ns <= now) {
			timer_disarm(timer);
			timer->expired(timer);
			goto restart;
		}
}

void loop_turn(bool busy)
{
	struct loop *loop = &guest.loop;

	loop->count = epoll_wait(loop->epoll, loop->batch, LENGTH(loop->batch), busy ? 0 : timeout_ms());
	for (int i = 0; i < loop->count; i++) {
		struct watch *watch = loop->batch[i].data.ptr;
		if (watch)
			watch->ready(watch, loop->batch[i].events);
	}
	loop->count = 0;
	if (loop->timers)
		expire_timers();
}
