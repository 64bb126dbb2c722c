"""What all reports share: the page's frame and style, and how pictures are drawn."""
