"""Parts that all reports share: the layout and style of pages, and the drawing of pictures."""
