"""What programs call: sockets, epoll and asyncio transports that mirror the standard library."""
