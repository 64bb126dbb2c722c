"""Sources: files and hubs with labeled rows, found, checked and read as tables."""
