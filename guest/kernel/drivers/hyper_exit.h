/* SPDX-License-Identifier: GPL-2.0 */
#ifndef HYPER_EXIT_H
#define HYPER_EXIT_H

/* Ends the host's process at once. */
void hyper_host_exit(int status) __attribute__((noreturn));

#endif
