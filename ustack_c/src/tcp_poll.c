/* What is true of a connection that nothing is out of the ordinary with (tcp_poll). */

#include <sys/epoll.h>

#include "tcp_internal.h"

/**
 * us_tcp_poll - the poll events that are true now
 * @fast: fast path
 * @tp:   connection; if it has no room, a writer is taken to wait for it
 *
 * A pending error is the caller's to know of.
 *
 * Return: EPOLL* bits; -1: the way through Python.
 */
int us_tcp_poll(const struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	unsigned int mask = 0;

	if (tp->slow || !us_tcp_can_send(tp) || tp->snd_shutdown)
		return -1;
	if (tp->rcv_shutdown)
		mask |= EPOLLIN | EPOLLRDNORM | EPOLLRDHUP;
	if (tp->receive_queue.len)
		mask |= EPOLLIN | EPOLLRDNORM;
	if (us_tcp_is_writeable(fast, tp))
		mask |= EPOLLOUT | EPOLLWRNORM;
	else
		tp->nospace = 1;
	return (int)mask;
}
