"""The work of one replica, whatever protocol asks: admit, encode, classify, follow an alias."""
