/* The emulated device: making it, its wire, its reset and its interrupt registers. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "nic_dev.h"

#define US_NEVER_US (-(INT64_C(1) << 60))

/**
 * us_nic_create - a device in its reset state, without a wire
 * @mem: the memory that descriptors may point into; must outlive the device
 *
 * Context: allocates. Return: the device, or NULL.
 */
struct us_nic *us_nic_create(struct us_mem *mem)
{
	struct us_nic *nic = calloc(1, sizeof(*nic));

	if (!nic)
		return NULL;
	nic->mem = mem;
	us_nic_reset(nic);
	return nic;
}

/**
 * us_nic_destroy - free the device; the wire's descriptor stays open
 * @nic: device, or NULL
 */
void us_nic_destroy(struct us_nic *nic)
{
	free(nic);
}

/**
 * us_nic_regs - the register file, as a driver maps it
 * @nic: device
 */
struct us_igb_regs *us_nic_regs(struct us_nic *nic)
{
	return &nic->regs;
}

/**
 * us_nic_reset - CTRL.RST: queues and interrupts off, causes gone, statistics zero
 * @nic: device
 *
 * A frame that waited in the packet buffer is lost; the wire stays connected.
 */
void us_nic_reset(struct us_nic *nic)
{
	const uint32_t wire_error = nic->regs.WIREERR;

	memset(&nic->regs, 0, sizeof(nic->regs));
	memset(nic->context, 0, sizeof(nic->context));
	nic->regs.WIREERR = wire_error;
	nic->regs.STATUS = US_E1000_STATUS_LU;
	for (int i = 0; i < US_IGB_MAX_QUEUES; i++)
		nic->fired_us[i] = US_NEVER_US;
	nic->rx_causes = 0;
	nic->urgent = 0;
	nic->likely_queue = 0;
	nic->fifo.len = 0;
	nic->paused = false;
}

/**
 * us_nic_attach - connect a wire that is a file descriptor
 * @nic:          device
 * @fd:           non-blocking, one frame for each read and write; -1: none (any more)
 * @vnet_hdr_len: US_VNET_HDR_LEN if a virtio header stands before each frame, or 0
 */
void us_nic_attach(struct us_nic *nic, int fd, uint32_t vnet_hdr_len)
{
	nic->fds[0] = fd;
	nic->nfds = fd >= 0 ? 1 : 0;
	nic->first_fd = 0;
	nic->vnet_hdr_len = vnet_hdr_len ? US_VNET_HDR_LEN : 0;
	nic->regs.WIREERR = 0;
}

/**
 * us_nic_attach_queue - connect a further queue of a wire that is attached
 * @nic: device
 * @fd:  as for us_nic_attach
 *
 * All queues are inputs alike: which receive ring a frame lands in is still the hash's
 * business. Transmit queue q sends by the wire's queue q modulo their number.
 *
 * Return: 0, or -EINVAL: no wire is attached, @fd is none, or there are too many.
 */
int us_nic_attach_queue(struct us_nic *nic, int fd)
{
	if (!nic->nfds || nic->nfds == US_IGB_MAX_QUEUES || fd < 0)
		return -EINVAL;
	nic->fds[nic->nfds++] = fd;
	return 0;
}

/* When vector @v may interrupt next; a lone completion can be made to wait longer (TIDV). */
static int64_t us_irq_due(const struct us_nic *nic, uint32_t v)
{
	uint32_t interval;

	if (v >= US_IGB_MAX_QUEUES || (nic->urgent >> v & 1U))
		return US_NEVER_US;
	interval = (nic->regs.EITR[v] & US_E1000_EITR_MASK) >> 2;
	if (!(nic->rx_causes >> v & 1U) && nic->regs.TIDV > interval)
		interval = nic->regs.TIDV;
	return nic->fired_us[v] + interval;
}

/**
 * us_nic_deliver_irq - raise the line if an enabled cause is set
 * @nic: device
 *
 * As with MSI-X auto clear and auto mask (EIAC, EIAM; datasheet 7.3.4): the delivered
 * causes are cleared and masked, so the driver hears no more until it writes EIMS. A
 * vector that interrupted less than its EITR ago is held back until then (7.3.3), unless
 * a frame that matches a low latency filter is among its causes (7.3.5).
 *
 * Return: bits of the vectors whose handlers must run now, and US_NIC_IRQ_HELD if there
 * are others that ITRDUE says the time of; 0 if none.
 */
uint32_t us_nic_deliver_irq(struct us_nic *nic)
{
	struct us_igb_regs *regs = &nic->regs;
	const uint32_t pending = regs->EICR & regs->EIMS & ~US_NIC_IRQ_HELD;
	const int64_t now_us = (int64_t)regs->SYSTIM;
	int64_t held_us = INT64_MAX;
	uint32_t vectors = 0;

	if (!pending)
		return 0;
	for (uint32_t rest = pending; rest; rest &= rest - 1) {
		const uint32_t v = (uint32_t)__builtin_ctz(rest);
		const int64_t due_us = us_irq_due(nic, v);

		if (due_us > now_us) {
			held_us = due_us < held_us ? due_us : held_us;
			continue;
		}
		vectors |= 1U << v;
		if (v < US_IGB_MAX_QUEUES)
			nic->fired_us[v] = now_us;
	}
	nic->rx_causes &= ~vectors;
	nic->urgent &= ~vectors;
	regs->EICR &= ~(vectors & regs->EIAC);
	regs->EIMS &= ~(vectors & regs->EIAM);
	regs->ITRDUE = held_us == INT64_MAX ? 0 : (uint64_t)held_us;
	return vectors | (regs->ITRDUE ? US_NIC_IRQ_HELD : 0);
}

/**
 * us_nic_write_eitr - set the moderation of a vector
 * @nic:    device
 * @vector: vector
 * @value:  quarter microseconds in bits 2 to 15; without US_E1000_EITR_CNT_IGNR the
 *          present interval ends at once
 *
 * Return: as us_nic_deliver_irq.
 */
uint32_t us_nic_write_eitr(struct us_nic *nic, uint32_t vector, uint32_t value)
{
	if (vector >= US_IGB_MAX_QUEUES)
		return 0;
	nic->regs.EITR[vector] = value & US_E1000_EITR_MASK;
	if (!(value & US_E1000_EITR_CNT_IGNR))
		nic->fired_us[vector] = US_NEVER_US;
	return us_nic_deliver_irq(nic);
}

/**
 * us_nic_write_eims - enable interrupts; ones set mask bits, zeros change nothing
 * @nic:     device
 * @vectors: bits to enable
 *
 * Return: as us_nic_deliver_irq: a cause that waited is delivered at once.
 */
uint32_t us_nic_write_eims(struct us_nic *nic, uint32_t vectors)
{
	nic->regs.EIMS |= vectors;
	return us_nic_deliver_irq(nic);
}

/**
 * us_nic_write_eimc - disable interrupts; their causes are kept
 * @nic:     device
 * @vectors: bits to disable
 */
void us_nic_write_eimc(struct us_nic *nic, uint32_t vectors)
{
	nic->regs.EIMS &= ~vectors;
}

/**
 * us_nic_write_eics - set causes by software, as igb's watchdog does
 * @nic:     device
 * @vectors: bits to set
 *
 * Return: as us_nic_deliver_irq.
 */
uint32_t us_nic_write_eics(struct us_nic *nic, uint32_t vectors)
{
	nic->regs.EICR |= vectors;
	return us_nic_deliver_irq(nic);
}
