"""Private and fragile APIs of libraries: one module per library and area."""
