/* The state of hyperstart: the one global, made of the nouns' own structs. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "channel.h"
#include "clone.h"
#include "container.h"
#include "log.h"
#include "loop.h"
#include "pod.h"
#include "process.h"
#include "requests.h"
#include "session.h"
#include "teardown.h"

struct guest {
	uint64_t started_ns;
	bool in_namespaces; /* no machine of our own: tests.  Clock and power are the host's */
	bool is_mapped; /* and not even root outside of our user namespace */
	pid_t pid; /* a job's, as it sees itself: written by the kernel at its birth */
	int null; /* /dev/null, before a container could put something else there */
	int own_pid_namespace, own_net_namespace;
	int cgroup; /* directory of the cgroup tree; -1: there is none */
	struct failure failure;
	struct timeline timeline;
	struct loop loop;
	struct channel channel;
	struct session session;
	struct requests requests;
	struct pod pod;
	struct teardown teardown;
	struct clone clone;
	struct container *containers;
	struct process *processes;
};

extern struct guest guest;
