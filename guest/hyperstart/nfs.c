/*
 * See nfs.h.
 *
 * The kernel resolves no names and knows no mount.nfs(8): it is given the server's address and our own, and
 * the version (nfs(5), fs/nfs/fs_context.c).  It would try for minutes, so we connect first, by ourselves.
 */
#include "nfs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fd.h"
#include "log.h"

#define PORT 2049
#define CONNECT_MS 5000

struct server {
	char host[INET6_ADDRSTRLEN + 2], own[INET6_ADDRSTRLEN];
	struct sockaddr_storage address;
	socklen_t size;
};

/* --- The address --- */

static bool parse_address(struct server *server, uint16_t port)
{
	struct sockaddr_in *v4 = (void *)&server->address;
	struct sockaddr_in6 *v6 = (void *)&server->address;

	if (inet_pton(AF_INET, server->host, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		server->size = sizeof(*v4);
		return true;
	}
	v6->sin6_family = AF_INET6;
	v6->sin6_port = htons(port);
	server->size = sizeof(*v6);
	return inet_pton(AF_INET6, server->host, &v6->sin6_addr) == 1;
}

static const char *option(const struct mount_options *options, const char *key)
{
	for (const struct mount_option *each = options->data; each->key; each++)
		if (!strcmp(each->key, key))
			return each->value ? each->value : "";
	return NULL;
}

static int find_server(struct server *server, const char *source, const struct mount_options *options)
{
	const char *port = option(options, "port"), *end = strstr(source, ":/");
	bool has_brackets = source[0] == '[' && end && end[-1] == ']';
	size_t length = end ? (size_t)(end - source) : 0;

	*server = (struct server){ 0 };
	if (has_brackets)
		length -= 2;
	if (!length || length >= sizeof(server->host))
		return failed_with(EINVAL, "mount nfs4", source);
	memcpy(server->host, source + has_brackets, length);
	if (!parse_address(server, port ? (uint16_t)atoi(port) : PORT))
		return failed_with(EINVAL, "mount nfs4: no address in", source);
	return 0;
}

/* --- Is it there? --- */

static int wait_connected(int fd)
{
	struct pollfd wait = { .fd = fd, .events = POLLOUT };
	int error = 0;
	socklen_t size = sizeof(error);

	if (poll(&wait, 1, CONNECT_MS) != 1)
		return -ETIMEDOUT;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
	return -error;
}

static int find_own(struct server *server, int fd)
{
	struct sockaddr_storage own;
	socklen_t size = sizeof(own);
	const void *at;

	if (getsockname(fd, (struct sockaddr *)&own, &size))
		return -errno;
	at = own.ss_family == AF_INET ? (void *)&((struct sockaddr_in *)&own)->sin_addr
				      : (void *)&((struct sockaddr_in6 *)&own)->sin6_addr;
	return inet_ntop(own.ss_family, at, server->own, sizeof(server->own)) ? 0 : -errno;
}

static int try_server(struct server *server)
{
	cleanup_fd int fd = socket(server->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int result = 0;

	if (fd < 0)
		return failed("socket", server->host);
	if (connect(fd, (const struct sockaddr *)&server->address, server->size))
		result = errno == EINPROGRESS ? wait_connected(fd) : -errno;
	if (!result)
		result = find_own(server, fd);
	return result ? failed_with(-result, "connect to the NFS server", server->host) : 0;
}

/* --- Mounting --- */

/* The last word, if the signal finds us in the kernel: what is reported after it counts instead. */
static void watch_time(const struct job *job, const char *source)
{
	sigset_t alarms;

	job_report(job, failed_with(ETIMEDOUT, "mount nfs4", source));
	sigemptyset(&alarms);
	sigaddset(&alarms, SIGALRM);
	signal(SIGALRM, SIG_DFL);
	sigprocmask(SIG_UNBLOCK, &alarms, NULL);
	alarm(NFS_TIMEOUT_S - CONNECT_MS / 1000);
}

static int mount_version(const char *source, const struct server *server, const struct mount_options *options,
			 const char *version)
{
	struct mount_option all[MOUNT_OPTIONS + 4];
	size_t count = 0;

	for (const struct mount_option *each = options->data; each->key; each++)
		all[count++] = *each;
	all[count++] = (struct mount_option){ "addr", server->host };
	all[count++] = (struct mount_option){ "clientaddr", server->own };
	all[count++] = (struct mount_option){ version ? "vers" : NULL, version };
	all[count] = (struct mount_option){ NULL, NULL };
	return mount_new("nfs4", source, all, options->attributes);
}

int nfs_mount(const char *source, const struct mount_options *options, const struct job *job)
{
	bool is_chosen =
		option(options, "vers") || option(options, "nfsvers") || option(options, "minorversion");
	struct server server;
	int result = find_server(&server, source, options);

	if (!result)
		result = try_server(&server);
	if (result)
		return result;
	watch_time(job, source);
	result = mount_version(source, &server, options, is_chosen ? NULL : "4.2");
	if ((result == -EPROTONOSUPPORT || result == -EINVAL) && !is_chosen)
		result = mount_version(source, &server, options, "4.0");
	alarm(0);
	return result;
}
