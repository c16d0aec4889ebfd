"""The gateways that are measured side by side: one file each says how it is configured and started."""
