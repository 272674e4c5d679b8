"""Instant, multi-tenant Spark clusters in containers on your own hosts, driven by Ansible."""

__version__ = "0.1.0"
