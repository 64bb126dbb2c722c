"""`serve.topology=split`: gateways send micro-batches to classifiers in other processes."""
