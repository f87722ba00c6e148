"""Serving: what answers requests, of a bundle or of what was exported of one."""
