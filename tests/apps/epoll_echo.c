/* An echo server as one writes it for Linux; it knows nothing of ustack. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static void echo(int fd)
{
	char buf[4096];
	ssize_t got;

	while ((got = recv(fd, buf, sizeof(buf), 0)) > 0)
		send(fd, buf, (size_t)got, MSG_NOSIGNAL);
	if (got == 0 || errno != EAGAIN)
		close(fd);
}

int main(int argc, char **argv)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	struct epoll_event event = { .events = EPOLLIN }, events[64];
	const int lfd = socket(AF_INET, SOCK_STREAM, 0);
	const int epfd = epoll_create1(0);
	const int on = 1;
	int count, i, fd;

	addr.sin_port = htons((unsigned short)atoi(argc > 1 ? argv[1] : "9000"));
	setsockopt(lfd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(lfd, (struct sockaddr *)&addr, sizeof(addr)) || listen(lfd, 128))
		return perror("bind"), 1;
	event.data.fd = lfd;
	epoll_ctl(epfd, EPOLL_CTL_ADD, lfd, &event);
	puts("listening");
	fflush(stdout);
	while ((count = epoll_wait(epfd, events, 64, -1)) >= 0) {
		for (i = 0; i < count; i++) {
			if (events[i].data.fd != lfd) {
				echo(events[i].data.fd);
				continue;
			}
			fd = accept(lfd, NULL, NULL);
			if (fd < 0)
				continue;
			fcntl(fd, F_SETFL, O_NONBLOCK);
			event.events = EPOLLIN;
			event.data.fd = fd;
			epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event);
		}
	}
	return 0;
}
