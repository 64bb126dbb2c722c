"""Deployments of the Serve application, and what they send each other."""
