"""The hardware: wires that carry frames, and the emulated igb that moves them by DMA."""
