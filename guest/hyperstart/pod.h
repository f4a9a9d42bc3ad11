/* The pod: namespaces that all of its containers share, held by an init of their own. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "job.h"
#include "loop.h"
#include "protocol.gen.h"
#include "services.h"

#define SHM_DIRECTORY "/run/hyper/shm"

struct pod {
	bool exists; /* from the moment that its init is ready */
	pid_t init; /* 0: there is none */
	int pid_namespace, net_namespace; /* -1: none */
	int init_pidfd; /* for joining all of them with one call */
	int net; /* routing socket inside */
	struct services services;
	struct job job; /* its init, until that is ready */
	uint32_t request; /* who waits for the set-up, or for the tear-down */
	struct timer teardown; /* tries again until all is gone */
	unsigned int tries;
	uint64_t keep; /* slots whose disks stay mounted when it is torn down */
	bool is_ending, powers_off;
	bool has_births; /* hyperstart's next child is born in its PID namespace */
};

int pod_set_up(const struct msg_set_up_pod *message, uint32_t request);
/* Kill, unmount all but the slots `keep`, answer Done; then also power off when `powers_off`. */
int pod_tear_down(uint32_t request, uint64_t keep, bool powers_off);
int pod_configure_nic(const struct msg_configure_nic *message);
int pod_set_services(const struct msg_set_services *message);
void pod_init_ended(void);
void pod_look_again(void); /* something has ended: what a tear-down waits for may have */
int pod_join(void); /* for jobs: the namespaces but PID, which they were born in */
