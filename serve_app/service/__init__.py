"""The work of one replica, for any protocol: admit, encode, classify, follow an alias."""
