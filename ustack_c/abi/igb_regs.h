#ifndef USTACK_ABI_IGB_REGS_H
#define USTACK_ABI_IGB_REGS_H

#include "types.h"

/*
 * What the device and its driver share: the register file and the descriptors in ring
 * memory, named and laid out as in Intel's 82576 datasheet (sections 7.1, 7.2 and 8).
 * Deviations: statistics are 64 bits wide and not cleared by reading; hdr_info carries
 * the segment size of a received super-frame; TSO leaves total length and pseudo-header
 * sum of the super-frame in place, because the wire (virtio) wants them; a descriptor is
 * read when it is used, never in advance.
 */

#define US_IGB_MAX_QUEUES 8

/* Receive buffers: 2 KiB, or 64 KiB of which 65534 are used (a length has 16 bits). */
#define US_IGB_RXBUFFER_2048 2048
#define US_IGB_RXBUFFER_LARGE 65534

#define US_E1000_CTRL_RFCE 0x08000000
#define US_E1000_CTRL_RST 0x04000000
#define US_E1000_STATUS_LU 0x00000002
#define US_E1000_RCTL_EN 0x00000002
#define US_E1000_TCTL_EN 0x00000002
#define US_E1000_RXCSUM_IPOFL 0x00000100
#define US_E1000_RXCSUM_TUOFL 0x00000200
#define US_E1000_RXDCTL_QUEUE_ENABLE 0x02000000
#define US_E1000_TXDCTL_QUEUE_ENABLE 0x02000000

/* Receive side scaling: which fields the hash is taken over. */
#define US_E1000_MRQC_ENABLE_RSS 0x00000002
#define US_E1000_MRQC_RSS_FIELD_IPV4_TCP 0x00010000
#define US_E1000_MRQC_RSS_FIELD_IPV4 0x00020000
#define US_E1000_MRQC_RSS_FIELD_IPV4_UDP 0x00400000
#define US_IGB_RETA_SIZE 128
#define US_IGB_RSSRK_SIZE 40

/* EITR: quarter microseconds between two interrupts; a write restarts them unless told not to. */
#define US_E1000_EITR_MASK 0x0000FFFC
#define US_E1000_EITR_CNT_IGNR 0x80000000

/* Frames whose interrupt does not wait for EITR: shorter than a size, or with a TCP flag. */
#define US_E1000_IMIR_PORT_IM_EN 0x00010000
#define US_E1000_IMIREXT_SIZE_MASK 0x00000FFF
#define US_E1000_IMIREXT_SIZE_BP 0x00001000
#define US_E1000_IMIREXT_CTRL_URG 0x00002000
#define US_E1000_IMIREXT_CTRL_ACK 0x00004000
#define US_E1000_IMIREXT_CTRL_PSH 0x00008000
#define US_E1000_IMIREXT_CTRL_RST 0x00010000
#define US_E1000_IMIREXT_CTRL_SYN 0x00020000
#define US_E1000_IMIREXT_CTRL_FIN 0x00040000
#define US_E1000_IMIREXT_CTRL_BP 0x00080000

/* Receive write-back: status_error. */
#define US_E1000_RXD_STAT_DD 0x00000001
#define US_E1000_RXD_STAT_EOP 0x00000002
#define US_E1000_RXD_STAT_UDPCS 0x00000010
#define US_E1000_RXD_STAT_TCPCS 0x00000020
#define US_E1000_RXD_STAT_IPCS 0x00000040
#define US_E1000_RXDEXT_STATERR_L4E 0x20000000
#define US_E1000_RXDEXT_STATERR_IPE 0x40000000
#define US_E1000_RXDEXT_STATERR_RXE 0x80000000

/* Receive write-back: pkt_info. */
#define US_E1000_RXDADV_RSSTYPE_MASK 0x000F
#define US_E1000_RXDADV_RSSTYPE_IPV4_TCP 0x0001
#define US_E1000_RXDADV_RSSTYPE_IPV4 0x0002
#define US_E1000_RXDADV_RSSTYPE_IPV4_UDP 0x0007
#define US_E1000_RXDADV_PKTTYPE_IPV4 0x0010
#define US_E1000_RXDADV_PKTTYPE_TCP 0x0100
#define US_E1000_RXDADV_PKTTYPE_UDP 0x0200

/* Transmit data descriptor: cmd_type_len, olinfo_status. */
#define US_E1000_ADVTXD_DTYP_MASK 0x00F00000
#define US_E1000_ADVTXD_DTYP_CTXT 0x00200000
#define US_E1000_ADVTXD_DTYP_DATA 0x00300000
#define US_E1000_ADVTXD_DCMD_EOP 0x01000000
#define US_E1000_ADVTXD_DCMD_IFCS 0x02000000
#define US_E1000_ADVTXD_DCMD_RS 0x08000000
#define US_E1000_ADVTXD_DCMD_DEXT 0x20000000
#define US_E1000_ADVTXD_DCMD_TSE 0x80000000
#define US_E1000_ADVTXD_DTALEN_MASK 0x0000FFFF
#define US_E1000_ADVTXD_PAYLEN_SHIFT 14
#define US_E1000_TXD_STAT_DD 0x00000001
#define US_E1000_TXD_POPTS_IXSM 0x00000100
#define US_E1000_TXD_POPTS_TXSM 0x00000200

/* Transmit context descriptor. */
#define US_E1000_ADVTXD_MACLEN_SHIFT 9
#define US_E1000_ADVTXD_IPLEN_MASK 0x000001FF
#define US_E1000_ADVTXD_MACLEN_MASK 0x0000007F
#define US_E1000_ADVTXD_TUCMD_IPV4 0x00000400
#define US_E1000_ADVTXD_TUCMD_L4T_TCP 0x00000800
#define US_E1000_ADVTXD_L4LEN_SHIFT 8
#define US_E1000_ADVTXD_MSS_SHIFT 16

struct us_adv_rx_read {
	uint64_t pkt_addr;
	uint64_t hdr_addr;
};

struct us_adv_rx_wb {
	uint16_t pkt_info;
	uint16_t hdr_info;
	uint32_t rss;
	uint32_t status_error;
	uint16_t length;
	uint16_t vlan;
};

union us_adv_rx_desc {
	struct us_adv_rx_read read;
	struct us_adv_rx_wb wb;
};

struct us_adv_tx_read {
	uint64_t buffer_addr;
	uint32_t cmd_type_len;
	uint32_t olinfo_status;
};

struct us_adv_tx_wb {
	uint64_t rsvd;
	uint32_t nxtseq_seed;
	uint32_t status;
};

struct us_adv_tx_ctxt {
	uint32_t vlan_macip_lens;
	uint32_t seqnum_seed;
	uint32_t type_tucmd_mlhl;
	uint32_t mss_l4len_idx;
};

union us_adv_tx_desc {
	struct us_adv_tx_read read;
	struct us_adv_tx_wb wb;
	struct us_adv_tx_ctxt ctxt;
};

/* One receive queue's registers; RDH == RDT: the device has no descriptor. */
struct us_igb_rxq_regs {
	uint32_t RDBAL;
	uint32_t RDBAH;
	uint32_t RDLEN;
	uint32_t RDH;
	uint32_t RDT;
	uint32_t RXDCTL;
	uint32_t SRRCTL;	/* bytes of a receive buffer, even */
	uint32_t RQDPC;
};

/* One transmit queue's registers; TDH == TDT: nothing is left to send. */
struct us_igb_txq_regs {
	uint32_t TDBAL;
	uint32_t TDBAH;
	uint32_t TDLEN;
	uint32_t TDH;
	uint32_t TDT;
	uint32_t TXDCTL;
};

struct us_igb_regs {
	uint32_t CTRL;
	uint32_t STATUS;
	uint32_t RCTL;
	uint32_t TCTL;
	uint32_t RLPML;		/* longest frame accepted, in bytes */
	uint32_t RXCSUM;
	uint32_t RAL;
	uint32_t RAH;
	uint32_t EICR;		/* cause */
	uint32_t EIMS;		/* mask: 1 = enabled; change it by nic calls only */
	uint32_t EIAC;		/* causes cleared when the interrupt is delivered */
	uint32_t EIAM;		/* causes masked when the interrupt is delivered */
	uint32_t IVAR[8];	/* vector of each queue pair */
	uint32_t EITR[8];	/* moderation of each vector; write it by us_nic_write_eitr */
	uint32_t TIDV;		/* us that a lone transmit completion waits for a frame to share */
	uint32_t IMIR[2];	/* low latency interrupts, two filters: enable */
	uint32_t IMIREXT[2];	/* ... and what they match */
	uint32_t MRQC;
	uint8_t RETA[128];	/* receive queue by the low seven bits of the hash */
	uint8_t RSSRK[40];	/* the hash's key */
	uint32_t WIREERR;	/* ustack: errno of a wire that is gone, 0 while it works */
	uint64_t SYSTIM;	/* the present in us, as of the last DMA step */
	uint64_t ITRDUE;	/* ustack: when a held interrupt may be delivered, 0: none is */
	struct us_igb_rxq_regs rxq[8];
	struct us_igb_txq_regs txq[8];

	uint64_t GPRC;		/* good frames received */
	uint64_t GORC;		/* ... bytes */
	uint64_t BPRC;		/* ... to the broadcast address */
	uint64_t MPRC;		/* ... to multicast addresses */
	uint64_t RNBC;		/* frames that found no descriptor (kept or dropped) */
	uint64_t MPC;		/* ... and were dropped */
	uint64_t ROC;		/* longer than RLPML, dropped */
	uint64_t RUC;		/* shorter than a header, dropped */
	uint64_t RXERRC;	/* ruined by a bad descriptor address */
	uint64_t XOFFTXC;	/* times the device stopped reading the wire */
	uint64_t XONTXC;	/* ... and began again */
	uint64_t GPTC;		/* good frames sent */
	uint64_t GOTC;		/* ... bytes */
	uint64_t BPTC;		/* ... to the broadcast address */
	uint64_t MPTC;		/* ... to multicast addresses */
	uint64_t TSCTC;		/* ... that were TCP super-frames */
	uint64_t TNCRS;		/* lost: the wire had no carrier */
	uint64_t TXERRC;	/* lost: malformed descriptors or refused by the wire */
};

#endif
