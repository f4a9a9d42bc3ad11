/* See netlink.h. */
#include "netlink.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "log.h"

int netlink_open(int protocol)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);

	return fd < 0 ? failed("socket", "netlink") : fd;
}

void request_init(struct request *request, int type, int flags, size_t body)
{
	memset(request, 0, sizeof(*request));
	request->head.nlmsg_type = (uint16_t)type;
	request->head.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	request->head.nlmsg_len = (uint32_t)NLMSG_LENGTH(body);
}

static struct rtattr *request_end(struct request *request)
{
	return (void *)((uint8_t *)request + NLMSG_ALIGN(request->head.nlmsg_len));
}

void request_add(struct request *request, int type, const void *value, size_t size)
{
	struct rtattr *attribute = request_end(request);

	attribute->rta_type = (uint16_t)type;
	attribute->rta_len = (uint16_t)RTA_LENGTH(size);
	if (size)
		memcpy(RTA_DATA(attribute), value, size);
	request->head.nlmsg_len = NLMSG_ALIGN(request->head.nlmsg_len) + (uint32_t)RTA_LENGTH(size);
}

struct rtattr *request_nest(struct request *request, int type)
{
	struct rtattr *nest = request_end(request);

	request_add(request, NLA_F_NESTED | type, NULL, 0);
	return nest;
}

void request_nest_end(struct request *request, struct rtattr *nest)
{
	nest->rta_len = (uint16_t)((uint8_t *)request_end(request) - (uint8_t *)nest);
}

int request_send(int socket, struct request *request)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };

	return sendto(socket, request, request->head.nlmsg_len, 0, (struct sockaddr *)&kernel,
		      sizeof(kernel)) < 0
		       ? -errno
		       : 0;
}

int message_error(const struct nlmsghdr *head)
{
	const struct nlmsgerr *error = NLMSG_DATA(head);

	return error->error;
}

/* The kernel answers within the call. */
int request_do(int socket, struct request *request)
{
	union {
		struct nlmsghdr head;
		uint8_t bytes[4096];
	} answer;
	int result;

	request->head.nlmsg_flags |= NLM_F_ACK;
	result = request_send(socket, request);
	while (!result) {
		ssize_t size = recv(socket, &answer, sizeof(answer), 0);
		if (size < (ssize_t)sizeof(answer.head))
			return -EIO;
		if (answer.head.nlmsg_type == NLMSG_ERROR)
			return message_error(&answer.head);
	}
	return result;
}

int request_ask(int socket, struct request *request, struct nlmsghdr *answer, size_t size)
{
	int result = request_send(socket, request);

	if (result)
		return result;
	ssize_t got = recv(socket, answer, size, 0);
	if (got < (ssize_t)sizeof(*answer) || !NLMSG_OK(answer, (size_t)got))
		return -EIO;
	return answer->nlmsg_type == NLMSG_ERROR ? message_error(answer) : 0;
}

const void *message_attribute(const struct nlmsghdr *head, size_t body, int type, size_t size)
{
	if (head->nlmsg_len < NLMSG_SPACE(body))
		return NULL;
	size_t left = head->nlmsg_len - NLMSG_SPACE(body);
	const struct rtattr *attribute = (const void *)((const uint8_t *)head + NLMSG_SPACE(body));

	for (; RTA_OK(attribute, left); attribute = RTA_NEXT(attribute, left))
		if (attribute->rta_type == type)
			return RTA_PAYLOAD(attribute) == size ? RTA_DATA(attribute) : NULL;
	return NULL;
}
