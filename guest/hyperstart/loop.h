/* One epoll loop: descriptors and timers.  Nothing that it calls may block. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct watch {
	int fd; /* -1: there is none */
	uint32_t events; /* as registered; 0: not */
	void (*ready)(struct watch *watch, uint32_t events);
};

struct timer {
	struct timer *next;
	uint64_t at_ns; /* CLOCK_BOOTTIME; 0: not armed */
	void (*expired)(struct timer *timer);
};

struct loop {
	int epoll;
	struct epoll_event batch[32];
	int count;
	struct timer *timers;
	uint64_t now_ns; /* when it last had to know: in this turn, while there are timers */
};

int loop_open(void);
/* Wait for events, at most until the next timer, and not at all when `busy`; call who is concerned. */
void loop_turn(bool busy);

int watch_set(struct watch *watch, uint32_t events); /* 0 takes it out of the loop */
void watch_move(struct watch *to, struct watch *from); /* with its descriptor, events and function */
void watch_close(struct watch *watch); /* and closes the descriptor */

void timer_arm(struct timer *timer, uint64_t delay_ms);
void timer_disarm(struct timer *timer);
