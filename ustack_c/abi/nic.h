#ifndef USTACK_ABI_NIC_H
#define USTACK_ABI_NIC_H

#include "igb_regs.h"
#include "mem.h"

/* struct virtio_net_hdr in the host's byte order: stands before each frame on the wire. */
#define US_VNET_HDR_LEN 10
#define US_VIRTIO_NET_HDR_F_NEEDS_CSUM 1
#define US_VIRTIO_NET_HDR_F_DATA_VALID 2
#define US_VIRTIO_NET_HDR_GSO_NONE 0
#define US_VIRTIO_NET_HDR_GSO_TCPV4 1
#define US_VIRTIO_NET_HDR_GSO_ECN 0x80

/* Ethernet header and the largest IPv4 packet. */
#define US_MAX_FRAME 65549

/* The device behind the registers; it reaches memory only through descriptors. */
struct us_nic;

struct us_nic *us_nic_create(struct us_mem *mem);
void us_nic_destroy(struct us_nic *nic);
struct us_igb_regs *us_nic_regs(struct us_nic *nic);
void us_nic_reset(struct us_nic *nic);

/* Connect a descriptor that is read and written a frame at a time; -1 disconnects. */
void us_nic_attach(struct us_nic *nic, int fd, uint32_t vnet_hdr_len);

/* Connect a further descriptor of the same wire, up to US_IGB_MAX_QUEUES in all. */
int us_nic_attach_queue(struct us_nic *nic, int fd);

/* Move frames between the attached descriptor and the rings. */
int us_nic_dma(struct us_nic *nic, uint64_t now_us, uint32_t limit, uint32_t bytes);
int us_nic_dma_rx(struct us_nic *nic, uint32_t limit);
uint32_t us_nic_tx_pending(const struct us_nic *nic);
int us_nic_dma_tx(struct us_nic *nic, uint32_t queue);
int us_nic_write_tdt(struct us_nic *nic, uint32_t queue, uint32_t tail);

/* The same for a wire that the caller moves frames over, vnet header first. */
int us_nic_rx_ready(struct us_nic *nic);
int us_nic_rx_frame(struct us_nic *nic, const uint8_t *frame, uint32_t len);
uint32_t us_nic_tx_frame(struct us_nic *nic, uint32_t queue, uint8_t *out, uint32_t size);
int us_nic_tx_done(struct us_nic *nic, uint32_t queue);

/* The hash of receive side scaling. */
uint32_t us_toeplitz(const uint8_t *key, const uint8_t *data, uint32_t len);

/* Interrupts: write the mask, take what may be delivered now (and a bit: others are held). */
#define US_NIC_IRQ_HELD 0x80000000
uint32_t us_nic_write_eims(struct us_nic *nic, uint32_t vectors);
void us_nic_write_eimc(struct us_nic *nic, uint32_t vectors);
uint32_t us_nic_write_eics(struct us_nic *nic, uint32_t vectors);
uint32_t us_nic_write_eitr(struct us_nic *nic, uint32_t vector, uint32_t value);
uint32_t us_nic_deliver_irq(struct us_nic *nic);

#endif
