/* See services.h. */
#include "services.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ip_vs.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fd.h"
#include "guest.h"
#include "net.h"
#include "netlink.h"

#define LOOPBACK 1 /* lo is the first link in each namespace */

struct service {
	uint8_t address[16];
	uint16_t family, port, protocol;
};

struct backend {
	struct service service;
	uint8_t address[16];
	uint16_t family, port;
};

struct service_table {
	uint32_t services_count, backends_count;
	struct service *services;
	struct backend *backends;
};

/* --- From the message --- */

static void table_free(struct service_table *table)
{
	if (!table)
		return;
	free(table->services);
	free(table->backends);
	free(table);
}

static int read_service(struct service *service, const struct msg_service *from)
{
	bool is_udp = !strcmp(from->protocol, "udp");

	service->family = (uint16_t)net_parse_address(from->address, service->address);
	service->port = htons(from->port);
	service->protocol = is_udp ? IPPROTO_UDP : IPPROTO_TCP;
	if (!service->family || !from->port || (!is_udp && strcmp(from->protocol, "tcp")))
		return failed_with(EINVAL, "read service", from->address);
	return 0;
}

static int read_backend(struct backend *backend, const struct msg_backend *from,
			const struct service_table *table)
{
	backend->family = (uint16_t)net_parse_address(from->address, backend->address);
	backend->port = htons(from->port);
	if (from->service >= table->services_count || !from->port)
		return failed_with(EINVAL, "read backend", from->address);
	backend->service = table->services[from->service];
	return backend->family == backend->service.family
		       ? 0
		       : failed_with(EINVAL, "read backend", from->address);
}

static int table_read(struct service_table *table, const struct msg_set_services *message)
{
	int result = 0;

	table->services = calloc(message->services_count + 1, sizeof(*table->services));
	table->backends = calloc(message->backends_count + 1, sizeof(*table->backends));
	if (!table->services || !table->backends)
		return failed_with(ENOMEM, "read", "services");
	for (uint32_t i = 0; !result && i < message->services_count; i++)
		result = read_service(&table->services[table->services_count++], &message->services[i]);
	for (uint32_t i = 0; !result && i < message->backends_count; i++)
		result = read_backend(&table->backends[table->backends_count++], &message->backends[i],
				      table);
	return result;
}

/* --- Who is in a table; the structs have no padding but zeros, as calloc left them --- */

static bool has_service(const struct service_table *table, const struct service *service)
{
	for (uint32_t i = 0; table && i < table->services_count; i++)
		if (!memcmp(&table->services[i], service, sizeof(*service)))
			return true;
	return false;
}

static bool has_address(const struct service_table *table, const struct service *service)
{
	for (uint32_t i = 0; i < table->services_count; i++)
		if (!memcmp(table->services[i].address, service->address, sizeof(service->address)))
			return true;
	return false;
}

static bool has_backend(const struct service_table *table, const struct backend *backend)
{
	for (uint32_t i = 0; table && i < table->backends_count; i++)
		if (!memcmp(&table->backends[i], backend, sizeof(*backend)))
			return true;
	return false;
}

/* --- IPVS --- */

static void add_service(struct request *request, const struct service *service)
{
	const struct ip_vs_flags flags = { 0, ~0u };
	const uint32_t timeout = 0, netmask = service->family == AF_INET ? ~0u : 128;
	struct rtattr *nest = request_nest(request, IPVS_CMD_ATTR_SERVICE);

	request_add(request, IPVS_SVC_ATTR_AF, &service->family, sizeof(service->family));
	request_add(request, IPVS_SVC_ATTR_PROTOCOL, &service->protocol, sizeof(service->protocol));
	request_add(request, IPVS_SVC_ATTR_ADDR, service->address, sizeof(service->address));
	request_add(request, IPVS_SVC_ATTR_PORT, &service->port, sizeof(service->port));
	request_add(request, IPVS_SVC_ATTR_SCHED_NAME, "rr", sizeof("rr"));
	request_add(request, IPVS_SVC_ATTR_FLAGS, &flags, sizeof(flags));
	request_add(request, IPVS_SVC_ATTR_TIMEOUT, &timeout, sizeof(timeout));
	request_add(request, IPVS_SVC_ATTR_NETMASK, &netmask, sizeof(netmask));
	request_nest_end(request, nest);
}

static void add_backend(struct request *request, const struct backend *backend)
{
	const uint32_t method = IP_VS_CONN_F_MASQ, weight = 1, limit = 0;
	struct rtattr *nest = request_nest(request, IPVS_CMD_ATTR_DEST);

	request_add(request, IPVS_DEST_ATTR_ADDR, backend->address, sizeof(backend->address));
	request_add(request, IPVS_DEST_ATTR_PORT, &backend->port, sizeof(backend->port));
	request_add(request, IPVS_DEST_ATTR_FWD_METHOD, &method, sizeof(method));
	request_add(request, IPVS_DEST_ATTR_WEIGHT, &weight, sizeof(weight));
	request_add(request, IPVS_DEST_ATTR_U_THRESH, &limit, sizeof(limit));
	request_add(request, IPVS_DEST_ATTR_L_THRESH, &limit, sizeof(limit));
	request_nest_end(request, nest);
}

/* A command about a service, or with `backend` about one of its backends; `fine` is an error that is none. */
static int ipvs_do(const struct services *services, uint8_t command, const struct service *service,
		   const struct backend *backend, int fine)
{
	struct request request;

	request_init(&request, services->family, 0, sizeof(request.generic));
	request.generic.cmd = command;
	request.generic.version = IPVS_GENL_VERSION;
	add_service(&request, service);
	if (backend)
		add_backend(&request, backend);
	int result = request_do(services->ipvs, &request);
	return result == -fine ? 0 : result;
}

static int find_family(struct services *services)
{
	union {
		struct nlmsghdr head;
		uint8_t bytes[4096];
	} answer;
	struct request request;

	request_init(&request, GENL_ID_CTRL, 0, sizeof(request.generic));
	request.generic.cmd = CTRL_CMD_GETFAMILY;
	request_add(&request, CTRL_ATTR_FAMILY_NAME, IPVS_GENL_NAME, sizeof(IPVS_GENL_NAME));
	int result = request_ask(services->ipvs, &request, &answer.head, sizeof(answer));
	const uint16_t *family = result ? NULL
					: message_attribute(&answer.head, sizeof(request.generic),
							    CTRL_ATTR_FAMILY_ID, sizeof(*family));
	if (!family)
		return failed_with(result == -ENOENT || !result ? EOPNOTSUPP : -result, "find", "IPVS");
	services->family = *family;
	return 0;
}

/* What goes to a backend that is no more is to find another one; by default it would be lost in silence. */
static void let_connections_move(void)
{
	cleanup_fd int fd = openat(AT_FDCWD, "/proc/sys/net/ipv4/vs/expire_nodest_conn", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "1", 1) != 1)
		log_line("expire_nodest_conn: %s", strerror(errno));
}

static int services_open(struct services *services, int namespace)
{
	if (services->ipvs >= 0)
		return 0;
	if (setns(namespace, CLONE_NEWNET))
		return failed("setns", "network");
	services->ipvs = netlink_open(NETLINK_GENERIC);
	int result = services->ipvs < 0 ? services->ipvs : find_family(services);
	if (!result)
		let_connections_move();
	if (setns(guest.own_net_namespace, CLONE_NEWNET))
		log_line("setns back: %s", strerror(errno));
	if (result)
		close_fd(&services->ipvs);
	return result;
}

/* --- Routes --- */

static bool is_loopback(const struct backend *backend)
{
	return backend->family == AF_INET && backend->address[0] == 127;
}

/* Where a connection leads, for the choice of its source: a backend, or lacking one the service itself. */
static const uint8_t *destination(const struct service_table *table, const struct service *service)
{
	for (uint32_t i = 0; i < table->backends_count; i++) {
		const struct backend *backend = &table->backends[i];
		if (!memcmp(&backend->service, service, sizeof(*service)) && !is_loopback(backend))
			return backend->address;
	}
	return service->address;
}

union answer {
	struct nlmsghdr head;
	struct {
		struct nlmsghdr unused;
		struct rtmsg route;
	};
	uint8_t bytes[4096];
};

static int ask_route(int route, int family, const uint8_t *address, unsigned int flags, union answer *answer)
{
	struct request request;

	request_init(&request, RTM_GETROUTE, 0, sizeof(request.route));
	request.route.rtm_family = (uint8_t)family;
	request.route.rtm_dst_len = (uint8_t)(8 * net_address_size(family));
	request.route.rtm_flags = flags;
	request_add(&request, RTA_DST, address, net_address_size(family));
	return request_ask(route, &request, &answer->head, sizeof(*answer));
}

/* The pod's own address that packets to `address` have: false when there is no way there. */
static bool find_source(int route, int family, const uint8_t *address, uint8_t source[16])
{
	union answer answer;
	size_t size = net_address_size(family);

	if (ask_route(route, family, address, 0, &answer))
		return false;
	const void *found = message_attribute(&answer.head, sizeof(answer.route), RTA_PREFSRC, size);
	if (found)
		memcpy(source, found, size);
	return found;
}

/* An address of a link, whose route is the kernel's and not ours to replace. */
static bool is_taken(int route, const struct service *service)
{
	union answer answer;

	return !ask_route(route, service->family, service->address, RTM_F_FIB_MATCH, &answer) &&
	       answer.route.rtm_type == RTN_LOCAL && answer.route.rtm_protocol == RTPROT_KERNEL;
}

static void route_init(struct request *request, int type, int flags, const struct service *service)
{
	const int link = LOOPBACK;
	size_t size = net_address_size(service->family);

	request_init(request, type, flags, sizeof(request->route));
	request->route.rtm_family = (uint8_t)service->family;
	request->route.rtm_dst_len = (uint8_t)(8 * size);
	request->route.rtm_table = RT_TABLE_LOCAL;
	request->route.rtm_protocol = RTPROT_STATIC;
	request->route.rtm_scope = RT_SCOPE_HOST;
	request->route.rtm_type = RTN_LOCAL;
	request_add(request, RTA_DST, service->address, size);
	request_add(request, RTA_OIF, &link, sizeof(link));
}

static int add_route(int route, const struct service_table *table, const struct service *service)
{
	struct request request;
	uint8_t source[16];
	const uint8_t *to = destination(table, service);
	bool has_source = to != service->address && find_source(route, service->family, to, source);

	if (is_taken(route, service))
		return -EADDRINUSE;
	route_init(&request, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, service);
	if (has_source)
		request_add(&request, RTA_PREFSRC, source, net_address_size(service->family));
	return request_do(route, &request);
}

static int remove_route(int route, const struct service *service)
{
	struct request request;

	route_init(&request, RTM_DELROUTE, 0, service);
	int result = request_do(route, &request);
	return result == -ESRCH ? 0 : result;
}

/* --- From one table to the next --- */

static int add_new(const struct services *services, int route, const struct service_table *after)
{
	int result = 0;

	for (uint32_t i = 0; !result && i < after->services_count; i++) {
		result = add_route(route, after, &after->services[i]);
		if (!result)
			result = ipvs_do(services, IPVS_CMD_NEW_SERVICE, &after->services[i], NULL, EEXIST);
	}
	for (uint32_t i = 0; !result && i < after->backends_count; i++)
		result = ipvs_do(services, IPVS_CMD_NEW_DEST, &after->backends[i].service,
				 &after->backends[i], EEXIST);
	return result;
}

static int remove_old(const struct services *services, int route, const struct service_table *before,
		      const struct service_table *after)
{
	int result = 0;

	for (uint32_t i = 0; !result && i < before->backends_count; i++)
		if (!has_backend(after, &before->backends[i]))
			result = ipvs_do(services, IPVS_CMD_DEL_DEST, &before->backends[i].service,
					 &before->backends[i], ENOENT);
	for (uint32_t i = 0; !result && i < before->services_count; i++) {
		if (!has_service(after, &before->services[i]))
			result = ipvs_do(services, IPVS_CMD_DEL_SERVICE, &before->services[i], NULL, ESRCH);
		if (!result && !has_address(after, &before->services[i]))
			result = remove_route(route, &before->services[i]);
	}
	return result;
}

/* Each step may be repeated, so that half of it is undone by going the other way. */
static int move(const struct services *services, int route, const struct service_table *before,
		const struct service_table *after)
{
	int result = add_new(services, route, after);

	return result ? result : remove_old(services, route, before, after);
}

static int replace(struct services *services, int route, struct service_table *after)
{
	static struct service_table none;
	struct service_table *before = services->table ? services->table : &none;
	int result = move(services, route, before, after);

	if (result) {
		move(services, route, after, before);
		return failed_with(-result, "set", "services");
	}
	table_free(services->table);
	services->table = after;
	return 0;
}

int services_set(struct services *services, int route, int namespace, const struct msg_set_services *message)
{
	struct service_table *table = calloc(1, sizeof(*table));
	int result = table ? table_read(table, message) : failed_with(ENOMEM, "read", "services");

	if (!result)
		result = services_open(services, namespace);
	if (!result)
		result = replace(services, route, table);
	if (result)
		table_free(table);
	return result;
}

void services_forget(struct services *services)
{
	close_fd(&services->ipvs);
	table_free(services->table);
	services->table = NULL;
}
