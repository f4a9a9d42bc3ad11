/* The pod: namespaces that all of its containers share, held by an init of their own. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "job.h"
#include "protocol.gen.h"
#include "services.h"

#define SHM_DIRECTORY "/run/hyper/shm"

struct pod {
	bool exists; /* from the moment that its init is ready */
	pid_t init; /* 0: there is none */
	int pid_namespace, net_namespace; /* -1: none */
	int init_pidfd; /* for joining all of them with one call */
	int net; /* routing socket inside */
	bool has_nics;
	struct services services;
	struct job job; /* its init, until that is ready */
	uint32_t request; /* who waits for the set-up */
	bool has_births; /* hyperstart's next child is born in its PID namespace */
};

int pod_set_up(const struct msg_set_up_pod *message, uint32_t request);
int pod_configure_nic(const struct msg_configure_nic *message);
int pod_set_services(const struct msg_set_services *message);
void pod_init_ended(void);
/* There is none any more, but for its init, which is killed: its PID, or 0.  NICs are the machine's again. */
pid_t pod_kill(void);
void pod_unmount(void); /* what its containers have in common */
int pod_join(void); /* for jobs: the namespaces but PID, which they were born in */
