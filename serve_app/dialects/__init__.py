"""HTTP operations in the words of other servers, for clients that were written for those."""
