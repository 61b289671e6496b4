"""The stack's own epoll (fs/eventpoll.c)."""
