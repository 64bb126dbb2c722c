"""Programs that finsent is compared with, as users of the other libraries write them."""
