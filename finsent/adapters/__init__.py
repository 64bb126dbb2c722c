"""Private and fragile APIs of libraries, one module per library area, each with its reason."""
