/* Messages of netlink(7): a request is built, sent, and answered within the call. */
#pragma once

#include <linux/genetlink.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stddef.h>
#include <stdint.h>

struct request {
	struct nlmsghdr head;
	union {
		struct ifinfomsg link;
		struct ifaddrmsg address;
		struct rtmsg route;
		struct genlmsghdr generic;
	};
	uint8_t attributes[256];
};

/* A socket of the calling process's network namespace, which it belongs to for good. */
int netlink_open(int protocol);

void request_init(struct request *request, int type, int flags, size_t body);
/* Each value is a few bytes, so that the room for attributes is always enough. */
void request_add(struct request *request, int type, const void *value, size_t size);
/* What is added until request_nest_end is inside of an attribute. */
struct rtattr *request_nest(struct request *request, int type);
void request_nest_end(struct request *request, struct rtattr *nest);

int request_send(int socket, struct request *request);
/* Send and wait for the kernel's verdict: 0 or -errno. */
int request_do(int socket, struct request *request);
/* Send and receive the one message that answers, at most `size` bytes: 0 or -errno. */
int request_ask(int socket, struct request *request, struct nlmsghdr *answer, size_t size);

int message_error(const struct nlmsghdr *head);
/* The value of `size` bytes of an attribute behind a body of `body` bytes; NULL when there is none. */
const void *message_attribute(const struct nlmsghdr *head, size_t body, int type, size_t size);
