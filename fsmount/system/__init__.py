"""fsmount as a part of the system: units of systemd, and links for mount(8)."""
