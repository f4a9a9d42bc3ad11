/*
 * A machine that is a copy of a template: saved with its memory when hyperstart was ready, and gone on with
 * as many times as there are pods.  What each copy must have for itself is made here, before its pod.
 */
#pragma once

#include <stdbool.h>

#define BOOT_ID_FILE "/run/hyper/boot_id" /* is there in copies alone */
#define BOOT_ID_SETTING "/proc/sys/kernel/random/boot_id"

struct clone {
	bool is_template; /* or a copy that has no pod yet */
	bool is_greeted; /* since it became one */
};

/* Let go of the NICs, whose addresses and abilities are each copy's own. */
int clone_prepare(void);
/* hyperd has come: for a copy, its time begins now. */
void clone_greeted(void);
/* When the random numbers are new: what is made of them, and the NICs.  Nothing in any other machine. */
int clone_begin(void);
