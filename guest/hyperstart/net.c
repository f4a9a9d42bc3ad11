/* See net.h. */
#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fd.h"
#include "log.h"
#include "netlink.h"

#define MAC_SIZE 6
#define ANSWER_SIZE 16384 /* the kernel fills dumps in pieces of at most this */

/* --- Links --- */

/* Calls `match` for each link until it says true: that link's index, 0 when there is none, or -errno. */
static int find_link(int socket, bool (*match)(const struct nlmsghdr *head, const void *about),
		     const void *about)
{
	static union {
		struct nlmsghdr head;
		uint8_t bytes[ANSWER_SIZE];
	} answer;
	struct request request;
	int index = 0;

	request_init(&request, RTM_GETLINK, NLM_F_DUMP, sizeof(request.link));
	int result = request_send(socket, &request);
	while (!result) {
		ssize_t size = recv(socket, &answer, sizeof(answer), 0);
		if (size < 0)
			return -errno;
		const struct nlmsghdr *head = &answer.head;
		for (size_t left = (size_t)size; NLMSG_OK(head, left); head = NLMSG_NEXT(head, left)) {
			if (head->nlmsg_type == NLMSG_DONE)
				return index;
			if (head->nlmsg_type == NLMSG_ERROR)
				return message_error(head);
			if (!index && match(head, about))
				index = ((const struct ifinfomsg *)NLMSG_DATA(head))->ifi_index;
		}
	}
	return result;
}

static bool has_mac(const struct nlmsghdr *head, const void *mac)
{
	const void *address = message_attribute(head, sizeof(struct ifinfomsg), IFLA_ADDRESS, MAC_SIZE);

	return address && !memcmp(address, mac, MAC_SIZE);
}

static bool is_ethernet(const struct nlmsghdr *head, const void *unused)
{
	(void)unused;
	return ((const struct ifinfomsg *)NLMSG_DATA(head))->ifi_type == ARPHRD_ETHER;
}

static int link_set(int socket, int index, unsigned int flags, int attribute, const void *value, size_t size)
{
	struct request request;

	request_init(&request, RTM_NEWLINK, 0, sizeof(request.link));
	request.link.ifi_index = index;
	request.link.ifi_flags = flags;
	request.link.ifi_change = IFF_UP;
	if (value)
		request_add(&request, attribute, value, size);
	return request_do(socket, &request);
}

int net_loopback_up(int socket)
{
	int result = link_set(socket, 1, IFF_UP, 0, NULL, 0); /* lo is the first in each namespace */

	return result ? failed_with(-result, "link up", "lo") : 0;
}

/* `name` is taken only where the link's own is in use there. */
static int link_move(int socket, int index, int namespace, const char *name)
{
	struct request request;
	int32_t fd = namespace;

	request_init(&request, RTM_NEWLINK, 0, sizeof(request.link));
	request.link.ifi_index = index;
	request.link.ifi_change = IFF_UP;
	request_add(&request, IFLA_NET_NS_FD, &fd, sizeof(fd));
	request_add(&request, IFLA_IFNAME, name, strlen(name) + 1);
	return request_do(socket, &request);
}

/* --- Addresses and routes --- */

int net_parse_address(const char *text, uint8_t address[16])
{
	if (inet_pton(AF_INET, text, address) == 1)
		return AF_INET;
	return inet_pton(AF_INET6, text, address) == 1 ? AF_INET6 : 0;
}

size_t net_address_size(int family)
{
	return family == AF_INET ? 4 : 16;
}

static bool parse_cidr(const char *text, int *family, uint8_t address[16], uint8_t *prefix)
{
	char copy[64];
	const char *slash = strchr(text, '/');
	unsigned long bits;
	char *end;

	if (!slash || (size_t)(slash - text) >= sizeof(copy))
		return false;
	memcpy(copy, text, (size_t)(slash - text));
	copy[slash - text] = '\0';
	*family = net_parse_address(copy, address);
	bits = strtoul(slash + 1, &end, 10);
	*prefix = (uint8_t)bits;
	return *family && slash[1] && !*end && bits <= 8 * net_address_size(*family);
}

static int add_address(int socket, int index, const char *cidr)
{
	struct request request;
	uint8_t address[16], prefix;
	int family, result;

	if (!parse_cidr(cidr, &family, address, &prefix))
		return failed_with(EINVAL, "add address", cidr);
	request_init(&request, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof(request.address));
	request.address.ifa_family = (uint8_t)family;
	request.address.ifa_prefixlen = prefix;
	/* hyperd gave the address to this pod alone, and it is to be usable at once */
	request.address.ifa_flags = family == AF_INET6 ? IFA_F_NODAD : 0;
	request.address.ifa_index = (uint32_t)index;
	request_add(&request, IFA_LOCAL, address, net_address_size(family));
	request_add(&request, IFA_ADDRESS, address, net_address_size(family));
	result = request_do(socket, &request);
	return result ? failed_with(-result, "add address", cidr) : 0;
}

static int add_gateway(int socket, int index, const char *text)
{
	struct request request;
	uint8_t gateway[16];
	int family = net_parse_address(text, gateway), result;

	if (!family)
		return failed_with(EINVAL, "add route", text);
	request_init(&request, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof(request.route));
	request.route.rtm_family = (uint8_t)family;
	request.route.rtm_table = RT_TABLE_MAIN;
	request.route.rtm_protocol = RTPROT_BOOT;
	request.route.rtm_scope = RT_SCOPE_UNIVERSE;
	request.route.rtm_type = RTN_UNICAST;
	request.route.rtm_flags = RTNH_F_ONLINK; /* also one outside of the pod's own subnet */
	request_add(&request, RTA_GATEWAY, gateway, net_address_size(family));
	request_add(&request, RTA_OIF, &index, sizeof(index));
	result = request_do(socket, &request);
	return result ? failed_with(-result, "add route", text) : 0;
}

/* --- A NIC --- */

static bool parse_mac(const char *text, uint8_t mac[MAC_SIZE])
{
	for (int i = 0; i < MAC_SIZE; i++) {
		char *end;
		unsigned long byte = strtoul(text, &end, 16);
		if (end != text + 2 || byte > 255 || *end != (i < MAC_SIZE - 1 ? ':' : '\0'))
			return false;
		mac[i] = (uint8_t)byte;
		text = end + 1;
	}
	return true;
}

static int set_up_link(int socket, int index, const struct msg_configure_nic *nic)
{
	int result = link_set(socket, index, 0, 0, NULL, 0); /* a name is changed only while it is down */

	if (!result)
		result = link_set(socket, index, 0, IFLA_IFNAME, nic->name, strlen(nic->name) + 1);
	if (!result && nic->mtu)
		result = link_set(socket, index, 0, IFLA_MTU, &nic->mtu, sizeof(nic->mtu));
	if (!result)
		result = link_set(socket, index, IFF_UP, 0, NULL, 0);
	return result ? failed_with(-result, "set up link", nic->name) : 0;
}

static int find_in_pod(int own, int pod, int namespace, const uint8_t mac[MAC_SIZE],
		       const struct msg_configure_nic *nic)
{
	int index = find_link(own, has_mac, mac);

	if (index > 0)
		index = link_move(own, index, namespace, nic->name);
	if (!index)
		index = find_link(pod, has_mac, mac);
	if (index > 0)
		return index;
	return failed_with(index ? -index : ENODEV, "find link", nic->mac);
}

int net_configure(int own, int pod, int namespace, const struct msg_configure_nic *nic)
{
	uint8_t mac[MAC_SIZE];

	if (!parse_mac(nic->mac, mac) || !nic->name[0] || strlen(nic->name) >= IF_NAMESIZE)
		return failed_with(EINVAL, "configure link", nic->mac);
	int index = find_in_pod(own, pod, namespace, mac, nic);
	if (index < 0)
		return index;
	int result = net_loopback_up(pod);
	if (!result)
		result = set_up_link(pod, index, nic);
	for (uint32_t i = 0; !result && i < nic->addresses_count; i++)
		result = add_address(pod, index, nic->addresses[i]);
	for (uint32_t i = 0; !result && i < nic->gateways_count; i++)
		result = add_gateway(pod, index, nic->gateways[i]);
	return result;
}

int net_return(int pod, int namespace)
{
	int index;

	/* a container may have made links of its own: those that cannot move end with the namespace */
	for (int i = 0; i < 64 && (index = find_link(pod, is_ethernet, NULL)) > 0; i++) {
		int result = link_set(pod, index, 0, 0, NULL, 0);
		if (!result)
			result = link_move(pod, index, namespace, "nic%d");
		if (result)
			return failed_with(-result, "move link", "back");
	}
	return 0;
}
