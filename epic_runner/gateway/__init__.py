"""The gateway in front of all clusters: addresses, keys, sessions, and its life."""
