"""The programs that finsent is measured against, as their users write them."""
