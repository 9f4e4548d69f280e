//! Rules in a real kernel. Needs root, nftables, Docker and /bin/busybox (Debian's busybox-static).
