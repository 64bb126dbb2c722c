"""Statistics of monitoring: drift, shadow and canary, with stated error rates."""
