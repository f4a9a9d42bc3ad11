/*
 * Services: virtual addresses inside the pod, whose connections the kernel's IPVS sends to backends in
 * turn.  Only what starts in the pod is balanced: the address is a local route of the pod's namespace, with
 * one of the pod's own addresses as source, so that backends answer to the pod.
 */
#pragma once

#include "protocol.gen.h"

struct services {
	int ipvs; /* generic netlink socket of the pod's namespace; -1: none is needed yet */
	uint16_t family; /* of IPVS, as generic netlink counts */
	struct service_table *table; /* what the kernel has now */
};

/* `route` is a routing socket of the pod's namespace, and `namespace` that itself. */
int services_set(struct services *services, int route, int namespace,
		 const struct msg_set_services *message);
/* The namespace is going away, and the kernel's tables with it. */
void services_forget(struct services *services);
