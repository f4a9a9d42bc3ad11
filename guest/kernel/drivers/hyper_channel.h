/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The host's side of the channel: socket calls that the kernel's side cannot make itself,
 * because the headers of the host's C library and of the kernel do not mix.
 *
 * No call here blocks, and none raises SIGPIPE. Errors are returned as -errno.
 */
#ifndef HYPER_CHANNEL_H
#define HYPER_CHANNEL_H

/* Takes one waiting connection from the listening socket; -EAGAIN when there is none. */
int hyper_channel_host_accept(int listener);

/* Receives up to size bytes; 0 when the other end is gone and nothing is left to read. */
int hyper_channel_host_receive(int connection, void *bytes, int size);

/* Sends up to size bytes; what is not counted in the result was not sent. */
int hyper_channel_host_send(int connection, const void *bytes, int size);

/* A receive would return at once: with bytes, with the end or with an error. */
#define HYPER_CHANNEL_READABLE 1
/* The other end is gone; it may have left bytes to read. */
#define HYPER_CHANNEL_GONE 2

int hyper_channel_host_state(int connection);

void hyper_channel_host_close(int descriptor);

#endif
