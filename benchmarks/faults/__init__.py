"""A cluster of namespaced nodes on this machine, the faults planted in it, and their page."""
