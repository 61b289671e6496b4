#ifndef USTACK_ABI_CLIENT_H
#define USTACK_ABI_CLIENT_H

#include "types.h"

/* A daemon's client and its descriptors; see src/client.c. */
int us_client_accept(int fd, int priority, void *message, uint32_t size);
int us_client_has_hung_up(int fd);

#endif
